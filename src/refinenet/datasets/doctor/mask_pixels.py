"""The pixels of image and mask files as they are stored, whatever their kind. H is height, W width."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from refinenet.datasets.doctor.value_matching import Codes
from refinenet.datasets.formats.lookup import pack_colours
from refinenet.io.image_files import DEEP_MODES, Picture, open_verified, read_colours, read_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPixels:
    """A mask as it is stored."""

    codes: Codes
    """`(H, W)` ids, or colours packed into one number."""
    is_colour: bool
    is_grey: bool
    """Whether all colours have three equal channels."""
    is_opaque: bool
    is_lossy: bool
    has_frames: bool
    palette: bytes


def open_once(path: str) -> tuple[Picture, bool]:
    """A picture, and whether its file has more than one frame or page.

    Raises:
        ValueError: as `image_files.open_verified`.
        OSError: as `image_files.open_verified`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = open_verified(path)
    return picture, any("more than one frame" in str(warning.message) for warning in caught)


def read_pixels(path: str, *, as_colours: bool) -> MaskPixels:
    """Read a mask file of any kind.

    Args:
        path: The file.
        as_colours: Whether masks are painted in the colours of classes, so that palettes and grey mean colours.

    Raises:
        ValueError: it is damaged, or of a kind that holds neither ids nor colours of 8 bits.
        OSError: it cannot be read.
    """
    picture, has_frames = open_once(path)
    image = picture.image
    palette = bytes(image.getpalette("RGB") or b"") if image.mode == "P" else b""
    if image.mode in ("1", "L", "P", *DEEP_MODES[:-1]) and not as_colours:
        codes, is_colour, is_opaque = _read_ids(picture, path), False, True
    elif image.mode in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX"):
        pixels = read_colours(picture, path)
        codes, is_colour = pack_colours(pixels[..., :3]), True
        is_opaque = pixels.shape[2] == 3 or bool(pixels[..., 3].min() == 255)
    else:
        raise MaskModeError(f"{path} has mode {image.mode}")
    return MaskPixels(
        codes=codes,
        is_colour=is_colour,
        is_grey=is_colour and bool((codes == (codes & 255) * 0x010101).all()),
        is_opaque=is_opaque,
        is_lossy=picture.is_lossy,
        has_frames=has_frames,
        palette=palette,
    )


class MaskModeError(ValueError):
    """A mask is a sound picture, of a mode in which masks do not come."""


def _read_ids(picture: Picture, path: str) -> Codes:
    if picture.format == "GIF":
        raise MaskModeError(f"{path} is a GIF, whose ids programs renumber when they write it")
    return read_ids(picture).astype(np.int64)
