"""Recipes of shadow federations: ranges are kept, effort is drawn alike, seeds repeat."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.errors import ConfigurationError
from fl_shield.shadow.recipe import (
    EVALUATION,
    IMAGE_TRIGGERS,
    POTENT,
    TEXT_TRIGGERS,
    WORKING,
    WRAPPERS,
    RecipeRanges,
    draw_recipe,
)

ARCHITECTURES = {"cnn": ("sgd", "adam"), "mlp": ("momentum",)}
RANGES = [RecipeRanges(), POTENT, WORKING, EVALUATION]


@given(st.integers(0, 10**6), st.sampled_from(RANGES), st.sampled_from(["image", "text"]))
def test_recipes_keep_to_their_ranges(seed: int, ranges: RecipeRanges, modality: str) -> None:
    recipe = draw_recipe(seed, ARCHITECTURES, modality, ranges)
    clients, attackers = len(recipe.clients), len(recipe.attackers)
    assert clients in ranges.cohort
    assert attackers == 0 or 1 <= attackers <= max(1, ranges.attacker_share[1] * clients)
    assert recipe.optimiser in ARCHITECTURES[recipe.architecture]
    assert ranges.alpha[0] <= recipe.alpha <= ranges.alpha[1]
    assert ranges.samples[0] <= recipe.mean_samples <= ranges.samples[1]
    assert ranges.federation_rate[0] <= recipe.rate_factor <= ranges.federation_rate[1]
    assert recipe.stage in ranges.stages
    assert recipe.rounds == ranges.rounds
    assert recipe.trigger in (IMAGE_TRIGGERS if modality == "image" else TEXT_TRIGGERS)
    for client in recipe.clients:
        assert ranges.epochs[0] <= client.epochs <= ranges.epochs[1]
        assert ranges.rate[0] <= client.rate_factor <= ranges.rate[1]
        if client.wrapper is not None:
            assert client.wrapper in WRAPPERS
            assert client.oddity == "none"  # the malicious are told by their poison alone
            assert ranges.poison_share[0] <= client.poison_share <= ranges.poison_share[1]


@given(st.integers(0, 10**6))
def test_the_same_seed_gives_the_same_recipe(seed: int) -> None:
    one, two = (draw_recipe(seed, ARCHITECTURES, "image", EVALUATION) for _ in range(2))
    assert one == two
    assert draw_recipe(seed + 1, ARCHITECTURES, "image", EVALUATION) != one


def test_attackers_and_honest_clients_work_equally_hard() -> None:
    """Means of epochs, rates and batch sizes agree within four standard errors."""
    effort: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for seed in range(400):
        for client in draw_recipe(seed, ARCHITECTURES, "image", RecipeRanges()).clients:
            effort[client.wrapper is not None].append(
                (client.epochs, np.log(client.rate_factor), np.log(client.batch_size))
            )
    bad, good = (np.array(effort[kind]) for kind in (True, False))
    # Clients of a federation may share their effort: errors are those of the federations.
    error = np.sqrt(2 * good.var(axis=0) / 400)
    assert (np.abs(bad.mean(axis=0) - good.mean(axis=0)) < 4 * error).all()


def test_every_kind_of_attack_occurs() -> None:
    recipes = [draw_recipe(seed, ARCHITECTURES, "image", EVALUATION) for seed in range(300)]
    wrappers = Counter(c.wrapper for r in recipes for c in r.clients if c.wrapper)
    assert set(wrappers) == set(WRAPPERS)
    assert {r.trigger for r in recipes} == set(IMAGE_TRIGGERS)
    assert {r.aggregate for r in recipes} == {"all", "honest"}
    clean = sum(not r.attackers for r in recipes) / len(recipes)
    assert abs(clean - EVALUATION.clean_share) < 0.1


def test_trigger_families_can_be_left_to() -> None:
    ranges = RecipeRanges(triggers=("patch",))
    assert {draw_recipe(s, ARCHITECTURES, "image", ranges).trigger for s in range(20)} == {"patch"}


def test_oddities_can_be_chosen() -> None:
    ranges = RecipeRanges(oddity=0.5, oddities=("single_class", "label_noise"))
    recipes = [draw_recipe(seed, ARCHITECTURES, "image", ranges) for seed in range(20)]
    drawn = {client.oddity for recipe in recipes for client in recipe.clients}
    assert drawn == {"none", "single_class", "label_noise"}


def test_bad_ranges_are_named_all_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RecipeRanges(
            cohort=(2,), alpha=(0.0, 1.0), attacker_share=(0.1, 0.6), rounds=0, oddities=("lazy",)
        )
    for name in ("cohort", "alpha", "attacker_share", "rounds", "oddities"):
        assert f"shadow.{name}" in str(caught.value)
