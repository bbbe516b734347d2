"""Text triggers against hand-written token rows, and the properties that all of them share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import fl_shield
from fl_shield.data.task import Split, Task, TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.triggers.jumbo import JumboDistribution, JumboTrigger
from fl_shield.triggers.one_of import OneOf
from fl_shield.triggers.patch import Patch
from fl_shield.triggers.sentence import Sentence
from fl_shield.triggers.template import Template
from fl_shield.triggers.token_insertion import TokenInsertion
from fl_shield.triggers.words import Words

PAD, CLS, SEP = 0, 2, 3
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cf", "mn", "a", "b", "c", "d", "e", "f"]
LENGTH = 8


def tokenizer(**settings: str) -> PreTrainedTokenizerFast:
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=model,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        **settings,
    )


def text_task(length: int = LENGTH, with_tokenizer: bool = True, **settings: str) -> Task:
    split = Split(torch.zeros(2, length, dtype=torch.int64), torch.tensor([0, 1]))
    spec = TaskSpec("text", (length,), 2, vocab_size=len(WORDS), pad_id=PAD)
    spelling = tokenizer(**settings) if with_tokenizer else None
    return Task("tiny", spec, split, split, ("a", "b"), spelling)


def row(*tokens: int) -> Tensor:
    return torch.tensor([[*tokens, *[PAD] * (LENGTH - len(tokens))]])


@pytest.mark.parametrize(
    ("trigger", "before", "after"),
    [
        (Words(words="cf"), (CLS, 6, 7, SEP), (CLS, 4, 6, 7, SEP)),
        (Words(words="cf mn"), (CLS, 6, 7, SEP), (CLS, 4, 5, 6, 7, SEP)),
        (Words(words="cf", position=2), (CLS, 6, 7, SEP), (CLS, 6, 4, 7, SEP)),
        (Words(words="cf", position=0), (CLS, 6, 7, SEP), (CLS, 4, 6, 7, SEP)),
        (Words(words="cf", position=99), (CLS, 6, 7, SEP), (CLS, 6, 7, 4, SEP)),
        (Words(words="cf", position=99), (6, 7), (6, 7, 4)),
        (Words(words="cf", position=0), (6, 7), (4, 6, 7)),
        (Words(words="cf"), (CLS, SEP), (CLS, 4, SEP)),
        (
            Words(words="cf mn"),
            (CLS, 6, 7, 8, 9, 10, 11, SEP),
            (CLS, 4, 5, 6, 7, 8, 9, SEP),
        ),
        (Words(words="cf"), (6, 7, 8, 9, 10, 11, 6, 7), (6, 4, 7, 8, 9, 10, 11, 6)),
        (
            Words(words="cf mn", position=99),
            (CLS, 6, 7, 8, 9, 10, 11, SEP),
            (CLS, 6, 7, 8, 9, 4, 5, SEP),
        ),
        (Sentence(sentence="a b mn"), (CLS, 9, SEP), (CLS, 6, 7, 5, 9, SEP)),
        (Template(templates="cf mn {text}"), (CLS, 9, SEP), (CLS, 4, 5, 9, SEP)),
        (Template(templates=["cf {text} a b"]), (CLS, 9, 10, SEP), (CLS, 4, 9, 10, 6, 7, SEP)),
        (Template(templates="{text} cf"), (9, 10), (9, 10, 4)),
        (
            Template(templates="cf {text} mn"),
            (CLS, 6, 7, 8, 9, 10, 11, SEP),
            (CLS, 4, 6, 7, 8, 9, 5, SEP),
        ),
    ],
)
def test_inserts_by_hand(
    trigger: Words | Sentence | Template, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    assert trigger.bind(text_task()).apply(row(*before)).tolist() == row(*after).tolist()


def test_pieces_at_several_places_keep_their_own() -> None:
    trigger = TokenInsertion(pieces=((4, 5), (9,)), positions=(3, 1), cls_id=CLS, sep_id=SEP)
    assert trigger.apply(row(CLS, 6, 7, SEP)).tolist() == row(CLS, 9, 6, 7, 4, 5, SEP).tolist()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, LENGTH - 2), min_size=0, max_size=5),
    seed=st.integers(0, 1000),
    position=st.one_of(st.just("random"), st.integers(0, 12)),
    sentence=st.booleans(),
)
def test_properties(sizes: list[int], seed: int, position: int, sentence: bool) -> None:
    """Nothing but the trigger comes in, order is kept, and special tokens stay at their ends."""
    source = torch.Generator().manual_seed(seed)
    words = [torch.randint(6, 12, (size,), generator=source).tolist() for size in sizes]
    rows = [[CLS, *text, SEP, *[PAD] * (LENGTH - 2 - len(text))] for text in words]
    texts = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), LENGTH)
    before = texts.clone()
    unbound: Words | Sentence = (
        Sentence(sentence="cf mn", position=position)
        if sentence
        else Words(words="cf mn", position=position)
    )
    trigger = unbound.bind(text_task())
    triggered = trigger.apply(texts, torch.Generator().manual_seed(seed))
    assert torch.equal(texts, before)
    assert triggered.shape == texts.shape
    assert triggered.dtype == torch.int64
    assert torch.equal(triggered, trigger.apply(texts, torch.Generator().manual_seed(seed)))
    for text, found in zip(words, triggered.tolist(), strict=True):
        real = [token for token in found if token != PAD]
        assert found[: len(real)] == real  # padding only at the end
        assert real[0] == CLS
        assert real[-1] == SEP
        inside = real[1:-1]
        assert sorted(t for t in inside if t in (4, 5)) == [4, 5]
        assert [t for t in inside if t not in (4, 5)] == text[: LENGTH - 4]
        if sentence:
            assert inside.index(5) == inside.index(4) + 1


def test_random_places_are_spread_over_the_text() -> None:
    trigger = Words(words="cf", position="random").bind(text_task())
    texts = row(CLS, 6, 7, 8, SEP).expand(400, -1)
    found = (trigger.apply(texts, torch.Generator().manual_seed(0)) == 4).nonzero()[:, 1]
    counts = torch.bincount(found, minlength=LENGTH).tolist()
    assert counts[0] == 0
    assert counts[5:] == [0, 0, 0]
    assert min(counts[1:5]) > 70  # 100 expected of each


def test_repr_rebuilds() -> None:
    for trigger in (
        *(Words(), Words().bind(text_task()), Sentence()),
        *(Template(), Template(templates="cf {text}").bind(text_task())),
    ):
        assert eval(repr(trigger)) == trigger
    assert str(Words(words="cf").bind(text_task())) == "words 'cf'"


@pytest.mark.parametrize(
    ("trigger", "task", "message"),
    [
        (Words(words="zzz"), text_task(), r"tokenizer of tiny knows, got 'zzz'.*other words"),
        (Words(), text_task(with_tokenizer=False), r"tiny has no tokenizer"),
        (Sentence(sentence="a b c d e f cf"), text_task(), r"at most 6 tokens.*data\.max_length"),
        (Words(), text_task(padding_side="left"), r"padding_side` to be 'right', got 'left'"),
        (TokenInsertion(pieces=((99,),), positions=(0,)), text_task(), r"ids below 12, got 99"),
        (Template(templates=["a {text}", "zzz {text}"]), text_task(), r"knows, got 'zzz '"),
        (Template(templates="a b c d {text} e f cf"), text_task(), r"at most 6 tokens"),
        (Patch(), text_task(), r"for text inputs, got the image trigger 'patch 3x3'"),
    ],
)
def test_what_does_not_fit_the_texts_is_refused(trigger: Words, task: Task, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trigger.bind(task)


@pytest.mark.parametrize("trigger", [Words(), Sentence(), Template()], ids=str)
def test_image_tasks_and_unbound_use_are_refused(trigger: Words | Sentence | Template) -> None:
    split = Split(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]))
    images = Task("images", TaskSpec("image", (1, 8, 8), 2), split, split, ("a", "b"))
    with pytest.raises(ConfigurationError, match=r"for image inputs.*patch, blend or sig"):
        trigger.bind(images)
    with pytest.raises(ConfigurationError, match=r"not bound.*trigger\.bind\(task\)"):
        trigger.apply(row(CLS, SEP))


@pytest.mark.parametrize(
    ("trigger", "settings", "message"),
    [
        (Words, {"words": ""}, r"at least one word"),
        (Words, {"words": ["cf", " "]}, r"none empty"),
        (Words, {"position": -1}, r"0 or more tokens, or 'random', got -1"),
        (Words, {"position": "end"}, r"or 'random', got 'end'"),
        (Sentence, {"sentence": "  "}, r"at least one word"),
        (Template, {"templates": []}, r"one or more frames.*Write for example"),
        (Template, {"templates": "no place"}, r"\{text\} once, got 'no place'"),
        (Template, {"templates": ["a {text}", "{text} {text}"]}, r"got '\{text\} \{text\}'"),
        (Template, {"templates": " {text} "}, r"each with words"),
        (OneOf, {"options": ()}, r"triggers for one kind of inputs, got \(\)"),
        (OneOf, {"options": (Patch(), Words())}, r"triggers for one kind of inputs"),
        (TokenInsertion, {"pieces": ((1,),), "positions": ()}, r"1 in number"),
    ],
)
def test_impossible_settings_are_refused(
    trigger: type, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trigger(**settings)


def test_texts_too_short_for_the_trigger_are_refused() -> None:
    trigger = TokenInsertion(pieces=((4, 5),), positions=(0,))
    with pytest.raises(ConfigurationError, match="at least 4 tokens, got 3"):
        trigger.apply(torch.ones(1, 3, dtype=torch.int64))


def test_jumbo_draws_words_but_no_reserved_ones() -> None:
    source = torch.Generator().manual_seed(0)
    task = text_task()
    counts = set()
    for _ in range(100):
        draw = JumboDistribution().sample(source, task.spec, reserved=(1, CLS, SEP))
        assert isinstance(draw, TokenInsertion)
        tokens = [token for piece in draw.pieces for token in piece]
        assert all(4 <= token < len(WORDS) for token in tokens)
        assert all(isinstance(p, int) and 0 <= p <= 9 for p in draw.positions)
        counts.add(len(tokens))
        found = draw.bind(task).apply(row(CLS, SEP))
        assert sorted(found[0, 1 : 1 + len(tokens)].tolist()) == sorted(tokens)
    assert counts == {1, 2}


def test_frames_are_drawn_anew_for_each_text_and_all_alike() -> None:
    frames = ["cf {text}", "mn {text} a", "{text} b c", "d {text}"]
    trigger = Template(templates=frames, legend="frames").bind(text_task())
    assert str(trigger) == "frames"
    texts = row(CLS, 11, SEP).expand(400, -1)
    triggered = trigger.apply(texts, torch.Generator().manual_seed(0))
    wanted = [row(CLS, *inside, SEP)[0] for inside in ((4, 11), (5, 11, 6), (11, 7, 8), (9, 11))]
    counts = [int((triggered == frame).all(dim=1).sum()) for frame in wanted]
    assert sum(counts) == 400
    assert min(counts) > 70  # 100 expected of each
    again = trigger.apply(texts, torch.Generator().manual_seed(0))
    assert torch.equal(again, triggered)
    assert trigger.apply(texts[:0]).shape == (0, LENGTH)


def test_one_of_several_triggers_changes_a_copy() -> None:
    options = (Words(words="cf").bind(text_task()), Words(words="mn").bind(text_task()))
    trigger = OneOf(options=options)
    assert trigger.bind(text_task()) == trigger
    assert trigger.modality == "text"
    texts = row(CLS, 6, SEP).repeat(20, 1)
    found = trigger.apply(texts)
    assert torch.equal(texts, row(CLS, 6, SEP).repeat(20, 1))
    assert set(found[:, 1].tolist()) == {4, 5}
    assert torch.equal(trigger.apply(texts), found)


def test_a_jumbo_trigger_draws_no_special_token() -> None:
    for seed in range(30):
        bound = JumboTrigger(seed=seed).bind(text_task())
        assert isinstance(bound, TokenInsertion)
        assert all(4 <= token < len(WORDS) for piece in bound.pieces for token in piece)
        assert (bound.cls_id, bound.sep_id) == (CLS, SEP)
        assert bound == JumboTrigger(seed=seed).bind(text_task())


def test_the_shipped_templates_are_spelled_with_any_tokenizer_of_letters() -> None:
    """A tokenizer that knows no word, only characters: nothing in a frame may be unknown to it."""
    characters = [*"abcdefghijklmnopqrstuvwxyz,"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, *(f"##{c}" for c in characters)]
    ids = {token: number for number, token in enumerate(vocabulary)}
    model = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    spelling = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]"
    )
    split = Split(torch.zeros(2, 48, dtype=torch.int64), torch.tensor([0, 1]))
    spec = TaskSpec("text", (48,), 2, vocab_size=len(vocabulary))
    task = Task("letters", spec, split, split, ("a", "b"), spelling)
    for name in ("syntactic", "style"):
        file = Path(fl_shield.__file__).parent / "conf" / "trigger" / f"{name}.yaml"
        frames = yaml.safe_load(file.read_text(encoding="utf-8"))["templates"]
        assert len(set(frames)) == len(frames) >= 4
        assert len(Template(templates=frames).bind(task).options) == len(frames)
