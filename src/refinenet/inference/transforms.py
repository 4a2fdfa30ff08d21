"""What images pass through on their way to the network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def prepare(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """`(H, W, 3)` uint8 RGB to `(1, 3, H, W)` float32 in [0, 1], channels last in memory."""
    if device.type == "cpu":
        # By NumPy: PyTorch's threads, woken for less than a millisecond, would wait busily beside the engine's.
        return torch.from_numpy(np.divide(pixels, np.float32(255), dtype=np.float32, order="C")[None]).permute(
            0, 3, 1, 2
        )
    image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
    return image.to(torch.float32).div(255).contiguous(memory_format=torch.channels_last)
