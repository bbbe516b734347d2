"""The shape of the project: imports point one way, modules stay small, nothing heavy loads early.

The rules are read from the source with `ast`; the readers themselves are tried on sources that
break the rules, so that a rule that sees nothing cannot pass.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import fl_shield

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 400

FOLDERS = {
    "fl_shield": "fl_shield",
    "strategies": "fl_shield.strategies",
    "simulations": "fl_shield.simulations",
    "conf": "fl_shield.conf",
}
"""Folders at the top of the repository, and the names under which they are imported."""

EACH_FIRST = """
import sys
from importlib import import_module
from pkgutil import walk_packages
import fl_shield
names = [module.name for module in walk_packages(fl_shield.__path__, "fl_shield.")]
for name in names:
    for loaded in [key for key in sys.modules if key.split(".")[0] == "fl_shield"]:
        del sys.modules[loaded]
    try:
        import_module(name)
    except ImportError as error:
        print(name, error, sep=": ")
print(len(names), "modules")
"""
"""A program that imports every module as if it were the first, and names those that cannot be."""

FRAMEWORKS = ("flwr", "hydra", "omegaconf", "ray")

FORBIDDEN = {
    "fl_shield": (*FRAMEWORKS, "wandb", "fl_shield.strategies", "fl_shield.simulations"),
    "strategies": ("hydra", "omegaconf", "ray", "wandb", "fl_shield.simulations"),
    "simulations": ("wandb",),
    "conf": (*FRAMEWORKS, "torch", "wandb"),
}
"""What the modules of each folder may not import: simulations → strategies → fl_shield."""

SHORT_NAMES = ("strategies", "simulations", "conf")
"""Names that would be found from the repository's root only, as second copies of the modules."""

HEAVY = ("torch", "flwr", "hydra", "sklearn", "transformers", "wandb", "matplotlib", "torchvision")


def modules(folder: str) -> Iterator[Path]:
    """Yield the Python files that really lie in a folder at the top, not behind its links."""
    links = [path for path in (ROOT / folder).iterdir() if path.is_symlink()]
    for path in sorted((ROOT / folder).rglob("*.py")):
        if not any(path.is_relative_to(link) for link in links):
            yield path


def imported(source: str, package: str = "") -> set[str]:
    """Return the dotted names that a module imports, anywhere in it; `from a import b` is `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def offences(names: set[str], forbidden: tuple[str, ...]) -> list[str]:
    """Return the imported names that are a forbidden module, or lie within one."""
    return sorted(n for n in names if any(n == f or n.startswith(f"{f}.") for f in forbidden))


def package_of(path: Path) -> str:
    """Return the package that a module of the repository is imported as a part of."""
    folder, *rest = path.relative_to(ROOT).parent.parts
    return ".".join([FOLDERS[folder], *rest])


EVERY_MODULE = [
    pytest.param(folder, path, id=str(path.relative_to(ROOT)))
    for folder in FOLDERS
    for path in modules(folder)
]


def test_the_modules_are_found() -> None:
    assert len(EVERY_MODULE) > 80
    assert {param.values[0] for param in EVERY_MODULE} == set(FOLDERS)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import flwr", ["flwr"]),
        ("import flwr.app as a", ["flwr.app"]),
        ("def f():\n    from flwr.app import Message", ["flwr.app.Message"]),
        ("from fl_shield import strategies", ["fl_shield.strategies"]),
        ("from .strategies import MetaShield", ["fl_shield.strategies.MetaShield"]),
        ("if True:\n    from .. import strategies", ["fl_shield.strategies"]),
        ("import flwr_datasets", []),
        ("from fl_shield.judge import judge", []),
    ],
)
def test_the_reader_sees_forbidden_imports(source: str, found: list[str]) -> None:
    package = "fl_shield.judge" if "from .." in source else "fl_shield"
    assert offences(imported(source, package), ("flwr", "fl_shield.strategies")) == found


@pytest.mark.parametrize(("folder", "path"), EVERY_MODULE)
def test_imports_point_one_way(folder: str, path: Path) -> None:
    forbidden = FORBIDDEN[folder]
    if path.is_relative_to(ROOT / "fl_shield" / "tracking"):
        forbidden = tuple(name for name in forbidden if name != "wandb")
    names = imported(path.read_text(encoding="utf-8"), package_of(path))
    assert offences(names, forbidden) == []


@pytest.mark.parametrize(("folder", "path"), EVERY_MODULE)
def test_nothing_is_imported_by_a_short_name(folder: str, path: Path) -> None:
    assert offences(imported(path.read_text(encoding="utf-8"), package_of(path)), SHORT_NAMES) == []


def test_no_module_was_loaded_by_a_short_name() -> None:
    import_module("fl_shield.strategies")
    assert [name for name in SHORT_NAMES if name in sys.modules] == []


@pytest.mark.parametrize(("folder", "path"), EVERY_MODULE)
def test_modules_stay_small_and_say_what_they_are(folder: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_LINES, "split it: one idea a file"
    assert ast.get_docstring(ast.parse(source)), "a module begins with what it is for"


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    there = {package_of(path) for folder in FOLDERS for path in modules(folder)}
    with_init = {
        package_of(path)
        for folder in FOLDERS
        for path in modules(folder)
        if path.name == "__init__.py"
    }
    assert there == with_init, "a folder of modules has no __init__.py"
    assert sorted(listed) == sorted(with_init)


def test_wandb_stays_in_tracking() -> None:
    users = [
        path
        for path in modules("fl_shield")
        if offences(imported(path.read_text(encoding="utf-8"), package_of(path)), ("wandb",))
    ]
    assert {path.parent.name for path in users} == {"tracking"}


def test_constraints_are_plain_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert [pin for pin in pins if pin.count("==") != 1 or "://" in pin or "@" in pin] == []


def test_the_mapping_and_the_links_agree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    mapping = settings["tool"]["setuptools"]["package-dir"]
    assert mapping == {name: folder for folder, name in FOLDERS.items()}
    for folder in SHORT_NAMES:
        link = ROOT / "fl_shield" / folder
        assert link.is_symlink()
        assert link.readlink() == Path("..") / folder


@pytest.mark.parametrize("name", fl_shield.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(fl_shield, name) is not None


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Shield'"):
        fl_shield.Shield  # noqa: B018 - the access is the test


def output_of(code: str) -> list[str]:
    """Return the lines that a Python process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_module_can_be_the_first_to_be_imported() -> None:
    *refused, count = output_of(EACH_FIRST)
    assert refused == []
    assert int(count.split()[0]) > 300


@pytest.mark.parametrize(
    "statement",
    [
        "import fl_shield",
        "from fl_shield.simulations import cli; cli.main([])",
    ],
)
def test_nothing_heavy_loads_early(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint('loaded:', *(m for m in {HEAVY} if m in sys.modules))"
    assert output_of(code)[-1].split() == ["loaded:"]
