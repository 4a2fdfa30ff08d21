"""Networks prepared for inference and export: fused layers, and the module that is traced.

Shape letters: N batch, C channels, K classes, H and W height and width of the image.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from refinenet.io.processes.threads import TRACING
from refinenet.models.batch_norm import has_activation
from refinenet.models.decoder import RefineBlock, upsample
from refinenet.models.encoders.mobilenetv2 import OPTIONS
from refinenet.models.finishing import finish, finish_deviations, split_maps
from refinenet.models.network import Network
from refinenet.outputs import CLASS_KIND, OutputSpec, has_only_classes

_EXAMPLE_SIZE = (64, 64)
"""Size of the image for finding out which batch norm follows which convolution."""
_ALLOWED_DIFFERENCE = 1e-3
"""Maximum difference of the logits after fusion, relative to the largest logit."""


Weights = tuple[int, ...]


def note_weights(network: Network, *, buffers: bool = True) -> Weights:
    """Return numbers that change with every new tensor and every in-place change, except through `.data`.

    Args:
        network: The network.
        buffers: Whether to include buffers, which become new tensors when a network is moved or cast.
    """
    tensors = (*network.parameters(), *(network.buffers() if buffers else ()))
    # Tensors created in inference mode have no version counter.
    return tuple(
        number for tensor in tensors for number in (id(tensor), 0 if tensor.is_inference() else tensor._version)
    )


def fuse(network: Network) -> Network:
    """Return a copy of a network for inference, with the same results up to rounding in fewer operations.

    Batch norms are folded into convolutions, consecutive 1x1 convolutions are merged, and "SAME" padding is written so
    that it can be traced.

    Args:
        network: The network, which is not changed.

    Returns:
        A network on the same device, in evaluation mode, without gradients. Its weights differ from the original: it
        cannot be trained or saved. If fusion is not possible, it is a plain copy.
    """
    plain = copy.deepcopy(network).eval().requires_grad_(False)
    _simplify_same_padding(plain)
    fused = copy.deepcopy(plain)
    with torch.no_grad():
        image = torch.rand(
            (1, len(network.architecture.band_names), *_EXAMPLE_SIZE), generator=torch.Generator().manual_seed(0)
        ).to(network.mean.device)
        for convolution, norm in _find_pairs(fused, image):
            _fold(fused, convolution, norm)
        for module in fused.decoder.modules():
            if isinstance(module, RefineBlock):
                merged = [_merge_pointwise(adaptation) for adaptation in module.adaptations]
                module.adaptations = nn.ModuleList(merged)
        expected, actual = plain.maps(image), fused.maps(image)
    # An encoder may use the output of a convolution before its batch norm, too, which hooks cannot detect.
    close = (actual - expected).abs().max() <= _ALLOWED_DIFFERENCE * expected.abs().max()
    return fused if bool(close) else plain


class _SameConvolution(nn.Conv2d):
    """A convolution of stride 2 with TensorFlow's "SAME" padding, whose sizes a tracer can follow.

    `(N, C, h, w)` to `(N, C', ceil(h / 2), ceil(w / 2))`. TensorFlow pads a side of n pixels by k - 2 in total if n is
    even and by k - 1 if it is odd, the larger half at the end. Written with n % 2, a network is traced in seconds for
    any n; timm's formula with maximum and ceiling, nested once for each stage, takes SymPy minutes to simplify.
    """

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, h, w)` to `(N, C', ceil(h / 2), ceil(w / 2))`."""
        height, width = features.shape[-2:]
        top, left = ((size - 3) // 2 for size in self.kernel_size)
        padded = nn.functional.pad(features, (left + width % 2, left + 1, top + height % 2, top + 1))
        return super().forward(padded)


def _simplify_same_padding(network: nn.Module) -> None:
    layers = sys.modules.get("timm.layers")  # loaded already if the encoder is one of timm's, and not needed otherwise
    if layers is None:
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, layers.Conv2dSame) and _is_halving(child):
                parent.add_module(name, _with_traceable_padding(child))


def _is_halving(convolution: nn.Conv2d) -> bool:
    is_odd = all(size % 2 and size > 1 for size in convolution.kernel_size)
    return is_odd and convolution.stride == (2, 2) and convolution.dilation == (1, 1)


def _with_traceable_padding(convolution: nn.Conv2d) -> _SameConvolution:
    options: dict[str, Any] = {name: getattr(convolution, name) for name in OPTIONS}
    # On the meta device no random numbers are drawn, so that a validation during training does not change it.
    replacement = _SameConvolution(**options, bias=convolution.bias is not None, device="meta")
    replacement.weight, replacement.bias = convolution.weight, convolution.bias
    return replacement.train(convolution.training)


