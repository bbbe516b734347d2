"""The report says what the run folder says, escapes what is hostile, and needs no network."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from fl_shield.simulations.plots import draw_all
from fl_shield.simulations.report import build_report

HOSTILE = "</script><script>alert(1)</script>"


class Cells(HTMLParser):
    """Collects the text of table cells, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th") or (self.inside and tag != "tr")
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def write_run(folder: Path, *, finished: bool = True) -> Path:
    """Write a small made-up run with a hostile detail in its audit log."""
    figures = {"main_accuracy": 0.9, "asr": 0.8, "highest_asr": 0.85, "tpr": None, "fpr": None,
               "shield_share": None, "seconds_per_round": 0.5, "rounds": 2}  # fmt: skip
    defended = {**figures, "asr": 0.0125, "tpr": 0.75, "fpr": 0.0, "shield_share": 0.1}
    for arm in ("undefended", "defended"):
        place = folder / "arms" / arm
        place.mkdir(parents=True)
        lines = [
            {"round": n, "main_accuracy": 0.9, "asr": 0.8, "seconds": 0.5, "shield_seconds": 0.05}
            for n in (1, 2)
        ]
        (place / "rounds.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        truth = {"11": {"partition_id": 0, "malicious": True}}
        (place / "truth.json").write_text(json.dumps(truth))
    verdicts = [
        {"round": n, "node_id": node, "decision": "drop" if node == "11" else "keep", "score": 2.0,
         "evidence": 3.0, "weight": 0.0, "detail": "",
         "reasons": [{"name": HOSTILE, "value": 2.5}]}
        for n in (1, 2) for node in ("11", "12")
    ]  # fmt: skip
    log = folder / "arms" / "defended" / "audit.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in verdicts))
    summary = {"finished": finished, "seed": 3, "config": {}, "versions": {"flwr": "1.41"},
               "runs": {"undefended": figures, "defended": defended}}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text(f"name: '{HOSTILE}'\n")
    (folder / "command.txt").write_text("fl-shield simulate seed=3\n")
    return folder


def test_its_figures_are_those_of_the_run(tmp_path: Path) -> None:
    page = build_report(write_run(tmp_path / "run")).read_text()
    cells = Cells()
    cells.feed(page)
    rows = {row[0].strip(): row[1:] for row in cells.rows if row}
    assert rows["attack, defended"][:5] == ["90.0 %", "1.2 %", "85.0 %", "75.0 %", "0.0 %"]
    assert rows["client 0"][0].strip() == "malicious"
    assert "the attack succeeds on 1.2 % of triggered inputs" in page
    assert "fl-shield simulate seed=3" in page


def test_hostile_text_stays_text_and_nothing_is_fetched(tmp_path: Path) -> None:
    page = build_report(write_run(tmp_path / "run")).read_text()
    assert HOSTILE not in page
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", page)
    assert "url(http" not in page
    assert page.count("<script") == 2  # the data, and the page's own


def test_an_unfinished_run_has_a_report_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", finished=False)
    (folder / "summary.json").unlink()
    with (folder / "arms" / "defended" / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "main')
    page = build_report(folder).read_text()
    assert "has not finished" in page
    assert "line 3: damaged" in page


def test_all_plots_are_drawn(tmp_path: Path) -> None:
    drawn = draw_all(write_run(tmp_path / "run"))
    assert {path.suffix for path in drawn} == {".png", ".svg"}
    assert all(path.stat().st_size > 2_000 for path in drawn)
