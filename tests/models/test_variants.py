"""The papers' other networks against sizes computed from the published ones, and plain code written from the papers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import image, published_weights
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from refinenet import RefineNet
from refinenet.models.architecture import Architecture
from refinenet.models.decoder import ChainedResidualPooling, Decoder
from refinenet.models.decoder_config import DECODER_PRESETS, FULL, LIGHTWEIGHT
from refinenet.models.model_spec import SIZES as SIZE_OPTIONS
from refinenet.models.model_spec import ModelSpec, SizeName
from refinenet.models.network import Network

Weights = dict[str, Tensor]
MULTITASK: dict[str, Any] = {
    "model_type": "lightweight",
    "encoder": "mobilenetv2_100",
    "decoder_options": DECODER_PRESETS["multitask"],
}


def build(**fields: Any) -> Network:
    """Build a network without weights."""
    with torch.device("meta"):
        return Network(Architecture(**fields))


def count_parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_adds(network: Network, height: int, width: int) -> float:
    """Return thousand millions of multiply-adds."""
    with FlopCounterMode(display=False) as counter:
        network.maps(torch.empty(1, 3, height, width, device="meta"))
    return float(counter.get_total_flops()) / 2e9


@pytest.mark.parametrize(
    ("classes", "outputs", "parameters"),
    [
        (40, "classes,depth", 3_070_057),
        (6, "classes,depth", 2_991_687),
        (46, "classes,depth", 3_083_887),
        (40, "classes,depth,normals", 3_077_228),
    ],
)
def test_multitask_networks_have_the_published_sizes(classes: int, outputs: str, parameters: int) -> None:
    assert count_parameters(build(**MULTITASK, num_classes=classes, outputs=outputs)) == parameters


@pytest.mark.parametrize(
    ("classes", "size", "multiply_adds"), [(40, (480, 640), 5.94), (6, (350, 1200), 6.11)], ids=["NYUD", "KITTI"]
)
def test_multitask_networks_have_the_published_cost(classes: int, size: tuple[int, int], multiply_adds: float) -> None:
    network = build(**MULTITASK, num_classes=classes, outputs="classes,depth")
    assert count_multiply_adds(network, *size) == pytest.approx(multiply_adds, abs=0.005)


def test_light_weight_network_with_bottleneck_units_has_the_published_size_and_cost() -> None:
    network = build(
        model_type="lightweight", encoder="resnet101", num_classes=21, decoder_options=DECODER_PRESETS["rcu-lw"]
    )
    assert count_parameters(network) == pytest.approx(53.8e6, abs=0.05e6)
    assert count_multiply_adds(network, 512, 512) == pytest.approx(75.4, abs=0.05)


def test_two_links_of_pooling_have_the_weights_of_two_convolutions_less() -> None:
    fields = {"model_type": "full", "encoder": "resnet101", "num_classes": 21}
    four, two = (
        count_parameters(build(**fields, decoder_options=options)) for options in ({}, DECODER_PRESETS["matlab-2016"])
    )
    assert four - two == 2 * 9 * (512 * 512 + 3 * 256 * 256)


def multitask_weights(tasks: tuple[str, ...], classes: int = 40) -> Weights:
    """Return weights under the published names, made as for the parity vectors."""
    weights = published_weights("lightweight_mobilenetv2_voc")
    del weights["segm.weight"], weights["segm.bias"]
    generator = torch.Generator().manual_seed(5)
    for link in range(1, 5):
        weights[f"crp1.0.{link}_outvar_dimred.weight"] = torch.randn(256, 1, 1, 1, generator=generator)
    for task, channels in zip(tasks, (classes, 1, 3), strict=False):
        weights[f"pre_{task}.weight"] = torch.randn(256, 1, 1, 1, generator=generator)
        weights[f"{task}.weight"] = torch.randn(channels, 256, 3, 3, generator=generator) / 48
        weights[f"{task}.bias"] = torch.randn(channels, generator=generator)
    return weights


def forward_multitask(weights: Weights, images: Tensor, tasks: tuple[str, ...], *, aligned: bool) -> list[Tensor]:
    """Run the multi-task network as its paper and its tables of layers describe it, in plain functions."""

    def normalise(x: Tensor, name: str) -> Tensor:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return functional.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def invert(x: Tensor, name: str, stride: int) -> Tensor:
        wide = functional.relu6(normalise(functional.conv2d(x, weights[f"{name}.0.0.weight"]), f"{name}.0.1"))
        kernel = weights[f"{name}.1.0.weight"]
        wide = functional.conv2d(wide, kernel, stride=stride, padding=1, groups=len(kernel))
        wide = functional.relu6(normalise(wide, f"{name}.1.1"))
        out = normalise(functional.conv2d(wide, weights[f"{name}.2.0.weight"]), f"{name}.2.1")
        return out + x if stride == 1 and out.shape == x.shape else out

    def pool(x: Tensor, name: str, groups: int = 1) -> Tensor:
        top = x
        for link in range(1, 5):
            top = functional.max_pool2d(top, 5, stride=1, padding=2)
            top = functional.conv2d(top, weights[f"{name}.0.{link}_outvar_dimred.weight"], groups=groups)
            x = x + top
        return x

    def enlarge(x: Tensor, like: Tensor) -> Tensor:
        return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=aligned)

    def conv(x: Tensor, name: str) -> Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"])

    x = functional.conv2d(images, weights["layer1.0.weight"], stride=2, padding=1)
    x = functional.relu6(normalise(x, "layer1.1"))
    layers = []
    for layer, (blocks, stride) in enumerate([(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)], start=2):
        for block in range(blocks):
            x = invert(x, f"layer{layer}.{block}.output", stride if block == 0 else 1)
        layers.append(x)
    _, l3, l4, l5, l6, l7, l8 = layers
    top = functional.relu6(conv(l8, "conv8") + conv(l7, "conv7"))
    top = enlarge(conv(pool(top, "crp4"), "conv_adapt4"), l6)
    top = functional.relu6(conv(l5, "conv5") + conv(l6, "conv6") + top)
    top = enlarge(conv(pool(top, "crp3"), "conv_adapt3"), l4)
    top = enlarge(conv(pool(functional.relu6(conv(l4, "conv4") + top), "crp2"), "conv_adapt2"), l3)
    top = pool(functional.relu6(conv(l3, "conv3") + top), "crp1", groups=256)
    maps = []
    for task in tasks:
        hidden = functional.relu6(functional.conv2d(top, weights[f"pre_{task}.weight"], groups=256))
        maps.append(functional.conv2d(hidden, weights[f"{task}.weight"], weights[f"{task}.bias"], padding=1))
    return maps


def as_densetorch(weights: Weights, tasks: tuple[str, ...]) -> Weights:
    """Rename tensors as DenseTorch does, in `DataParallel(Sequential(encoder, decoder))`."""
    names = {f"conv{8 - index}.": f"1.stem_convs.{index}." for index in range(6)}
    names |= {f"crp{4 - index}.0.": f"1.crp_blocks.{index}.0." for index in range(4)}
    names |= {f"conv_adapt{4 - index}.": f"1.adapt_convs.{index}." for index in range(3)}
    for index, task in enumerate(tasks):
        names |= {f"pre_{task}.": f"1.heads.{index}.0.", f"{task}.": f"1.heads.{index}.2."}
    renamed = {}
    for name, tensor in weights.items():
        old, new = next(((old, new) for old, new in names.items() if name.startswith(old)), ("", "0."))
        renamed[f"module.{new}{name[len(old) :]}"] = tensor
    return renamed


@pytest.mark.parametrize("tasks", [("segm", "depth"), ("segm", "depth", "normal")], ids=len)
@pytest.mark.parametrize("densetorch", [False, True])
def test_multitask_checkpoints_give_the_results_of_plain_code(
    tasks: tuple[str, ...], densetorch: bool, tmp_path: Path
) -> None:
    weights = multitask_weights(tasks)
    stored = as_densetorch(weights, tasks) if densetorch else {"state_dict": weights}
    torch.save(stored, tmp_path / "multitask.ckpt")
    network = RefineNet(model=tmp_path / "multitask.ckpt", device="cpu").network
    with torch.inference_mode():
        expected = torch.cat(forward_multitask(weights, normalised(image(), network), tasks, aligned=densetorch), 1)
        found = network.maps(image())
    assert [spec.kind for spec in network.architecture.outputs] == ["classes", "depth", "normals"][: len(tasks)]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def normalised(images: Tensor, network: Network) -> Tensor:
    return (images - network.mean) / network.std


def convolve(x: Tensor, weights: Weights, name: str) -> Tensor:
    kernel = weights[f"{name}.weight"]
    groups = x.shape[1] // kernel.shape[1]
    return functional.conv2d(x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2, groups=groups)


def refine(x: Tensor, weights: Weights, name: str) -> Tensor:
    """Run a residual conv unit of two convolutions."""
    inner = convolve(functional.relu(x), weights, f"{name}.convolution_1")
    return x + convolve(functional.relu(inner), weights, f"{name}.convolution_2")


def refine_bottleneck(x: Tensor, weights: Weights, name: str) -> Tensor:
    inner = x
    for part in ("reduction", "convolution", "expansion"):
        inner = convolve(functional.relu(inner), weights, f"{name}.{part}")
    return x + inner


def forward_cascade(
    weights: Weights,
    maps: list[Tensor],
    cascade: tuple[int, ...],
    units: tuple[int, int],
    unit: Callable[[Tensor, Weights, str], Tensor],
    *,
    convolution_first: bool = False,
) -> Tensor:
    """Run a cascade on maps from coarse to fine: adapt, convolve to the least width, resize, sum, pool, refine."""
    before: Tensor | None = None
    for block in range(max(cascade)):
        name, paths = f"blocks.{block}", []
        entering = [x for x, number in zip(maps, cascade, strict=True) if number == block + 1]
        for index, x in enumerate(entering):
            step = f"{name}.adaptations.{index}"
            x = convolve(x, weights, f"{step}.1")
            for number in range(units[0]):
                x = unit(x, weights, f"{step}.{2 + number}")
            if len(entering) > 1 or before is not None:
                x = convolve(x, weights, f"{step}.{2 + units[0]}")
            paths.append(x)
        size = entering[-1].shape[-2:]
        paths += [] if before is None else [before]
        x = sum(functional.interpolate(path, size, mode="bilinear", align_corners=True) for path in paths)  # type: ignore[assignment]
        top = x = functional.relu(x)
        for link in range(4):
            kernel = f"{name}.pooling.convolutions.{link}"
            if convolution_first:
                top = functional.max_pool2d(convolve(top, weights, kernel), 5, stride=1, padding=2)
            else:
                top = convolve(functional.max_pool2d(top, 5, stride=1, padding=2), weights, kernel)
            x = x + top
        for number in range(units[1]):
            x = unit(x, weights, f"{name}.output.{number}")
        before = convolve(x, weights, f"{name}.output.{units[1]}") if block + 1 < max(cascade) else x
    assert before is not None
    return before


CHANNELS = (8, 12, 16, 24)


@pytest.mark.parametrize("cascade", [(1, 1, 1, 1), (1, 1, 2, 2), (1, 2, 3, 4)], ids=["single", "two", "four"])
@pytest.mark.parametrize("kind", ["full", "lightweight", "bottleneck", "convolution first"])
def test_cascades_give_the_results_of_plain_code(cascade: tuple[int, ...], kind: str) -> None:
    options: dict[str, Any] = {"cascade": cascade, "widths": (48, 32, 32, 32)}
    if kind == "bottleneck":
        options |= DECODER_PRESETS["rcu-lw"]
    if kind == "convolution first":
        options |= {"pooling_order": "convolution_first"}
    config = (FULL if kind == "full" else LIGHTWEIGHT).changed(options)
    torch.manual_seed(2)
    decoder = Decoder([[channels] for channels in CHANNELS], config).eval()
    maps = [torch.randn(2, channels, *size) for channels, size in zip(CHANNELS, SIZES, strict=True)]
    with torch.inference_mode():
        found = decoder([[x] for x in maps])
        expected = forward_cascade(
            dict(decoder.state_dict()),
            maps[::-1],
            cascade,
            (config.adaptive_units, config.output_units),
            refine_bottleneck if kind == "bottleneck" else refine,
            convolution_first=kind == "convolution first",
        )
    assert found.shape == (2, 32, 17, 23)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


SIZES = ((17, 23), (9, 12), (5, 6), (3, 3))


def forward_with_norms(weights: Weights, maps: list[Tensor]) -> Tensor:
    """Run the decoder of a size on maps from coarse to fine: convolutions of 1x1, each followed by batch norm."""

    def convolve_and_norm(x: Tensor, kernel: str, norm: str) -> Tensor:
        mean, variance, scale, shift = (
            weights[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (convolve(x, weights, kernel) - mean) / (variance + 1e-5).sqrt() * scale + shift

    before: Tensor | None = None
    results = []
    for block, entering in enumerate(maps):
        name = f"blocks.{block}"
        x = convolve_and_norm(entering, f"{name}.adaptations.0.1", f"{name}.adaptations.0.2")
        if before is not None:
            x = x + functional.interpolate(before, x.shape[-2:], mode="bilinear", align_corners=True)
        top = x = x.clamp(0, 6)
        for link in range(4):
            top = functional.max_pool2d(top, 5, stride=1, padding=2)
            top = convolve_and_norm(top, f"{name}.pooling.convolutions.{link}", f"{name}.pooling.norms.{link}")
            x = x + top
        before = convolve_and_norm(x, f"{name}.output.0", f"{name}.output.1") if block < 3 else x
        results.append(before)
    if "neck.projections.0.0.weight" not in weights:
        finest = results[-1].shape[-2:]
        resized = [functional.interpolate(x, finest, mode="bilinear", align_corners=False) for x in results]
        return torch.stack(resized).sum(0)
    total: Tensor | None = None
    for block, (result, entering) in enumerate(zip(results, maps, strict=True)):
        name = f"neck.projections.{block}"
        x = convolve_and_norm(torch.cat([result, entering], 1), f"{name}.0", f"{name}.1")
        if total is not None:
            x = x + functional.interpolate(total, x.shape[-2:], mode="bilinear", align_corners=False)
        total = x
    assert total is not None
    return total.relu()


@pytest.mark.parametrize("options", [{"sum_blocks": True}, {"neck_channels": 24}], ids=["sum", "neck"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_decoders_with_batch_norm_give_the_results_of_plain_code(options: dict[str, Any], depthwise: bool) -> None:
    size = {**SIZE_OPTIONS["medium"].decoder, "neck_channels": None, "depthwise_last_pooling": depthwise}
    config = LIGHTWEIGHT.changed({**size, "widths": (16, 16, 16, 16), **options})
    torch.manual_seed(2)
    decoder = Decoder([[channels] for channels in CHANNELS], config).eval()
    for norm in (module for module in decoder.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.bias):
            assert tensor is not None
            nn.init.normal_(tensor, std=0.3)
        for tensor in (norm.running_var, norm.weight):
            assert tensor is not None
            nn.init.uniform_(tensor, 0.5, 2.0)
    maps = [torch.randn(2, channels, *size) for channels, size in zip(CHANNELS, SIZES, strict=True)]
    with torch.inference_mode():
        found = decoder([[x] for x in maps])
        expected = forward_with_norms(dict(decoder.state_dict()), maps[::-1])
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("size", "multiply_adds", "parameters"),
    [
        ("tiny", 0.562, 3_061_867),
        ("small", 2.250, 3_061_867),
        ("medium", 2.787, 3_220_171),
        ("large", 4.833, 3_624_971),
    ],
)
def test_sizes_cost_what_the_documentation_says(size: SizeName, multiply_adds: float, parameters: int) -> None:
    """The figures of `docs/how-to/faster.md`, by PyTorch's counter."""
    network = build(**vars(ModelSpec(size=size, num_classes=11, encoder_weights="random").architecture()))
    assert count_parameters(network) == parameters
    assert count_multiply_adds(network, 512, 512) == pytest.approx(multiply_adds, abs=0.001)


