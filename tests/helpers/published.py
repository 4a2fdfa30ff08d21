"""The published checkpoints, rebuilt: names and shapes as they were, values that anyone can make again.

`parity/keys/` lists the tensors of four published formats, `parity/expected/` what the published networks answered on
the values that `published_weights` fills in. `resnet_shapes` spells the ResNet formats out for every depth.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PARITY = Path(__file__).parents[1] / "parity"
CASES = ("lightweight_mobilenetv2_voc", "lightweight_50_voc", "acrv_full_50", "full_101_voc")
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def published_shapes(case: str) -> dict[str, tuple[int, ...]]:
    """The recorded names and shapes of one published format."""
    recorded = json.loads((PARITY / "keys" / f"{case}.json").read_text("utf-8"))["keys"]
    return {name: tuple(shape) for name, shape in recorded}


def published_weights(case: str) -> dict[str, Tensor]:
    """The tensors on which the published network of this case gave `expected_logits`."""
    return {name: torch.from_numpy(_array(name, shape)) for name, shape in published_shapes(case).items()}


def expected_logits(case: str) -> Tensor:
    """What the published network of this case answered for `image`: float32 `(1, K, 25, 33)`."""
    with np.load(PARITY / "expected" / f"{case}.npz") as archive:
        return torch.from_numpy(archive["logits"])


def image() -> Tensor:
    """The picture of the parity cases: float32 RGB `(1, 3, 97, 129)` in [0, 1]."""
    y, x = np.mgrid[0:97, 0:129].astype(np.float64)
    noise = np.random.Generator(np.random.PCG64(7)).uniform(-20, 20, (97, 129, 3))
    waves = [np.sin(x / 9) * np.cos(y / 7), np.sin((x + y) / 13), np.cos(x / 5) * np.sin(y / 17)]
    pixels = (128 + 90 * np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))


def _array(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | npt.NDArray[np.int64]:
    if name.endswith("num_batches_tracked"):
        return np.array(0, np.int64)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        values = generator.uniform(0.5, 1.5, shape)
    elif len(shape) == 4:  # a convolution's kernel
        gain = 2.5 if shape[2] == 1 else 1.0
        values = generator.standard_normal(shape) * (gain / np.prod(shape[1:])) ** 0.5
    elif name.endswith("weight"):  # a batch norm's scale
        values = generator.uniform(0.4, 0.8, shape)
    else:  # biases and running means
        values = generator.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def resnet_shapes(model_type: str, depth: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published RefineNet on a ResNet, written out from the naming of the two families."""
    full = model_type == "full"
    side = 3 if full else 1
    shapes = _encoder_shapes(BLOCKS[depth])
    for stage, (tap, width) in enumerate([(2048, 512), (1024, 256), (512, 256), (256, 256)], start=1):
        kernel = (width, width, side, side)
        shapes[f"p_ims1d2_outl{stage}_dimred.weight"] = (width, tap, side, side)
        if stage > 1:
            shapes[f"adapt_stage{stage}_b2_joint_varout_dimred.weight"] = kernel
        if stage < 4:
            shapes[f"mflow_conv_g{stage}_b3_joint_varout_dimred.weight"] = (256, width, side, side)
        for link in (1, 2, 3, 4):
            shapes[f"mflow_conv_g{stage}_pool.0.{link}_outvar_dimred.weight"] = kernel
        for place, units in (("adapt_stage{}_b", 2), ("mflow_conv_g{}_b", 3)):
            for unit in range(1, units + 1) if full else ():
                prefix = f"{place.format(stage)}.0.{unit}_conv"
                shapes |= {f"{prefix}.weight": kernel, f"{prefix}.bias": (width,)}
                shapes[f"{prefix}_relu_varout_dimred.weight"] = kernel
    return {**shapes, "clf_conv.weight": (num_classes, 256, 3, 3), "clf_conv.bias": (num_classes,)}


def _encoder_shapes(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {"conv1.weight": (64, 3, 7, 7), **_norm_shapes("bn1", 64)}
    channels = 64
    for layer, count in enumerate(blocks, start=1):
        inner, outer = 64 * 2 ** (layer - 1), 256 * 2 ** (layer - 1)
        for block in range(count):
            prefix = f"layer{layer}.{block}"
            for number, shape in enumerate([(inner, channels, 1, 1), (inner, inner, 3, 3), (outer, inner, 1, 1)], 1):
                shapes |= {f"{prefix}.conv{number}.weight": shape, **_norm_shapes(f"{prefix}.bn{number}", shape[0])}
            if block == 0:
                shapes[f"{prefix}.downsample.0.weight"] = (outer, channels, 1, 1)
                shapes |= _norm_shapes(f"{prefix}.downsample.1", outer)
            channels = outer
    return shapes


def _norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    vectors = {f"{name}.{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}
