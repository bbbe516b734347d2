"""MBDS: filters, features and classifier by hand, and the whole on a backdoor that is known."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fl_shield.data.task import Split, TaskSpec
from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.models.mnist_cnn import MnistCnn
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning import mbds, mbds_shadows
from fl_shield.scanning.contamination import Contamination, contaminate
from fl_shield.scanning.evidence_maps import CleanEvidence, mirrored
from fl_shield.scanning.feature_maps import FeatureMapReader, Features
from fl_shield.scanning.mbds import Mbds
from fl_shield.scanning.mbds_shadows import kept_features
from fl_shield.scanning.meta_classifier import MetaClassifier, train_meta_classifier
from fl_shield.scanning.protocol import Held, Samples
from fl_shield.training.local import LocalTraining
from fl_shield.triggers.patch import Patch

SPEC = TaskSpec("image", (1, 6, 6), 2)


class TinyCnn(nn.Module):
    def __init__(self, spec: TaskSpec) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(16, spec.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images))
        return logits


def halves(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    inputs = 0.2 * torch.rand(count, 1, 6, 6, generator=generator)
    for row, label in enumerate(labels.tolist()):
        inputs[row, :, :, 3 * label : 3 * label + 3] += 0.5
    return inputs, labels


def held(**changes: object) -> Held:
    settings: dict[str, object] = {
        "clean": ProbeSet(*halves(40)),
        "spec": SPEC,
        "model": TinyCnn(SPEC),
        "architecture": TinyCnn,
        "training": LocalTraining(optimiser="adam", learning_rate=0.01, epochs=8, batch_size=16),
        "seed": 4,  # the trigger of its first shadow model is one that can be learned
    }
    return Held(**(settings | changes))  # type: ignore[arg-type]


def test_contamination_adds_poisoned_copies_as_in_algorithm_1() -> None:
    inputs, labels = halves(40)
    setting = Contamination(Patch(size=2), 1, 0.25)
    found = contaminate(Split(inputs, labels), setting, torch.Generator().manual_seed(0))
    assert len(found.split) == 50
    assert torch.equal(found.split.inputs[:40], inputs)
    assert found.poisoned.tolist() == [False] * 40 + [True] * 10
    assert (found.split.labels[40:] == 1).all()
    assert (found.split.inputs[40:, :, 4:, 4:] == 1.0).all()
    assert set(found.origin[40:].tolist()) == {0, 1}  # any class is sampled from


def test_the_two_filters_by_hand() -> None:
    predicted = torch.tensor([0, 1, 1, 1, 0])
    labels = torch.tensor([0, 0, 1, 1, 1])
    poisoned = torch.tensor([False, False, True, True, True])
    origin = torch.tensor([0, 0, 0, 1, 0])
    # Right and clean; wrong; obeyed; of the target class anyway; not obeyed.
    kept = kept_features(predicted, labels, poisoned, origin, target=1)
    assert kept.tolist() == [True, False, True, False, False]


def test_feature_maps_are_those_before_the_first_linear_layer() -> None:
    """4 × 4 × 32 for the MNIST CNN, the feature size that the paper states."""
    model = MnistCnn(TaskSpec("image", (1, 28, 28), 10), hidden=16)
    images = torch.rand(3, 1, 28, 28)
    reader = FeatureMapReader(model, images)
    logits, maps = reader.read(images)
    assert reader.shape == (32, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(logits, model.eval()(images))
        torch.testing.assert_close(maps, model.features[:6](images))


def test_grad_cam_by_hand() -> None:
    """With a linear head, the gradient of a logit by the maps is its row of weights."""
    model = TinyCnn(SPEC)
    images = torch.rand(3, 1, 6, 6)
    logits, cams = FeatureMapReader(model, images).read(images, "grad_cam")
    _, maps = FeatureMapReader(model, images).read(images)
    for row in range(3):
        weights = model.head.weight[logits[row].argmax()].reshape(4, 2, 2).mean(dim=(1, 2))
        wanted = (weights[:, None, None] * maps[row]).sum(dim=0).relu()
        torch.testing.assert_close(cams[row, 0], wanted.detach())


def test_layers_that_are_not_fully_connected_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten())
    with pytest.raises(ModelError, match="no fully connected layer"):
        FeatureMapReader(model, torch.rand(2, 1, 4, 4))


def test_the_meta_classifier_has_the_layers_of_the_paper() -> None:
    network = MetaClassifier(32, 4, 4)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size for m in convolutions] == [(1, 1), (1, 1)]
    assert len([m for m in network.modules() if isinstance(m, nn.Linear)]) == 3
    assert network(torch.rand(5, 32, 4, 4)).shape == (5,)


def test_the_meta_classifier_learns_a_loud_channel() -> None:
    maps = torch.rand(200, 3, 2, 2)
    triggered = torch.arange(200) % 4 == 0
    maps[triggered, 1] += 1.0
    network = train_meta_classifier(maps, triggered, epochs=30)
    assert ((network(maps) > 0) == triggered).float().mean() > 0.97


def test_training_stops_where_a_model_that_is_kept_out_is_judged_best() -> None:
    """What tells the kinds apart in seven models is noise in the eighth: the first pass is best."""
    source = torch.arange(400) % 8
    triggered = torch.rand(400) < 0.5
    maps = torch.rand(400, 3, 2, 2)
    maps[triggered & (source < 7), 1] += 1.0
    stopped = train_meta_classifier(maps, triggered, source=source, epochs=20)
    learned = train_meta_classifier(maps, triggered, epochs=20)
    aside = source == 7
    loud = stopped(maps[~aside]).abs().mean()
    assert loud < learned(maps[~aside]).abs().mean()


@pytest.mark.parametrize("features", ["feature_maps", "grad_cam", "evidence"])
def test_the_whole_gives_a_score_for_each_input(features: Features) -> None:
    scanner = Mbds(extractors=2, share=1.0, epochs=2, features=features)
    scores = scanner.fit(held()).score(Samples(halves(6, seed=1)[0]))
    assert scores.shape == (6,)
    assert len(scanner.figures.benign_accuracy) == 2
    assert Mbds(extractors=1, epochs=1, false_alarms=None).fit(held()).threshold == 0.0


def test_fewer_extractors_need_no_new_shadow_models() -> None:
    whole = Mbds(extractors=3, share=1.0, epochs=2).fit(held())
    samples = Samples(halves(4, seed=1)[0])
    one = Mbds(extractors=1, share=1.0, epochs=2).fit(held(model=whole._held.model))  # type: ignore[union-attr]
    assert whole.again(extractors=1).score(samples) == pytest.approx(one.score(samples), abs=1e-5)


def test_a_black_box_is_judged_by_the_mean_over_the_shadow_models() -> None:
    samples = Samples(halves(4, seed=1)[0])
    white = Mbds(extractors=2, share=1.0, epochs=2).fit(held())
    black = white.again(reads="shadow")
    # What each shadow model makes of the inputs, had it been the deployed model.
    split = Split(*halves(40))
    each = [
        white.for_model(held(model=mbds_shadows.shadow_model(held(), split, n).model))
        for n in range(2)
    ]
    expected = np.mean([one.score(samples) for one in each], axis=0)
    assert black.score(samples) == pytest.approx(expected, abs=1e-5)
    assert black.for_model(held(model=TinyCnn(SPEC))).score(samples) == pytest.approx(expected)


def test_shadow_models_that_are_kept_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = held()
    first = Mbds(extractors=2, share=1.0, epochs=2, store=tmp_path).fit(one)

    def refuse(*_: object, **__: object) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr(mbds_shadows, "train_locally", refuse)
    again = Mbds(extractors=2, share=1.0, epochs=2, store=tmp_path).fit(one)
    samples = Samples(halves(6, seed=1)[0])
    assert again.score(samples) == pytest.approx(first.score(samples))
    with pytest.raises(AssertionError, match="trained again"):
        Mbds(extractors=2, store=tmp_path).fit(held(clean=ProbeSet(*halves(30))))


def test_progress_is_told_of_every_shadow_model() -> None:
    told: list[int] = []

    def watch(numbers: Sequence[int]) -> Iterator[int]:
        for number in numbers:
            told.append(number)
            yield number

    Mbds(extractors=2, share=1.0, epochs=1, watch=watch).fit(held())
    assert told == [0, 1]


def test_a_shadow_model_is_trained_until_it_obeys() -> None:
    inputs, labels = halves(40)
    found = mbds_shadows.shadow_model(held(), Split(inputs, labels), 0)
    assert found.benign_accuracy >= mbds_shadows.ENOUGH
    assert found.attack_success >= mbds_shadows.ENOUGH
    assert not found.model.training


def test_evidence_by_hand() -> None:
    """With a linear head, the slope of a logit is its row of weights; all of it is the logit."""
    model = TinyCnn(SPEC)
    images = torch.rand(3, 1, 6, 6)
    logits, evidence = FeatureMapReader(model, images).read(images, "evidence")
    _, maps = FeatureMapReader(model, images).read(images)
    for row in range(3):
        given = logits[row].argmax()
        wanted = model.head.weight[given].detach().reshape(4, 2, 2) * maps[row]
        torch.testing.assert_close(evidence[row], wanted)
        torch.testing.assert_close(
            evidence[row].sum() + model.head.bias.detach()[given], logits[row, given]
        )


def test_evidence_is_held_against_that_of_the_same_class() -> None:
    logits = torch.tensor([[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 8)
    clean = torch.zeros(16, 2, 1, 1)
    clean[:8, 0], clean[8:, 1] = 1.0, 3.0
    found = CleanEvidence.of(logits, clean)
    assert float(found.amount) == pytest.approx(2.0)
    # Eight samples of a class weigh as much as the prior, which is the mean of all samples.
    assert found.usual[0].flatten().tolist() == pytest.approx([0.75, 0.75])
    assert found.usual[1].flatten().tolist() == pytest.approx([0.25, 2.25])
    views = found.arrange(logits[:1], torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1))
    floor = 0.1 * float(clean.std(correction=0))
    away = [np.log1p(1.25 / (1.5 + floor)), np.log1p(0.25 / (0.5 + floor))]
    assert views.flatten().tolist() == pytest.approx([2.0, 1.0, *away])  # channels sorted


def test_maps_are_mirrored_three_ways() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    rows = [one.flatten().tolist() for one in mirrored(maps)]
    assert rows == [[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]]


def test_evidence_does_not_know_a_channel_from_another_nor_how_loud_it_is() -> None:
    """The same function, with channels in another order and thrice as large."""
    scanner = Mbds(extractors=2, share=1.0, epochs=2, features="evidence").fit(held())
    model, other = TinyCnn(SPEC), TinyCnn(SPEC)
    order = [2, 0, 3, 1]
    state = model.state_dict()
    other.load_state_dict(
        {name: 3.0 * t[order] for name, t in state.items() if name.startswith("body.0.")}
        | {
            "head.weight": state["head.weight"].reshape(2, 4, 4)[:, order].flatten(1) / 3.0,
            "head.bias": state["head.bias"],
        }
    )
    samples = Samples(halves(8, seed=2)[0])
    torch.testing.assert_close(model(samples.inputs), other(samples.inputs))
    one = scanner.for_model(held(model=model)).score(samples)
    assert one == pytest.approx(scanner.for_model(held(model=other)).score(samples), rel=1e-4)


def test_evidence_is_read_of_samples_that_a_shadow_model_has_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def watched(found: Held, learned: Split, *rest: Any) -> mbds_shadows.ShadowModel:
        seen.append(len(learned))
        return mbds_shadows.shadow_model(found, learned, *rest)

    monkeypatch.setattr(mbds, "shadow_model", watched)
    whole = Mbds(extractors=1, share=1.0, epochs=1).fit(held())
    part = Mbds(extractors=1, share=1.0, epochs=1, features="evidence").fit(held())
    assert seen == [40, 30]
    clean = [int((~one.triggered).sum()) for one in (whole._shadow[0], part._shadow[0])]
    assert clean[0] > 30
    assert clean[1] <= 10  # a quarter of 40 samples


def test_bad_input_is_one_sentence() -> None:
    inputs, labels = halves(40)
    with pytest.raises(ConfigurationError, match="needs to know its architecture"):
        Mbds().fit(held(architecture=None))
    with pytest.raises(ConfigurationError, match="images only, got text inputs"):
        Mbds().fit(held(spec=TaskSpec("text", (6,), 2, vocab_size=12)))
    with pytest.raises(ConfigurationError, match="needs labelled clean samples"):
        Mbds().fit(held(clean=ProbeSet(inputs)))
    with pytest.raises(ConfigurationError, match="two classes or more, got one"):
        Mbds().fit(held(clean=ProbeSet(inputs, torch.zeros_like(labels))))
    with pytest.raises(ConfigurationError, match="not fitted"):
        Mbds().score(Samples(inputs))
    with pytest.raises(ConfigurationError, match="not fitted"):
        Mbds().for_model(held())
    with pytest.raises(ConfigurationError, match="not fitted"):
        Mbds().again()
    with pytest.raises(ConfigurationError, match=r"extractors.*1 or more, got 0"):
        Mbds(extractors=0)
    with pytest.raises(ConfigurationError, match="Unknown scanner.features 'maps'"):
        Mbds(features="maps")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Unknown scanner.reads 'both'"):
        Mbds(reads="both")  # type: ignore[arg-type]

    class Wider(TinyCnn):
        def __init__(self) -> None:
            super().__init__(SPEC)
            self.body[0] = nn.Conv2d(1, 5, 3)
            self.head = nn.Linear(20, 2)

    with pytest.raises(ModelError, match="not those of the shadow models"):
        Mbds(extractors=1, epochs=1).fit(held(model=Wider()))
