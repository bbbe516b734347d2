"""A federation, built from settings: task, clients' shares, server's probes, attackers.

Server and clients build it from the same settings in their own processes and so agree on it
without talking; it is cached per process.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from fl_shield.activations.layout import fastest_layout
from fl_shield.attacks.attack import Attack
from fl_shield.data.partition import Parts
from fl_shield.data.sampling import stratified_indices
from fl_shield.data.task import Split, Task, model_inputs
from fl_shield.errors import (
    ConfigurationError,
    FlShieldError,
    expected,
    raise_all,
    unknown,
)
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.simulations.settings import Settings
from fl_shield.strategies.checkpoint import read_checkpoint
from fl_shield.training.local import LocalTraining, train_locally

Seeds = tuple[int, ...]
"""Run seed, then whatever tells one use of chance from another."""


@dataclass(frozen=True)
class Federation:
    """Everything of a run that is decided before round 1.

    Attributes:
        settings: The checked settings.
        task: The data set; its training split still holds the probes.
        parts: For each client, indices into the training split.
        probe_indices: Indices of the server's probes, which no client has.
        attackers: Malicious client to its number among the attackers.
        attack: The attack, bound to the task.
        training: How clients train.
    """

    settings: Settings
    task: Task
    parts: Parts
    probe_indices: torch.Tensor
    attackers: Mapping[int, int]
    attack: Attack
    training: LocalTraining
    _fitted: dict[tuple[int, str], Attack] = field(default_factory=dict, repr=False, compare=False)

    def client_data(self, client: int) -> Split:
        """Return the samples of a client."""
        return self.task.train.take(torch.from_numpy(self.parts[client]))

    def attack_of(
        self, client: int, round_number: int, *, attacked: bool, model: nn.Module | None = None
    ) -> Attack | None:
        """Return the attack that a client makes in a round, None when it trains honestly.

        Args:
            client: The client.
            round_number: The round, from 1.
            attacked: Whether the arm is attacked.
            model: The global model as it was sent out; None leaves a trigger that is optimised
                against it as it begins.
        """
        if not attacked or client not in self.attackers or not self.attack.active(round_number):
            return None
        attack = self.attack if model is None else self.attack_against(model, round_number)
        return attack.for_attacker(self.attackers[client])

    def attack_against(self, model: nn.Module, round_number: int) -> Attack:
        """Return the attack with its trigger optimised against a global model, if it is so made.

        Attackers put their samples together and come to one trigger, each for itself; so does the
        evaluator, who judges success by it, in every round and in arms without attack as well: an
        optimised trigger alone, with nothing planted, already turns some of the answers.

        Args:
            model: The global model as it was sent out; it is left as it is.
            round_number: The round it was sent out in.
        """
        if not self.attack.is_fitted_to_models:
            return self.attack
        key = (round_number, _digest(model))
        fitted = self._fitted.get(key)
        if fitted is None:
            owned = [index for client in self.attackers for index in self.parts[client].tolist()]
            pooled = self.task.train.take(torch.tensor(sorted(owned), dtype=torch.int64))
            generator = torch.Generator().manual_seed(
                derived_seed(self.settings.seed, 8, round_number)
            )
            fitted = self.attack.fit(model, model_inputs(pooled.inputs), pooled.labels, generator)
            self._fitted.clear()  # all who ask in a round ask for the same
            self._fitted[key] = fitted
        return fitted

    def probe_set(self) -> ProbeSet:
        """Return the server's probes in the form the model takes."""
        split = self.task.train.take(self.probe_indices)
        return ProbeSet(model_inputs(split.inputs), split.labels, self.task.spec.num_classes)

    def new_model(self) -> nn.Module:
        """Return a model with the initial weights of this run's seed."""
        model = self._built_model()
        if self._layout is torch.channels_last:  # clients train a quarter faster
            for parameter in model.parameters():
                if parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return model

    def _built_model(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(derived_seed(self.settings.seed, 1))
            model: nn.Module = build(self.settings.config["model"], "model")(self.task.spec)
        return model

    @cached_property
    def _layout(self) -> torch.memory_format:
        """The layout of weights that the model computes fastest in, and can be given in."""
        samples = model_inputs(self.task.train.inputs[:2])
        return fastest_layout(self._built_model().eval(), samples)

    def initial_model(self) -> nn.Module:
        """Return the model that every arm starts from: warmed up on the server's probes.

        A server that holds clean samples need not send out random weights; a few passes over them
        take the model past the rounds in which nothing, good or bad, has a meaning yet. Where the
        settings name the checkpoint of another run, its model is taken as it is.

        Raises:
            ConfigurationError: if that checkpoint is missing or of another model.
        """
        model = self.new_model()
        checkpoint = self.settings.config["warm_start"].get("checkpoint")
        if checkpoint is not None:
            return _trained(model, Path(str(checkpoint)).expanduser())
        epochs = self.settings.config["warm_start"]["epochs"]
        if epochs:
            probes = self.task.train.take(self.probe_indices)
            settings = replace(self.training, epochs=epochs)
            train_locally(model, probes, settings, seed=derived_seed(self.settings.seed, 2))
        return model.eval()


def _trained(model: nn.Module, folder: Path) -> nn.Module:
    """Return a model with the weights of the last good checkpoint in a folder."""
    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        raise ConfigurationError(
            expected(
                "warm_start.checkpoint",
                "a folder with a good checkpoint",
                str(folder),
                "A run keeps its own in arms/ARM/checkpoint.",
            )
        )
    try:
        model.load_state_dict(checkpoint.arrays.to_torch_state_dict())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigurationError(
            f"The checkpoint in {folder} is that of another model: {reason}"
        ) from error
    return model.eval()


def build(config: Any, what: str, *args: Any, **kwargs: Any) -> Any:
    """Return what a Hydra node describes.

    Raises:
        FlShieldError: as the component raised it, or naming the node whose settings do not fit.
    """
    try:
        built = instantiate(
            OmegaConf.create(copy.deepcopy(config)), *args, _convert_="object", **kwargs
        )
    except Exception as error:
        # Hydra wraps what a component raised, some libraries wrap it again.
        cause: BaseException = error
        while not isinstance(cause, FlShieldError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, FlShieldError):
            raise cause from None
        raise ConfigurationError(f"The settings of `{what}` do not fit: {cause}") from error
    if isinstance(built, partial):
        _check_keywords(built, what)
    return built


def _check_keywords(component: partial[Any], what: str) -> None:
    """Say at once what a later call with further arguments would stumble over."""
    parameters = inspect.signature(component.func).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    raise_all(
        [
            unknown(f"setting of {what}", k, parameters)
            for k in component.keywords
            if k not in parameters
        ]
    )


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def derived_seed(*parts: int) -> int:
    """Return a 63-bit seed that depends on every part, and on their order."""
    # SeedSequence takes (1, 0) for (1,): the length tells them apart.
    sequence = np.random.SeedSequence((len(parts), *parts))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def build_federation(settings: Settings) -> Federation:
    """Return the federation of `settings`, from this process's cache if it was built before.

    Raises:
        ConfigurationError: if data, model, attack or partition do not fit together.
    """
    return _build_cached(settings.key, _Carrier(settings))


@dataclass(frozen=True)
class _Carrier:
    """Settings on their way through the cache: equal whatever they are, as the key tells them."""

    settings: Settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Carrier)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=2)
