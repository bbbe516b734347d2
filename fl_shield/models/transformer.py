"""Transformer text classifiers of the Hugging Face `transformers` library."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ModelError, expected
from fl_shield.models.check import check_text

MIN_VOCABULARY_SHARE = 0.9
"""Models pad their vocabulary to round numbers; a gap beyond that is another tokenizer."""


class Transformer(nn.Module):
    """A sequence classifier, small and new by default, or a pretrained one.

    Args:
        spec: The task.
        pretrained: Hub name or folder of a pretrained model; None builds a new BERT.
        hidden: Hidden size of a new model.
        layers: Layers of a new model.
        heads: Attention heads of a new model.
        dropout: Dropout of a new model.

    Raises:
        ModelError: if the pretrained model cannot be had, was trained with another vocabulary than
            the tokenizer's, or reads fewer tokens than the texts have.
    """

    def __init__(
        self,
        spec: TaskSpec,
        pretrained: str | None = None,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        length = check_text("transformer", spec)
        self.pad_id = spec.pad_id
        if pretrained:
            self.net: Any = _load(pretrained, spec)
            return
        if hidden % heads:
            raise ModelError(
                expected("model.hidden", f"a multiple of model.heads ({heads})", hidden)
            )
        config = BertConfig(
            vocab_size=spec.vocab_size,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=2 * hidden,
            max_position_embeddings=length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            num_labels=spec.num_classes,  # type: ignore[call-arg]  # read from **kwargs
            pad_token_id=spec.pad_id,
        )
        self.net = BertForSequenceClassification(config)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of `(batch, length)` token ids."""
        mask = (token_ids != self.pad_id).long()
        return cast("Tensor", self.net(input_ids=token_ids, attention_mask=mask).logits)


def _load(pretrained: str, spec: TaskSpec) -> nn.Module:
    from transformers import AutoModelForSequenceClassification

    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            pretrained,
            num_labels=spec.num_classes,
            ignore_mismatched_sizes=True,  # a head of other classes is replaced by a new one
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"No model could be loaded from {pretrained!r} ({str(error).splitlines()[0]}). Give a "
            "hub name (with a network) or a folder with config.json and model.safetensors."
        ) from error
    known = model.config.vocab_size
    if not MIN_VOCABULARY_SHARE * known <= spec.vocab_size <= known:
        raise ModelError(
            f"The model {pretrained!r} knows {known} tokens, the tokenizer has "
            f"{spec.vocab_size}. Set data.tokenizer={pretrained} to use the model's own."
        )
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and longest < spec.input_shape[0]:
        raise ModelError(
            f"The model {pretrained!r} reads {longest} tokens, the texts have "
            f"{spec.input_shape[0]}. Lower data.max_length."
        )
    return cast("nn.Module", model.float())  # weights may be stored in half precision
