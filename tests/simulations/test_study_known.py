"""Rows of cells that were played elsewhere: read back, put beside new ones, not played again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shield.detector import SHIPPED
from fl_shield.detector.store import read_card
from fl_shield.errors import DataError
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.reporting import Row, read_known, read_rows
from fl_shield.simulations.reporting.known import beside_known
from fl_shield.simulations.reporting.setup import setup_of
from fl_shield.simulations.reporting.tables import csv_text
from fl_shield.simulations.settings import settings_from
from fl_shield.simulations.study_job import Job
from fl_shield.simulations.study_known import left_to_play
from fl_shield.simulations.study_plan import Plan, plan_of, split_overrides
from tests.simulations._run_folders import SyntheticRun

shares = st.none() | st.floats(0, 1).map(lambda x: float(f"{x:.6g}"))
words = st.text("abcxyz_-", max_size=8)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    return Row(
        run=draw(words.filter(bool)), data=draw(words), model=draw(words),
        attack=draw(words), trigger=draw(words), attackers=draw(shares) or 0.0,
        defence=draw(words), seed=draw(st.none() | st.integers(0, 9)),
        rounds=draw(st.integers(0, 99)), finished=draw(st.booleans()), final_asr=draw(shares),
        max_asr=draw(shares), final_ma=draw(shares), clean_asr=draw(shares), clean_ma=draw(shares),
        tpr=draw(shares), fpr=draw(shares), auroc=draw(shares), seconds_per_round=draw(shares),
        seen=draw(words), seen_parts=draw(words), setup=draw(words),
        late_asr=draw(shares), late_ma=draw(shares),
    )  # fmt: skip


@settings(max_examples=60)
@given(st.lists(rows(), max_size=4))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, known: list[Row]
) -> None:
    file = tmp_path_factory.mktemp("known") / "results.csv"
    file.write_text(csv_text(known), encoding="utf-8")
    assert read_known(file) == known


@pytest.mark.parametrize("newer", [2, 3])  # late means came after the setup
def test_files_of_before_there_was_a_setup_are_read(tmp_path: Path, newer: int) -> None:
    file = tmp_path / "results.csv"
    lines = csv_text([ROW]).splitlines()
    file.write_text("\n".join(line.rsplit(",", newer)[0] for line in lines), encoding="utf-8")
    older = replace(ROW, late_asr=None, late_ma=None)
    assert read_known(file) == [older if newer == 2 else replace(older, setup="")]
    assert read_known(tmp_path / "none.csv") == []


def test_damage_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    text = csv_text([ROW, ROW])
    file.write_text(text[: len(text) - 120], encoding="utf-8")
    with pytest.raises(DataError, match=r"results\.csv, line 3: damaged or cut short"):
        read_known(file)
    file.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"it has no column run, data"):
        read_known(file)


ROW = Row(
    run="mnist-badnets-patch-0.2-flame-seed0", data="mnist", model="digits_cnn", attack="badnets",
    trigger="patch", attackers=0.2, defence="flame", seed=0, rounds=12, finished=True,
    final_asr=0.004, max_asr=0.01, final_ma=0.95, clean_asr=0.002, clean_ma=0.955, tpr=1.0,
    fpr=0.3, auroc=0.9, seconds_per_round=1.5, seen="", seen_parts="", setup="0123456789ab",
    late_asr=0.005, late_ma=0.949,
)  # fmt: skip


def test_new_rows_replace_known_ones_and_take_the_clean_run_from_them() -> None:
    new = replace(ROW, defence="krum", run=ROW.run.replace("flame", "krum"), clean_asr=None)
    again = replace(ROW, final_asr=0.5, clean_asr=0.25)
    other = replace(new, seed=1, run="other", clean_ma=None)
    found = {row.run: row for row in beside_known([new, other], [ROW])}
    assert found[new.run].clean_asr == 0.002, "one clean model answers a cell's attack in one way"
    assert (found["other"].clean_asr, found["other"].clean_ma) == (None, None), "of another seed"
    assert found[ROW.run] == ROW
    assert beside_known([again], [ROW]) == [again]
    begun = replace(again, finished=False, rounds=3)
    assert beside_known([begun], [ROW]) == [ROW], "it was played to its end elsewhere"
    assert beside_known([begun], [replace(ROW, finished=False)]) == [begun]


def test_a_setup_is_that_of_the_run_and_of_no_machine(tmp_path: Path) -> None:
    def of(*overrides: str) -> str:
        return setup_of(settings_from(compose_config(overrides)).config)

    there = tmp_path / "without-digits"
    there.mkdir()
    for name in ("detector.json", "detector.safetensors"):
        (there / name).write_bytes((SHIPPED / name).read_bytes())
    assert read_card(there)["sha256"] == read_card(SHIPPED)["sha256"]
    plain = of("rounds=2")
    assert plain == of("rounds=2", "seed=4", f"output_root={tmp_path}", "tracking=none")
    assert len({plain, of("rounds=3"), of("rounds=2", "defence.policy=drop")}) == 3
    here = of(f"defence.detector={SHIPPED}")
    assert here == of(f"defence.detector={there}"), "the same weights"
    config = settings_from(compose_config(["rounds=2"])).config
    weights = read_card(SHIPPED)["sha256"]
    assert setup_of(config, weights) == plain != setup_of(config, "0" * 64), "of that run"
    folder = SyntheticRun(arms=("defended",)).write(tmp_path / "run")
    config = settings_from(compose_config(["arms=[defended]"])).config
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    assert read_rows([folder])[0][0].row.setup == setup_of(config)


def plan(tmp_path: Path) -> Plan:
    overrides = [f"folder={tmp_path}/study", "attackers=[0,0.2]", "defences=[none,flame]"]
    own, cells = split_overrides([*overrides, "attacks=[badnets]"])
    return plan_of(compose_config(own, name="study"), cells)


def as_row(job: Job, clean_asr: float | None = 0.01) -> Row:
    cell = job.cell
    return replace(
        ROW, run=cell.name, data=cell.data, attack=cell.attack, trigger=cell.trigger,
        attackers=float(cell.attackers), defence=cell.defence, seed=cell.seed,
        setup=setup_of(job.settings().config), clean_asr=clean_asr,
    )  # fmt: skip


def test_cells_that_are_known_are_not_played_again(tmp_path: Path) -> None:
    jobs = plan(tmp_path).jobs
    names = {(job.cell.attack, job.cell.defence): job for job in jobs}
    assert len(names) == len(jobs) == 4

    def left(*known: Row) -> set[tuple[str, str]]:
        found = left_to_play(jobs, Job.settings, known)
        return {(job.cell.attack, job.cell.defence) for job in found}

    every = [as_row(job) for job in jobs]
    assert left() == set(names)
    assert left(*every) == set()
    flame = as_row(names["badnets", "flame"])
    rest = [row for row in every if row != flame]
    assert left(*rest, replace(flame, setup="other")) == {("badnets", "flame")}
    assert left(*rest, replace(flame, finished=False)) == {("badnets", "flame")}
    # Nobody has shown the attack to the clean model: it has to be there again.
    blind = [as_row(job, None) for job in jobs if job is not names["badnets", "flame"]]
    assert left(*blind) == {("badnets", "flame"), ("clean", "none")}
