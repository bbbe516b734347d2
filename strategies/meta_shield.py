"""MetaShield: a shield in front of any Flower strategy, attached in one of two ways.

`MetaShield(strategy, model, probes)` composes: it is itself a strategy, and is what to use around
Flower's differential-privacy wrappers. `shield(strategy, model, probes)` changes the class of the
strategy it is given, which keeps the user's own `start()`, `isinstance` and attributes.

The shield must stand outermost: a differential-privacy wrapper around it would see raw replies
first and stop the run on a bad one. Flower itself refuses that order when an accountant is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    Result,
    Strategy,
)
from torch import nn

from fl_shield.audit import AuditLog
from fl_shield.detector import Detector, as_detector
from fl_shield.errors import ConfigurationError, expected
from fl_shield.inspection import Inspector
from fl_shield.judge.evidence import DECAY, EvidenceBook
from fl_shield.judge.judge import Judge
from fl_shield.judge.policy import Policy
from fl_shield.judge.verdict import Verdict
from fl_shield.probes.probe_set import Inputs, ProbeSet, as_probe_set
from fl_shield.strategies.shield_core import (
    MIN_COHORT,
    CohortInspector,
    ShieldCore,
    ShieldSettings,
    log,
    parameter_names,
    with_metrics,
)

S = TypeVar("S", bound=Strategy)

Probes = ProbeSet | Inputs | tuple[Inputs, torch.Tensor]
"""Accepted forms of a probe set."""

_CLIPPING = (
    DifferentialPrivacyServerSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
)


class Shielded(Strategy):
    """What both ways of attaching share: the core, its state, and a result that is never empty."""

    _shield_core: ShieldCore

    @property
    def last_verdicts(self) -> list[Verdict]:
        """Verdicts of the last training round, rejected replies included."""
        return self._shield_core.last_verdicts

    @property
    def last_missing(self) -> list[int]:
        """Node ids that were asked in the last training round and never answered."""
        return self._shield_core.last_missing

    @property
    def last_seconds(self) -> float:
        """Seconds that the shield took in the last training round."""
        return self._shield_core.last_seconds

    def state_dict(self) -> dict[str, Any]:
        """Return what the shield remembers of earlier rounds, as JSON-ready values."""
        return self._shield_core.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved `state_dict`.

        Raises:
            StateError: if `state` is damaged or of another version.
        """
        self._shield_core.load_state_dict(state)

    def start(self, *args: Any, **kwargs: Any) -> Result:
        """Run the strategy; see `flwr.serverapp.strategy.Strategy.start`.

        When no round had a result, Flower returns no arrays at all, which no model can load; the
        model that was last sent out is returned instead.
        """
        result = super().start(*args, **kwargs)
        last = self._shield_core.last_arrays
        if isinstance(result, Result) and not result.arrays and last is not None:
            log.warning("No round ended with an aggregate; the result is the initial model.")
            result.arrays = last
        return result


