"""Goals and triggers beyond the patch, chosen on the real command line."""

import json
from pathlib import Path

import pytest

from tests.journeys._commands import SMALL, run

pytestmark = pytest.mark.slow


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("follows the model", ("trigger=a3fl", "trigger.size=2", "goal=all_to_all")),
        ("decoys", ("trigger=warp", "goal=one_to_one", "goal.source=3", "attack.poison_share=0.2")),
        ("no trigger", ("attack=label_flip", "attack.goal.source=3")),
    ],
)
def test_a_run_with_and_without_the_attack(
    name: str, choice: tuple[str, ...], tmp_path: Path
) -> None:
    options = (*SMALL, "rounds=2", "tracking=none", "arms=[clean,undefended]", "run_name=one")
    status, _, errors = run("simulate", *options, *choice, cwd=tmp_path, timeout=350)
    assert status == 0, errors
    for arm in ("clean", "undefended"):
        file = tmp_path / "runs" / "one" / "arms" / arm / "rounds.jsonl"
        rates = [json.loads(line)["asr"] for line in file.read_text().splitlines()]
        assert len(rates) == 3, name
        assert all(0 <= rate <= 1 for rate in rates)


def test_a_source_that_is_the_target_is_refused_before_anything_runs(tmp_path: Path) -> None:
    options = (*SMALL, "goal=one_to_one", "goal.source=4", "attack.target_class=4")
    status, _, errors = run("simulate", *options, cwd=tmp_path)
    assert status == 2
    assert "not the target class 4, got 4" in errors
    assert not (tmp_path / "runs").exists()
