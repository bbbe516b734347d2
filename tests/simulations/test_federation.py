"""A federation: same settings, same federation; probes, shares and attackers kept apart."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.simulations.arms import ARMS
from fl_shield.simulations.composing import compose_config, config_groups
from fl_shield.simulations.federation import Federation, build_federation, derived_seed
from fl_shield.simulations.rounds import build_strategy
from fl_shield.simulations.settings import settings_from

SMALL = ("tracking=none", "num_clients=6", "attackers=2", "warm_start.epochs=2")


def federation(*overrides: str) -> Federation:
    return build_federation(settings_from(compose_config([*SMALL, *overrides])))


def test_probes_and_clients_share_no_sample_and_leave_none_out() -> None:
    made = federation()
    owned = np.concatenate([*made.parts, made.probe_indices.numpy()])
    assert sorted(owned.tolist()) == list(range(len(made.task.train)))


def test_probes_show_every_class_alike() -> None:
    counts = torch.bincount(federation("probes.num_samples=40").probe_set().labels)  # type: ignore[arg-type]
    assert counts.tolist() == [4] * 10


def test_the_seed_decides_everything() -> None:
    one, other = federation("seed=5"), federation("seed=6")
    assert one.attackers != other.attackers or not torch.equal(
        one.probe_indices, other.probe_indices
    )
    again = federation("seed=5", "rounds=7")  # another key, so not the cached object
    assert again is not one
    assert again.attackers == one.attackers
    for name, value in one.initial_model().state_dict().items():
        torch.testing.assert_close(again.initial_model().state_dict()[name], value)


def test_only_attackers_attack_and_only_in_attacked_arms_and_rounds() -> None:
    made = federation("attack.schedule.first_round=3")
    attacker = next(iter(made.attackers))
    honest = next(client for client in range(6) if client not in made.attackers)
    assert made.attack_of(attacker, 3, attacked=True) is not None
    assert made.attack_of(attacker, 2, attacked=True) is None
    assert made.attack_of(attacker, 3, attacked=False) is None
    assert made.attack_of(honest, 3, attacked=True) is None


@pytest.mark.parametrize(("data", "classes"), [("docstrings", 4), ("glyphs", 10), ("photos", 10)])
def test_data_that_every_machine_has_is_dealt_out(data: str, classes: int) -> None:
    made = federation(f"data={data}", "data.samples_per_class=40", "warm_start.epochs=0")
    assert made.task.name == data
    assert made.task.spec.num_classes == classes
    assert len(made.parts) == 6
    probes = made.probe_set()
    assert probes.labels is not None
    assert set(probes.labels.tolist()) == set(range(classes))


def test_warming_up_makes_a_model_that_knows_its_probes() -> None:
    made = federation("warm_start.epochs=60")
    probes, model = made.probe_set(), made.initial_model()
    assert isinstance(probes.inputs, torch.Tensor)
    hits = (model(probes.inputs).argmax(dim=1) == probes.labels).float().mean()
    assert hits > 0.9


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("trigger=words", "for image inputs"),
        ("attack.target_class=12", "below the 10 classes of digits, got 12"),
        ("probes.num_samples=5000", "The training split of digits holds"),
        ("training.learning_rate=-1", "above 0, got -1"),
        ("partition.alpha=0", "above 0, got 0"),
        ("data=image_folder", "data.root=DIR"),
        ("data=text_csv", "data.path=DIR"),
    ],
)
def test_what_does_not_fit_together_is_named(override: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        federation(override)


@pytest.mark.parametrize("strategy", config_groups()["strategy"])
def test_every_strategy_can_be_shielded(strategy: str) -> None:
    made = federation(f"strategy={strategy}")
    shielded = build_strategy(made, ARMS["defended"])
    assert type(shielded).__name__ == "MetaShield"
    arrays = ArrayRecord(made.initial_model().state_dict())
    assert len(arrays) > 0


def test_derived_seeds_depend_on_every_part_and_their_order() -> None:
    seeds = {derived_seed(0, 1), derived_seed(1, 0), derived_seed(0, 1, 0), derived_seed(0, 2)}
    assert len(seeds) == 4


class Viewing(torch.nn.Module):
    """A model that takes convolutions in one layout only."""

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(spec.input_shape[0], 4, 3)
        self.head = torch.nn.Linear(4 * 6 * 6, spec.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.body(images))
        logits: torch.Tensor = self.head(hidden.view(len(images), -1))
        return logits


@pytest.mark.parametrize("target", [None, f"{__name__}.Viewing"])
def test_weights_are_laid_out_as_the_model_can_take_them(target: str | None) -> None:
    config = compose_config(["data=digits"])
    if target is not None:
        config.model = {"_target_": target, "_partial_": True}
    federation = build_federation(settings_from(config))
    model = federation.initial_model()
    probes = federation.probe_set()
    assert model(probes.inputs).shape == (len(probes.inputs), 10)
    first = next(p for p in model.modules() if isinstance(p, torch.nn.Conv2d)).weight
    assert first.is_contiguous(memory_format=torch.channels_last) or target is not None