def _find_pairs(network: Network, image: Tensor) -> list[tuple[str, str]]:
    """Find pairs of a convolution and the batch norm that takes its output, by name, where each runs exactly once."""
    outputs: list[tuple[Tensor, str]] = []  # kept alive, so that each tensor has a unique id
    inputs: list[tuple[Tensor, str]] = []
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda *call, name=name: outputs.append((call[2], name))))
        elif type(module) is nn.BatchNorm2d or has_activation(module):
            hooks.append(module.register_forward_pre_hook(lambda *call, name=name: inputs.append((call[1][0], name))))
    try:
        network.maps(image)
    finally:
        for hook in hooks:
            hook.remove()
    runs = Counter(name for _, name in (*outputs, *inputs))
    makers = {id(tensor): name for tensor, name in outputs}
    return [
        (makers[id(tensor)], name)
        for tensor, name in inputs
        if id(tensor) in makers and runs[name] == runs[makers[id(tensor)]] == 1
    ]


def _fold(network: Network, convolution_name: str, norm_name: str) -> None:
    convolution, norm = network.get_submodule(convolution_name), network.get_submodule(norm_name)
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    network.set_submodule(convolution_name, fuse_conv_bn_eval(convolution, norm))
    network.set_submodule(norm_name, norm.get_submodule("act") if has_activation(norm) else nn.Identity())


def _merge_pointwise(adaptation: nn.Module) -> nn.Module:
    """Merge two consecutive 1x1 convolutions without bias into their product, in float64 for accuracy."""
    assert isinstance(adaptation, nn.Sequential)
    parts = [part for part in adaptation if not isinstance(part, nn.Dropout)]
    kernels = [part.weight for part in parts if isinstance(part, nn.Conv2d) and _is_pointwise(part)]
    if len(parts) != 2 or len(kernels) != 2:
        return nn.Sequential(*parts)
    first, second = (kernel.double().flatten(1) for kernel in kernels)
    # On the meta device no random numbers are drawn, so that a validation during training does not change it.
    merged = nn.Conv2d(first.shape[1], second.shape[0], 1, bias=False, device="meta")
    weight = (second @ first)[:, :, None, None].to(kernels[0].dtype)
    merged.weight = nn.Parameter(weight, requires_grad=False)
    return nn.Sequential(merged.eval())


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    return convolution.kernel_size == (1, 1) and convolution.groups == 1 and convolution.bias is None


INPUT, LABELS, LOGITS = "images", "labels", "logits"
"""Names of the input and outputs of the graph in every format."""
DEVIATION = "_deviation"
"""After the name of an output, in the name of the graph output of the standard deviations of its errors."""
MAPS = "maps"
"""Name of the graph output of networks with other outputs than classes: the maps of all outputs together."""

EXAMPLE_SHAPE = (2, 3, 65, 97)
"""Shape of the images for tracing; no size in it is special, such as a multiple of a stride."""
_FREE = torch.export.Dim.DYNAMIC
FREE_SIZES: Mapping[str, Any] = MappingProxyType({INPUT: {0: _FREE, 2: _FREE, 3: _FREE}})


def example_images(network: Network) -> Tensor:
    """Return the images for tracing a network: zeros of `EXAMPLE_SHAPE`, with as many bands as it takes."""
    count, _, height, width = EXAMPLE_SHAPE
    return torch.zeros(count, len(network.architecture.band_names), height, width)


class Maps(nn.Module):
    """Network that returns the maps of its outputs before upsampling; for a network with only classes, their logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 RGB images `(N, 3, H, W)` in [0, 1] to maps `(N, C, ceil(H/4), ceil(W/4))`."""
        return self.network.maps(images)


@dataclass(frozen=True, kw_only=True)
class GraphResult:
    """An output of the graph of a network."""

    name: str
    type: str
    """"float32", or the type of label ids."""
    shape: tuple[int | str, ...]
    """Sides; those that depend on the images as texts: "N", "H", "W", "ceil(H/4)", "ceil(W/4)"."""
    spec: OutputSpec | None = None
    """The output of values that it holds, finished; None for labels, logits and maps."""
    is_deviation: bool = False
    """Whether it holds the standard deviations of the errors of this output instead."""

    @property
    def meaning(self) -> str:
        """Its values, for users; "" for labels, logits and maps."""
        if self.spec is None:
            return ""
        return f"standard deviations of the errors of {self.spec.name}" if self.is_deviation else self.spec.info.meaning