def test_tiny_segments_images_of_any_size() -> None:
    network = RefineNet(size="tiny", num_classes=4, encoder_weights="random", device="cpu", backend="pytorch")
    for height, width in ((1, 1), (37, 90)):
        assert network.segment(np.zeros((height, width, 3), np.uint8)).labels.shape == (height, width)


def test_a_new_pooling_with_batch_norm_changes_its_input_little() -> None:
    """At first each of the four links adds at most a tenth of a standard deviation."""
    torch.manual_seed(3)
    pooling = ChainedResidualPooling(24, 1, batch_norm=True).train()
    features = torch.randn(4, 24, 20, 20)
    added = pooling(features) - features
    assert 0.1 < added.detach().std() <= 4 * 0.1


@pytest.mark.parametrize(("cascade", "groups"), [((1, 1, 2, 2), [8, 6]), ((1, 1, 1, 1), [6])])
def test_the_neck_of_fewer_blocks_reads_their_finest_maps(
    cascade: tuple[int, int, int, int], groups: list[int]
) -> None:
    options = {"cascade": cascade, "widths": (12, 12, 12, 12), "batch_norm": True, "neck_channels": 5}
    decoder = Decoder([[6], [7], [8], [9]], LIGHTWEIGHT.changed(options), [[6], [7], [8], [9]]).eval()
    assert decoder.neck is not None
    convolutions = [module for module in decoder.neck.modules() if isinstance(module, nn.Conv2d)]
    shapes = [tuple(convolution.weight.shape[:2]) for convolution in convolutions]
    assert shapes == [(5, 12 + channels) for channels in groups]
    maps = [[torch.zeros(1, 6 + k, 40 >> k, 24 >> k), torch.zeros(1, 6 + k, 20 >> k, 12 >> k)] for k in range(4)]
    assert decoder(maps).shape == (1, 5, 40, 24)


