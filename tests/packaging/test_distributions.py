"""The wheel and the source archive hold what they must, under names that harm nobody."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from email import message_from_string
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "fl_shield": "fl_shield",
    "strategies": "fl_shield/strategies",
    "simulations": "fl_shield/simulations",
    "conf": "fl_shield/conf",
}
"""Folders at the top of the repository, and where their files lie in the wheel."""

SHIPPED = (".py", ".yaml", ".j2", ".typed", ".json", ".safetensors")


def sources() -> dict[str, Path]:
    """Return every file that a wheel should hold, by its path there; links are not followed."""
    found = {}
    for folder, place in PLACES.items():
        for directory, _, files in os.walk(ROOT / folder):  # does not follow links
            for name in files:
                path = Path(directory, name)
                if path.suffix in SHIPPED or name == "py.typed":
                    found[f"{place}/{path.relative_to(ROOT / folder)}"] = path
    return found


def build(kind: str, folder: Path) -> Path:
    """Build a distribution from a copy of the sources, as pip does but without the network."""
    tree, out = folder / "tree", folder / "dist"
    tree.mkdir()
    for name in PLACES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel as an installer would."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_in(site: Path, code: str, cwd: Path) -> str:
    """Run code away from the repository, with the unpacked wheel first on the path."""
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_the_wheel_holds_every_source_once_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert Counter(names).most_common(1)[0][1] == 1
    assert set(names) == set(sources())
    assert {name.split("/")[0] for name in names} == {"fl_shield"}


@pytest.mark.parametrize(
    "name",
    [
        "fl_shield/py.typed",
        "fl_shield/conf/config.yaml",
        "fl_shield/conf/data/digits.yaml",
        "fl_shield/simulations/report.html.j2",
        "fl_shield/strategies/meta_shield.py",
    ],
)
def test_files_that_are_easily_lost_are_in_the_wheel(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert name in archive.namelist()
        assert archive.read(name) == sources()[name].read_bytes()


def test_the_wheel_says_what_it_is(site: Path) -> None:
    (info,) = site.glob("fl_shield-*.dist-info")
    metadata = message_from_string((info / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Name"] == "fl-shield"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {"simulation", "text", "data", "wandb", "art", "dev", "all"}
    assert extras <= set(metadata.get_all("Provides-Extra") or ())
    base = [r for r in metadata.get_all("Requires-Dist") or () if "extra ==" not in r]
    heavy = ("ray", "hydra", "transformers", "datasets", "matplotlib", "wandb", "torchvision")
    assert not [r for r in base if r.startswith(heavy)], "a server needs the base alone"
    assert (info / "licenses" / "LICENSE").is_file()
    entry_points = (info / "entry_points.txt").read_text(encoding="utf-8")
    assert "fl-shield = fl_shield.simulations.cli:main" in entry_points


def test_the_wheel_works_away_from_the_repository(site: Path, tmp_path: Path) -> None:
    # A project may well have folders of these names: they must neither harm nor be harmed.
    for name in ("strategies", "simulations", "conf"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n", encoding="utf-8")
    shown = run_in(
        site,
        "import fl_shield, fl_shield.strategies, strategies, conf\n"
        "from fl_shield.simulations.composing import compose_config\n"
        "from fl_shield.simulations.settings import settings_from\n"
        "assert strategies.mine and conf.mine\n"
        "print(settings_from(compose_config(['experiment=demo'])).num_clients)\n"
        "print(fl_shield.__file__, fl_shield.strategies.MetaShield.__module__)",
        cwd=tmp_path,
    )
    clients, where = shown.splitlines()
    assert int(clients) == 20
    assert where == f"{site}/fl_shield/__init__.py fl_shield.strategies.meta_shield"


def test_the_command_of_the_wheel_knows_its_groups(site: Path, tmp_path: Path) -> None:
    code = "from fl_shield.simulations.cli import main; main(['simulate', '--help'])"
    shown = run_in(site, code, cwd=tmp_path)
    assert "image_folder" in shown
    assert "meta_shield" in shown


def test_the_source_archive_holds_each_module_once(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        files = [member.name.partition("/")[2] for member in archive if member.isfile()]
    for path in sources().values():
        relative = path.relative_to(ROOT).as_posix()
        assert files.count(relative) == 1, relative
    assert not [f for f in files if f.startswith(("fl_shield/strategies/", "fl_shield/conf/"))]
