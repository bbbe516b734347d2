"""The server: FedAvg behind MetaShield, both set up by the run's configuration."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import save_file

from fl_shield.strategies import MetaShield, options_from_run_config
from shielded_digits.task import Net, accuracy, server_samples, train

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds and save the final model."""
    config = context.run_config
    probes, test = server_samples()
    torch.manual_seed(0)
    model = Net()
    # Past its first random steps a model's activations mean something, and a backdoor shows.
    train(model, probes, epochs=20, learning_rate=float(config["learning-rate"]))

    num_nodes = int(config["num-nodes"])
    strategy = MetaShield(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=num_nodes, min_available_nodes=num_nodes),
        model,
        probes,
        **options_from_run_config(config),
    )

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": accuracy(model, test)})

    result = strategy.start(
        grid,
        ArrayRecord(model.state_dict()),
        num_rounds=int(config["num-server-rounds"]),
        timeout=float(config["round-timeout"]),
        evaluate_fn=evaluate,
    )
    if file := str(config["model-file"]):
        save_file(result.arrays.to_torch_state_dict(), file)