def test_the_network_of_two_scales_sees_both() -> None:
    fields: dict[str, Any] = {"model_type": "lightweight", "encoder": "test_resnet", "num_classes": 3}
    torch.manual_seed(0)
    network = Network(Architecture(**fields, input_scales=(1.2, 0.6))).eval()
    images = torch.rand(1, 3, 65, 97)
    with torch.inference_mode():
        before = network.maps(images)
        assert before.shape == (1, 3, 20, 30)  # a quarter of 78 x 117, rounded up
        assert network(images).shape == (1, 3, 65, 97)
        for parameter in network.reduced_encoders.parameters():
            parameter.zero_()
        assert not torch.equal(network.maps(images), before)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"decoder": "huge"}, "decoder must be one of multitask, single,"),
        ({"decoder": {"cascade": (1, 1, 3, 4)}}, "cascade must rise by 0 or 1"),
        ({"decoder": {"pooling": 3}}, "Unknown options of the decoder: pooling. Did you mean .*pooling_links"),
        ({"decoder": {"sum_blocks": True, "widths": [64, 64, 32, 32]}}, "sum_blocks needs equal widths at strides"),
        ({"decoder": {"sum_blocks": True, "neck_channels": 8}}, "sum_blocks and neck_channels are two ways"),
        ({"decoder": {"neck_channels": 0}}, "neck_channels must be"),
        ({"decoder": {"bottleneck_units": True}}, "no effect because there are no residual conv units"),
        ({"input_scales": (0.6, 1.2)}, "input_scales must be in descending order, the largest first"),
        ({"input_scales": (9.0,)}, "input_scales must be one or two numbers from 0.1 to 4"),
        ({"outputs": "depth", "num_classes": 4}, "num_classes must be 0 without an output of classes, not 4"),
    ],
)
def test_what_no_network_has_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RefineNet(encoder="test_resnet", device="cpu", **fields)
