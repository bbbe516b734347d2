"""Settings: every impossible value is named, all of them together, before anything runs."""

import pytest

from fl_shield.errors import ConfigurationError
from fl_shield.simulations.composing import compose_config, config_groups
from fl_shield.simulations.settings import Settings, settings_from


def settings(*overrides: str) -> Settings:
    return settings_from(compose_config(["tracking=none", *overrides]))


def test_the_defaults_make_a_run() -> None:
    made = settings()
    assert [arm.name for arm in made.arms] == ["clean", "undefended", "defended"]
    assert (made.num_clients, made.num_attackers) == (20, 4)


@pytest.mark.parametrize(
    ("attackers", "clients", "count"),
    [("0", 20, 0), ("0.2", 20, 4), ("0.1", 5, 0), ("3", 20, 3), ("0.45", 20, 9), ("0", 1, 0)],
)
def test_attackers_are_a_share_or_a_number(attackers: str, clients: int, count: int) -> None:
    assert settings(f"attackers={attackers}", f"num_clients={clients}").num_attackers == count


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("rounds=0", "`rounds` to be a whole number of at least 1, got 0"),
        ("rounds=many", "got 'many'"),
        ("num_clients=-2", "`num_clients`.*got -2"),
        ("fraction_train=1.5", "above 0 and at most 1, got 1.5"),
        ("attackers=1.5", "there are 20"),
        ("attackers=21", "there are 20"),
        ("attackers=20", "fewer than all clients, got 20"),
        ("arms=[clean,nobody]", "Unknown arm 'nobody'"),
        ("arms=[]", "a list of different arms"),
        ("device=tpu", "Unknown device 'tpu'"),
        ("probes.num_samples=2", "at least 4, got 2"),
    ],
)
def test_impossible_values_are_named(override: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        settings(override)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings("rounds=0", "attackers=-1", "device=abacus")
    assert all(word in str(caught.value) for word in ("rounds", "attackers", "abacus"))


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("roundz=3", "Unknown setting 'roundz'. Did you mean 'rounds'?"),
        ("data=minst", "Unknown data 'minst'. Did you mean 'mnist'?"),
        ("model.widht=3", "Unknown setting of model 'widht'. Did you mean 'width'"),
        ("rounds", "of the form key=value, got 'rounds'"),
    ],
)
def test_unknown_keys_and_options_get_the_nearest_name(override: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        compose_config([override])


def test_a_data_set_chooses_its_model_and_the_user_overrules_it() -> None:
    assert "Transformer" in compose_config(["data=sst2"]).model["_target_"]
    assert "BiLstm" in compose_config(["data=sst2", "model=lstm"]).model["_target_"]


def test_equal_settings_have_equal_keys() -> None:
    assert settings("seed=3").key == settings("seed=3").key != settings("seed=4").key


OPTIONS = [(group, option) for group, names in config_groups().items() for option in names]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{g}={o}" for g, o in OPTIONS])
def test_every_option_composes(group: str, option: str) -> None:
    assert compose_config([f"{group}={option}"]).rounds >= 1
