"""What every model must do, whichever it is: fit its task, keep its weights outside, be found."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fl_shield.activations.penultimate import find_final_layer
from fl_shield.data.task import TaskSpec
from fl_shield.errors import ModelError
from fl_shield.models.cifar_cnn import CifarCnn
from fl_shield.models.digits_cnn import DigitsCnn
from fl_shield.models.lstm import BiLstm
from fl_shield.models.mlp import Mlp
from fl_shield.models.mnist_cnn import MnistCnn
from fl_shield.models.resnet18 import ResNet18
from fl_shield.models.resnet_small import ResNetSmall
from fl_shield.models.text_cnn import TextCnn
from fl_shield.models.transformer import Transformer

DIGITS = TaskSpec("image", (1, 8, 8), 10)
MNIST = TaskSpec("image", (1, 28, 28), 10)
CIFAR = TaskSpec("image", (3, 32, 32), 10)
WIDE = TaskSpec("image", (3, 24, 40), 3)
TEXT = TaskSpec("text", (12,), 4, vocab_size=50, pad_id=0)

Factory = Callable[[TaskSpec], nn.Module]
CASES = [
    pytest.param(DigitsCnn, DIGITS, id="digits_cnn"),
    pytest.param(DigitsCnn, WIDE, id="digits_cnn-wide"),
    pytest.param(Mlp, DIGITS, id="mlp"),
    pytest.param(MnistCnn, MNIST, id="mnist_cnn"),
    pytest.param(MnistCnn, WIDE, id="mnist_cnn-wide"),
    pytest.param(CifarCnn, CIFAR, id="cifar_cnn"),
    pytest.param(CifarCnn, MNIST, id="cifar_cnn-grey"),
    pytest.param(ResNet18, MNIST, id="resnet18-grey"),
    pytest.param(lambda spec: ResNet18(spec, group_norm=True), WIDE, id="resnet18-group_norm"),
    pytest.param(lambda spec: ResNet18(spec, small_images=False), WIDE, id="resnet18-large"),
    pytest.param(ResNetSmall, DIGITS, id="resnet_small"),
    pytest.param(lambda spec: ResNetSmall(spec, 8, blocks=2), WIDE, id="resnet_small-deep"),
    pytest.param(TextCnn, TEXT, id="text_cnn"),
    pytest.param(BiLstm, TEXT, id="lstm"),
    pytest.param(Transformer, TEXT, id="transformer"),
]
IMAGE_MODELS = [DigitsCnn, Mlp, MnistCnn, CifarCnn, ResNet18, ResNetSmall]
TEXT_MODELS = [TextCnn, BiLstm, Transformer]


def inputs_for(spec: TaskSpec, batch: int = 5) -> Tensor:
    if spec.modality == "image":
        return torch.rand(batch, *spec.input_shape)
    ids = torch.randint(1, spec.vocab_size, (batch, *spec.input_shape))
    ids[0, 4:] = spec.pad_id
    return ids


@pytest.mark.parametrize(("factory", "spec"), CASES)
def test_logits_have_a_column_a_class_and_gradients_reach_all(
    factory: Factory, spec: TaskSpec
) -> None:
    model = factory(spec)
    logits = model(inputs_for(spec))
    assert logits.shape == (5, spec.num_classes)
    logits.square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize(("factory", "spec"), CASES)
def test_samples_do_not_see_each_other_in_eval_mode(factory: Factory, spec: TaskSpec) -> None:
    model = factory(spec).eval()
    inputs = inputs_for(spec)
    with torch.no_grad():
        together, alone = model(inputs), torch.cat([model(row[None]) for row in inputs])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(("factory", "spec"), CASES)
def test_weights_given_from_outside_are_the_ones_used(factory: Factory, spec: TaskSpec) -> None:
    # The shield reads client models this way; a model that keeps old weights would hide attackers.
    model, other = factory(spec).eval(), factory(spec).eval()
    inputs = inputs_for(spec)
    with torch.no_grad():
        through = torch.func.functional_call(model, other.state_dict(), (inputs,))
        assert torch.allclose(through, other(inputs), atol=1e-6)
        assert not torch.allclose(through, model(inputs), atol=1e-6)


@pytest.mark.parametrize(("factory", "spec"), CASES)
def test_final_layer_is_found_and_is_linear(factory: Factory, spec: TaskSpec) -> None:
    model = factory(spec).eval()
    final = model.get_submodule(find_final_layer(model, inputs_for(spec)))
    assert isinstance(final, nn.Linear)
    assert final.out_features == spec.num_classes


@pytest.mark.parametrize("factory", IMAGE_MODELS)
def test_image_models_refuse_text(factory: Factory) -> None:
    with pytest.raises(ModelError, match="takes images, but the data are text"):
        factory(TEXT)


@pytest.mark.parametrize("factory", TEXT_MODELS)
def test_text_models_refuse_images(factory: Factory) -> None:
    with pytest.raises(ModelError, match="takes text, but the data are images"):
        factory(MNIST)


@pytest.mark.parametrize("factory", [MnistCnn, CifarCnn, ResNet18])
def test_images_too_small_are_named(factory: Factory) -> None:
    factory(TaskSpec("image", (1, 16, 16), 2))  # the stated limit itself works
    with pytest.raises(ModelError, match=r"at least 16 pixels.*got '15x40'"):
        factory(TaskSpec("image", (1, 15, 40), 2))


def test_small_images_suit_the_small_resnet_down_to_8_pixels() -> None:
    ResNetSmall(TaskSpec("image", (1, 8, 8), 2))
    with pytest.raises(ModelError, match=r"at least 8 pixels.*got '7x9'"):
        ResNetSmall(TaskSpec("image", (1, 7, 9), 2))


@pytest.mark.parametrize("factory", TEXT_MODELS)
def test_vocabulary_must_hold_the_padding(factory: Factory) -> None:
    with pytest.raises(ModelError, match="vocab_size=0 and pad_id=0"):
        factory(TaskSpec("text", (12,), 2))


def test_texts_shorter_than_the_filters_are_named() -> None:
    with pytest.raises(ModelError, match=r"text_cnn.*at least 5 tokens long, got 4"):
        TextCnn(TaskSpec("text", (4,), 2, vocab_size=9))


@pytest.mark.parametrize(
    ("factory", "spec", "size"),
    [
        # Table 1 of BadNets: 16 and 32 filters of 5x5, 512 hidden units, 10 classes.
        (MnistCnn, MNIST, 16 * 26 + 32 * (16 * 25 + 1) + 512 * 513 + 10 * 513),
        # Table I of Carlini and Wagner: 64, 64, 128, 128 filters of 3x3, 256, 256, 10 units.
        (
            CifarCnn,
            CIFAR,
            64 * (3 * 9 + 1) + 64 * (64 * 9 + 1) + 128 * (64 * 9 + 1) + 128 * (128 * 9 + 1)
            + 256 * (128 * 25 + 1) + 256 * 257 + 10 * 257,
        ),
        # He et al.: 11,689,512 with 1,000 classes; less head, other stem.
        (ResNet18, CIFAR, 11_689_512 - 513 * 990 - 64 * 3 * (49 - 9)),
        # ResNet-20 of He et al. has 269,722; projections instead of padded shortcuts come on top.
        (
            lambda spec: ResNetSmall(spec, 16, blocks=3),
            CIFAR,
            269_722 + 32 * (16 + 2) + 64 * (32 + 2),
        ),
    ],
    ids=["badnets", "carlini-wagner", "resnet18", "resnet20"],
)  # fmt: skip
def test_published_architectures_have_their_size(
    factory: Factory, spec: TaskSpec, size: int
) -> None:
    assert sum(p.numel() for p in factory(spec).parameters()) == size


def test_group_norm_leaves_no_batch_statistics() -> None:
    assert [name for name, _ in ResNet18(CIFAR, group_norm=True).named_buffers()] == []
