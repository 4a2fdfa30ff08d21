"""Point clouds of depths, as binary PLY files (Greg Turk, The PLY Polygon File Format, 1994).

Shape letters: H height, W width, M points.
"""

from __future__ import annotations

import numpy as np

from refinenet.inference.prediction import Prediction
from refinenet.inference.values.subject import Subject

_HEADER = """\
ply
format binary_little_endian 1.0
comment metres; x right, y down, z into the scene
element vertex {count}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
end_header
"""
_VERTEX = np.dtype([("point", "<f4", 3), ("colour", "u1", 3)])


def check_cloud(subject: Subject) -> None:
    """Refuse a missing camera."""
    if subject.intrinsics is None:
        raise ValueError(
            f"{subject.kind} needs the camera: pass intrinsics=(fx, fy, cx, cy) in pixels (--intrinsics fx,fy,cx,cy)."
        )


def pack_cloud(prediction: Prediction, subject: Subject) -> bytes:
    """Return a PLY file of all pixels with a depth, in rows from the top, in the frame of the camera.

    The centre of the pixel in row v, column u shows `depth * ((u - cx) / fx, (v - cy) / fy, 1)`.
    """
    assert subject.intrinsics is not None
    fx, fy, cx, cy = subject.intrinsics
    depth = prediction[subject.spec.name][0].astype(np.float64)
    rows, columns = np.nonzero(np.isfinite(depth))
    far = depth[rows, columns]
    vertices = np.empty(len(far), _VERTEX)
    vertices["point"] = np.stack([(columns - cx) / fx * far, (rows - cy) / fy * far, far], axis=1)
    vertices["colour"] = prediction.rgb[rows, columns]
    return _HEADER.format(count=len(far)).encode("ascii") + vertices.tobytes()
