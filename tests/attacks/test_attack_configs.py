"""Every configuration of triggers, attacks and training composes and makes what it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import fl_shield
from fl_shield.attacks.attack import Attack
from fl_shield.attacks.goal import Goal
from fl_shield.training.local import LocalTraining
from fl_shield.triggers.protocol import Trigger

WITHOUT_TRIGGER = ["label_flip"]
CLEAN_LABEL = ["adversarial_clean_label", "hidden_trigger", "sleeper_agent"]
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


@pytest.mark.parametrize("name", names("goal"))
def test_goals(name: str) -> None:
    assert isinstance(build("goal", f"+goal={name}"), Goal)


@pytest.mark.parametrize(("trigger", "goal"), [("patch", "one_to_one"), ("words", "all_to_one")])
@pytest.mark.parametrize("name", [name for name in names("attack") if name not in WITHOUT_TRIGGER])
def test_attacks_take_the_chosen_trigger_and_goal(name: str, trigger: str, goal: str) -> None:
    attack = build("attack", f"+trigger={trigger}", f"+goal={goal}", f"+attack={name}")
    assert isinstance(attack, Attack)
    assert attack.trigger == build("trigger", f"+trigger={trigger}")
    wanted = "clean_label" if name in CLEAN_LABEL else goal
    assert attack.goal == build("goal", f"+goal={wanted}")
    assert attack.active(1)


@pytest.mark.parametrize("name", WITHOUT_TRIGGER)
def test_attacks_without_trigger_need_no_choice(name: str) -> None:
    attack = build("attack", f"+attack={name}")
    assert isinstance(attack, Attack)
    assert attack.active(1)


@pytest.mark.parametrize("name", names("training"))
def test_training(name: str) -> None:
    assert isinstance(build("training", f"+training={name}"), LocalTraining)


def test_the_expected_names_exist() -> None:
    assert {"patch", "blend", "sig", "dba", "warp", "edge_case", "a3fl"} <= set(names("trigger"))
    assert {"word", "words", "sentence", "syntactic", "style", "jumbo"} <= set(names("trigger"))
    wanted = {"badnets", "model_replacement", "projected", "constrain_and_scale", "neurotoxin"}
    assert wanted <= set(names("attack"))
    assert {"all_to_one", "one_to_one", "all_to_all", "clean_label"} <= set(names("goal"))
    assert {"digits", "images", "text"} <= set(names("training"))
