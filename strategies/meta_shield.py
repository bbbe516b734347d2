"""MetaShield: a shield in front of any Flower strategy, attached in one of two ways.

`MetaShield(strategy, model, probes)` composes: it is itself a strategy, and is what to use around
Flower's differential-privacy wrappers. `shield(strategy, model, probes)` changes the class of the
strategy it is given, which keeps the user's own `start()`, `isinstance` and attributes.

The shield must stand outermost: a differential-privacy wrapper around it would see raw replies
first and stop the run on a bad one. Flower itself refuses that order when an accountant is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    Strategy,
)
from torch import nn

from fl_shield.audit import AuditLog
from fl_shield.detector import Detector, as_detector, columns_of
from fl_shield.errors import ConfigurationError, expected
from fl_shield.inspection import Inspector
from fl_shield.judge.evidence import DECAY, EvidenceBook
from fl_shield.judge.judge import Judge
from fl_shield.judge.policy import Policy
from fl_shield.live.noise import WEAKER, NoiseProbes
from fl_shield.live.rehearsal import Rehearsal
from fl_shield.live.server_shadows import ServerShadows, ShadowSettings
from fl_shield.probes.probe_set import MAX_PROBES, Inputs, ProbeSet, as_probe_set
from fl_shield.strategies.resume import Sessions
from fl_shield.strategies.safe_mode import CohortInspector
from fl_shield.strategies.shield_core import (
    MAX_CLIENT_SHARE,
    MIN_COHORT,
    ShieldCore,
    ShieldSettings,
    log,
    parameter_names,
)
from fl_shield.strategies.shielded import Shielded, ShieldedInPlace

S = TypeVar("S", bound=Strategy)

Probes = ProbeSet | Inputs | tuple[Inputs, torch.Tensor]
"""Accepted forms of a probe set."""

_CLIPPING = (
    DifferentialPrivacyServerSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
)


class MetaShield(Shielded):
    """Shields an inner strategy: judges every client update before it is aggregated.

    Args:
        strategy: The inner strategy, for example `FedAvg()`; differential-privacy wrappers go
            inside. A strategy with its own `start()` is better served by `shield`.
        model: The federated model (its weights do not matter, its architecture does).
        probes: 16 or more clean samples that the server holds: a `ProbeSet`, a tensor, a mapping
            of tensors, or a pair `(inputs, labels)`.
            Without any, `fl_shield.live.noise.NoiseProbes`, which is weaker.
        detector: Scores descriptors: an object, or the folder that `fl-shield meta-train` wrote;
            None takes the one that ships with fl_shield.
        inspector: Describes updates; None builds `fl_shield.inspection.Inspector`.
        policy: `"graded"`, `"drop"`, `"downweight"` or `"monitor"`
            (`fl_shield.judge.policy.Policy`).
        threshold: Score (log-odds) from which a client is flagged; None takes the detector's own
            `threshold`, or that of `Policy` when it has none.
        evidence_threshold: Accumulated evidence from which a client is excluded.
        readmission_threshold: Evidence below which an excluded client is readmitted.
        evidence_decay: Share of the evidence that is kept from round to round.
        evidence_offset: Score that counts as no evidence; benign scores should lie below it.
        max_drop_share: Largest share of a round's updates that may be dropped or down-weighted.
        expected_share: Share of the clients that you expect to attack; `"graded"` corrects it by
            what each round shows.
        worth_losing: Honest updates that `"graded"` gives up rather than pass on a malicious one.
        trusted_nodes: Node ids whose updates are kept whatever their scores.
        banned_nodes: Node ids whose updates are dropped whatever their scores.
        clip_survivors: Clip updates that pass to the cohort's median norm.
        max_client_share: Largest share of one client in a weighted average, whatever number of
            examples it claims; with few clients, an equal share.
        min_clients: Fewest admitted replies that are judged among themselves, at least 3.
        shadows: Whether the server simulates clients of its own on its labelled clean samples: to
            judge rounds of fewer replies among, and to say what the detector would see. True takes
            the defaults of `fl_shield.live.server_shadows.ShadowSettings`.
        audit_log: JSON-lines file that gets one line a verdict.
        capture: Folder that gets every round's cohort, for replay.
        state: Folder that gets the state after every round, from which a restarted server goes on.
        max_probes: Most probes that clients are looked at with; time grows with them.
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
        policy: str = "graded",
        threshold: float | None = None,
        evidence_threshold: float = Policy.evidence_threshold,
        readmission_threshold: float = Policy.readmission_threshold,
        evidence_decay: float = DECAY,
        evidence_offset: float = 0.0,
        max_drop_share: float = 0.45,
        expected_share: float = Policy.expected_share,
        worth_losing: float = Policy.worth_losing,
        trusted_nodes: Iterable[int] = (),
        banned_nodes: Iterable[int] = (),
        clip_survivors: bool = False,
        max_client_share: float = MAX_CLIENT_SHARE,
        min_clients: int = MIN_COHORT,
        shadows: bool | ShadowSettings = False,
        audit_log: str | Path | None = None,
        capture: str | Path | None = None,
        state: str | Path | None = None,
        max_probes: int = MAX_PROBES,
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
        is_number = isinstance(max_client_share, int | float)
        if not (is_number and 0.0 < max_client_share <= 1.0):
            raise ConfigurationError(
                expected("max_client_share", "above 0 and at most 1", max_client_share)
            )
        held = as_probe_set(probes)
        if isinstance(probes, NoiseProbes):
            log.warning("%s", WEAKER)
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
                getattr(judges, "even_score", None),
                expected_share,
                worth_losing,
            ),
            EvidenceBook(decay=evidence_decay, offset=evidence_offset),
        )
        if inspector is None:
            inspector = Inspector(
                model,
                held.limited(max_probes),
                columns=columns_of(judges),
                final_layer=final_layer,
                seed=seed,
                device=device,
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
            max_client_share=max_client_share,
            reject_unchanged=any(isinstance(layer, _CLIPPING) for layer in layers),
            min_clients=min_clients,
            capture_folder=None if capture is None else Path(capture),
        )
        rehearsal = _rehearsal(shadows, model, held, judge, seed, device)
        audit = None if audit_log is None else AuditLog(audit_log)
        self._shield_core = ShieldCore(
            inspector, judges, judge, settings, audit, rehearsal=rehearsal
        )
        self._shield_sessions = Sessions(None if state is None else Path(state))
        self.strategy = strategy

    @property
    def _shielded(self) -> Strategy:
        return self.strategy

    def start(self, *args: Any, **kwargs: Any) -> Any:
        """Run the shielded strategy; see `flwr.serverapp.strategy.Strategy.start`."""
        if type(self.strategy).start is not Strategy.start:
            log.warning(
                "%s has its own start(), which MetaShield does not call; use "
                "fl_shield.strategies.shield(strategy, model, probes) to keep it.",
                type(self.strategy).__name__,
            )
        return super().start(*args, **kwargs)


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
    made = MetaShield(strategy, model, probes, **options)
    kind = type(strategy)
    try:
        strategy.__class__ = type(f"Shielded{kind.__name__}", (ShieldedInPlace, kind), {})
        strategy._shield_core = made._shield_core  # type: ignore[attr-defined]
        strategy._shield_sessions = made._shield_sessions  # type: ignore[attr-defined]
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


def _rehearsal(
    shadows: object,
    model: nn.Module,
    probes: ProbeSet,
    judge: Judge,
    seed: int,
    device: str | torch.device | None,
) -> Rehearsal | None:
    if shadows is False:
        return None
    settings = ShadowSettings(seed=seed) if shadows is True else shadows
    if not isinstance(settings, ShadowSettings):
        raise ConfigurationError(
            expected("shadows", "True, False or a ShadowSettings", repr(shadows))
        )
    made = ServerShadows(model, probes, settings, device=device)
    return Rehearsal(made, judge.policy.threshold)


def _threshold(threshold: float | None, detector: Detector) -> float:
    if threshold is not None:
        return threshold
    return float(getattr(detector, "threshold", Policy.threshold))
