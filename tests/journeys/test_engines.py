"""The two engines of `fl-shield simulate`: the same figures and evidence, to the last digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fl_shield.errors import ConfigurationError
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.settings import settings_from
from tests.journeys._commands import SMALL, run

TIMES = ("seconds", "shield_seconds")


def figures(folder: Path, arm: str) -> list[dict[str, Any]]:
    lines = (folder / "arms" / arm / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [{key: value for key, value in r.items() if key not in TIMES} for r in records]


def evidence(folder: Path) -> dict[tuple[int, int], tuple[Any, ...]]:
    """Return what was decided by round and client; node ids differ from run to run."""
    truth = json.loads((folder / "arms/defended/truth.json").read_text(encoding="utf-8"))
    lines = (folder / "arms/defended/audit.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        (r["round"], truth[r["node_id"]]["partition_id"]): (r["score"], r["evidence"], r["weight"])
        for r in map(json.loads, lines)
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_engines_give_the_same_figures_and_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cluster that is not ours, and not there either, is left alone.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    options = [*SMALL, "rounds=3", "arms=[undefended,defended]", "tracking=none"]
    for engine in ("in_process", "flower"):
        status, output, errors = run(
            "simulate", *options, f"engine={engine}", f"run_name={engine}", cwd=tmp_path
        )
        assert status == 0, errors
        assert ("Starting Flower's simulation engine" in output) == (engine == "flower")
    one, other = (tmp_path / "runs" / engine for engine in ("in_process", "flower"))
    for arm in ("undefended", "defended"):
        assert len(figures(one, arm)) == 4
        assert figures(one, arm) == figures(other, arm)
    assert len(evidence(one)) == 3 * 6
    assert evidence(one) == evidence(other)


def test_an_unknown_engine_is_named_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match="Unknown engine 'flwr'. Did you mean 'flower'"):
        settings_from(compose_config(["engine=flwr"]))
