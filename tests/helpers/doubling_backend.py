"""A backend that is quick, and that other processes can import."""

from __future__ import annotations

import torch
from torch import Tensor


class DoublingBackend:
    """Doubles images, and refuses wide ones."""

    device = torch.device("cpu")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images times two.

        Raises:
            ValueError: they are wider than 100 pixels.
        """
        if images.shape[-1] > 100:
            raise ValueError(f"too wide: {images.shape[-1]} pixels")
        return 2 * images
