"""Two clients, one of them malicious, through a whole federation: judged among server shadows."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from fl_shield.attacks.attack import Attack
from fl_shield.attacks.model_replacement import ModelReplacement
from fl_shield.audit import read_audit
from fl_shield.errors import ConfigurationError
from fl_shield.live.server_shadows import ShadowSettings
from fl_shield.strategies import MetaShield, options_from_run_config, shield
from fl_shield.training.local import train_locally
from fl_shield.triggers.patch import Patch
from tests._loopback_grid import LoopbackGrid
from tests.live import _digits

ROUNDS = 2


def clients(malicious: int) -> ClientApp:
    """Return clients that train on digits; those with a number below `malicious` attack."""
    app = ClientApp()
    attack = Attack(trigger=Patch(), model_poisoning=ModelReplacement(boost=3.0)).bind(
        _digits.task()
    )

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        model = _digits.model()
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        plan = attack if number < malicious else None
        train_locally(model, _digits.client(number), _digits.TRAINING, seed=number, attack=plan)
        metrics = MetricRecord({"num-examples": 100, "attacks": int(number < malicious)})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_task_id", "_node_id"):  # messages ask the process who it is
        monkeypatch.setattr(TaskIdentity, name, 1)


class Watching(FedAvg):
    """FedAvg that remembers whom it averaged."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        self.averaged: list[list[int]] = []
        self.attackers: set[int] = set()

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """Note the senders, and average."""
        known = list(replies)
        self.averaged.append([reply.metadata.src_node_id for reply in known])
        return super().aggregate_train(server_round, known)


def run(strategy: Any, count: int, malicious: int) -> tuple[Any, dict[int, int]]:
    """Run the federation; return its result and the client number of each node."""
    grid = LoopbackGrid(clients(malicious), count)
    numbers = {node: int(c.node_config["partition-id"]) for node, c in grid._contexts.items()}
    initial = ArrayRecord(_digits.model().state_dict())
    return strategy.start(grid, initial, num_rounds=ROUNDS, timeout=60), numbers


@pytest.mark.parametrize("in_place", [False, True])
def test_two_clients_are_judged_among_the_servers_shadows(in_place: bool, tmp_path: Path) -> None:
    inner, file = Watching(), tmp_path / "audit.jsonl"
    attach = shield if in_place else MetaShield
    strategy = attach(
        inner, _digits.model(), _digits.probes(64), audit_log=file,
        shadows=ShadowSettings(benign=9, poisoned=2),
    )  # fmt: skip
    result, numbers = run(strategy, 2, malicious=1)
    records = read_audit(file)
    assert len(records) == 2 * ROUNDS  # of clients alone
    assert {int(record["node_id"]) for record in records} == set(numbers)
    scores: dict[int, list[float]] = {0: [], 1: []}
    for record in records:
        assert "judged among 9 shadows of the server." in record["detail"]
        assert "of 2 poisoned shadows." in record["detail"]
        scores[numbers[int(record["node_id"])]].append(record["score"])
    for bad, good in zip(scores[0], scores[1], strict=True):
        assert bad > good
    for nodes in inner.averaged:
        assert set(nodes) <= set(numbers)
    for metrics in result.train_metrics_clientapp.values():
        assert 0.0 <= metrics["shield-power"] <= 1.0


def test_a_client_alone_can_be_dropped_and_the_model_stays() -> None:
    strategy = MetaShield(
        Watching(), _digits.model(), _digits.probes(64), threshold=-50.0,
        evidence_threshold=-49.0, readmission_threshold=-60.0,
        shadows=ShadowSettings(benign=5, poisoned=0),
    )  # fmt: skip
    result, _ = run(strategy, 1, malicious=1)
    (verdict,) = strategy.last_verdicts
    assert verdict.decision.value == "drop"
    for name, tensor in result.arrays.to_torch_state_dict().items():
        assert torch.equal(tensor, _digits.model().state_dict()[name])


def test_without_shadows_two_clients_are_kept_unjudged() -> None:
    strategy = MetaShield(Watching(), _digits.model(), _digits.probes(16))
    run(strategy, 2, malicious=1)
    assert all("kept unjudged" in verdict.detail for verdict in strategy.last_verdicts)


def test_a_full_round_is_judged_by_itself_with_a_live_threshold(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="flwr.fl_shield")
    plain = MetaShield(Watching(), _digits.model(), _digits.probes(16), policy="monitor")
    live = MetaShield(
        Watching(), _digits.model(), _digits.probes(16), policy="monitor",
        shadows=ShadowSettings(benign=5, poisoned=0, false_alarms=0.2),
    )  # fmt: skip
    for strategy in (plain, live):
        run(strategy, 4, malicious=1)
    rehearsal = live._shield_core.rehearsal
    assert rehearsal is not None
    assert rehearsal.calibration is not None
    assert rehearsal.calibration.shift is not None
    assert "Live calibration on 8 honest shadows" in caplog.text  # 2 rounds of 5, 8 are kept
    theirs = {verdict.client_id: verdict.score for verdict in plain.last_verdicts}
    for verdict in live.last_verdicts:
        before = theirs[verdict.client_id]
        assert verdict.score is not None
        assert before is not None
        assert verdict.score == pytest.approx(before - rehearsal.shift, abs=1e-4)
        assert "shadows" not in verdict.detail
    restarted = MetaShield(
        Watching(), _digits.model(), _digits.probes(16),
        shadows=ShadowSettings(benign=5, poisoned=0, false_alarms=0.2),
    )  # fmt: skip
    restarted.load_state_dict(live.state_dict())
    again = restarted._shield_core.rehearsal
    assert again is not None
    assert again.shift == rehearsal.shift
    restarted.load_state_dict(plain.state_dict())  # of a shield without shadows


def test_too_few_samples_for_the_rate_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    MetaShield(
        FedAvg(), _digits.model(), _digits.probes(4), shadows=ShadowSettings(false_alarms=0.01)
    )
    (record,) = [r for r in caplog.records if "different honest shadows" in r.getMessage()]
    assert "at most 6 different honest shadows" in record.getMessage()
    assert "needs 99" in record.getMessage()


def test_the_run_configuration_switches_shadows_on() -> None:
    options = options_from_run_config({"shield.shadows": True})
    assert options == {"shadows": True}
    strategy = MetaShield(FedAvg(), _digits.model(), _digits.probes(16), **options)
    assert strategy._shield_core.rehearsal is not None


@pytest.mark.parametrize("value", [1, "yes", None])
def test_other_values_are_named(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="`shadows` to be True, False or a ShadowSettings"):
        MetaShield(FedAvg(), _digits.model(), _digits.probes(16), shadows=value)
