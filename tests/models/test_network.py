"""Parts of the network against values computed by hand, its sizes against the published table."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from refinenet.models.architecture import Architecture, ModelType
from refinenet.models.decoder import ChainedResidualPooling, MaxPool5x5, ResidualConvUnit
from refinenet.models.encoders.encoder import Encoder
from refinenet.models.network import Network

SMALL = Architecture(model_type="lightweight", encoder="test_resnet", num_classes=5)
MOBILE = Architecture(model_type="lightweight", encoder="mobilenetv2_100", num_classes=5)

# Parameters with 21 and 40 classes, and thousand millions of multiply-adds at 512x512 with 21.
SIZES: list[tuple[ModelType, str, int, int, float]] = [
    ("full", "resnet50", 99_060_309, 99_104_104, 243.5),
    ("full", "resnet101", 118_052_437, 118_096_232, 262.9),
    ("full", "resnet152", 133_696_085, 133_739_880, 282.3),
    ("lightweight", "resnet50", 27_357_525, 27_401_320, 31.98),
    ("lightweight", "resnet101", 46_349_653, 46_393_448, 51.37),
    ("lightweight", "resnet152", 61_993_301, 62_037_096, 70.77),
    ("lightweight", "mobilenetv2_100", 3_284_565, 3_284_565 + 19 * (256 * 9 + 1), 8.58),
]


def build(architecture: Architecture, device: str = "cpu") -> Network:
    """A network with weights that are the same every time, in evaluation mode."""
    torch.manual_seed(0)
    with torch.device(device):
        return Network(architecture).eval()


def fill_(convolution: nn.Module, weight: float, bias: float | None = None) -> None:
    """Make a convolution multiply each channel's pixel by `weight` and add `bias`."""
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight)
        convolution.weight.mul_(weight)
        if convolution.bias is not None:
            convolution.bias.fill_(bias or 0.0)


@pytest.mark.parametrize(("model_type", "encoder", "with_21", "with_40", "multiply_adds"), SIZES)
def test_sizes_are_the_published_ones(
    model_type: ModelType, encoder: str, with_21: int, with_40: int, multiply_adds: float
) -> None:
    for num_classes, parameters in ((40, with_40), (21, with_21)):
        network = build(Architecture(model_type=model_type, encoder=encoder, num_classes=num_classes), "meta")
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        network.logits(torch.empty(1, 3, 512, 512, device="meta"))
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds * 1e9, rel=0.02)


@pytest.mark.parametrize("gradients", [True, False])
def test_residual_conv_unit_keeps_the_sign_of_its_shortcut(gradients: bool) -> None:
    unit = ResidualConvUnit(4, kernel_size=3)
    fill_(unit.convolution_1, 0.0)
    fill_(unit.convolution_2, 0.0)
    features = -torch.rand(2, 4, 5, 6) - 0.1
    before = features.clone()
    with torch.set_grad_enabled(gradients):
        refined = unit(features)
    torch.testing.assert_close(refined, before, rtol=0, atol=0)
    torch.testing.assert_close(features, before, rtol=0, atol=0)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_residual_conv_unit_by_hand(kernel_size: int) -> None:
    unit = ResidualConvUnit(1, kernel_size)
    fill_(unit.convolution_1, 1.0, -2.0)
    fill_(unit.convolution_2, 10.0)
    refined = unit(torch.tensor([-7.0, 0.0, 1.0, 2.0, 5.0]).reshape(1, 1, 1, 5))
    # x + 10 max(0, max(0, x) - 2)
    assert refined.flatten().tolist() == [-7.0, 0.0, 1.0, 2.0, 35.0]


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("gradients", [True, False])
def test_chained_pooling_is_a_chain(kernel_size: int, gradients: bool) -> None:
    pooling = ChainedResidualPooling(1, kernel_size)
    for convolution in pooling.convolutions:
        fill_(convolution, 1.0)
    impulse = torch.zeros(1, 1, 23, 23)
    impulse[0, 0, 11, 11] = 1.0
    with torch.set_grad_enabled(gradients):
        spread = pooling(impulse)
    # Link k reaches 2 k pixels: 5 in the middle (the input and four links), 1 where the last link alone arrives.
    by_distance = torch.tensor([5.0, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0])
    away = (torch.arange(23) - 11).abs()
    expected = by_distance[torch.maximum(away[:, None], away[None, :])]
    torch.testing.assert_close(spread[0, 0], expected, rtol=0, atol=0)


