"""Shadow federations really train and really attack; what is stored is what was played."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_shield.baselines import STATISTICS
from fl_shield.cohort import Cohort
from fl_shield.data.digits import load
from fl_shield.errors import ConfigurationError, StateError
from fl_shield.models.mlp import Mlp
from fl_shield.shadow.describe import describe_run, probe_set
from fl_shield.shadow.domain import Architecture, Domain
from fl_shield.shadow.federation import WARM, ShadowFederation
from fl_shield.shadow.recipe import ClientRecipe, Recipe, RecipeRanges
from fl_shield.shadow.store import play, stored_run, stored_runs
from fl_shield.shadow.table import EpisodeTable, SupportTable, read_tables, write_tables

SMALL = RecipeRanges(
    cohort=(6,), samples=(40, 60), attacker_share=(0.3, 0.4), clean_share=0.0, rounds=2,
    stages=(0.5,), alpha=(1.0, 5.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def domain() -> Domain:
    mlp = Architecture(partial(Mlp, hidden=32), {"adam": 0.003}, epochs=8)
    return Domain("digits", partial(load, test_share=0.2), {"mlp": mlp})


def recipe(aggregate: str, attackers: int = 2) -> Recipe:
    honest = ClientRecipe(epochs=6, rate_factor=2.0, batch_size=16)
    bad = replace(honest, wrapper="replacement", strength=0.6, poison_share=0.5)
    return Recipe(
        seed=3, architecture="mlp", optimiser="adam", rate_factor=1.0, stage=0.5, alpha=5.0,
        mean_samples=60, rounds=3, aggregate=aggregate, trigger="patch", starts=2,
        clients=(bad,) * attackers + (honest,) * (6 - attackers),
    )  # fmt: skip


def weights(cohort: Cohort, index: int) -> dict[str, np.ndarray]:
    return dict(cohort.clients[index].load())


def assert_is_mean(array: np.ndarray, cohort: Cohort, kept: list[int], name: str) -> None:
    """The array is the mean of what some clients sent under a name, weighted by their samples."""
    sizes = np.array([cohort.clients[i].num_examples for i in kept])
    stacked = np.stack([weights(cohort, i)[name] for i in kept]).astype(np.float64)
    mean = np.tensordot(sizes / sizes.sum(), stacked, axes=1)
    found = np.asarray(array, dtype=np.float64)
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)


def test_attackers_attack_from_their_round_on_and_do_harm(domain: Domain) -> None:
    rounds = list(ShadowFederation(domain, recipe("all")).rounds())
    assert rounds[0].malicious == [False] * 6
    assert rounds[1].malicious == [True] * 2 + [False] * 4
    assert rounds[0].harm == [0.0] * 6
    assert max(rounds[1].harm[:2]) > 0.2
    assert rounds[1].harm[2:] == [0.0] * 4
    assert rounds[2].facts["attack_success"] > rounds[0].facts["attack_success"] + 0.3
    assert rounds[0].facts["accuracy"] > 0.8


def test_in_warm_rounds_attackers_are_honest(domain: Domain) -> None:
    def first(attackers: int, warm_rounds: int) -> Cohort:
        warm = replace(recipe("all", attackers), warm_rounds=warm_rounds)
        return next(ShadowFederation(domain, warm).rounds()).cohort

    honest, mixed = first(0, 2), first(2, 2)
    for name, array in honest.reference.items():
        np.testing.assert_array_equal(array, mixed.reference[name])
    cold = first(2, 0).reference
    assert any((array != cold[name]).any() for name, array in honest.reference.items())


def test_who_is_held_back_is_not_averaged_in(domain: Domain) -> None:
    """The second round starts from the weighted mean of the others, by hand."""
    wrong = replace(recipe("honest", attackers=2), held_back=0.5, rounds=2)
    federation = ShadowFederation(domain, wrong)
    first, second = (played.cohort for played in federation.rounds())
    assert len(federation._held_back) == 2
    assert federation._held_back <= {2, 3, 4, 5}, "attackers are not benign clients"
    # In the first round of this recipe the two are honest, and are averaged in.
    kept = sorted(set(range(6)) - federation._held_back)
    for name, array in second.reference.items():
        if array.dtype.kind == "f":
            assert_is_mean(array, first, kept, name)


def test_who_is_held_back_is_missing_from_late_warm_rounds(domain: Domain) -> None:
    def start(warm_rounds: int, held_back: float) -> Cohort:
        warm = replace(recipe("all", 0), warm_rounds=warm_rounds, held_back=held_back)
        return next(ShadowFederation(domain, warm).rounds()).cohort

    def same(one: Cohort, other: Cohort) -> bool:
        return all((array == other.reference[k]).all() for k, array in one.reference.items())

    assert not same(start(1, 0.5), start(1, 0.0))
    assert not same(start(2, 0.5), start(2, 0.0))
    assert same(start(0, 0.5), start(0, 0.0))


def test_everybody_is_in_the_early_half_of_the_warm_rounds(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = replace(recipe("all", 0), warm_rounds=5, held_back=0.5)
    federation = ShadowFederation(domain, warm)
    trained: dict[int, set[int]] = {}
    train = federation._train

    def watched(index: int, client: ClientRecipe, number: int, *rest: Any) -> Any:
        trained.setdefault(number - WARM, set()).add(index)
        return train(index, client, number, *rest)

    monkeypatch.setattr(federation, "_train", watched)
    next(federation.rounds())
    everybody = set(range(6))
    late = everybody - federation._held_back
    assert len(late) == 3
    assert [trained[number] for number in range(5)] == [everybody] * 2 + [late] * 3


def test_who_is_held_back_has_most_of_a_class_half_of_the_time(domain: Domain) -> None:
    def has_most(seed: int) -> bool:
        skewed = replace(recipe("all", 0), seed=seed, held_back=0.34, alpha=0.3)
        federation = ShadowFederation(domain, skewed)
        classes = domain.task.spec.num_classes
        shares = np.array([
            np.bincount(split.labels.numpy(), minlength=classes) / len(split)
            for split in federation._clients
        ])  # fmt: skip
        chosen = sorted(federation._held_back)
        others = sorted(set(range(6)) - set(chosen))
        assert len(chosen) == 2
        return bool((shares[chosen].min(0) >= shares[others].max(0)).any())

    found = [has_most(seed) for seed in range(24)]
    # Any two of six have most of one of ten classes now and then, by chance.
    assert sum(found) >= 12


def test_honest_aggregation_keeps_the_backdoor_out(domain: Domain) -> None:
    rounds = list(ShadowFederation(domain, recipe("honest")).rounds())
    assert rounds[2].facts["attack_success"] < 0.1
    # Without attackers the global model is the weighted mean of all, by hand:
    clean = list(ShadowFederation(domain, recipe("all", attackers=0)).rounds())
    name = "final.weight" if "final.weight" in clean[0].cohort.reference else next(
        k for k in clean[0].cohort.reference if k.endswith("weight")
    )  # fmt: skip
    assert_is_mean(clean[1].cohort.reference[name], clean[0].cohort, list(range(6)), name)


def test_nobody_has_the_servers_samples(domain: Domain) -> None:
    federation = ShadowFederation(domain, recipe("all"))
    held = {tuple(x.flatten().tolist()) for x in federation.probes.inputs}
    everywhere = [tuple(x.flatten().tolist()) for x in domain.task.train.inputs]
    twins = {x for x in held if everywhere.count(x) > 1}
    for split in federation._clients:
        assert not held & {tuple(x.flatten().tolist()) for x in split.inputs} - twins


def test_what_is_stored_is_what_was_played(domain: Domain, tmp_path: Path) -> None:
    folder = play(domain, 5, SMALL, tmp_path)
    stamp = (folder / "run.json").stat().st_mtime_ns
    assert play(domain, 5, SMALL, tmp_path) == folder
    assert (folder / "run.json").stat().st_mtime_ns == stamp, "it is not played twice"
    again = play(domain, 5, SMALL, tmp_path / "other")
    one, two = stored_run(folder), stored_run(again)
    assert one.rounds == two.rounds
    for entry in one.rounds:
        a, b = one.cohort(entry), two.cohort(entry)
        for index in range(len(a)):
            first, second = weights(a, index), weights(b, index)
            assert all(np.array_equal(first[key], second[key]) for key in first)
    assert [run.name for run in stored_runs(tmp_path)] == [folder.name]


def test_rounds_are_described_with_their_truth(domain: Domain, tmp_path: Path) -> None:
    run = stored_run(play(domain, 5, SMALL, tmp_path))
    tables = describe_run(run, domain, clean_samples=8, rivals=True)
    assert len(tables) == len(run.rounds)
    for table, entry in zip(tables, run.rounds, strict=True):
        assert table.malicious.tolist() == entry["malicious"]
        assert table.raw.shape == (6, len(table.names))
        assert np.isfinite(table.raw).all()
        assert table.facts["harm"] == entry["harm"]
        assert table.facts["clean_samples"] == 8
        assert set(table.facts["rivals"]) == set(STATISTICS)
        assert all(len(scores) == 6 for scores in table.facts["rivals"].values())
    back = read_tables(write_tables(tmp_path / "t.safetensors", tables))
    np.testing.assert_array_equal(back[0].raw, tables[0].raw)
    assert back[0].facts == json.loads(json.dumps(dict(tables[0].facts)))


def test_too_many_clean_samples_are_refused(domain: Domain, tmp_path: Path) -> None:
    run = stored_run(play(domain, 5, SMALL, tmp_path))
    with pytest.raises(ConfigurationError, match="clean_samples.*between 0 and 64"):
        probe_set(run.probes(), domain.task.spec, 65)


def test_a_damaged_run_is_named(domain: Domain, tmp_path: Path) -> None:
    folder = play(domain, 5, SMALL, tmp_path)
    (folder / "probes.safetensors").write_bytes(b"no tensors")
    with pytest.raises(StateError, match=r"probes\.safetensors is missing or damaged"):
        stored_run(folder).probes()
    (folder / "run.json").write_text('{"version": 99}', encoding="utf-8")
    with pytest.raises(StateError, match="version 99"):
        stored_run(folder)


def test_tables_of_another_kind_are_refused(tmp_path: Path) -> None:
    table = EpisodeTable(
        "a", "a-1", 1, ("x",), np.zeros((3, 1)), np.zeros(3, dtype=bool), np.arange(3), {},
        (SupportTable(4, np.ones((2, 1)), np.array([True, False])),),
    )  # fmt: skip
    file = write_tables(tmp_path / "t.safetensors", [table])
    (back,) = read_tables(file)
    assert back.support[0].clean_samples == 4
    assert back.support[0].malicious.tolist() == [True, False]
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(StateError, match="missing or damaged"):
        read_tables(file)
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(1)}, tmp_path / "o.safetensors")
    with pytest.raises(StateError, match="no table of episodes"):
        read_tables(tmp_path / "o.safetensors")


def test_a_domain_without_models_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="optimiser"):
        Architecture(partial(Mlp, hidden=8), {})
    with pytest.raises(ConfigurationError, match="adam"):
        Architecture(partial(Mlp, hidden=8), {"adm": 0.1})