def list_results(outputs: Sequence[OutputSpec], classes: int) -> tuple[GraphResult, ...]:
    """Return the outputs of the graph of a network, in their order.

    For classes, these are labels and logits. Each other output has its name, and its values in its unit at the size of
    the image, as `RefineNet.predict` returns them, followed by NAME_deviation if it predicts that of its errors. The
    maps of all outputs, from which windows and scales are put together, come last.

    Args:
        outputs: Outputs of the network.
        classes: Number of its classes.

    Raises:
        ValueError: An output has a name that graphs use for something else.
    """
    small = "ceil(H/4)", "ceil(W/4)"
    of_classes = (
        GraphResult(name=LABELS, type="uint8" if classes <= 255 else "int32", shape=("N", "H", "W")),
        GraphResult(name=LOGITS, type="float32", shape=("N", classes, *small)),
    )
    if has_only_classes(outputs):
        return of_classes
    results: list[GraphResult] = []
    for spec in outputs:
        if spec.kind == CLASS_KIND:
            results += of_classes
            continue
        shape = ("N", spec.count_channels(0), "H", "W")
        results.append(GraphResult(name=spec.name, type="float32", shape=shape, spec=spec))
        if spec.likelihood is not None:
            results.append(replace(results[-1], name=f"{spec.name}{DEVIATION}", is_deviation=True))
    channels = sum(spec.count_maps(classes) for spec in outputs)
    results.append(GraphResult(name=MAPS, type="float32", shape=("N", channels, *small)))
    _check_names(outputs, [result.name for result in results])
    return tuple(results)


def _check_names(outputs: Sequence[OutputSpec], names: Sequence[str]) -> None:
    values = [spec.name for spec in outputs if spec.kind != CLASS_KIND]
    taken = next((name for name in values if name in (INPUT, LABELS, LOGITS, MAPS) or names.count(name) > 1), None)
    if taken is not None:
        raise ValueError(
            f"An output named {taken!r} cannot be exported, because graphs have another input or output of this "
            "name. Train it under another name."
        )


class DeployedNetwork(nn.Module):
    """Network for other programs: from images to the outputs of `list_results`, with normalisation inside.

    Args:
        network: The network, which is shared, not copied.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.label_type = label_type(network.architecture.num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Predict for images.

        Args:
            images: `(N, 3, H, W)` float32 RGB in [0, 1], any H and W from 1 up.

        Returns:
            For classes label ids `(N, H, W)`, uint8 (int32 for more than 255 classes): the argmax of the logits,
            resized bilinearly to the size of the image; and the logits before resizing, `(N, K, ceil(H/4), ceil(W/4))`
            float32. For each other output its values `(N, D, H, W)` float32, and then the maps of all outputs before
            resizing, `(N, C, ceil(H/4), ceil(W/4))`.
        """
        architecture = self.network.architecture
        if has_only_classes(architecture.outputs):
            logits = self.network.logits(images)
            return self._label(logits, images), logits
        maps = self.network.maps(images)
        parts, results = split_maps(maps, architecture.outputs, architecture.num_classes), list[Tensor]()
        for spec in architecture.outputs:
            part = parts[spec.name]
            if spec.kind == CLASS_KIND:
                results += [self._label(part, images), part]
            else:
                resized = upsample(part, images, align_corners=False)
                results.append(finish(resized, spec))
                results += [finish_deviations(resized, spec)] if spec.likelihood is not None else []
        return (*results, maps)

    def _label(self, logits: Tensor, images: Tensor) -> Tensor:
        return upsample(logits, images, align_corners=False).argmax(1).to(self.label_type)


def label_type(num_classes: int) -> torch.dtype:
    """Return the type of the label ids of a graph: uint8, or int32 for more than 255 classes."""
    return torch.uint8 if num_classes <= 255 else torch.int32


def network_to_deploy(network: Network) -> DeployedNetwork:
    """Return the fused copy of a network on the CPU in evaluation mode that is traced for every format."""
    traced = without_changes_in_place(fuse(network).cpu().to(memory_format=torch.contiguous_format))
    return DeployedNetwork(traced).eval()


def without_changes_in_place(network: Network) -> Network:
    """Let the activations of a network that is going to be traced return new tensors.

    The graph is the same. PyTorch rewrites operations in place before it translates a trace to ONNX, which takes
    several times as long as the translation itself.
    """
    for module in network.modules():
        if "inplace" in vars(module):
            vars(module)["inplace"] = False
    return network


def trace(deployed: DeployedNetwork, shape: tuple[int, int, int, int] | None = None) -> torch.export.ExportedProgram:
    """Trace a network as an exported program of PyTorch, in which N, H and W are free from 1 up.

    Tracing branches on whether feature maps have one row or column or more, which affects the memory layout of tensors,
    but no value. It records the branches of the example as guards, which are removed here, because images may be small.
    The exporter checks this by comparing results on small images.

    Args:
        deployed: The network on the CPU, in evaluation mode.
        shape: Fixed shape of the images, instead of free sizes.
    """
    if shape is not None:
        with TRACING:
            return torch.export.export(deployed, (torch.zeros(shape),))
    with TRACING:
        program = torch.export.export(deployed, (example_images(deployed.network),), dynamic_shapes=dict(FREE_SIZES))
    for symbol, allowed in program.range_constraints.items():
        program.range_constraints[symbol] = type(allowed)(1, allowed.upper)
    program._guards_code.clear()
    return program