def test_chained_pooling_pools_before_each_convolution() -> None:
    pooling = ChainedResidualPooling(1, kernel_size=1)
    for convolution in pooling.convolutions:
        fill_(convolution, -1.0)
    row = torch.zeros(1, 1, 1, 41)
    row[..., 20] = 1.0
    spread = pooling(row)[0, 0, 0, 20:]
    # By hand: pooling widens the links' maxima, which are 1, 0, 1, 0 after the sign changes of the odd links.
    links = [[-1.0] * 3 + [0.0] * 18, [1.0] + [0.0] * 20, [-1.0] * 3 + [0.0] * 18, [1.0] + [0.0] * 20]
    expected = torch.tensor([1.0] + [0.0] * 20) + torch.tensor(links).sum(0)
    torch.testing.assert_close(spread, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 1, 7), (1, 2, 4, 4), (2, 3, 33, 50), (1, 512, 9, 1024), (2, 256, 64, 64)]
)
@pytest.mark.parametrize("gradients", [True, False])
def test_pool_in_parts_is_the_5x5_pool(shape: tuple[int, ...], gradients: bool) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1)) - 3.0
    pool = MaxPool5x5()
    expected = nn.MaxPool2d(5, stride=1, padding=2)(features)
    layouts: list[Callable[[Tensor], Tensor]] = [
        Tensor.contiguous,
        lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
    ]
    for layout in layouts:
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(pool(layout(features)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 7), (1, 2, 4, 4), (2, 3, 33, 50)])
def test_gradient_of_the_pool_in_parts_is_that_of_the_5x5_pool(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    # Small whole numbers: the largest value of a square often stands in it several times, and sums are exact.
    features = torch.randint(-1, 2, shape, generator=generator).to(dtype)
    gradient = torch.randint(-3, 4, shape, generator=generator).to(dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        sent = []
        for pool in (MaxPool5x5(), nn.MaxPool2d(5, stride=1, padding=2)):
            leaf = features.clone(memory_format=layout).requires_grad_()
            pool(leaf).backward(gradient)
            sent.append(leaf.grad)
        torch.testing.assert_close(sent[0], sent[1], rtol=0, atol=0)


def test_pool_in_parts_hands_on_what_is_not_finite() -> None:
    features = torch.randn((2, 3, 20, 20), generator=torch.Generator().manual_seed(1))
    features[0, 0, 3, 3], features[0, 1, 10, 0], features[1, 2, 19, 7] = torch.nan, torch.inf, -torch.inf
    features[1, 0] = -torch.inf
    expected = nn.MaxPool2d(5, stride=1, padding=2)(features)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(MaxPool5x5()(features), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("architecture", [SMALL, MOBILE], ids=lambda architecture: architecture.encoder)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 50), (97, 64)])
def test_any_size_and_batch(architecture: Architecture, size: tuple[int, int]) -> None:
    network = build(architecture)
    height, width = size
    images = torch.rand(2, 3, height, width)
    with torch.no_grad():
        both, logits = network(images), network.logits(images)
        alone = network(images[1:])
    assert both.shape == (2, 5, height, width)
    assert logits.shape == (2, 5, -(-height // 4), -(-width // 4))
    assert both.isfinite().all()
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_images_of_another_shape_are_refused() -> None:
    network = build(SMALL)
    for shape in [(3, 8, 8), (1, 4, 8, 8), (1, 1, 8, 8)]:
        with pytest.raises(ValueError, match=r"RGB images \(N, 3, H, W\), not a tensor of shape"):
            network(torch.zeros(shape))


def test_forward_is_the_logits_resized_without_aligned_corners() -> None:
    network = build(SMALL)
    images = torch.rand(1, 3, 21, 38)
    with torch.no_grad():
        expected = nn.Upsample(size=(21, 38), mode="bilinear", align_corners=False)(network.logits(images))
        torch.testing.assert_close(network(images), expected)


def test_memory_formats_agree() -> None:
    network = build(MOBILE)
    images = torch.rand(2, 3, 65, 43)
    with torch.no_grad():
        expected = network(images)
        last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_is_close() -> None:
    network = build(MOBILE)
    images = torch.rand(1, 3, 65, 43)
    with torch.no_grad():
        expected = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            answer = network(images)
    assert answer.dtype == torch.bfloat16
    assert (answer.float() - expected).abs().max() <= 0.05 * expected.abs().max()


def test_compiled_network_agrees() -> None:
    network = build(MOBILE)
    images = torch.rand(1, 3, 65, 43)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images))


