"""The final layer is found in every usual architecture, or the error says how to name it."""

import pytest
import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import PenultimateReader, call_model, find_final_layer
from fl_shield.errors import ModelError


class Tied(nn.Module):
    """A head that shares its weights with the embedding, so no layer returns the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6)
        self.body = nn.Linear(6, 6)

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.body(self.embedding(ids).mean(dim=1))
        return hidden @ self.embedding.weight.T


class Recurrent(nn.Module):
    """An LSTM classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        output, _ = self.lstm(self.embedding(ids))
        logits: Tensor = self.head(output.mean(dim=1))
        return logits


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)
    )


def test_finds_the_linear_head_of_a_cnn() -> None:
    assert find_final_layer(cnn().eval(), torch.rand(2, 1, 8, 8)) == "4"


def test_finds_the_head_of_a_recurrent_net() -> None:
    assert find_final_layer(Recurrent().eval(), torch.randint(0, 20, (2, 7))) == "head"


def test_finds_the_head_of_a_torchvision_resnet() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(num_classes=4).eval()
    assert find_final_layer(model, torch.rand(2, 3, 32, 32)) == "fc"


def test_finds_the_head_of_a_transformers_classifier() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    inputs = {"input_ids": torch.randint(0, 30, (2, 9))}
    assert find_final_layer(model, inputs) == "classifier"


def test_says_how_to_name_a_layer_that_cannot_be_found() -> None:
    with pytest.raises(ModelError, match=r"final_layer='…'.*body"):
        find_final_layer(Tied().eval(), torch.randint(0, 5, (2, 3)))
    assert find_final_layer(Tied().eval(), torch.randint(0, 5, (2, 3)), "body") == "body"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(ModelError, match="Did you mean 'head'"):
        find_final_layer(Recurrent().eval(), torch.randint(0, 20, (2, 7)), "hed")


def test_probes_of_the_wrong_shape_are_named() -> None:
    with pytest.raises(ModelError, match=r"inputs \(2, 1, 5, 5\) float32"):
        call_model(cnn().eval(), torch.rand(2, 1, 5, 5))


def test_models_without_class_logits_are_refused() -> None:
    with pytest.raises(ModelError, match=r"got \(2, 1\)"):
        call_model(nn.Linear(3, 1), torch.rand(2, 3))


def test_reads_the_input_of_the_final_layer_under_given_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    reader = PenultimateReader(model, "2")
    weights = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    inputs = torch.randn(5, 3)
    logits, hidden = reader.read(weights, inputs)
    expected_hidden = (inputs @ weights["0.weight"].T + weights["0.bias"]).relu()
    torch.testing.assert_close(hidden, expected_hidden)
    torch.testing.assert_close(logits, expected_hidden @ weights["2.weight"].T + weights["2.bias"])
