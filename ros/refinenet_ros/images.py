"""Conversion between `sensor_msgs/Image` and NumPy arrays, without cv_bridge, which needs OpenCV.

Shape letters: H height, W width.
"""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image

CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "mono8": (0, 0, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0)}
"""Places of red, green and blue in a pixel of each encoding; alpha is not used."""
PIXEL_BYTES = {"rgb8": 3, "bgr8": 3, "mono8": 1, "rgba8": 4, "bgra8": 4}
TYPES = {"mono8": np.uint8, "mono16": np.uint16, "rgb8": np.uint8, "32FC1": np.float32}
"""Types of the encodings that are written."""


def decode_image(message: Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of a message, `(H, W, 3)` uint8 RGB.

    All encodings have 8 bits, so that `is_bigendian` has no meaning; rows may be padded (`step`).

    Raises:
        ValueError: The encoding is another, or the sizes contradict each other.
    """
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    if encoding not in CHANNELS:
        raise ValueError(f"The encoding of an image is one of {', '.join(CHANNELS)}, not {encoding!r}: convert it.")
    used, data = width * PIXEL_BYTES[encoding], np.frombuffer(message.data, np.uint8)
    if min(height, width) < 1 or step < used or len(data) < step * height:
        layout = f"{height} rows of {step} bytes"
        raise ValueError(f"{len(data)} bytes are no {encoding} image of {width}x{height} pixels in {layout}.")
    rows = data[: step * height].reshape(height, step)[:, :used].reshape(height, width, -1)
    return np.ascontiguousarray(rows[..., list(CHANNELS[encoding])])


def encode_image(pixels: npt.NDArray[Any], encoding: str, header: Any) -> Image:
    """Return a message with pixels.

    Args:
        pixels: `(H, W)`, or `(H, W, 3)` for "rgb8".
        encoding: One of `TYPES`.
        header: Header of the message.
    """
    values = np.ascontiguousarray(pixels, TYPES[encoding])
    message = Image()
    message.header = header
    message.height, message.width = values.shape[:2]
    message.encoding, message.step = encoding, values.nbytes // values.shape[0]
    message.is_bigendian = int(sys.byteorder == "big")
    # Of anything but such an array a message checks each byte, which takes seconds (ros2/rosidl_python#156).
    message.data = array.array("B", values.tobytes())
    return message
