"""A shielded strategy: Flower's strategy contract, with the shield between replies and aggregation.

What `MetaShield` and `shield` have in common. Round numbers are those of the whole run: after a
restart, Flower counts from one again, and the shield goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fl_shield.judge.verdict import Verdict
from fl_shield.strategies.aggregation import aggregate, aggregate_metrics
from fl_shield.strategies.resume import Sessions
from fl_shield.strategies.shield_core import ShieldCore, log, with_metrics
from fl_shield.strategies.visibility import check_visible, refuse_hidden_updates


class Shielded(Strategy):
    """What both ways of attaching share: the core, its state, and a result that is never empty."""

    _shield_core: ShieldCore
    _shield_sessions: Sessions

    @property
    def _shielded(self) -> Strategy:
        """The strategy behind the shield."""
        raise NotImplementedError

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

    def start(self, *args: Any, **kwargs: Any) -> Any:  # whatever the user's start() returns
        """Run the strategy; see `flwr.serverapp.strategy.Strategy.start`.

        With a state folder, the run goes on after the last round that was finished: `num_rounds`
        counts all rounds, those of earlier sessions included, and the result holds the metrics of
        this session under the numbers of their rounds. When no round had a result, Flower returns
        no arrays at all, which no model can load; the model that was last sent out is returned
        instead.

        Raises:
            StateError: if the state folder cannot be read, belongs to another model or strategy,
                or is in use.
        """
        audit = self._shield_core.audit
        result = self._shield_sessions.run(self, super().start, args, kwargs, audit)
        last = self._shield_core.last_arrays
        if isinstance(result, Result) and not result.arrays and last is not None:
            log.warning("No round ended with an aggregate; the result is the initial model.")
            result.arrays = last
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the shielded strategy configure the round, and remember the global model."""
        number = self._shield_sessions.round_number(server_round)
        messages = list(self._shielded.configure_train(number, arrays, config, grid))
        check_visible(messages)
        self._shield_core.begin_round(number, arrays, messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies and let the shielded strategy aggregate those that pass."""
        number = self._shield_sessions.round_number(server_round)
        kept, metrics = self._shield_core.filter_train(number, replies)
        sent = self._shield_core.last_arrays
        assert sent is not None
        arrays, inner_metrics = aggregate(self, self._shielded, number, kept, sent)
        self._shield_sessions.finish_round(
            self, number, sent if arrays is None else arrays, self._shield_core.audit
        )
        return arrays, with_metrics(inner_metrics, metrics) if kept else None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the shielded strategy configure the evaluation, and remember who was asked."""
        number = self._shield_sessions.round_number(server_round)
        messages = list(self._shielded.configure_evaluate(number, arrays, config, grid))
        self._shield_core.begin_evaluate(messages)
        return messages

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Let the shielded strategy aggregate the evaluation replies that are well-formed."""
        number = self._shield_sessions.round_number(server_round)
        received = list(replies)
        kept = self._shield_core.filter_evaluate(received)
        if received and not kept:
            return None
        return aggregate_metrics(self._shielded, number, kept)

    def summary(self) -> None:
        """Log the shield's settings, then the shielded strategy's."""
        _log_summary(self._shield_core)
        self._shielded.summary()

    def initialize_parameters(self, *_args: Any, **_kwargs: Any) -> None:
        """Refuse Flower's older workflows, with their secure aggregation, at their first step."""
        refuse_hidden_updates("a workflow of the older flwr.server API")


class ShieldedInPlace(Shielded):
    """First base of the classes that `shield` makes; behind it stands the user's own class."""

    @property
    def _shielded(self) -> Strategy:
        return super(Shielded, self)  # type: ignore[return-value]  # what comes after the shield


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
