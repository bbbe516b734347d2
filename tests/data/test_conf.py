"""Each data, model and partition file of the configuration composes, fits and can be built."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hydra")

from hydra import compose, initialize_config_module
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from fl_shield.data.task import TaskSpec

CONF = Path(__file__).parents[2] / "conf"
SPECS = {
    "image": TaskSpec("image", (3, 32, 32), 10),
    "text": TaskSpec("text", (48,), 4, vocab_size=200),
}
TEXT_DATA = {"sst2", "ag_news", "docstrings", "text_csv"}
TEXT_MODELS = {"transformer", "text_cnn", "lstm"}


def _options(group: str) -> list[str]:
    found = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    assert found, group
    return found


def _compose(*overrides: str) -> Any:
    with initialize_config_module("fl_shield.conf", version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize("data", _options("data"))
def test_data_set_brings_a_model_that_fits(data: str) -> None:
    config = _compose(f"data={data}")
    modality = "text" if data in TEXT_DATA else "image"
    spec = TaskSpec("image", (1, 8, 8), 10) if data == "digits" else SPECS[modality]
    assert sum(p.numel() for p in instantiate(config.model)(spec).parameters()) > 0
    trigger = config.trigger["_target_"]
    assert ("words" in trigger) == (modality == "text")


@pytest.mark.parametrize("data", _options("data"))
def test_data_settings_are_those_of_the_loader(data: str) -> None:
    import inspect

    settings = {key for key in _compose(f"data={data}").data if not str(key).startswith("_")}
    loader = get_method(_compose(f"data={data}").data["_target_"])
    assert settings == set(inspect.signature(loader).parameters)


def test_command_line_wins_over_the_data_set() -> None:
    config = _compose("data=cifar10", "model=resnet18", "training=digits")
    assert config.model["_target_"].endswith("ResNet18")
    assert config.training == _compose("data=digits").training


@pytest.mark.parametrize("model", _options("model"))
def test_model_is_built_from_its_file(model: str) -> None:
    spec = SPECS["text" if model in TEXT_MODELS else "image"]
    assert instantiate(_compose(f"model={model}").model)(spec).training


@pytest.mark.parametrize("partition", _options("partition"))
def test_partition_deals_all_from_its_file(partition: str) -> None:
    if partition in {"shard", "pathological"}:
        pytest.importorskip("flwr_datasets")
    deal = instantiate(_compose(f"partition={partition}").partition)
    parts = deal(labels=np.arange(400) % 10, num_clients=10, seed=1)
    assert sorted(np.concatenate(parts).tolist()) == list(range(400))


def test_main_job_runs_on_embedded_digits() -> None:
    task = instantiate(_compose().data)
    assert (task.name, len(task.train) + len(task.test)) == ("digits", 1797)
    assert OmegaConf.is_config(_compose().partition)