class MetaShield(Shielded):
    """Shields an inner strategy: judges every client update before it is aggregated.

    Args:
        strategy: The inner strategy, for example `FedAvg()`; differential-privacy wrappers go
            inside. A strategy with its own `start()` is better served by `shield`.
        model: The federated model (its weights do not matter, its architecture does).
        probes: 16 to 128 clean samples that the server holds: a `ProbeSet`, a tensor, a mapping of
            tensors, or a pair `(inputs, labels)`.
        detector: Scores descriptors: an object, or the folder that `fl-shield meta-train` wrote;
            None takes the one that ships with fl_shield.
        inspector: Describes updates; None builds `fl_shield.inspection.Inspector`.
        policy: `"drop"`, `"downweight"` or `"monitor"`.
        threshold: Score (log-odds) from which a client is flagged; None takes the detector's own
            `threshold`, or that of `Policy` when it has none.
        evidence_threshold: Accumulated evidence from which a client is excluded.
        readmission_threshold: Evidence below which an excluded client is readmitted.
        evidence_decay: Share of the evidence that is kept from round to round.
        evidence_offset: Score that counts as no evidence; benign scores should lie below it.
        max_drop_share: Largest share of a round's updates that may be dropped or down-weighted.
        trusted_nodes: Node ids whose updates are kept whatever their scores.
        banned_nodes: Node ids whose updates are dropped whatever their scores.
        clip_survivors: Clip updates that pass to the cohort's median norm.
        min_clients: Fewest admitted replies with which anybody is suspected, at least 3.
        audit_log: JSON-lines file that gets one line a verdict.
        capture: Folder that gets every round's cohort, for replay.
        final_layer: Name of the model's final layer, when it cannot be found by itself.
        device: Where probes run; None keeps the model's device.
        seed: Seed of the noise probes.

    Raises:
        ConfigurationError: naming what is wrong with an argument.
        ModelError: if the model does not take the probes, or its final layer cannot be found.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        detector: Detector | str | Path | None = None,
        inspector: CohortInspector | None = None,
        policy: str = "drop",
        threshold: float | None = None,
        evidence_threshold: float = Policy.evidence_threshold,
        readmission_threshold: float = Policy.readmission_threshold,
        evidence_decay: float = DECAY,
        evidence_offset: float = 0.0,
        max_drop_share: float = 0.45,
        trusted_nodes: Iterable[int] = (),
        banned_nodes: Iterable[int] = (),
        clip_survivors: bool = False,
        min_clients: int = MIN_COHORT,
        audit_log: str | Path | None = None,
        capture: str | Path | None = None,
        final_layer: str | None = None,
        device: str | torch.device | None = None,
        seed: int = 0,
    ) -> None:
        layers = _layers(strategy)
        if not isinstance(model, nn.Module):
            raise ConfigurationError(
                expected("model", "a torch.nn.Module", type(model).__name__, "Pass the model.")
            )
        if isinstance(min_clients, bool) or min_clients < MIN_COHORT:
            raise ConfigurationError(
                expected("min_clients", f"an integer of at least {MIN_COHORT}", min_clients)
            )
        probe_set = as_probe_set(probes)
        judges = as_detector(detector)
        judge = Judge(
            Policy(
                policy,
                _threshold(threshold, judges),
                evidence_threshold,
                readmission_threshold,
                max_drop_share,
                frozenset(trusted_nodes),
                frozenset(banned_nodes),
            ),
            EvidenceBook(decay=evidence_decay, offset=evidence_offset),
        )
        if inspector is None:
            inspector = Inspector(
                model, probe_set, final_layer=final_layer, seed=seed, device=device
            )
        settings = ShieldSettings(
            claim_key=next(
                (
                    str(layer.weighted_by_key)
                    for layer in layers
                    if hasattr(layer, "weighted_by_key")
                ),
                "num-examples",
            ),
            parameters=frozenset(parameter_names(model)),
            clip_survivors=clip_survivors,
            reject_unchanged=any(isinstance(layer, _CLIPPING) for layer in layers),
            min_clients=min_clients,
            capture_folder=None if capture is None else Path(capture),
        )
        audit = None if audit_log is None else AuditLog(audit_log)
        self._shield_core = ShieldCore(inspector, judges, judge, settings, audit)
        self.strategy = strategy

    def start(self, *args: Any, **kwargs: Any) -> Result:
        """Run the shielded strategy; see `flwr.serverapp.strategy.Strategy.start`."""
        if type(self.strategy).start is not Strategy.start:
            log.warning(
                "%s has its own start(), which MetaShield does not call; use "
                "fl_shield.strategies.shield(strategy, model, probes) to keep it.",
                type(self.strategy).__name__,
            )
        return super().start(*args, **kwargs)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy configure the round, and remember the global model."""
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._shield_core.begin_round(server_round, arrays, messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies and let the inner strategy aggregate those that pass."""
        kept, metrics = self._shield_core.filter_train(server_round, replies)
        if not kept:
            return None, None
        arrays, inner_metrics = self.strategy.aggregate_train(server_round, kept)
        return arrays, with_metrics(inner_metrics, metrics)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy configure the evaluation, and remember who was asked."""
        messages = list(self.strategy.configure_evaluate(server_round, arrays, config, grid))
        self._shield_core.begin_evaluate(messages)
        return messages

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Let the inner strategy aggregate the evaluation replies that are well-formed."""
        received = list(replies)
        kept = self._shield_core.filter_evaluate(received)
        if received and not kept:
            return None
        return self.strategy.aggregate_evaluate(server_round, kept)

    def summary(self) -> None:
        """Log the shield's settings, then the inner strategy's."""
        _log_summary(self._shield_core)
        self.strategy.summary()


class ShieldedInPlace(Shielded):
    """First base of the classes that `shield` makes; `super()` is the user's own class."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure the round as before, and remember the global model."""
        messages = list(super().configure_train(server_round, arrays, config, grid))  # type: ignore[safe-super]
        self._shield_core.begin_round(server_round, arrays, messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies and aggregate those that pass, as before."""
        kept, metrics = self._shield_core.filter_train(server_round, replies)
        if not kept:
            return None, None
        arrays, inner_metrics = super().aggregate_train(server_round, kept)  # type: ignore[safe-super]
        return arrays, with_metrics(inner_metrics, metrics)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure the evaluation as before, and remember who was asked."""
        messages = list(super().configure_evaluate(server_round, arrays, config, grid))  # type: ignore[safe-super]
        self._shield_core.begin_evaluate(messages)
        return messages

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate the evaluation replies that are well-formed, as before."""
        received = list(replies)
        kept = self._shield_core.filter_evaluate(received)
        if received and not kept:
            return None
        return super().aggregate_evaluate(server_round, kept)  # type: ignore[safe-super]

    def summary(self) -> None:
        """Log the shield's settings, then the strategy's."""
        _log_summary(self._shield_core)
        super().summary()  # type: ignore[safe-super]


def shield(strategy: S, model: nn.Module, probes: Probes, **options: Any) -> S:
    """Shield a strategy in place and return it; it stays an instance of its class.

    Args:
        strategy: The strategy; its own `start()` and attributes keep working.
        model: The federated model.
        probes: Clean samples that the server holds.
        options: The keyword arguments of `MetaShield`.

    Raises:
        ConfigurationError: naming what is wrong with an argument.
        ModelError: if the model does not take the probes, or its final layer cannot be found.
    """
    core = MetaShield(strategy, model, probes, **options)._shield_core
    kind = type(strategy)
    try:
        strategy.__class__ = type(f"Shielded{kind.__name__}", (ShieldedInPlace, kind), {})
        strategy._shield_core = core  # type: ignore[attr-defined]
    except TypeError as error:
        raise ConfigurationError(
            f"{kind.__name__} cannot be shielded in place ({error}). "
            "Use MetaShield(strategy, model, probes) instead."
        ) from error
    return strategy


def _layers(strategy: object) -> list[Strategy]:
    """Return a strategy and the ones it wraps, outermost first.

    Raises:
        ConfigurationError: if it is no Message-API strategy, or one of them is shielded already.
    """
    layers: list[Strategy] = []
    layer: object = strategy
    while isinstance(layer, Strategy) and layer not in layers:
        if isinstance(layer, Shielded):
            raise ConfigurationError(
                f"{type(strategy).__name__} is shielded already. Shield a strategy once, "
                "outermost: MetaShield(DifferentialPrivacy…(FedAvg()), model, probes)."
            )
        layers.append(layer)
        layer = getattr(layer, "strategy", None)
    if not layers:
        raise ConfigurationError(
            expected(
                "strategy",
                "a flwr.serverapp.strategy.Strategy",
                type(strategy).__name__,
                "Strategies of the older flwr.server.strategy cannot be shielded.",
            )
        )
    return layers


def _threshold(threshold: float | None, detector: Detector) -> float:
    if threshold is not None:
        return threshold
    return float(getattr(detector, "threshold", Policy.threshold))


def _log_summary(core: ShieldCore) -> None:
    policy, settings = core.judge.policy, core.settings
    log.info("\t├──> MetaShield settings:")
    log.info("\t│\t├── Detector: %s", core.detector.name)
    log.info("\t│\t├── Policy: %s from score %.3g", policy.action, policy.threshold)
    log.info(
        "\t│\t├── Evidence: excluded from %.3g, readmitted below %.3g",
        policy.evidence_threshold,
        policy.readmission_threshold,
    )
    log.info("\t│\t├── At most %.0f %% of a round", 100 * policy.max_drop_share)
    log.info("\t│\t├── Survivors clipped: %s", "yes" if settings.clip_survivors else "no")
    log.info("\t│\t└── Audit log: %s", "none" if core.audit is None else core.audit.path)
