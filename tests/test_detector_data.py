"""No federation that detectors are judged on is one that they are learned from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.described_rounds import unpacked
from benchmarks.detector_data import (
    ADAPTIVE,
    EVALUATION,
    JUDGED,
    LEARNED,
    NOT_MADE,
    ONE_CLASS,
    PAIRS,
    TRAINING,
    Part,
    packed,
    training_tables,
)
from benchmarks.detector_study import (
    COMMITTED,
    LEARNED_FROM,
    SIBLINGS,
    SINGLE,
    Plan,
    Study,
    unseen,
)
from benchmarks.detector_tables import Record
from fl_shield.descriptors.plan import matches
from fl_shield.shadow.describe import CLEAN_SAMPLES
from fl_shield.shadow.store import domain_of
from fl_shield.shadow.table import EpisodeTable, write_tables
from fl_shield.simulations.shadow import tables_folder


def episode(run: str) -> EpisodeTable:
    return EpisodeTable(
        domain_of(run), run, 1, ("x",), np.zeros((3, 1)), np.zeros(3, dtype=bool), np.arange(3), {}
    )


def test_no_two_parts_share_a_federation() -> None:
    aware, unaware = ADAPTIVE.values()
    assert aware.names == unaware.names
    parts = [*TRAINING, EVALUATION, aware]
    names = [run for part in parts for run in part.names]
    assert len(names) == len(set(names))


def test_a_part_knows_its_own_rounds_and_no_others() -> None:
    for part in (*TRAINING, EVALUATION):
        others = {run for p in (*TRAINING, EVALUATION) if p is not part for run in p.names}
        assert all(part.has(episode(run)) for run in part.names)
        assert not any(part.has(episode(run)) for run in others)


def test_a_part_is_what_the_command_would_play() -> None:
    part = Part("evaluation", {"digits": 5}, 2)
    assert part.names == {"digits-1000005", "digits-1000006"}
    assert Part("potent", {"mnist": 7}, 1).names == {"mnist-0000007"}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_of_classes_is_left_out_with_its_data_set_and_drawn_as_one(
    tmp_path: Path, pair: str
) -> None:
    runs = [min(run for part in TRAINING for run in part.names if domain_of(run) == pair)]
    runs.append(min(run for run in TRAINING[0].names if domain_of(run) == "photos"))
    folder = tables_folder(tmp_path / "training", CLEAN_SAMPLES)
    for run in runs:
        write_tables(folder / f"{run}.safetensors", [episode(run)])
    study = Study(tmp_path / "detectors", training_tables(tmp_path), 1)
    assert {t.domain for t in study.training} == {PAIRS[pair], "photos"}
    assert [t.run for t in study.rounds_of(unseen(PAIRS[pair]))] == runs[1:]
    assert {t.domain for t in study.rounds_of(unseen())} == {pair, "photos"}


def test_federations_of_one_class_are_two_more_data_sets_and_left_out_with_their_own(
    tmp_path: Path,
) -> None:
    runs = [run for part in ONE_CLASS for run in sorted(part.names)]
    folder = tables_folder(tmp_path / "training", CLEAN_SAMPLES)
    for run in runs:
        write_tables(folder / f"{run}.safetensors", [episode(run)])
    study = Study(tmp_path / "detectors", training_tables(tmp_path), 1)
    assert {t.domain for t in study.training} == set(LEARNED)
    drawn = {t.run: t.domain for t in study.rounds_of(unseen("sst2"))}
    assert {domain_of(run) for run in runs} - {domain_of(run) for run in drawn} == {"sst2"}
    assert {drawn[run] for run in drawn if domain_of(run) in ("ag_news_pair", "manuals")} == {
        "texts of one class"
    }
    assert {drawn[run] for run in drawn if domain_of(run) in ("mnist_pair", "photos")} == {
        "images of one class"
    }


def test_every_learned_data_set_has_working_backdoors() -> None:
    working = next(part for part in TRAINING if part.kind == "working")
    assert set(LEARNED) <= set(working.first)


@pytest.mark.parametrize("name", JUDGED)
def test_the_committed_detector_of_a_data_set_has_seen_all_others(name: str) -> None:
    card = json.loads((SIBLINGS / f"without-{name}" / "detector.json").read_text(encoding="utf-8"))
    assert card["held_out"] == [name]
    assert set(card["federations"]) == set(LEARNED) - {name}


@pytest.fixture(scope="module")
def learned() -> list[EpisodeTable]:
    """The committed rounds, as detectors are learned from them."""
    rounds = unpacked(packed("training"))
    return [replace(t, domain=PAIRS.get(t.domain, t.domain)) for t in rounds]


def test_committed_detectors_are_learned_from_the_committed_rounds(
    tmp_path: Path, learned: list[EpisodeTable]
) -> None:
    study = Study(tmp_path, learned, 1, COMMITTED)
    study.learn_calibrated(*JUDGED)
    assert not list(tmp_path.iterdir())  # nothing had to be learned
    for name in JUDGED:
        card = json.loads((SIBLINGS / f"without-{name}" / "detector.json").read_text("utf-8"))
        assert study.calibrated(name).calibration.threshold == card["calibration"]["threshold"]
        assert card[LEARNED_FROM] == study.learned_from(unseen(name))


def test_a_committed_detector_of_other_rounds_is_not_taken(
    tmp_path: Path, learned: list[EpisodeTable]
) -> None:
    less = Study(tmp_path, [t for t in learned if t.run != "mnist-0000005"], 1, COMMITTED)
    assert less.is_committed(unseen("mnist"))
    assert not less.is_committed(unseen("sst2"))


def test_detectors_are_learned_by_several_processes_at_once_and_the_same_once(
    tmp_path: Path, learned: list[EpisodeTable]
) -> None:
    study = Study(tmp_path, learned[:40], workers=2)
    assert len(study.described) == 40  # known before the processes are started
    quick = replace(SINGLE, steps=2)
    plans = [
        Plan(name, lambda table: True, replace(quick, seed=seed))
        for name, seed in (("first", 0), ("second", 1), ("again", 0))
    ]
    study.learn(*plans)
    found = {study.learned_from(plan) for plan in plans}
    assert len(found) == 2
    assert found == {folder.name for folder in tmp_path.iterdir()}


def test_figures_of_other_federations_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "detector.json"
    monkeypatch.setattr("benchmarks.detector_tables._JSON", file)
    now = {"data": "abc", "kinds": "abc", "trigger": "eva"}
    assert Record({}, now).measured() == {}
    rows = [{"part": part, "table": "t"} for part in ("data", "kinds", "data", "trigger", "old")]
    file.write_text(json.dumps({"measured_on": {**now, "old": "abc"}, "rows": rows}))
    assert {part: len(found) for part, found in Record({}, now).measured().items()} == {
        "data": 2, "kinds": 1, "trigger": 1,
    }  # fmt: skip
    learned_anew = {**now, "data": "abd", "kinds": "abd"}
    assert list(Record({}, learned_anew).measured()) == ["trigger"]


def test_committed_rounds_to_learn_from_are_of_the_training() -> None:
    rounds = list(unpacked(packed("training")))
    assert all(any(part.has(table) for part in TRAINING) for table in rounds)
    assert {table.domain for table in rounds} >= set(LEARNED)
    assert not any(matches(name, NOT_MADE) for table in rounds for name in table.names)


def test_committed_rounds_to_judge_on_are_all_of_the_evaluation() -> None:
    rounds = list(unpacked(packed("evaluation")))
    assert {table.run for table in rounds} == EVALUATION.names
    assert all(len(table.facts["rivals"]) >= 7 for table in rounds)
