"""A report of many runs says what their folders say, by the right names, and needs no network."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from fl_shield.detector import SHIPPED
from fl_shield.errors import DataError
from fl_shield.simulations.cli import main
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.reporting import Row, read_rows, report_runs, run_folders_in
from fl_shield.simulations.reporting.heat import heat_maps
from fl_shield.simulations.reporting.naming import defence_name, option_of
from fl_shield.simulations.reporting.page import headline
from fl_shield.simulations.reporting.price import cost_against_quality
from fl_shield.simulations.reporting.tables import COLUMNS, csv_text, groups_of, latex, markdown
from fl_shield.simulations.seen import seen_parts
from fl_shield.simulations.settings import settings_from
from tests.simulations._run_folders import SyntheticRun

ROW = Row(
    run="one", data="digits", model="digits_cnn", attack="badnets", trigger="patch",
    attackers=0.2, defence="none", seed=0, rounds=10, finished=True, final_asr=0.9, max_asr=0.95,
    final_ma=0.97, clean_asr=0.01, clean_ma=0.975, tpr=None, fpr=None, auroc=None,
    seconds_per_round=2.0, seen="", seen_parts="",
)  # fmt: skip


def cell(folder: Path, *overrides: str, arm: str, seed: int = 7, **words: object) -> Path:
    """Write a made-up run of one arm, with real settings and, given words, as a study's cell."""
    SyntheticRun(arms=(arm,), seed=seed).write(folder)
    config = settings_from(compose_config([*overrides, f"arms=[{arm}]", f"seed={seed}"])).config
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    if words:
        (folder / "cell.json").write_text(json.dumps(words), encoding="utf-8")
    return folder


def test_rows_of_an_ordinary_run_have_the_names_of_the_options(tmp_path: Path) -> None:
    folder = SyntheticRun().write(tmp_path / "run")
    overrides = ["data=cifar10", "attack=neurotoxin", "trigger=blend", "attackers=4"]
    config = settings_from(compose_config([*overrides, "defence.threshold=3.0", "seed=7"])).config
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    entries, damage = read_rows([folder])
    assert damage == []
    clean, undefended, defended = (entry.row for entry in entries)
    assert (clean.attack, clean.trigger, clean.attackers, clean.defence) == ("clean", "", 0, "none")
    assert (undefended.attack, undefended.trigger) == ("neurotoxin", "blend")
    assert (undefended.attackers, undefended.defence) == (0.2, "none")
    assert (defended.data, defended.model, defended.defence) == (
        "cifar10",
        "cifar_cnn",
        "meta_shield",
    )
    assert (defended.seen, defended.seen_parts) == ("yes", "data model trigger")
    assert undefended.seen == ""
    summary = json.loads((folder / "summary.json").read_text())["runs"]
    for row, arm in ((clean, "clean"), (undefended, "undefended"), (defended, "defended")):
        assert row.final_ma == pytest.approx(summary[arm]["main_accuracy"])
        assert row.final_asr == pytest.approx(summary[arm]["asr"])
        assert row.clean_ma == pytest.approx(summary["clean"]["main_accuracy"])
        assert row.clean_asr == pytest.approx(summary["clean"]["asr"])
    assert defended.auroc is not None
    assert 0.5 < defended.auroc <= 1


def test_cells_of_a_study_share_their_clean_run(tmp_path: Path) -> None:
    clean = cell(tmp_path / "clean", "attackers=0", "defence=none", arm="clean", data="digits",
                 attack="clean", trigger="", defence="none")  # fmt: skip
    rates = {"badnets-patch": 0.125, "badnets-warp trigger.strength=2": 0.25}
    (clean / "reference.json").write_text(json.dumps(rates))
    warp = cell(tmp_path / "warp", "trigger=warp", arm="undefended", data="digits",
                attack="badnets", trigger="warp", settings=["trigger.strength=2"])  # fmt: skip
    krum = cell(tmp_path / "krum", "strategy=krum", "defence=none", arm="defended", data="digits",
                attack="badnets", trigger="patch", defence="krum")  # fmt: skip
    other = cell(tmp_path / "other", "defence=flame", arm="defended", seed=8)
    rows = {entry.row.run: entry.row for entry in read_rows([clean, warp, krum, other])[0]}
    assert rows["krum"].clean_asr == 0.125
    assert rows["warp"].clean_asr == 0.25, "of the attack with the settings of its group"
    assert rows["krum"].clean_ma == rows["clean"].final_ma
    assert rows["other"].clean_ma is None, "another seed has another clean run"
    assert (rows["krum"].defence, rows["other"].defence) == ("krum", "flame")


