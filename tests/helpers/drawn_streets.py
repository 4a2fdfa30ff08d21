"""Streets that are drawn once in a process: each takes a tenth of a second, and tests and exports ask for the same."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from refinenet.datasets import street_scenes
from refinenet.datasets.street_scenes.scene import draw_street as draw

_drawn = lru_cache(maxsize=128)(draw)  # at most 90 MB of the default size


def draw_street(seed: int, height: int = 360, width: int = 480) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return what `scene.draw_street` returns, in arrays of one's own."""
    image, labels = _drawn(seed, height, width)
    return image.copy(), labels.copy()


def keep_streets() -> None:
    """Let all that is imported later draw each street once; tests of the drawing itself import `scene.draw_street`."""
    vars(street_scenes)["draw_street"] = draw_street
