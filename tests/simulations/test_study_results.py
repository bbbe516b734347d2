"""The verdicts in the committed results: potency of attacks, and the shield against its rivals."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from benchmarks import headline_plots
from benchmarks.headline import LIVE, SHIELD, UNSEEN, against_clean, against_rivals, summary
from benchmarks.headline_plots import whole_block
from benchmarks.headline_table import defences_table, everywhere_table
from benchmarks.marked_table import marks, read_table, write_table
from benchmarks.potency import differing, why_not
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.study_plan import plan_of, split_overrides

ROW = {
    "data": "mnist", "attack": "badnets", "trigger": "patch", "attackers": "0.2", "seed": "0",
    "defence": "meta_shield", "final_asr": "0.02", "clean_asr": "0.01", "final_ma": "0.97",
    "clean_ma": "0.975", "max_asr": "0.3", "fpr": "0.01", "seen": "yes",
}  # fmt: skip


@pytest.mark.parametrize(
    ("asr", "accuracy", "sentence"),
    [
        ("0.8", "0.955", ""),
        ("0.799", "0.97", "ASR 0.799 is below 0.8 (it reached 0.300)"),
        ("0.9", "0.95", "main accuracy is 2.5 points below clean"),
        ("", "0.9", "not measured"),
    ],
)
def test_potency_is_success_without_harm(asr: str, accuracy: str, sentence: str) -> None:
    assert why_not({**ROW, "final_asr": asr, "final_ma": accuracy}) == sentence


def test_an_attack_without_its_clean_run_is_not_judged() -> None:
    assert "clean run" in why_not({**ROW, "clean_ma": ""})


def test_the_table_says_what_is_not_the_default(tmp_path: Path) -> None:
    own, rest = split_overrides(["study=potency", f"folder={tmp_path}", "data_root=/somewhere"])
    plan = plan_of(compose_config(own, name="study"), rest)
    for job in plan.warm:
        job.folder.mkdir()
        command = shlex.join(["fl-shield", "simulate", *job.overrides])
        (job.folder / "command.txt").write_text(command)
    found = {job.cell.name: differing(job.overrides) for job in plan.jobs}
    assert found["digits-badnets-patch-0.2-none-seed0"] == "warm_start=15"
    assert found["digits_early-clean-none-seed0"] == ""
    assert found["digits_early-all_to_all-patch-0.4-none-seed0"] == "rounds=50 goal=all_to_all"
    assert "/" not in "".join(found.values()), "no path of one machine"


@pytest.mark.parametrize(
    ("asr", "accuracy", "sentence"),
    [
        ("0.03", "0.965", ""),
        ("0.031", "0.97", "ASR 2.1 points above clean"),
        ("0.0", "0.96", "main accuracy 1.5 points below clean"),
    ],
)
def test_the_shield_is_held_against_the_clean_run(asr: str, accuracy: str, sentence: str) -> None:
    assert against_clean({**ROW, "final_asr": asr, "final_ma": accuracy}) == sentence


def test_a_rival_that_pays_with_accuracy_is_not_better() -> None:
    own = {**ROW, "final_asr": "0.10"}
    rivals = [
        {**ROW, "defence": "krum", "final_asr": "0.0", "final_ma": "0.5"},
        {**ROW, "defence": "flame", "final_asr": "0.04", "final_ma": "0.965"},
        {**ROW, "defence": "rlr", "final_asr": "0.095"},
    ]
    assert against_rivals(own, rivals) == "flame is 6.0 points lower in ASR"
    assert against_rivals({**own, "final_asr": "0.05"}, rivals) == ""


def test_exceptions_are_held_against_the_run_without_the_attackers() -> None:
    """The first misses the clean run as the ideal does, the second misses both."""
    ideal = {**ROW, "defence": "oracle", "final_asr": "0.2"}
    rows = [{**ROW, "final_asr": "0.21"}, ideal, {**ROW, "defence": "flame", "final_asr": "0.9"},
            {**ROW, "seed": "1", "final_asr": "0.5"}, {**ideal, "seed": "1"},
            {**ROW, "seed": "2"}]  # fmt: skip
    late = {"late_asr": "0.05", "late_ma": "0.97"}
    page = summary([{**row, **late} if row["seed"] == "1" else row for row in rows])
    assert "main accuracy in 1 of 3 cells" in page
    assert "exactly the attackers in 1 of the 2 cells" in page
    assert "rounds, which sway less than a single round, in 1 of 1." in page
    assert "in 1 of the 1 cells that rivals have run in" in page
    lines = [line for line in page.splitlines() if "| meta_shield |" in line]
    assert len(lines) == 2
    assert all(line.endswith("| ASR 19.0 points above clean |") for line in lines)


def test_the_page_counts_cells_and_names_exceptions() -> None:
    clean = {**ROW, "attack": "clean", "trigger": "", "fpr": "0.03", "attackers": "0"}
    rows = [ROW, {**ROW, "seed": "1", "final_asr": "0.5"}, clean,
            {**ROW, "seed": "1", "defence": "flame", "final_asr": "0.1"},
            {**ROW, "defence": "none", "final_asr": "1.0"}]  # fmt: skip
    page = summary(rows)
    assert "in 1 of 2 cells" in page
    assert (
        "No rival is better than `meta_shield` in 0 of the 1 cells that rivals have run in" in page
    )
    assert "ASR 49.0 points above clean; flame is 40.0 points lower in ASR" in page
    assert "| meta_shield | 3.0 % | 1 |" in page


def test_defences_are_compared_on_the_cells_that_all_have_finished() -> None:
    rows = [
        {**ROW, "tpr": "1.0", "final_asr": "0.02"},
        {**ROW, "defence": "flame", "tpr": "0.5", "final_asr": "0.10", "fpr": "0.3"},
        {**ROW, "seed": "1", "tpr": "0.8", "final_asr": "0.04"},
        {**ROW, "seed": "1", "defence": "flame", "tpr": "0.5", "final_asr": "0.06", "fpr": "0.3"},
        {**ROW, "seed": "2", "tpr": "0.0", "final_asr": "0.9"},  # FLAME has not come so far
        {**ROW, "trigger": "", "attackers": "0", "tpr": "", "fpr": "0.004"},
        {**ROW, "attackers": "0.4", "tpr": "0.0", "final_asr": "0.9"},
    ]
    lines = defences_table(rows, "mnist", "0.2").splitlines()
    shield = "| **MetaShield** | 3.0 % | 4.0 % | 97.0 % | 97.0 % | 90.0 % | 1.0 % | 0.4 % |"
    assert lines[2:4] == [shield, "| `flame` | 8.0 % | 10.0 % | 97.0 % | – | 50.0 % | 30.0 % | – |"]
    note = "mnist, 20 % attackers, means over cells: 2 (1 of the attacks, 2 of the seeds)."
    assert lines[-1] == note


def test_the_best_rival_has_run_wherever_the_shield_has() -> None:
    other = {**ROW, "seed": "1"}
    rows = [
        {**ROW, "final_asr": "0.02"}, {**other, "final_asr": "0.02"},
        {**ROW, "defence": "none", "final_asr": "1.0"}, {**other, "defence": "none"},
        {**ROW, "defence": "krum", "final_asr": "0.0"},
        {**ROW, "defence": "flame", "final_asr": "0.10"}, {**other, "defence": "flame"},
    ]  # fmt: skip
    assert everywhere_table(rows, ["meta_shield"]).splitlines()[-1] == (
        "| mnist | 20 % | 2 | 51.0 %, 97.0 % | 2.0 %, 97.0 % | 6.0 %, 97.0 % (`flame`) |"
    )


def test_a_rival_that_has_not_finished_is_compared_on_its_cells() -> None:
    rows = [
        {**ROW, "final_asr": "0.02"}, {**ROW, "seed": "1", "final_asr": "0.08"},
        {**ROW, "defence": "flame", "final_asr": "0.10"},
        {**ROW, "defence": "oracle", "final_asr": "0.01"},
        {**ROW, "seed": "1", "defence": "oracle", "final_asr": "0.03"},
    ]  # fmt: skip
    assert everywhere_table(rows, ["meta_shield"]).splitlines()[-1] == (
        "| mnist | 20 % | 2 | – | 2.0 %, 97.0 % | 5.0 %, 97.0 % "
        "| 10.0 %, 97.0 % (`flame`) in 1 of them, where **MetaShield**: 2.0 %, 97.0 % |"
    )


def test_a_table_replaces_what_is_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_table(page, "figures", "| 1 |")
    assert not page.exists()
    page.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    write_table(page, "figures", "| 1 |")
    write_table(page, "others", "| 2 |")
    assert page.read_text() == "before\n<!-- figures -->\n| 1 |\n<!-- /figures -->\nafter\n"
    assert read_table(page, "figures") == "| 1 |"
    with pytest.raises(ValueError, match="others"):
        read_table(page, "others")


def test_data_sets_are_new_to_the_detectors_that_judge_them(tmp_path: Path) -> None:
    told = ["study=headline", f"folder={tmp_path}", "data_root=/data", "detectors=/left-out"]
    own, rest = split_overrides([*told, *UNSEEN])
    shielded = [
        job
        for job in plan_of(compose_config(own, name="study"), rest).jobs
        if job.cell.defence in (SHIELD, LIVE)
    ]
    known = {"mnist", "cifar10", "cifar10_settled", "sst2", "ag_news"}
    assert {job.cell.data for job in shielded} == known
    for job in shielded:
        assert f"defence={job.cell.defence}" in job.overrides
        same_data = job.cell.data.removesuffix("_settled")
        assert f"defence.detector=/left-out/without-{same_data}" in job.overrides


def test_rounds_are_plotted_of_the_largest_block_that_has_all_its_folders(tmp_path: Path) -> None:
    rows = [
        {**ROW, "run": "a", "seed": "0"},
        {**ROW, "run": "b", "seed": "0", "defence": "flame"},
        {**ROW, "run": "c", "seed": "1"},
        {**ROW, "run": "clean", "seed": "2", "trigger": ""},
    ]
    assert whole_block(rows, tmp_path) == []
    for name in ("a", "c", "clean"):
        (tmp_path / name).mkdir()
    assert [row["run"] for row in whole_block(rows, tmp_path)] == ["c"], "b is elsewhere"
    (tmp_path / "b").mkdir()
    assert [row["run"] for row in whole_block(rows, tmp_path)] == ["a", "b"]


def test_plots_of_a_larger_block_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "headline.md"
    told = "Rounds and scores are those of 3 runs: mnist, 20 % attackers, seed 1."
    begin, end = marks(headline_plots.ROUNDS)
    page.write_text(f"{begin}\n{told}\n{end}\n", encoding="utf-8")
    monkeypatch.setattr(headline_plots, "PAGE", page)
    rows = [{**ROW, "run": name} for name in ("a", "b")]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()  # empty: to report on these would fail
    assert told in headline_plots.write_plots(rows, tmp_path)