@pytest.mark.parametrize("group", ["attack", "trigger", "defence", "data", "model", "strategy"])
def test_every_option_is_found_by_its_settings(group: str) -> None:
    from fl_shield.simulations.composing import config_groups

    own = {"image_folder", "text_csv"}
    for name in set(config_groups()[group]) - own:
        config = settings_from(compose_config([f"{group}={name}"])).config
        assert option_of(group, config[group]) == name


def test_data_of_ones_own_are_called_by_their_folder() -> None:
    config = settings_from(compose_config(["data=image_folder", "data.root=/data/leaves"])).config
    assert option_of("data", config["data"]) == "leaves"
    assert option_of("trigger", {"_target_": "my_package.Stripes", "every": 2}) == "Stripes"
    assert option_of("trigger", None) == ""
    krum = settings_from(compose_config(["strategy=krum", "defence=none"])).config
    assert defence_name(krum) == "krum"
    assert defence_name({**krum, "strategy": compose_config([]).strategy}) == "none"


def test_seen_follows_the_card_of_the_detector(tmp_path: Path) -> None:
    names = {"data": "mnist", "model": "mlp", "trigger": "warp"}
    shield = {"_target_": "fl_shield.strategies.MetaShield", "detector": None}
    assert seen_parts(shield, names) == ("data", "model")
    assert seen_parts({"_target_": "fl_shield.strategies.Flame"}, names) is None
    assert seen_parts({**shield, "detector": str(tmp_path)}, names) is None, "no card, no claim"
    card = json.loads((SHIPPED / "detector.json").read_text())
    del card["federations"]["mnist"]
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "detector.json").write_text(json.dumps(card))
    assert seen_parts({**shield, "detector": str(tmp_path / "without")}, names) == ("model",)


def test_means_and_spreads_are_those_of_the_seeds() -> None:
    shares = [0.2, 0.5, 0.9]
    rows = [replace(ROW, seed=n, final_asr=share) for n, share in enumerate(shares)]
    (group,) = groups_of([*rows, replace(ROW, seed=3, final_asr=None, finished=False)])
    spread = group.spread("final_asr")
    assert spread.mean == pytest.approx(statistics.mean(shares))
    assert spread.deviation == pytest.approx(statistics.stdev(shares))
    assert spread.percent() == "53.3 ± 35.1"
    assert group.texts()[:5] == ["digits", "badnets-patch", "20 %", "none", "4 (1 unfinished)"]


def test_the_undefended_run_comes_first_and_then_the_shield() -> None:
    rows = [replace(ROW, defence=name) for name in ("flame", "meta_shield", "none", "alignins")]
    assert [g.first.defence for g in groups_of(rows)] == [
        "none",
        "meta_shield",
        "alignins",
        "flame",
    ]


def test_csv_holds_every_row_as_it_is(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, seed=1, final_asr=None, tpr=1 / 3, defence="a,b")]
    first, second = csv.DictReader(csv_text(rows).splitlines())
    assert list(first) == list(COLUMNS)
    asked = "data attack attackers defence seed final_asr max_asr final_ma tpr fpr"
    assert {*asked.split(), "seconds_per_round", "seen"} <= set(COLUMNS)
    assert (first["final_asr"], first["finished"], first["attackers"]) == ("0.9", "yes", "0.2")
    assert (second["final_asr"], second["tpr"], second["defence"]) == ("", "0.333333", "a,b")


def test_latex_and_markdown_are_well_formed() -> None:
    text = latex([ROW, replace(ROW, seed=1, defence="meta_shield")])
    assert text.count("&") == 3 * 11
    assert r"meta\_shield" in text
    assert not re.search(r"(?<!\\)[%_#]", text)
    lines = markdown([replace(ROW, defence="a|b")]).splitlines()
    assert {line.count("|") for line in lines} == {13}


def test_heat_maps_show_the_mean_of_each_cell() -> None:
    rows = [
        ROW, replace(ROW, seed=1, final_asr=0.7), replace(ROW, defence="flame", final_asr=0.04),
        replace(ROW, trigger="blend", final_asr=0.5), replace(ROW, attackers=0.4),
        replace(ROW, attack="clean", attackers=0.0),
    ]  # fmt: skip
    twenty, forty = heat_maps(rows)
    assert (twenty.name, forty.name) == ("heat_map_digits_20", "heat_map_digits_40")
    texts = [text.get_text() for text in twenty.figure.axes[0].texts]
    assert texts == ["50", "80", "–", "4"]
    assert "badnets-patch against none 80.0 ± 14.1 %" in twenty.description


