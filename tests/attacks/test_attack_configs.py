"""Every configuration of triggers, attacks and training composes and makes what it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import fl_shield
from fl_shield.attacks.attack import Attack
from fl_shield.training.local import LocalTraining
from fl_shield.triggers.protocol import Trigger

CONF = Path(fl_shield.__file__).parent.resolve() / "conf"


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def build(group: str, *overrides: str) -> object:
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config = compose(overrides=list(overrides))
    return instantiate(config[group], _convert_="object")


@pytest.mark.parametrize("name", names("trigger"))
def test_triggers(name: str) -> None:
    assert isinstance(build("trigger", f"+trigger={name}"), Trigger)


@pytest.mark.parametrize("trigger", ["patch", "words"])
@pytest.mark.parametrize("name", names("attack"))
def test_attacks_take_the_chosen_trigger(name: str, trigger: str) -> None:
    attack = build("attack", f"+trigger={trigger}", f"+attack={name}")
    assert isinstance(attack, Attack)
    assert attack.trigger == build("trigger", f"+trigger={trigger}")
    assert attack.active(1)


@pytest.mark.parametrize("name", names("training"))
def test_training(name: str) -> None:
    assert isinstance(build("training", f"+training={name}"), LocalTraining)


def test_the_expected_names_exist() -> None:
    assert {"patch", "blend", "sig", "dba", "word", "words", "sentence"} <= set(names("trigger"))
    wanted = {"badnets", "model_replacement", "projected", "constrain_and_scale", "neurotoxin"}
    assert wanted <= set(names("attack"))
    assert {"digits", "images", "text"} <= set(names("training"))
