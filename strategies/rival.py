"""The common part of published defences as Flower strategies.

    replies → cohort → weights and scale of every update → FedAvg → noise or the like

A rival wraps a strategy that averages by `num-examples` (FedAvg and those built on it). It hands
on each update that its rule keeps, scaled by the rule's factor and with the rule's weight in the
place of the number of examples. Rules look at, clip and perturb *parameters*; BatchNorm statistics
are averaged with the same weights and otherwise left alone.

Malformed replies are turned away before the rule sees them, as `MetaShield` does it, so that a
comparison is about the rules. State of earlier rounds lives in memory only.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray
from torch import nn

from fl_shield.audit import AuditLog
from fl_shield.baselines.observed import Floats, Observed
from fl_shield.baselines.protocol import finite
from fl_shield.cohort import State
from fl_shield.errors import ConfigurationError, StateError, expected
from fl_shield.judge.rescale import ByPart, rescale
from fl_shield.judge.verdict import Decision, Verdict
from fl_shield.probes.probe_set import as_probe_set
from fl_shield.strategies.admission import Admitted, admit_evaluation, admit_training
from fl_shield.strategies.messages import Roster, reference_state
from fl_shield.strategies.meta_shield import Probes
from fl_shield.strategies.shield_core import log, parameter_names, with_metrics
from fl_shield.training.local import LocalTraining

Aggregate = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Plan:
    """What a rule makes of a cohort.

    Attributes:
        weights: `(clients,)`, 0 or more: relative weights in the average; 0 leaves a client out.
        factors: `(clients,)`: what each update is multiplied with (clipping, normalising).
        scores: `(clients,)`: how suspicious each client is, for the audit log; higher is more.
        noise: Standard deviation of Gaussian noise on the averaged parameters.
    """

    weights: Floats
    factors: Floats
    scores: Floats
    noise: float = field(default=0.0)


class Rival(Strategy):
    """A published defence in front of a FedAvg-like strategy.

    Args:
        strategy: What averages, for example `FedAvg()`.
        model: The federated model; its weights do not matter.
        probes: Clean samples that the server holds; rules that need none ignore them.
        audit_log: JSON-lines file that gets one line a verdict.
        final_layer: Name of the model's final layer, when it cannot be found by itself.
        seed: Seed of noise.

    Raises:
        ConfigurationError: if an argument is of the wrong kind.
    """

    training: LocalTraining | None = None
    """How the server trains on its probes; None for the defaults."""

    def __init__(
        self,
        strategy: Strategy,
        model: nn.Module,
        probes: Probes,
        *,
        audit_log: str | Path | None = None,
        final_layer: str | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(strategy, Strategy) or not hasattr(strategy, "weighted_by_key"):
            raise ConfigurationError(
                expected(
                    "strategy",
                    "a strategy that averages by number of examples",
                    type(strategy).__name__,
                    f"Use FedAvg: {type(self).__name__}(FedAvg(), model, probes).",
                )
            )
        if not isinstance(model, nn.Module):
            raise ConfigurationError(expected("model", "a torch.nn.Module", type(model).__name__))
        self.strategy, self.model, self.probes = strategy, model, as_probe_set(probes)
        self.claim_key = str(strategy.weighted_by_key)
        self.final_layer, self.seed = final_layer, seed
        self.audit = None if audit_log is None else AuditLog(audit_log)
        self.last_verdicts: list[Verdict] = []
        self.last_missing: list[int] = []
        self.last_seconds = 0.0
        self._parameters = frozenset(parameter_names(model))
        self._reference: State | None = None
        self._sent: ArrayRecord | None = None
        self._train_roster, self._evaluate_roster = Roster(), Roster()

    @abstractmethod
    def decide(self, observed: Observed) -> Plan:
        """Return what the rule makes of a cohort of at least one client."""

    def refine(self, observed: Observed, plan: Plan, aggregate: Aggregate) -> Aggregate:
        """Return the final global model; rules that touch the average itself override this."""
        if plan.noise <= 0.0:
            return aggregate
        rng = np.random.default_rng((self.seed, observed.cohort.round_number))
        return {
            name: _with_noise(array, plan.noise, rng) if name in self._parameters else array
            for name, array in aggregate.items()
        }

    def start(self, *args: object, **kwargs: object) -> Result:
        """Run the strategy; a run without any aggregate returns the model last sent out."""
        result = super().start(*args, **kwargs)  # type: ignore[arg-type]
        if isinstance(result, Result) and not result.arrays and self._sent is not None:
            result.arrays = self._sent
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy configure the round, and remember the global model."""
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._reference, self._sent = reference_state(arrays), arrays
        self._train_roster = Roster(tuple(messages))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the rule; nothing is returned where it leaves nobody.

        Raises:
            StateError: if no round was configured, so that the global model is unknown.
        """
        if self._reference is None:
            raise StateError(
                "aggregate_train was called before configure_train, so the global model of this "
                "round is unknown. Call the strategy's configure_train first."
            )
        started = time.perf_counter()
        received = list(replies)
        self.last_missing = self._train_roster.missing(received)
        admitted = admit_training(
            server_round, received, self._train_roster, self._reference, self.claim_key
        )
        self.last_verdicts = [
            Verdict(server_round, r.client_id, Decision.REJECT, None, None, 0.0, (), str(r))
            for r in admitted.rejected
        ]
        if not len(admitted.cohort):
            self._end(started)
            return None, None
        observed = Observed(
            admitted.cohort,
            self.model,
            self.probes,
            seed=self.seed,
            training=self.training,
            final_layer=self.final_layer,
        )
        plan = self.decide(observed)
        self.last_verdicts += _verdicts(admitted, plan)
        messages = self._forward(admitted, plan)
        if not messages:
            self._end(started)
            return None, None
        arrays, metrics = self.strategy.aggregate_train(server_round, messages)
        if arrays is not None:
            averaged = {name: array.numpy() for name, array in arrays.items()}
            refined = self.refine(observed, plan, averaged)
            if refined is not averaged:
                arrays = ArrayRecord({name: Array(a) for name, a in refined.items()})
        self._end(started)
        dropped = sum(v.decision is Decision.DROP for v in self.last_verdicts)
        counts = {
            "shield-seconds": self.last_seconds,
            "shield-dropped": float(dropped),
            "shield-rejected": float(len(admitted.rejected)),
        }
        return arrays, with_metrics(metrics, counts)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy configure the evaluation, and remember who was asked."""
        messages = list(self.strategy.configure_evaluate(server_round, arrays, config, grid))
        self._evaluate_roster = Roster(tuple(messages))
        return messages

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Let the inner strategy aggregate the evaluation replies that are well-formed."""
        received = list(replies)
        kept, _ = admit_evaluation(received, self._evaluate_roster, self.claim_key)
        if received and not kept:
            return None
        return self.strategy.aggregate_evaluate(server_round, kept)

    def summary(self) -> None:
        """Log the defence's name, then the inner strategy's settings."""
        log.info("\t├──> Defence: %s", type(self).__name__)
        self.strategy.summary()

    def _forward(self, admitted: Admitted, plan: Plan) -> list[Message]:
        reference = admitted.cohort.reference
        top = float(plan.weights.max())
        # Forwarding only ever lowers a claim, so the largest weight gets the smallest claim.
        smallest = min(client.num_examples for client in admitted.cohort.clients)
        messages = []
        for reply, client, weight, factor in zip(
            admitted.replies, admitted.cohort.clients, plan.weights, plan.factors, strict=True
        ):
            if weight <= 0.0:
                continue
            arrays: State | None = None
            if factor != 1.0:
                by_part = ByPart(float(factor), 1.0)
                arrays = rescale(client.load(), reference, by_part, self._parameters)
            claim = smallest * float(weight) / top
            messages.append(reply.forward(self.claim_key, claim, arrays, reference))
        return messages

    def _end(self, started: float) -> None:
        if self.audit is not None:
            try:
                self.audit.append(self.last_verdicts)
            except OSError:  # a full disk must not end a run of days; it is said in the log
                log.exception("\t> The audit log %s could not be written.", self.audit.path)
        self.last_seconds = time.perf_counter() - started


def equal_weights(kept: NDArray[np.bool_]) -> Floats:
    """Return weight 1 for the clients that are kept, 0 for the others."""
    return kept.astype(np.float64)


def clip_factors(norms: Floats, limit: float) -> Floats:
    """Return min(1, limit / norm) `(clients,)`; 1 for updates of norm zero."""
    return np.minimum(1.0, np.divide(limit, norms, out=np.ones_like(norms), where=norms > 0))


def _with_noise(
    array: NDArray[np.generic], deviation: float, rng: np.random.Generator
) -> NDArray[np.generic]:
    noise = deviation * rng.standard_normal(array.shape)
    return np.asarray(array.astype(np.float64) + noise, dtype=array.dtype)


def _verdicts(admitted: Admitted, plan: Plan) -> list[Verdict]:
    """Return a verdict for each client: dropped where its weight is 0, else kept.

    The weight of a verdict is relative to the largest of the round.
    """
    top = max(float(plan.weights.max()), 1e-300)
    return [
        Verdict(
            admitted.cohort.round_number,
            client.client_id,
            Decision.KEEP if weight > 0 else Decision.DROP,
            float(score),
            None,
            float(min(max(weight, 0.0) / top, 1.0)),
        )
        for client, weight, score in zip(
            admitted.cohort.clients, plan.weights, finite(plan.scores), strict=True
        )
    ]
