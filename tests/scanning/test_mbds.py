"""MBDS: filters, features and classifier by hand, and the whole on a backdoor that is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fl_shield.data.task import Split, TaskSpec
from fl_shield.errors import ConfigurationError, ModelError
from fl_shield.models.mnist_cnn import MnistCnn
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.scanning import mbds_shadows
from fl_shield.scanning.contamination import Contamination, contaminate
from fl_shield.scanning.feature_maps import FeatureMapReader
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


@pytest.mark.parametrize("features", ["feature_maps", "grad_cam"])
@pytest.mark.parametrize("order", ["as_is", "aligned"])
def test_the_whole_gives_a_score_for_each_input(features: str, order: str) -> None:
    scanner = Mbds(extractors=2, share=1.0, epochs=2, features=features, order=order)  # type: ignore[arg-type]
    scores = scanner.fit(held()).score(Samples(halves(6, seed=1)[0]))
    assert scores.shape == (6,)
    assert len(scanner.figures.benign_accuracy) == 2
    assert Mbds(extractors=1, epochs=1, false_alarms=None).fit(held()).threshold == 0.0


def test_fewer_extractors_and_another_order_need_no_new_shadow_models() -> None:
    whole = Mbds(extractors=3, share=1.0, epochs=2).fit(held())
    samples = Samples(halves(4, seed=1)[0])
    one = Mbds(extractors=1, share=1.0, epochs=2).fit(held(model=whole._held.model))  # type: ignore[union-attr]
    assert whole.again(extractors=1).score(samples) == pytest.approx(one.score(samples), abs=1e-5)
    assert whole.again(order="aligned").order == "aligned"
    assert whole.order == "as_is"


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


def test_a_shadow_model_is_trained_until_it_obeys() -> None:
    inputs, labels = halves(40)
    found = mbds_shadows.shadow_model(held(), Split(inputs, labels), 0)
    assert found.benign_accuracy >= mbds_shadows.ENOUGH
    assert found.attack_success >= mbds_shadows.ENOUGH
    assert not found.model.training


def test_sorted_features_do_not_know_a_channel_from_another() -> None:
    scanner = Mbds(extractors=2, share=1.0, epochs=2, order="aligned").fit(held())
    model = TinyCnn(SPEC)
    other = TinyCnn(SPEC)
    order = [2, 0, 3, 1]
    state = model.state_dict()
    moved = {n: t[order] if n.startswith("body.0.") else t for n, t in state.items()}
    other.load_state_dict(moved)
    samples = Samples(halves(8, seed=2)[0])
    one = scanner.for_model(held(model=model)).score(samples)
    assert one == pytest.approx(scanner.for_model(held(model=other)).score(samples), abs=1e-5)


def test_bad_input_is_one_sentence() -> None:
    inputs, labels = halves(40)
    with pytest.raises(ConfigurationError, match="needs to know its architecture"):
        Mbds().fit(held(architecture=None))
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
    with pytest.raises(ConfigurationError, match="Unknown scanner.order 'sort'"):
        Mbds(order="sort")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Unknown scanner.reads 'both'"):
        Mbds(reads="both")  # type: ignore[arg-type]

    class Wider(TinyCnn):
        def __init__(self) -> None:
            super().__init__(SPEC)
            self.body[0] = nn.Conv2d(1, 5, 3)
            self.head = nn.Linear(20, 2)

    with pytest.raises(ModelError, match="not those of the shadow models"):
        Mbds(extractors=1, epochs=1).fit(held(model=Wider()))
