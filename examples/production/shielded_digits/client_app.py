"""The node: trains on its own samples. Nothing here knows of the shield."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_shield.attacks.attack import Attack
from fl_shield.triggers.patch import Patch
from shielded_digits.task import Net, node_samples, train

BACKDOOR = Attack(trigger=Patch(size=3), target_class=0, poison_share=0.8)
"""What a node plants whose configuration says `malicious=true`, to try the shield out."""

app = ClientApp()


@app.train()
def train_round(message: Message, context: Context) -> Message:
    """Train the global model on this node's samples and send the weights back."""
    node, config = context.node_config, context.run_config
    images, labels = node_samples(int(node["partition-id"]), int(node["num-partitions"]))
    if node.get("malicious", False):
        images, labels = BACKDOOR.poison(images, labels)
    torch.manual_seed(int(node["partition-id"]))  # the same run, every time
    model = Net()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    epochs, learning_rate = int(config["local-epochs"]), float(config["learning-rate"])
    loss = train(model, (images, labels), epochs, learning_rate)
    metrics = MetricRecord({"train-loss": loss, "num-examples": len(labels)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
