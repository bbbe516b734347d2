"""The shape of the house: which way imports point, how long modules are, what is packaged."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKS = ("strategies", "simulations", "conf")
MAX_LINES = 400


def modules(folder: str) -> list[Path]:
    return [
        path
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not (folder == "fl_shield" and path.relative_to(ROOT / folder).parts[0] in LINKS)
    ]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


FORBIDDEN = {
    "fl_shield": ("flwr", "hydra", "omegaconf", "fl_shield.strategies", "fl_shield.simulations"),
    "strategies": ("hydra", "omegaconf", "wandb", "fl_shield.simulations"),
    "simulations": ("wandb", "strategies", "simulations", "conf"),
}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_point_one_way(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in imported(path)
        if any(name == banned or name.startswith(f"{banned}.") for banned in FORBIDDEN[folder])
    ]
    assert not wrong


def test_wandb_stays_in_tracking() -> None:
    users = [p for p in modules("fl_shield") if "wandb" in set(imported(p))]
    assert {path.parent.name for path in users} == {"tracking"}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_modules_are_short(folder: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in modules(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long


def test_every_package_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(("fl_shield", *((() if top == "fl_shield" else (top,)) + parts)))
        for top in ("fl_shield", *LINKS)
        for path in (ROOT / top).rglob("__init__.py")
        if (parts := path.relative_to(ROOT / top).parts[:-1])[:1] not in [(link,) for link in LINKS]
        or top != "fl_shield"
    }
    assert found == listed


def test_constraints_are_plain_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or line.count("==") == 1 for line in lines if line)
    assert not any("://" in line or "@" in line for line in lines)


def test_the_readme_code_names_what_exists() -> None:
    from fl_shield.strategies import MetaShield, shield

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")
    assert "from fl_shield.strategies import MetaShield" in code
    assert MetaShield is not None
    assert shield is not None
