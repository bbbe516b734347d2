"""Turning texts into token ids with Hugging Face tokenizers, trained here or loaded by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from fl_shield.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
"""In this order, so that padding has id 0."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer trained on `texts`.

    Args:
        texts: The training texts only; the evaluator's never shape the vocabulary.
        vocab_size: Number of tokens, special ones included.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    wrapped: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    return wrapped


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a hub name or a local folder.

    Raises:
        DataError: if it cannot be had, or cannot pad.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
    except (OSError, ValueError) as error:
        place = "folder" if Path(name).exists() else "hub name (is there a network?)"
        raise DataError(
            f"No tokenizer could be loaded from the {place} {name!r} "
            f"({str(error).splitlines()[0]}). Leave data.tokenizer empty to train one on the data."
        ) from error
    if tokenizer.pad_token_id is None:
        raise DataError(f"The tokenizer {name!r} has no padding token, which batches need.")
    return cast("PreTrainedTokenizerFast", tokenizer)


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_length: int) -> Tensor:
    """Return `(texts, max_length)` int64 token ids, truncated and padded."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=max_length)[
        "input_ids"
    ]
    return torch.tensor(encoded, dtype=torch.int64)
