"""A backend that is quick, and that other processes can import."""

from __future__ import annotations

from refinenet.io.arrays import Array


class DoublingBackend:
    """Doubles images, and refuses wide ones."""

    device = "cpu"

    def __call__(self, images: Array) -> Array:
        """Return the images times two.

        Raises:
            ValueError: they are wider than 100 pixels.
        """
        if images.shape[-1] > 100:
            raise ValueError(f"too wide: {images.shape[-1]} pixels")
        return 2 * images
