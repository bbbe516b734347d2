"""The Flower ClientApp: one client for benign and malicious alike.

Whether a client attacks is a property of the run's configuration: it asks the federation for its
attack of the round, gets one or none, and runs the same local training either way.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_shield.errors import ConfigurationError, expected
from fl_shield.metrics.backdoor import accuracy
from fl_shield.simulations.arms import ARMS
from fl_shield.simulations.composing import compose_config
from fl_shield.simulations.federation import Federation, build_federation, derived_seed
from fl_shield.simulations.settings import Settings, settings_from
from fl_shield.training.local import train_locally

NUM_EXAMPLES = "num-examples"


def settings_of(context: Context) -> Settings:
    """Return the settings that `flwr run` gave: Hydra overrides in the run configuration.

    Raises:
        ConfigurationError: if they do not make a run.
    """
    return _settings_from_overrides(str(context.run_config.get("overrides", "")))


@lru_cache(maxsize=2)  # Hydra takes a good part of a second, and every message asks
def _settings_from_overrides(overrides: str) -> Settings:
    try:
        words = shlex.split(overrides)
    except ValueError as error:
        raise ConfigurationError(
            expected("overrides", "words as in a shell, quotes closed", overrides)
        ) from error
    return settings_from(compose_config(words))


def make_client_app(settings: Settings | None = None) -> ClientApp:
    """Return the ClientApp of a run.

    Args:
        settings: The run's settings; None reads them from Flower's run configuration.
    """
    client_app = ClientApp()
    federation_of = _federation_source(settings)

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        """Train on the client's samples and send the weights back."""
        torch.set_num_threads(1)
        federation = federation_of(context)
        client = int(context.node_config["partition-id"])
        config = message.content.config_records["config"]
        round_number = int(str(config["server-round"]))
        arm = ARMS[str(config["arm"])]
        device = _device(federation)
        model = federation.new_model()
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        model.to(device)
        training = federation.training
        if "proximal-mu" in config:  # as Flower's FedProx sends it
            training = replace(training, proximal_mu=float(str(config["proximal-mu"])))
        split = federation.client_data(client)
        attack = federation.attack_of(client, round_number, attacked=arm.attacked, model=model)
        accomplices = [] if attack is None else [c for c in federation.attackers if c != client]
        loss = train_locally(
            model,
            split,
            training,
            seed=derived_seed(federation.settings.seed, 6, round_number, client),
            attack=attack,
            colluders=[federation.client_data(c) for c in accomplices],
        )
        reply = RecordDict(
            {
                "arrays": ArrayRecord(model.cpu().state_dict()),
                "metrics": MetricRecord({"train-loss": loss, NUM_EXAMPLES: len(split)}),
            }
        )
        return Message(reply, reply_to=message)

    @client_app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Report the accuracy of the global model on the client's own samples."""
        torch.set_num_threads(1)
        federation = federation_of(context)
        split = federation.client_data(int(context.node_config["partition-id"]))
        model = federation.new_model()
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        value = accuracy(model, split, device=_device(federation)) or 0.0
        metrics = MetricRecord({"eval-accuracy": value, NUM_EXAMPLES: len(split)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    @client_app.query()
    def query(message: Message, context: Context) -> Message:
        """Tell which client this node simulates: ground truth, never seen by a defence."""
        answer = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
        return Message(RecordDict({"metrics": answer}), reply_to=message)

    return client_app


def _federation_source(settings: Settings | None) -> Callable[[Context], Federation]:
    def source(context: Context) -> Federation:
        return build_federation(settings_of(context) if settings is None else settings)

    return source


def _device(federation: Federation) -> torch.device:
    wanted = federation.settings.config["device"]
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


app = make_client_app()
