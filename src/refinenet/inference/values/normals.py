"""Pictures of surface normals. The functions are those of `PixelForm`.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from refinenet.inference.prediction import Values
from refinenet.inference.values.subject import Subject
from refinenet.io.drawing.colour_bar import paint_vectors


def paint_normals(values: Values, subject: Subject) -> npt.NDArray[np.uint8]:  # noqa: ARG001 - as all forms
    """Return `(H, W, 3)` uint8 RGB: (n + 1) / 2 of x, y and z; black without data, which no unit vector is.

    A surface that faces the camera, z = -1, is (128, 128, 0), the ground, y = -1, is (128, 0, 128).
    """
    return paint_vectors(values)


def describe_normals(subject: Subject) -> Mapping[str, str]:
    """Return what the colours mean."""
    words = "(n + 1) / 2 * 255 of unit vectors: x right, y down, z into the scene; 0, 0, 0 = no data"
    return {"output": subject.spec.name, "encoding": "rgb", "no_data": "0", "Description": words}
