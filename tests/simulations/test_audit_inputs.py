"""Models and probes from files: exported models read like the original, others are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fl_shield.cohort import ClientUpdate, Cohort, State
from fl_shield.errors import ConfigurationError, DataError, ModelError
from fl_shield.inspection import Inspector
from fl_shield.probes.probe_set import Inputs, ProbeSet
from fl_shield.simulations.audit_inputs import import_model, read_model, read_probes


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.body(inputs)))
        return logits


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = self.embedding(input_ids) * attention_mask[..., None]
        logits: Tensor = self.head(embedded.mean(dim=1))
        return logits


IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TEXTS = {
    "input_ids": torch.randint(0, 50, (8, 12), generator=torch.Generator().manual_seed(0)),
    "attention_mask": torch.ones(8, 12, dtype=torch.int64),
}


def export(model: nn.Module, inputs: Inputs, file: Path) -> Path:
    batch = torch.export.Dim("batch")
    if isinstance(inputs, Tensor):
        program = torch.export.export(model, (inputs,), dynamic_shapes=({0: batch},))
    else:
        shapes = {name: {0: batch} for name in inputs}
        program = torch.export.export(model, (), dict(inputs), dynamic_shapes=shapes)
    torch.export.save(program, file)
    return file


def cohort_of(model: nn.Module) -> Cohort:
    reference = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}

    def client(number: int) -> ClientUpdate:
        rng = np.random.default_rng(number)
        state: State = {
            name: (array + 0.05 * rng.standard_normal(array.shape)).astype(array.dtype)
            for name, array in reference.items()
        }
        return ClientUpdate(number, 1.0, lambda: state)

    return Cohort(1, reference, tuple(client(number) for number in range(5)))


@pytest.mark.parametrize(("kind", "inputs"), [(Images, IMAGES), (Text, TEXTS)])
def test_an_exported_model_gives_the_descriptors_of_the_original(
    kind: type[nn.Module], inputs: Inputs, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, probes = kind().eval(), ProbeSet(inputs)
    exported = read_model(export(model, inputs, tmp_path / "model.pt2"), probes)
    wanted = Inspector(model, probes).describe(cohort_of(model))
    found = Inspector(exported, probes).describe(cohort_of(model))
    assert found.names == wanted.names
    np.testing.assert_allclose(found.raw, wanted.raw, rtol=1e-4, atol=1e-5)
    assert ("token_peak" in found.names) == (kind is Text)


def test_a_model_exported_in_training_mode(tmp_path: Path) -> None:
    file = export(Images().train(), IMAGES, tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=r"training mode.*model.eval\(\)"):
        read_model(file, ProbeSet(IMAGES))


def test_a_model_that_takes_one_size_of_batch(tmp_path: Path) -> None:
    class Rigid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.head(inputs.reshape(8, 64))
            return logits

    torch.export.save(torch.export.export(Rigid().eval(), (IMAGES,)), tmp_path / "model.pt2")
    with pytest.raises(ModelError, match="dynamic batch size"):
        read_model(tmp_path / "model.pt2", ProbeSet(IMAGES))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_files_that_are_no_exported_models(tmp_path: Path) -> None:
    model, probes = Images().eval(), ProbeSet(IMAGES)
    torch.jit.trace(model, IMAGES).save(tmp_path / "traced.pt")  # type: ignore[no-untyped-call]
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    whole = export(model, IMAGES, tmp_path / "whole.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.pt2").write_bytes(b"noise" * 50)
    for name, says in {
        "traced.pt": "is TorchScript",
        "weights.pt": "a pickle of torch.save, which is never read",
        "cut.pt2": "no file of torch.export",
        "noise.pt2": "no file of torch.export",
        "nowhere.pt2": "an existing file",
    }.items():
        with pytest.raises(ModelError, match=says):
            read_model(tmp_path / name, probes)


def test_probes_of_every_form(tmp_path: Path) -> None:
    file = tmp_path / "probes.safetensors"
    save_file({"inputs": IMAGES, "labels": torch.arange(8) % 3}, file)
    found = read_probes(file)
    assert isinstance(found.inputs, Tensor)
    assert torch.equal(found.inputs, IMAGES)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    save_file(TEXTS, file)
    assert set(read_probes(file).tensors()) == set(TEXTS)
    assert read_probes(file).labels is None


@pytest.mark.parametrize(
    ("tensors", "error", "says"),
    [
        ({"labels": torch.zeros(8)}, DataError, "holds nothing"),
        ({"inputs": IMAGES, "input_ids": IMAGES.clone()}, DataError, "holds input_ids, inputs"),
        ({"inputs": IMAGES[:2]}, ConfigurationError, "at least 4 samples"),
        ({"inputs": IMAGES, "labels": torch.zeros(8)}, ConfigurationError, "labels"),
    ],
)
def test_probes_that_are_none(
    tensors: dict[str, Tensor], error: type[Exception], says: str, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "probes.safetensors")
    with pytest.raises(error, match=says):
        read_probes(tmp_path / "probes.safetensors")


def test_a_model_may_be_an_object_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ready_model.py").write_text("from torch import nn\nnet = nn.Linear(3, 2)\n")
    (tmp_path / "raising_model.py").write_text("raise OSError('disk gone')\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(import_model("ready_model:net"), nn.Linear)
    with pytest.raises(ConfigurationError, match="disk gone"):
        import_model("raising_model:net")
