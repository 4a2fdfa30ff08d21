"""Steps of inference on tensors of PyTorch, which stay on their device: what `upsampling` does with NumPy arrays.

Shape letters: N batch, K classes, h and w height and width of the logits, H and W those of the image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from refinenet.inference import upsampling
from refinenet.io.images.sample_values import Pixels


def prepare(pixels: Pixels, device: object) -> Tensor:
    """Convert `(H, W, B)` uint8 or float32 to `(1, B, H, W)` float32 in [0, 1] on a device, channels last in memory."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).to(torch.device(str(device)))
    scaled = image.to(torch.float32).div(255) if image.dtype == torch.uint8 else image
    return scaled[None].permute(0, 3, 1, 2)


def resize(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize logits `(N, K, h, w)` bilinearly to `(N, K, H, W)`, channels last in memory."""
    return functional.interpolate(_classes_together(logits), size, mode="bilinear", align_corners=False)


def resize_image(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images `(N, B, H, W)` float32 in [0, 1] bilinearly with antialiasing, to `size`, height and width."""
    # Rounding can exceed the range [0, 1] in the last digit.
    return functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def largest_class(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class of the largest logit after bilinear resizing: `(K, h, w)` to `(H, W)` int64."""
    if logits.device.type == "cpu":
        return torch.from_numpy(upsampling.largest_class(logits.numpy(), size))
    scores = logits[None] if tuple(logits.shape[1:]) == tuple(size) else resize(logits[None], size)
    return scores[0].permute(1, 2, 0).argmax(-1)


def largest_share(logits: Tensor, size: tuple[int, int], temperature: float | None) -> Tensor:
    """Return the probability of the largest class after bilinear resizing: `(K, h, w)` to `(H, W)` float32."""
    scores: Tensor = upsampling.resize(logits[None], size)[0].permute(1, 2, 0)
    best = scores.amax(-1)
    if temperature is None:
        return best
    # The softmax of the largest logit is 1 / sum(exp(logit - largest)); those of the others are not needed.
    return (scores - best[..., None]).div_(temperature).exp_().sum(-1).reciprocal_()


def _classes_together(logits: Tensor) -> Tensor:
    """Return `(N, K, h, w)`, channels last in memory.

    With a batch of one, a tensor of unusual strides counts as channels last, too, but PyTorch resizes it by a path
    that is several times slower; so the usual strides are made explicitly.
    """
    if len(logits) == 1:
        return logits[0].permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    return logits.contiguous(memory_format=torch.channels_last)
