"""A grid becomes the cells that differ, each once; names, filters and lists are checked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.errors import ConfigurationError
from fl_shield.simulations.study_catalogue import catalogue_of
from fl_shield.simulations.study_cells import Cell, cells_of


def grid(**lists: Any) -> dict[str, Any]:
    usual = {
        "data_sets": ["digits"], "attacks": ["badnets"], "triggers": [], "attackers": [0.2],
        "defences": ["none"], "seeds": [0], "groups": [], "include": [], "exclude": [],
        "catalogue": {"defences": {"krum": ["defence=none", "strategy=krum"]}},
    }  # fmt: skip
    return {**usual, **lists}


def names(**lists: Any) -> list[str]:
    config = grid(**lists)
    return [cell.name for cell in cells_of(config, catalogue_of(config))]


def test_lists_are_crossed_and_a_whole_seed_comes_first() -> None:
    assert names(attacks=["badnets", "neurotoxin"], defences=["none", "krum"], seeds=[3, 4]) == [
        f"digits-{attack}-patch-0.2-{defence}-seed{seed}"
        for seed in (3, 4)
        for attack in ("badnets", "neurotoxin")
        for defence in ("none", "krum")
    ]


def test_without_attackers_there_is_one_run_for_all_attacks_and_triggers() -> None:
    found = names(
        attacks=["badnets", "neurotoxin"], triggers=["patch", "blend"], attackers=[0, 0.0, 0.4]
    )
    assert found[0] == "digits-clean-none-seed0"
    assert len(found) == 1 + 4


@pytest.mark.parametrize(
    ("attackers", "defence", "arm"),
    [
        (0, "none", "clean"),
        (0, "flame", "clean_defended"),
        (0.2, "none", "undefended"),
        (2, "krum", "defended"),
    ],
)
def test_a_cell_is_one_arm(attackers: float, defence: str, arm: str) -> None:
    config = grid(attackers=[attackers], defences=[defence])
    (cell,) = cells_of(config, catalogue_of(config))
    assert cell.arm.name == arm


def test_a_trigger_that_is_not_named_is_that_of_the_data_set() -> None:
    assert names(data_sets=["sst2"]) == ["sst2-badnets-words-0.2-none-seed0"]
    named = {"attacks": {"mine": ["attack=badnets", "trigger=blend"]}}
    assert names(attacks=["mine"], catalogue=named) == ["digits-mine-blend-0.2-none-seed0"]


def test_groups_inherit_lists_and_share_cells() -> None:
    groups = [{"seeds": [0, 1]}, {"defences": ["none", "krum"]}]
    assert names(groups=groups) == [
        "digits-badnets-patch-0.2-none-seed0",
        "digits-badnets-patch-0.2-krum-seed0",
        "digits-badnets-patch-0.2-none-seed1",
    ]


def test_a_group_may_have_settings_of_its_own() -> None:
    groups = [
        {"attackers": [0]},
        {"triggers": ["warp"], "attackers": [0.2, 0.4], "settings": ["trigger.strength=2"]},
        {"triggers": ["warp"], "attackers": [0.3]},
    ]
    config = grid(groups=groups)
    found = cells_of(config, catalogue_of(config))
    assert [cell.settings for cell in found] == [(), *2 * [("trigger.strength=2",)], ()]
    assert found[1].configuration == "badnets-warp trigger.strength=2"
    assert found[3].configuration == "badnets-warp"


def test_one_cell_cannot_have_two_settings() -> None:
    groups: list[dict[str, Any]] = [
        {"attackers": [0, 0.2]},
        {"attackers": [0, 0.4], "settings": ["rounds=9"]},
    ]
    with pytest.raises(ConfigurationError) as caught:
        names(groups=groups)
    (sentence,) = str(caught.value).splitlines()
    assert "the cell digits-clean-none-seed0, with settings [] and ['rounds=9']" in sentence
    assert len(names(groups=[*groups[:1], {**groups[1], "attackers": [0.4]}])) == 3


def test_filters_leave_what_matches() -> None:
    lists: dict[str, Any] = {"defences": ["none", "krum", "flame", "flare"], "seeds": [0, 1]}
    assert names(**lists, include=[{"defence": "fl*", "seed": 1}]) == [
        "digits-badnets-patch-0.2-flame-seed1",
        "digits-badnets-patch-0.2-flare-seed1",
    ]
    assert len(names(**lists, exclude=[{"defence": ["flame", "flare"]}, {"seed": 0}])) == 2
    with pytest.raises(ConfigurationError, match="`include` and `exclude` leave nothing"):
        names(**lists, include=[{"data": "mnist"}])


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"attacks": ["neurotoxim"]}, r"'neurotoxim'. Did you mean 'neurotoxin'\? Known: "),
        ({"defences": ["krumm"]}, r"Unknown defence 'krumm'. Did you mean 'krum'\?"),
        ({"triggers": ["pach"]}, r"Unknown trigger 'pach'. Did you mean 'patch'\?"),
        ({"data_sets": ["minst"]}, r"Unknown data set 'minst'. Did you mean 'mnist'\?"),
        ({"groups": [{"defences": ["flme"]}]}, r"Unknown defence 'flme'. Did you mean 'flame'\?"),
        ({"groups": [{"defense": []}]}, r"'defense'. Did you mean 'defences'\?"),
        ({"groups": [{"setings": []}]}, r"'setings'. Did you mean 'settings'\?"),
        ({"groups": [{"settings": "rounds=5"}]}, "Expected `settings of a group` to be a list of"),
        ({"groups": [{"settings": ["rounds"]}]}, "Expected `settings of a group` to be a list of"),
        ({"groups": [{"settings": ["attack=badnets"]}]}, r"sets `attack` .* attacks=\[badnets\]"),
        ({"groups": [{"settings": ["attackers=2"]}]}, r"sets `attackers` .* attackers=\[0.2\]"),
        ({"groups": ["flame"]}, "Expected `groups` to be a list of mappings"),
        ({"include": [{"dta": "mnist"}]}, r"Unknown key of include 'dta'. Did you mean 'data'\?"),
        ({"exclude": ["mnist"]}, "Expected `exclude` to be a list like"),
        ({"attackers": ["many"]}, "Expected `attackers` to be shares of the clients"),
        ({"seeds": [-1]}, "Expected `seeds` to be whole numbers"),
        ({"defences": []}, "one of its lists is empty"),
        ({"catalogue": {"attack": {}}}, r"'attack'. Did you mean 'attacks'\?"),
        ({"catalogue": {"attacks": {"mine": "x"}}}, "`catalogue.attacks.mine` to be a list"),
        ({"catalogue": {"data_sets": {"mine": {"setings": []}}}}, r"Did you mean 'settings'\?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(lists: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        names(**lists)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        names(attacks=["neurotoxim"], defences=["krumm"], seeds=["zero"])
    assert [word in str(caught.value) for word in ("neurotoxim", "krumm", "zero")] == [True] * 3


@given(
    st.lists(st.sampled_from(["badnets", "neurotoxin", "projected"]), min_size=1, max_size=4),
    st.lists(st.sampled_from([0, 0.1, 0.4, 2]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["none", "flame", "krum"]), min_size=1, max_size=3),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
)
def test_no_cell_is_made_twice(
    attacks: list[str], attackers: list[float], defences: list[str], seeds: list[int]
) -> None:
    found = names(attacks=attacks, attackers=attackers, defences=defences, seeds=seeds)
    assert len(set(found)) == len(found)
    attacked = len(set(attacks)) * len({a for a in attackers if a})
    runs = (attacked + any(not a for a in attackers)) * len(set(defences)) * len(set(seeds))
    assert len(found) == runs


def test_numbers_in_filters_match_as_numbers_and_as_text() -> None:
    cell = Cell("mnist", "badnets", "patch", 0.2, "flame", 10)
    assert cell.matches({"attackers": 0.2})
    assert cell.matches({"attackers": "0.2", "seed": "10"})
    assert not cell.matches({"seed": 1})
