"""Pretrained Transformers, from folders written here; every misfit is named."""

from pathlib import Path

import pytest
import torch

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ModelError
from fl_shield.models.transformer import Transformer

transformers = pytest.importorskip("transformers")

SPEC = TaskSpec("text", (12,), 3, vocab_size=100, pad_id=0)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = transformers.DistilBertConfig(
        vocab_size=100, dim=16, hidden_dim=32, n_layers=1, n_heads=2, max_position_embeddings=16
    )
    transformers.DistilBertForSequenceClassification(config).half().save_pretrained(tmp_path)
    return tmp_path


def test_saved_model_is_loaded_with_a_head_for_the_task(saved: Path) -> None:
    model = Transformer(SPEC, pretrained=str(saved)).eval()
    again = transformers.DistilBertModel.from_pretrained(saved).float()
    body = model.net.distilbert.embeddings.word_embeddings.weight
    assert torch.equal(body, again.embeddings.word_embeddings.weight)
    assert model(torch.randint(1, 100, (2, 12))).shape == (2, 3)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_padding_is_masked() -> None:
    model = Transformer(SPEC).eval()
    ids = torch.randint(1, 100, (2, 12))
    ids[:, 6:] = 0
    before = model(ids)
    with torch.no_grad():
        model.net.bert.embeddings.word_embeddings.weight[0] += 3.0
    assert torch.allclose(before, model(ids), atol=1e-5)
    ids[:, 6:] = 7
    assert not torch.allclose(before, model(ids), atol=1e-5)


def test_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No model could be loaded from .*nowhere"):
        Transformer(SPEC, pretrained=str(tmp_path / "nowhere"))


def test_pickled_weights_are_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    torch.save({}, saved / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        Transformer(SPEC, pretrained=str(saved))


@pytest.mark.parametrize("vocab_size", [101, 80])
def test_vocabulary_of_another_tokenizer_is_named(saved: Path, vocab_size: int) -> None:
    spec = TaskSpec("text", (12,), 3, vocab_size=vocab_size)
    with pytest.raises(ModelError, match=rf"knows 100 tokens.*{vocab_size}.*data\.tokenizer="):
        Transformer(spec, pretrained=str(saved))


def test_texts_too_long_for_the_model_are_named(saved: Path) -> None:
    spec = TaskSpec("text", (17,), 3, vocab_size=100)
    with pytest.raises(ModelError, match=r"reads 16 tokens.*17.*Lower data\.max_length"):
        Transformer(spec, pretrained=str(saved))


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(ModelError, match=r"model\.hidden.*multiple of model\.heads \(4\), got 30"):
        Transformer(SPEC, hidden=30, heads=4)
