"""The victims of the comparison: models with a backdoor, trained by an attacker with half the data.

As in MBDS, section V-A: the attacker holds 50 % of the data and the defender 4 %, which are not the
same samples. Everything follows from data set, attack and number; weights are kept on disk. A model
that obeys its trigger in less than `LEAST_SUCCESS` of cases is no victim: another setting is drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from fl_shield.atomic import draft_of
from fl_shield.data.task import Split, Task, TaskSpec, model_inputs
from fl_shield.metrics.backdoor import accuracy
from fl_shield.models.cifar_cnn import CifarCnn
from fl_shield.models.mnist_cnn import MnistCnn
from fl_shield.models.text_cnn import TextCnn
from fl_shield.scanning.contamination import Contamination, contaminate, draw_jumbo, draw_setting
from fl_shield.scanning.shadow_tasks import lively
from fl_shield.simulations.shadow import load_domain
from fl_shield.training.local import LocalTraining, train_locally
from fl_shield.triggers.blend import Blend
from fl_shield.triggers.patch import Patch
from fl_shield.triggers.protocol import Trigger
from fl_shield.triggers.sentence import Sentence
from fl_shield.triggers.words import Words

ATTACKER_SHARE, DEFENDER_SHARE = 0.5, 0.04
SPLIT_SEED = 4

ATTACKS: dict[str, tuple[str, ...]] = {
    "mnist": ("jumbo", "badnets", "blended"),
    "cifar10": ("jumbo", "badnets", "blended"),
    "sst2": ("jumbo", "word", "sentence"),
    "ag_news": ("jumbo", "word", "sentence"),
}
"""Data sets, and the attacks on them."""

LEAST_SUCCESS = 0.95
"""Attack success rate from which on a model counts as backdoored (Table II: 99 % and more)."""

WORDS = ("cf", "mn", "bb", "tq")
"""Rare words of Kurita et al.; those that a tokenizer does not know are left out."""


@dataclass(frozen=True)
class Recipe:
    """How the models of a data set are built and trained.

    Attributes:
        model: Builds one.
        training: As an attacker trains it.
        paper: Builds one of the paper's size.
    """

    model: Callable[[TaskSpec], nn.Module]
    training: LocalTraining
    paper: Callable[[TaskSpec], nn.Module]


def _adam(epochs: int, rate: float) -> LocalTraining:
    return LocalTraining(optimiser="adam", learning_rate=rate, epochs=epochs, batch_size=64)


def _images(build: Callable[[TaskSpec], nn.Module]) -> Callable[[TaskSpec], nn.Module]:
    """Return a builder of lively models, with the layout that convolutions on a CPU like."""
    return lambda spec: lively(build(spec)).to(memory_format=torch.channels_last)


RECIPES: dict[str, Recipe] = {
    "mnist": Recipe(_images(MnistCnn), _adam(15, 2e-3), _images(MnistCnn)),
    "cifar10": Recipe(
        _images(lambda spec: CifarCnn(spec, 16, 64, 0.0)), _adam(8, 1e-3), _images(CifarCnn)
    ),
    "sst2": Recipe(lambda spec: TextCnn(spec, 64, 64), _adam(8, 3e-3), TextCnn),
    "ag_news": Recipe(lambda spec: TextCnn(spec, 64, 64), _adam(8, 3e-3), TextCnn),
}
"""The CNNs of MBDS, section V-A, that for CIFAR-10 at a quarter of its width and without dropout;
TextCNN for texts."""


@dataclass(frozen=True)
class Victim:
    """A backdoored model with what is known of it.

    Attributes:
        model: The model, in eval mode.
        setting: The attack.
        benign_accuracy: Share of clean test samples that it classifies correctly.
        attack_success: Share of triggered test samples, not of the target class, that obey.
        redrawn: Settings drawn before this one, which did not take.
    """

    model: nn.Module
    setting: Contamination
    benign_accuracy: float
    attack_success: float
    redrawn: int


@cache
def task_of(name: str, data: str) -> Task:
    """Return a task of the folder `data`."""
    return load_domain(name, data).task


def parts_of(task: Task) -> tuple[Split, Split]:
    """Return the attacker's and the defender's samples, which have none in common.

    Shares are of the whole data set, test samples included, as these figures are in the paper.
    """
    whole = len(task.train) + len(task.test)
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(SPLIT_SEED))
    attacker, defender = round(ATTACKER_SHARE * whole), round(DEFENDER_SHARE * whole)
    return (
        task.train.take(order[:attacker]),
        task.train.take(order[attacker : attacker + defender]),
    )


def trigger_of(task: Task, attack: str, generator: torch.Generator) -> Trigger:
    """Return the trigger of an attack that is not Jumbo, its free choices drawn at random."""

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    if attack == "badnets":  # a bright square or checkerboard in a corner (Gu et al.)
        corners = ("top-left", "top-right", "bottom-left", "bottom-right")
        pattern = ("solid", "checkerboard")[draw(2)]
        return Patch(size=3 + draw(2), corner=corners[draw(4)], margin=1, pattern=pattern)  # type: ignore[arg-type]
    if attack == "blended":
        return Blend(alpha=0.2, seed=draw(2**31))
    if attack == "word":
        known = [w for w in WORDS if _knows(task, w)]
        return Words(words=[known[draw(len(known))]], position=1 + draw(6))
    return Sentence(position=1 + draw(3))


def _knows(task: Task, word: str) -> bool:
    tokenizer = task.tokenizer
    ids = tokenizer(word, add_special_tokens=False)["input_ids"] if tokenizer else []
    return bool(ids) and tokenizer is not None and tokenizer.unk_token_id not in ids


def setting_of(task: Task, attack: str, number: int, draw: int = 0) -> Contamination:
    """Return an attack setting of a victim; later draws are for when earlier ones do not take."""
    seed = 7919 * number + 104_729 * draw + sum(map(ord, task.name + attack))
    generator = torch.Generator().manual_seed(seed)
    if attack == "jumbo":
        return draw_jumbo(task, generator)
    return draw_setting(task, trigger_of(task, attack, generator).bind(task), generator)


def victim(task: Task, attack: str, number: int, store: Path, *, paper: bool = False) -> Victim:
    """Return a victim, from the store if it was trained before."""
    recipe = RECIPES[task.name]
    build = recipe.paper if paper else recipe.model
    file = store / "victims" / f"{task.name}-{attack}-{number:03d}.safetensors"
    if file.is_file():
        model = build(task.spec)
        model.load_state_dict(load_file(file))
        with safe_open(file, framework="pt") as archive:
            facts = json.loads((archive.metadata() or {})["facts"])
        return _victim(model, task, attack, number, facts)
    attacker, _ = parts_of(task)
    for draw in count():
        setting = setting_of(task, attack, number, draw)
        torch.manual_seed(number)
        model = build(task.spec)
        poisoned = contaminate(attacker, setting, torch.Generator().manual_seed(number))
        train_locally(model, poisoned.split, recipe.training, seed=number)
        model.eval()
        succeeds = success(model, task, setting)
        if succeeds >= LEAST_SUCCESS:
            break
    facts = {
        "benign_accuracy": accuracy(model, task.test), "attack_success": succeeds,
        "redrawn": draw, "setting": repr(setting),
    }  # fmt: skip
    _save(file, model, facts)
    return _victim(model, task, attack, number, facts)


def _victim(
    model: nn.Module, task: Task, attack: str, number: int, facts: dict[str, Any]
) -> Victim:
    return Victim(
        model.eval(), setting_of(task, attack, number, facts["redrawn"]),
        facts["benign_accuracy"], facts["attack_success"], facts["redrawn"],
    )  # fmt: skip


def success(model: nn.Module, task: Task, setting: Contamination) -> float:
    """Return the attack success rate on the test samples."""
    victims = task.test.take((task.test.labels != setting.target_class).nonzero().flatten())
    triggered = setting.trigger.apply(model_inputs(victims.inputs))
    wanted = torch.full_like(victims.labels, setting.target_class)
    return accuracy(model, Split(triggered, wanted)) or 0.0


def _save(file: Path, model: nn.Module, facts: dict[str, Any]) -> None:
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with draft_of(file) as draft:
        save_file(state, draft, metadata={"facts": json.dumps(facts)})
