"""Every scanner is in the registry and in `conf/scanner/`, and both build the same one."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fl_shield.errors import ConfigurationError
from fl_shield.scanning.protocol import ModelScanner, Samples, SampleScanner
from fl_shield.scanning.registry import SCANNERS, build_scanner

FILES = sorted((Path(__file__).parents[2] / "conf" / "scanner").glob("*.yaml"))


def test_registry_and_configuration_name_the_same() -> None:
    assert sorted(SCANNERS) == [file.stem for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_file_builds_what_the_registry_builds(file: Path) -> None:
    scanner = instantiate(OmegaConf.load(file))
    assert type(scanner) is type(build_scanner(file.stem))
    assert scanner.name == file.stem
    wanted = ModelScanner if scanner.level == "model" else SampleScanner
    assert {n for n in ("fit", "score", "threshold") if hasattr(type(scanner), n)} == {
        "fit", "score", "threshold"
    }  # fmt: skip
    assert wanted is ModelScanner or scanner.level in ("sample", "data")
    with pytest.raises(ConfigurationError, match="not fitted"):
        _ = scanner.threshold


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_file_lists_the_settings_and_their_defaults(file: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(config, dict)
    shown = {str(key): value for key, value in config.items() if not str(key).startswith("_")}
    parameters = inspect.signature(type(build_scanner(file.stem)).__init__).parameters
    known = {n: p.default for n, p in parameters.items() if n != "self"}
    assert set(shown) <= set(known)
    simple = {n: v for n, v in shown.items() if isinstance(v, int | float | str | None)}
    assert {n: known[n] for n in simple} == simple


def test_unknown_names_and_settings_are_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"Unknown scanner 'stripe'. Did you mean 'strip'"):
        build_scanner("stripe")
    with pytest.raises(ConfigurationError, match="strip refuses its settings.*weigth"):
        build_scanner("strip", weigth=1)


def test_samples_have_a_label_each() -> None:
    with pytest.raises(ConfigurationError, match="one for each of the 3 inputs"):
        Samples(torch.zeros(3, 2), torch.zeros(2))
