"""Turning texts into token ids with Hugging Face tokenizers, trained here or loaded by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from fl_shield.data.messages import first_line
from fl_shield.errors import DataError, expected

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
"""In this order, so that padding has id 0."""

MAX_CHARACTERS = 1000
"""Characters in the vocabulary, the most frequent; texts in Chinese have more."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer trained on `texts`.

    The same texts give the same ids in every process: each process of a simulation trains its
    own, and they have to agree on what an id means.

    Args:
        texts: The training texts only; the evaluator's never shape the vocabulary.
        vocab_size: Number of tokens, special ones included.

    Raises:
        DataError: if `vocab_size` does not hold the characters of the texts.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        pieces = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        words.update(word for word, _ in pieces)
    vocabulary = _word_pieces(words, vocab_size)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a trained WordPiece tokenizer with `[CLS] … [SEP]` around every text."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _word_pieces(words: Counter[str], vocab_size: int) -> dict[str, int]:
    """Return token to id, by WordPiece training over counted words.

    The trainer numbers characters in the order of a randomly seeded hash table, and breaks ties
    between merges by these numbers. Naming all characters up front, sorted, fixes both.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    counts: Counter[str] = Counter()
    for word, count in words.items():
        counts.update({character: word.count(character) * count for character in set(word)})
    known = set(sorted(counts, key=lambda c: (-counts[c], c))[:MAX_CHARACTERS])
    kept = [word for word in sorted(words) if known.issuperset(word)]
    characters = {word[0] for word in kept} | {f"##{c}" for word in kept for c in word[1:]}
    fixed = [*SPECIAL_TOKENS, *sorted(characters)]
    if vocab_size < len(fixed):
        raise DataError(
            expected(
                "data.vocab_size",
                f"at least {len(fixed)}, the special tokens and the characters of the texts",
                vocab_size,
                "Set 6000.",
            )
        )
    throwaway = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    throwaway.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=fixed, show_progress=False
    )
    repeated = (" ".join([word] * words[word]) for word in kept)
    throwaway.train_from_iterator(repeated, trainer)
    vocabulary: dict[str, int] = throwaway.get_vocab()
    return vocabulary


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
            f"({first_line(error)}). Leave data.tokenizer empty to train one on the data."
        ) from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise DataError(
            f"The tokenizer {name!r} is not a fast one with a padding token, which batches need. "
            "Choose another data.tokenizer, or leave it empty to train one on the data."
        )
    return cast("PreTrainedTokenizerFast", tokenizer)


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_length: int) -> Tensor:
    """Return `(texts, max_length)` int64 token ids, truncated and padded."""
    batch = tokenizer(list(texts), padding="max_length", truncation=True, max_length=max_length)
    return torch.tensor(batch["input_ids"], dtype=torch.int64)
