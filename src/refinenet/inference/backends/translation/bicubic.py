"""Bicubic resizing with antialiasing as matrix products, for programs that have no such operation.

Vision transformers resize their position embeddings in this way, and the MATLAB networks their images and feature maps.

Shape letters: N batch, C channels, H and W height and width of the input, h and w those of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

_SHARPNESS = -0.5
"""Parameter a of the kernel, as in Pillow and in PyTorch with antialiasing."""


def decompose_bicubic(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a traced program in which each bicubic resizing with antialiasing consists of matrix products.

    A program without any is returned as it is.
    """
    resizing = aten._upsample_bicubic2d_aa
    table: dict[Any, Callable[..., Tensor]] = {resizing.vec: resize_bicubic, resizing.default: resize_bicubic}
    if not any(node.target in table for node in program.graph.nodes):
        return program
    decomposed: torch.export.ExportedProgram = program.run_decompositions(table)
    return decomposed


def resize_bicubic(images: Tensor, size: Sequence[int], align_corners: bool = False, *scales: object) -> Tensor:
    """Resize `(N, C, H, W)` to `(N, C, h, w)` as `torch.nn.functional.interpolate` does with `antialias=True`.

    Args:
        images: Float tensor.
        size: h and w.
        align_corners: Must be False.
        scales: Factors for which sizes were rounded; must be None, as they are not used.
    """
    assert not align_corners
    assert all(scale is None for scale in scales)
    height, width = size
    rows = _weigh(images.shape[2], height, images)
    columns = _weigh(images.shape[3], width, images)
    return torch.matmul(torch.matmul(rows, images), columns.transpose(0, 1))


def _weigh(before: int, after: int, like: Tensor) -> Tensor:
    """Return the share of each value before resizing in each after it, `(after, before)`.

    The kernel is that of Keys ("Cubic convolution interpolation for digital image processing", 1981), stretched by the
    factor by which the image shrinks, if it does.
    """
    wanted = torch.arange(after, dtype=like.dtype, device=like.device)[:, None]
    given = torch.arange(before, dtype=like.dtype, device=like.device)[None]
    # A tensor: sides may be symbolic, and the comparison of their ratio with 1 shall stay a part of the program.
    step = (torch.ones_like(wanted[:1]) * before) / after
    distance = ((given + 0.5) - (wanted + 0.5) * step).abs() / step.clamp(min=1)
    a = _SHARPNESS
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
    return weights / weights.sum(1, keepdim=True)