def export_dynamically(network: Network, multiple: int) -> nn.Module:
    """The graph of a network for two images of any height and width from 64 up that are multiples of `multiple`."""
    height, width = (torch.export.Dim(name, min=64 // multiple, max=4096 // multiple) for name in ("h", "w"))
    sides = {2: multiple * height, 3: multiple * width} if multiple > 1 else {2: height, 3: width}
    with torch.no_grad():
        return torch.export.export(network, (torch.rand(2, 3, 96, 128),), dynamic_shapes=(sides,)).module()


@pytest.mark.parametrize(
    ("architecture", "multiple", "sizes"),
    # An encoder that pads its images to whole cells exports for whole cells.
    [(MOBILE, 1, [(65, 90), (101, 67)]), (SMALL, 32, [(64, 160), (128, 96)])],
    ids=lambda value: value.encoder if isinstance(value, Architecture) else "",
)
def test_exported_network_agrees(architecture: Architecture, multiple: int, sizes: list[tuple[int, int]]) -> None:
    network = build(architecture)
    graph = export_dynamically(network, multiple)
    for size in sizes:
        images = torch.rand(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(graph(images), network(images))


@pytest.mark.parametrize(
    ("model_type", "encoder", "probabilities"),
    [
        ("full", "resnet50", [0.5, 0.5, 0.0, 0.0, 0.5]),
        ("lightweight", "resnet50", [0.5, 0.5, 0.0, 0.0, 0.0]),
        ("lightweight", "mobilenetv2_100", [0.0] * 7),
    ],
)
def test_dropout_stands_where_it_was_published(model_type: ModelType, encoder: str, probabilities: list[float]) -> None:
    network = build(Architecture(model_type=model_type, encoder=encoder, num_classes=2), "meta")
    parts = [*network.decoder.modules(), *network.dropout.modules()]
    assert [part.p for part in parts if isinstance(part, nn.Dropout)] == probabilities


def test_dropout_works_in_training_only() -> None:
    images = torch.rand(2, 3, 64, 64)
    for architecture, differs in ((SMALL, True), (MOBILE, False)):
        network = build(architecture)
        with torch.no_grad():
            torch.testing.assert_close(network(images), network(images), rtol=0, atol=0)
            network.train()
            assert torch.equal(network(images), network(images)) != differs


def test_normalisation_is_inside_and_travels_with_the_weights() -> None:
    network = build(MOBILE)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(network.state_dict()["mean"].flatten(), mean)
    torch.testing.assert_close(network.state_dict()["std"].flatten(), std)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network.logits(images)
        network.load_state_dict({**network.state_dict(), "mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)})
        normalised = (images - mean[:, None, None]) / std[:, None, None]
        torch.testing.assert_close(network.logits(normalised), expected, rtol=1e-4, atol=1e-5)


def test_normalisation_is_that_of_the_encoder() -> None:
    with torch.device("meta"):
        encoder = Encoder("tf_efficientnet_lite0")
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)


def test_new_classes_continue_the_old_ones_asked_for() -> None:
    network = build(SMALL)
    images = torch.rand(1, 3, 40, 40)
    changed = network.with_classes([3, None, 0]).eval()
    assert changed.architecture.num_classes == 3
    with torch.no_grad():
        before, after = network(images), changed(images)
    torch.testing.assert_close(after[:, 0], before[:, 3])
    torch.testing.assert_close(after[:, 2], before[:, 0])
    assert not any(torch.allclose(after[:, 1], before[:, known]) for known in range(5))
