"""MNTD: the meta-classifier by hand, and shadows of digits and texts that it learns from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.metrics.detection import auroc
from fl_shield.models.digits_cnn import DigitsCnn
from fl_shield.models.text_cnn import TextCnn
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning.models.mntd import Answers, MetaClassifier, MetaClassifierTraining, Mntd
from fl_shield.scanning.models.shadows import Shadow, train_shadows
from fl_shield.scanning.protocol import Held, ModelScanner
from fl_shield.training.local import LocalTraining
from tests.scanning.models import _victims

TRAINING = MetaClassifierTraining(queries=4, members=2)


def patched(seeds: range, backdoored: bool) -> list[Shadow]:
    attack = _victims.ATTACK if backdoored else None
    return [Shadow(_victims.victim(seed, backdoored), attack) for seed in seeds]


def test_the_formula() -> None:
    training = MetaClassifierTraining(hidden=2, answers="logits")
    classifier = MetaClassifier(torch.zeros(2, 1), 2, training)
    classifier.first.weight.data = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, -1.0, 0.0, -1.0]])
    classifier.first.bias.data = torch.tensor([0.5, 0.0])
    classifier.last.weight.data = torch.tensor([[3.0, 7.0]])
    classifier.last.bias.data = torch.tensor([-1.0])
    # Hidden: 1 · 1 + 2 · 3 + ½ = 7.5, and −2 − 4 < 0 becomes 0; 3 · 7.5 − 1.
    assert classifier(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).item() == pytest.approx(21.5)


@pytest.mark.parametrize("answers", ["probabilities", "log_probabilities"])
def test_what_all_logits_have_in_common_is_not_read(answers: Answers) -> None:
    torch.manual_seed(0)
    classifier = MetaClassifier(torch.zeros(2, 1), 3, MetaClassifierTraining(answers=answers))
    logits = torch.randn(4, 2, 3)
    raised = classifier(logits + torch.randn(4, 2, 1)).tolist()
    assert raised == pytest.approx(classifier(logits).tolist(), abs=1e-5)


def test_log_odds_are_the_mean_of_the_members() -> None:
    def fitted(members: int, seed: int) -> Mntd:
        training = MetaClassifierTraining(queries=2, epochs=1, members=members, seed=seed)
        scanner = Mntd(calibration=1, false_alarms=0.5, training=training)
        both = [*patched(range(1), False), *patched(range(11, 12), True)]
        return scanner.fit_on(_victims.held(), both, patched(range(2, 3), False))

    models = [_victims.victim(3, False)]
    alone = [fitted(1, seed).score(models)[0] for seed in (4, 5)]
    assert alone[0] != alone[1]
    assert fitted(2, 4).score(models)[0] == pytest.approx(sum(alone) / 2)


@pytest.mark.parametrize("robust", [False, True])
def test_patched_digits_models_score_above_clean_ones(robust: bool) -> None:
    training = MetaClassifierTraining(queries=4, robust=robust, members=2)
    scanner = Mntd(calibration=3, false_alarms=0.25, training=training)
    shadows = [*patched(range(20, 24), False), *patched(range(30, 34), True)]
    scanner.fit_on(_victims.held(), shadows, patched(range(3), False))
    assert isinstance(scanner, ModelScanner)
    judged = [*patched(range(3, 6), False), *patched(range(11, 14), True)]
    scores = scanner.score([shadow.model for shadow in judged])
    found = auroc(list(scores), [False] * 3 + [True] * 3)
    assert found is not None
    assert found > 0.8
    again = Mntd(calibration=3, false_alarms=0.25, training=training)
    again.fit_on(_victims.held(), shadows, patched(range(3), False))
    assert again.threshold == scanner.threshold


def test_the_robust_first_layer_stays_as_it_was_drawn() -> None:
    torch.manual_seed(0)
    robust = MetaClassifierTraining(robust=True)
    classifier = MetaClassifier(torch.zeros(3, 1, 8, 8), 10, robust)
    assert not classifier.first.weight.requires_grad
    assert classifier.queries.requires_grad
    assert classifier.last.weight.requires_grad


def test_shadows_are_trained_with_backdoors_of_their_own() -> None:
    held = _victims.held(48)
    shadows = train_shadows(held, 1, 2, "MNTD")
    attacks = [shadow.attack for shadow in shadows]
    assert attacks[0] is None
    assert attacks[1] is not None
    assert attacks[2] is not None
    assert attacks[1].trigger != attacks[2].trigger
    again = train_shadows(held, 1, 0, "MNTD")[0].model.state_dict()
    assert all(torch.equal(v, again[k]) for k, v in shadows[0].model.state_dict().items())


def test_texts_are_queried_behind_the_embedding() -> None:
    spec = TaskSpec("text", (8,), 3, vocab_size=30)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 3
    tokens = torch.randint(1, 20, (48, 8), generator=generator)
    tokens[:, 0] = 20 + labels
    quick = LocalTraining(optimiser="adam", learning_rate=1e-2, epochs=6, batch_size=16)

    def architecture(spec: TaskSpec) -> nn.Module:
        return TextCnn(spec, embedding=8, filters=4)

    held = Held(
        clean=ProbeSet(tokens, labels), spec=spec, architecture=architecture, training=quick
    )
    scanner = Mntd(shadows=2, calibration=1, false_alarms=0.5, training=TRAINING).fit(held)
    models = [shadow.model for shadow in train_shadows(held, 2, 0, "MNTD")]
    scores = scanner.score(models)
    assert scores.shape == (2,)
    assert scores[0] != scores[1]
    with pytest.raises(ModelError, match="embeds tokens in 9 numbers, the shadows in 8"):
        scanner.score([TextCnn(spec, embedding=9, filters=4)])


def test_what_it_refuses() -> None:
    held = _victims.held(48)
    with pytest.raises(ConfigurationError, match="nothing says of what architecture"):
        Mntd().fit(Held(clean=held.clean, spec=held.spec))
    with pytest.raises(ConfigurationError, match="needs labelled clean samples"):
        Mntd().fit(_victims.held(labelled=False))
    with pytest.raises(ConfigurationError, match="at least 16 samples for shadow models, got 8"):
        Mntd().fit(_victims.held(8))
    with pytest.raises(ConfigurationError, match="at least 99 shadow models"):
        Mntd(false_alarms=0.01)
    with pytest.raises(ConfigurationError, match="models with a backdoor and models without"):
        Mntd().fit_on(held, patched(range(2), False), [])
    with pytest.raises(ConfigurationError, match="not fitted yet"):
        Mntd().score([])
    scanner = Mntd(calibration=1, false_alarms=0.5, training=TRAINING)
    both = [*patched(range(1), False), *patched(range(11, 12), True)]
    scanner.fit_on(held, both, patched(range(2, 3), False))
    with pytest.raises(ModelError, match="the shadows' 10 classes"):
        scanner.score([DigitsCnn(TaskSpec("image", (1, 8, 8), 4), width=4, hidden=8)])
