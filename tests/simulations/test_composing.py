"""Composing: the user's own tree, and one clear sentence for whatever Hydra refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from fl_shield.errors import ConfigurationError
from fl_shield.simulations.composing import compose_config, config_groups
from fl_shield.simulations.federation import build
from fl_shield.simulations.settings import settings_from


def test_a_tree_of_the_users_own_adds_to_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "my settings"  # with a space
    (own / "training").mkdir(parents=True)
    (own / "training" / "slow.yaml").write_text(
        "_target_: fl_shield.training.local.LocalTraining\nlearning_rate: 0.001\n"
    )
    config = compose_config(["training=slow", "rounds=3"], str(own))
    assert config.training.learning_rate == 0.001
    assert (config.rounds, config.num_clients) == (3, 20)
    assert settings_from(config).rounds == 3


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--config-dir.*nothing"):
        compose_config([], str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("defence=null", "Unknown defence 'null'. Known: .*meta_shield, meta_shield_live, none"),
        ("+nonsense=1", "Unknown setting 'nonsense'"),
        ("data.max_tran=9", "Unknown setting of data 'max_tran'. Did you mean 'max_train'"),
        ("probes.num_sample=9", "Did you mean 'num_samples'"),
        ("attack.schedule.last=9", "Unknown setting of attack.schedule 'last'"),
        ("strategy.eta=1", r"To pass on a setting .*\+strategy.eta=…"),
        ("rounds={", "The configuration cannot be read"),
        ("rounds=${nowhere}", "The configuration cannot be read.*nowhere"),
        ("~rounds.much", "rounds.much"),
        ("=3", "Unknown setting ''"),
    ],
)
def test_what_hydra_refuses_is_one_clear_sentence(override: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        compose_config([override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", ["data", "defence", "tracking", "seed"])
def test_a_deleted_part_is_missed_before_anything_is_built(group: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{group}`"):
        settings_from(compose_config([f"~{group}"]))


def test_a_setting_that_no_component_takes_is_found_at_once() -> None:
    config = compose_config(["+defence.polcy=drop"])
    with pytest.raises(ConfigurationError, match="setting of defence 'polcy'.*mean 'policy'"):
        build(settings_from(config).config["defence"], "defence")


def test_composing_does_not_depend_on_what_was_composed_before() -> None:
    initialize_config_module("fl_shield.conf", version_base="1.3")  # left open, as a user may
    try:
        assert compose_config(["rounds=2"]).rounds == 2
    finally:
        GlobalHydra.instance().clear()


def test_the_default_options_are_among_the_groups() -> None:
    groups = config_groups()
    assert {"data", "model", "trigger", "attack", "training", "partition", "strategy"} <= set(
        groups
    )
    assert "digits" in groups["data"]
    assert "meta_shield" in groups["defence"]
