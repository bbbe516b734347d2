"""The page on defences lists what there is, with the settings that it has."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from fl_shield.baselines import STATISTICS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "defences.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """Return the cells of a section's table by the name in the first one."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row for row in cells}


def test_every_published_defence_is_listed_with_its_settings() -> None:
    files = sorted((ROOT / "conf" / "defence").glob("*.yaml"))
    names = {f.stem for f in files} - {"meta_shield", "meta_shield_live", "none", "oracle"}
    table = rows("Strategies")
    assert set(table) == names
    for name in names:
        text = (ROOT / "conf" / "defence" / f"{name}.yaml").read_text(encoding="utf-8")
        config = {k: v for k, v in yaml.safe_load(text).items() if not k.startswith("_")}
        shown = dict(re.findall(r"`(\w+)=([^`]+)`", table[name][3]))
        assert shown == {key: str(value) for key, value in config.items()}, name


def test_every_statistic_is_listed() -> None:
    assert list(rows("Statistics")) == [
        "flare", "flame_cosine", "flame_cluster", "deepsight_ddif", "deepsight_neup",
        "deepsight_te", "norm", "multi_krum", "fltrust", "alignins", "foolsgold", "rflbat",
        "mesas", "crowdguard",
    ]  # fmt: skip
    assert set(rows("Statistics")) == set(STATISTICS)
