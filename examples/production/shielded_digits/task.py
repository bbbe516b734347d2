"""The task: a small network, the digits inside scikit-learn, and who holds which of them."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

SERVER_SAMPLES = 360
"""Images that no node has: the server's probes, and what it tests the global model on."""

NUM_PROBES = 64

Samples = tuple[Tensor, Tensor]
"""Images `(samples, 1, 8, 8)` in [0, 1], and their classes."""


class Net(nn.Module):
    """Two convolutions and one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return one logit a class."""
        logits: Tensor = self.head(self.features(images))
        return logits


def server_samples() -> tuple[Samples, Samples]:
    """Return the server's probes, and the images that it tests on."""
    images, labels = _shuffled()
    probes = images[:NUM_PROBES], labels[:NUM_PROBES]
    return probes, (images[NUM_PROBES:SERVER_SAMPLES], labels[NUM_PROBES:SERVER_SAMPLES])


def node_samples(partition: int, num_partitions: int) -> Samples:
    """Return a node's samples; a real node reads its own from where they lie."""
    images, labels = _shuffled()
    images, labels = images[SERVER_SAMPLES:], labels[SERVER_SAMPLES:]
    return images[partition::num_partitions], labels[partition::num_partitions]


def train(model: nn.Module, samples: Samples, epochs: int, learning_rate: float) -> float:
    """Train in place and return the mean loss of the last epoch."""
    images, labels = samples
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    model.train()
    total = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch in torch.split(torch.randperm(len(labels)), 16):
            optimiser.zero_grad()
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
    return total / len(labels)


@torch.no_grad()
def accuracy(model: nn.Module, samples: Samples) -> float:
    """Return the share of samples that the model gets right."""
    images, labels = samples
    model.eval()
    return float((model(images).argmax(dim=1) == labels).float().mean())


def _shuffled() -> Samples:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0
    return images[order], torch.from_numpy(digits.target).long()[order]