def test_cost_is_relative_to_the_undefended_run_of_the_same_cell() -> None:
    rows = [
        ROW, replace(ROW, defence="flame", seconds_per_round=3.0, final_asr=0.1),
        replace(ROW, seed=1, seconds_per_round=4.0),
        replace(ROW, seed=1, defence="flame", seconds_per_round=4.0, final_asr=0.2),
        replace(ROW, seed=2, defence="flame", seconds_per_round=99.0),
    ]  # fmt: skip
    plot = cost_against_quality(rows)
    assert plot is not None
    assert "flame 1.25 times, 15.0 %" in plot.description
    assert cost_against_quality([ROW]) is None


def test_names_of_defences_alike_in_cost_and_quality_stand_apart() -> None:
    near = {"flame": (2.4, 0.16), "multikrum": (2.5, 0.155), "alignins": (2.68, 0.088),
            "flare": (4.54, 0.069), "meta_shield": (4.36, 0.019)}  # fmt: skip
    plot = cost_against_quality([
        ROW,
        *(replace(ROW, defence=name, seconds_per_round=seconds, final_asr=asr)
          for name, (seconds, asr) in near.items()),
    ])  # fmt: skip
    assert plot is not None
    names = {text.get_text(): text.get_window_extent() for text in plot.figure.axes[0].texts}
    assert set(names) == {"no defence", *near}
    for name, box in names.items():
        assert box.count_overlaps([other for who, other in names.items() if who != name]) == 0


def test_the_headline_compares_on_common_cells_only() -> None:
    rows = [ROW, replace(ROW, defence="flame", final_asr=0.2),
            replace(ROW, defence="rlr", final_asr=0.4),
            replace(ROW, attackers=0.4, defence="flame", final_asr=1.0)]  # fmt: skip
    assert headline(rows) == (
        "In the attacked cell that all 3 defences share, the lowest mean attack success is: "
        "flame 20.0 %, rlr 40.0 %, against 90.0 % without a defence."
    )
    assert (
        headline([replace(ROW, attack="clean", attackers=0.0)])
        == "1 runs, none of them under attack."
    )


def test_the_report_is_complete_and_self_contained(tmp_path: Path) -> None:
    runs = tmp_path / "study"
    cell(runs / "none", "defence=none", arm="undefended")
    cell(runs / "shield", arm="defended", data="<script>alert(1)</script>")
    cell(runs / "flame", "defence=flame", arm="defended", seed=8)
    (runs / "flame" / "summary.json").write_text('{"finished": tr')
    (runs / "damaged" / "flame.1").mkdir(parents=True)
    folders = run_folders_in([runs])
    assert [folder.name for folder in folders] == ["flame", "none", "shield"]
    out = tmp_path / "report"
    console = Console(width=160, record=True)
    entries = report_runs(folders, out, console)
    assert len(entries) == 3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!#)[^"']""", page)
    printed = console.export_text()
    for text in (page, printed):
        assert "summary.json: damaged or cut short" in text
    for name in ("heat_map", "asr_curves", "accuracy_curves", "roc", "score_distributions"):
        assert list((out / "plots").glob(f"{name}*.png")), name
        assert f'id="plot-{name}' in page
    assert len((out / "results.csv").read_text().splitlines()) == 4
    for value in csv.DictReader((out / "results.csv").read_text().splitlines()):
        assert math.isfinite(float(value["final_asr"]))


def test_the_command_takes_one_run_or_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = SyntheticRun().write(tmp_path / "runs" / "one")
    assert main(["report", str(one)]) == 0
    assert capsys.readouterr().out.strip() == str(one / "report.html")
    SyntheticRun(seed=8).write(tmp_path / "runs" / "two")
    assert main(["report", str(tmp_path / "runs")]) == 0
    assert (tmp_path / "runs" / "report" / "report.html").is_file()
    assert main(["report", str(tmp_path / "runs")]) == 0, "its own report is no run"
    assert main(["report", str(one), str(tmp_path / "nowhere")]) == 2
    assert "Expected a run folder at" in capsys.readouterr().err
    with pytest.raises(DataError, match="holds no `arms` folder"):
        read_rows([tmp_path / "runs"])
