"""Wrong settings end the command at once: status 2, one clear sentence, no traceback."""

from pathlib import Path

import pytest

from tests.journeys._commands import run


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["roundz=3"], "Did you mean 'rounds'?"),
        (["data=minst"], "Did you mean 'mnist'?"),
        (["rounds=0", "attackers=1.5"], "`rounds`"),
        (["data=image_folder", "data.root=nowhere"], "'nowhere'"),
        (["model=lstm"], "takes text"),
        (["defence.policy=drp"], "Did you mean 'drop'?"),
        (["--resume", "nowhere"], "holds no config.yaml"),
        (["attackers=20"], "fewer than all clients"),
    ],
)
def test_one_clear_sentence(overrides: list[str], says: str, tmp_path: Path) -> None:
    status, output, errors = (
        run("simulate", "tracking=none", *overrides, cwd=tmp_path)
        if (overrides[0] != "--resume")
        else run("simulate", *overrides, cwd=tmp_path)
    )
    assert status == 2, output
    assert says in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "runs").exists()


def test_help_lists_groups_and_settings(tmp_path: Path) -> None:
    status, output, _ = run("simulate", "--help", cwd=tmp_path)
    assert status == 0
    for shown in ("meta_shield", "badnets", "dirichlet", "rounds:", "--resume", "data.root=DIR"):
        assert shown in output