def _build_cached(_key: str, carrier: _Carrier) -> Federation:
    settings = carrier.settings
    config = settings.config
    attack: Attack = build(config["attack"], "attack")
    training: LocalTraining = build(config["training"], "training")
    task: Task = build(config["data"], "data")
    attack = attack.bind(task)
    probe_indices = _draw_probes(task, settings)
    parts = _deal(task, settings, probe_indices)
    return Federation(
        settings=settings,
        task=task,
        parts=parts,
        probe_indices=probe_indices,
        attackers=_draw_attackers(settings),
        attack=attack,
        training=training,
    )


def _draw_probes(task: Task, settings: Settings) -> torch.Tensor:
    room = len(task.train) - settings.num_clients
    if settings.num_probes > room:
        raise ConfigurationError(
            expected(
                "probes.num_samples",
                f"at most {max(room, 0)}, which leaves each client a sample",
                settings.num_probes,
                f"The training split of {task.name} holds {len(task.train)} samples.",
            )
        )
    seed = derived_seed(settings.seed, 3)
    return stratified_indices(task.train.labels, settings.num_probes, seed)


def _deal(task: Task, settings: Settings, probe_indices: torch.Tensor) -> Parts:
    mask = torch.ones(len(task.train), dtype=torch.bool)
    mask[probe_indices] = False
    rest = mask.nonzero().flatten().numpy()
    partition = build(settings.config["partition"], "partition")
    try:
        parts: Parts = partition(
            labels=task.train.labels.numpy()[rest],
            num_clients=settings.num_clients,
            seed=derived_seed(settings.seed, 4) % 2**32,
        )
    except TypeError as error:  # a word where a number belongs
        raise ConfigurationError(f"The settings of `partition` do not fit: {error}") from error
    return [rest[part] for part in parts]


def _draw_attackers(settings: Settings) -> dict[int, int]:
    rng = np.random.default_rng(derived_seed(settings.seed, 5))
    chosen = rng.choice(settings.num_clients, size=settings.num_attackers, replace=False)
    return {int(client): number for number, client in enumerate(sorted(chosen))}
