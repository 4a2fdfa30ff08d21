"""The demo image: a synthetic street scene, its label map and the overlay, with a legend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.segmentation import Segmentation
from refinenet.legend import add_legend


def draw_demo(
    segment: Callable[[npt.NDArray[np.uint8]], Segmentation], seed: int
) -> tuple[npt.NDArray[np.uint8], Segmentation]:
    """Draw a street scene and segment it.

    Args:
        segment: Segments an image, `(H, W, 3)` uint8 RGB.
        seed: Seed of the scene.

    Returns:
        `(H', 1440, 3)` uint8 RGB, with image, label map and overlay side by side above a legend; and the segmentation.
    """
    street, _ = draw_street(seed, 360, 480)
    found = segment(street)
    panels = np.concatenate([street, found.colour, found.overlay], axis=1)
    return add_legend(panels, found.label_set, found.areas), found
