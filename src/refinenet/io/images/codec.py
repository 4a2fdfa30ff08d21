"""Decoding of files, arrays and tensors to RGB images, and encoding to files. H is height, W width."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from refinenet.io.extras import install_extra
from refinenet.io.files import quote_controls, refuse_address, write_atomically
from refinenet.io.images.band_images import NUMPY_MAGIC, decode_bands
from refinenet.io.images.image_files import (
    DEEP_MODES,
    DOWNLOAD,
    Picture,
    convert,
    load_picture,
    open_file,
    read_picture,
    to_sixteen_bits,
)
from refinenet.io.images.image_headers import count_pages, needs_gdal
from refinenet.io.images.image_sources import ImageSource as ImageSource
from refinenet.io.images.image_sources import Readable, TensorLike, as_bytes, detach, not_an_image, read_stream
from refinenet.io.images.sample_values import (
    AS_DECLARED,
    RGB,
    Decoded,
    ImageWarning,
    Mask,
    Note,
    Reading,
    Scale,
    is_transparency,
    opaque_somewhere,
    over_black,
    unused_alpha,
)
from refinenet.io.raster.reader import is_installed, read_whole
from refinenet.labels import Colour

ChannelOrder = Literal["rgb", "bgr"]
"""Order of the channels of an array; "bgr" is that of OpenCV."""


def decode(
    image: ImageSource,
    *,
    channel_order: ChannelOrder = "rgb",
    bands: Sequence[int] | None = None,
    value_range: tuple[float, float] | None = None,
) -> RGB:
    """Read an image from a file, bytes, a Pillow image, an array or a tensor.

    Files, bytes and Pillow images (JPEG, PNG, WebP, BMP, TIFF, GIF) are turned upright by their EXIF
    orientation; transparency is laid over black; 16 bits are scaled to 8. Of an animation the first frame is read
    (of a Pillow image, the current one), with a `UserWarning`. Pixels without data, by the alpha, mask or nodata value
    of a file, are black. Other choices, such as which of more than three bands are used, and values that fill only a
    small part of their range are reported by a `UserWarning`, too.

    Args:
        image: A path, the bytes of a file (bytes, bytearray, memoryview), a binary file object, a Pillow image, a
            NumPy array `(H, W)` or `(H, W, C)`, or a tensor `(H, W)` or `(C, H, W)`, where C is 1, 3 or, with alpha, 4;
            any number where bands are chosen. Arrays and tensors are uint8, bool, uint16 (0 to 65535) or floating-point
            (0 to 1); with a value range, of any numbers. The source is never modified. A seekable file object is read
            from its beginning, whatever its position, which is restored afterwards; any other, such as a pipe or an
            HTTP response, is read to its end. It is not closed.
        channel_order: Order of the channels of an array or tensor; "bgr" for OpenCV.
        bands: Bands for red, green and blue, or one for grey, numbered from 1; by default those that the file declares
            as red, green and blue, or its only one.
        value_range: Stored values that become black and white, such as (0, 4095) for 12 bits; others are clipped and
            counted. By default the range of the type.

    Returns:
        `(H, W, 3)` uint8 RGB, contiguous, a copy.

    Raises:
        ValueError: Not an image, damaged, larger than `image_files.MAX_PIXELS` (files, bytes, Pillow images), of a
            wrong shape, with values out of range, or a `channel_order` for a source that knows its own.
        TypeError: The source or its dtype is not one of the above, or a file object is open for text or asynchronous.
        OSError: The file is missing (`FileNotFoundError`), a folder (`IsADirectoryError`) or not readable
            (`PermissionError`).
    """
    reading = Reading(bands=None if bands is None else tuple(bands), value_range=value_range)
    decoded = read_image(image, channel_order=channel_order, reading=reading)
    for note in decoded.notes:
        warnings.warn(ImageWarning(note), stacklevel=2)
    return decoded.pixels


def read_image(image: ImageSource, *, channel_order: ChannelOrder = "rgb", reading: Reading = AS_DECLARED) -> Decoded:
    """Read an image as `decode` does, and return where it has data, and notes instead of warnings.

    For a model of named bands, the image has as many bands as the model; see `band_images`.
    """
    check_channel_order(channel_order)
    if reading.model_bands:
        if channel_order == "bgr":
            raise ValueError("channel_order='bgr' is for RGB models: pass the bands in the order of the model.")
        return decode_bands(image, reading)
    if isinstance(image, np.ndarray):
        return _from_array(image, channel_order, reading)
    if isinstance(image, TensorLike):
        return _from_array(_tensor_to_array(image, reading), channel_order, reading)
    if channel_order == "bgr":
        raise ValueError(
            "channel_order is for arrays and tensors: files and Pillow images define their own. Leave it out."
        )
    if isinstance(image, Image.Image):
        return _from_picture(load_picture(image, "The Pillow image"), reading)
    if isinstance(image, bytes | bytearray | memoryview):
        content = as_bytes(image)
        return _from_stream(_buffered(content), f"The image of {len(content):,} bytes", None, reading)
    if isinstance(image, str | os.PathLike):
        refuse_address("An image", image, DOWNLOAD)
        path = Path(image)
        with open_file(path) as stream:
            return _from_stream(stream, quote_controls(image), path, reading)
    if isinstance(image, Readable):
        name, content = read_stream(image)
        return _from_stream(_buffered(content), name, None, reading)
    raise not_an_image(image)


def _buffered(content: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(content))


def check_channel_order(channel_order: str) -> None:
    """Check that a channel order is "rgb" or "bgr".

    Raises:
        ValueError: It is another one.
    """
    if channel_order not in ("rgb", "bgr"):
        raise ValueError(f"channel_order must be 'rgb' or 'bgr', not {channel_order!r}.")


def knows_its_order(image: object) -> bool:
    """Whether the channel order of an image is known, as for files and Pillow images, but not arrays and tensors."""
    return not isinstance(image, np.ndarray | TensorLike)


def _from_stream(stream: io.BufferedReader, name: str, path: Path | None, reading: Reading) -> Decoded:
    if stream.peek(len(NUMPY_MAGIC)).startswith(NUMPY_MAGIC):
        raise ValueError(
            f"{name} is a NumPy file; such files are read only as bands, by a network with named bands "
            "(RefineNet(bands='red,green,blue,nir:0:4095')) or as declared in the dataset's bands.yaml. If it is a "
            "picture, pass the array itself, or save it as PNG."
        )
    has_notes = path is not None and _has_mask_beside(path)
    is_deep = needs_gdal(stream)
    is_tiff = stream.peek(2)[:2] in (b"II", b"MM")
    if not (is_deep or has_notes or reading.bands is not None):
        return _from_picture(read_picture(stream, name), reading)
    if is_installed():
        pages = count_pages(stream) if is_tiff else 1
        if pages > 1:
            warnings.warn(f"{name} has more than one frame or page: only the first one is used.", stacklevel=4)
        return _from_raster(stream, name, path, reading)
    if reading.bands is not None or has_notes:
        raise ValueError(f"{name}: bands and masks are read by rasterio: {install_extra('large')}")
    return _from_picture(read_picture(stream, name), reading)


def _has_mask_beside(path: Path) -> bool:
    """Whether GDAL's files beside an image mark pixels without data."""
    # `os.path.isfile` returns False for names that are too long, where `Path.is_file` raises.
    notes = Path(f"{path}.aux.xml")
    return os.path.isfile(f"{path}.msk") or (os.path.isfile(notes) and b"NoDataValue" in notes.read_bytes())


def _from_raster(stream: io.BufferedReader, name: str, path: Path | None, reading: Reading) -> Decoded:
    if path is not None:
        return read_whole(path, reading)
    with tempfile.TemporaryDirectory(prefix="refinenet-") as folder:
        copy = Path(folder) / "image"
        copy.write_bytes(stream.read())
        try:
            decoded = read_whole(copy, reading)
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), name)) from error
    notes = tuple(note._replace(text=note.text.replace(str(copy), name)) for note in decoded.notes)
    return replace(decoded, notes=notes)


def encode(
    pixels: npt.NDArray[Any],
    suffix: str,
    *,
    palette: Sequence[Colour] | None = None,
    text: Mapping[str, str] | None = None,
) -> bytes:
    """Encode an image file, without any other metadata than `text`.

    Args:
        pixels: `(H, W, 3)` uint8 RGB, or, for PNG, `(H, W)` uint8 or uint16 ids.
        suffix: ".png", or ".jpg" or ".jpeg" (quality 95, full colour resolution).
        palette: RGB colours of uint8 ids, at most 256; the file still stores the ids. Further ids are black.
        text: Texts by keyword for the text chunks of PNG; other formats have none.

    Raises:
        ValueError: Another suffix or shape, no pixels, a label map as JPEG (it would change ids), a palette
            for anything but uint8 ids, or a side longer than the format allows.
        TypeError: Another dtype.
    """
    image_format = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(suffix.lower())
    if image_format is None:
        raise ValueError(f"Images are written as .png, .jpg or .jpeg, not {suffix!r}.")
    _check_writable(pixels, image_format, palette)
    # Pillow reads the bytes as they lie in memory, so they must be contiguous and in native byte order.
    image = Image.fromarray(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=")))
    if palette is not None:
        # A palette of fewer than 256 colours would change the bits per pixel, so it is filled up with black.
        image.putpalette(bytes(value for colour in palette for value in colour).ljust(768, b"\0"))
    content = io.BytesIO()
    # The default level 6 of zlib takes several times as long, and saves only a tenth of the bytes of a picture and a
    # third of the few bytes of a label map (`benchmarks/files.py`).
    options: dict[str, Any] = {"compress_level": 1 if pixels.ndim == 3 else 3}
    if image_format == "JPEG":
        options = {"quality": 95, "subsampling": 0}
    elif text:
        options["pnginfo"] = PngInfo()
        for keyword, words in text.items():
            options["pnginfo"].add_text(keyword, words)
    try:
        image.save(content, image_format, **options)
    except OSError as error:
        raise ValueError(f"Shape {pixels.shape} cannot be written as {image_format}: {error}.") from error
    return content.getvalue()


def write(path: str | os.PathLike[str], pixels: npt.NDArray[Any], *, palette: Sequence[Colour] | None = None) -> Path:
    """Write `encode(pixels, suffix of path, palette=palette)` to `path`, completely or not at all.

    Returns:
        The path written.

    Raises:
        ValueError: As `encode`.
        TypeError: As `encode`.
        OSError: As `write_atomically`.
    """
    return write_atomically(path, encode(pixels, Path(path).suffix, palette=palette))


def _from_picture(picture: Picture, reading: Reading) -> Decoded:
    if reading.bands is not None:
        raise ValueError(f"{picture.name}: bands can only be chosen for files, arrays and tensors. Leave bands out.")
    if picture.image.mode in DEEP_MODES:
        return _from_deep_picture(picture, reading)
    pixels, notes = convert(picture), list[Note]()
    valid: Mask | None = None
    if pixels.shape[2] == 4 and picture.format == "TIFF" and not is_transparency(pixels[..., 3]):
        pixels, notes = np.ascontiguousarray(pixels[..., :3]), [unused_alpha(picture.name, 4)]
    elif pixels.shape[2] == 4:
        valid = opaque_somewhere(pixels[..., 3])
    scale = Scale(picture.name, pixels.dtype, reading)
    scale.check_range(pixels[..., :3], valid)
    if scale.range is not None:
        pixels[..., :3] = scale(pixels[..., :3], valid)
    laid = pixels if pixels.shape[2] == 3 else over_black(pixels)
    return Decoded(pixels=laid, valid=valid, notes=(*notes, *scale.notes()))


def _from_deep_picture(picture: Picture, reading: Reading) -> Decoded:
    grey, key = np.array(picture.image), picture.image.info.get("transparency")
    valid = opaque_somewhere(grey != key) if isinstance(key, int) else None
    if picture.image.mode != "F" and reading.value_range is None:
        grey = to_sixteen_bits(grey, picture.name)
    scale = Scale(picture.name, grey.dtype, reading)
    grey = grey[..., np.newaxis]
    scale.check_range(grey, valid)
    pixels = over_black(scale(grey, valid))
    return Decoded(pixels=pixels, valid=valid, notes=scale.notes())


def _tensor_to_array(tensor: Any, reading: Reading) -> npt.NDArray[Any]:
    shape = tuple(tensor.shape)
    if len(shape) == 4:
        raise ValueError(f"A tensor of shape {shape} is a batch: pass one image, or use r.network for batches.")
    if len(shape) != 2 and (len(shape) != 3 or (shape[0] not in (1, 3, 4) and reading.bands is None)):
        raise ValueError(
            f"An image tensor must have shape (3, H, W), (1, H, W), (4, H, W) or (H, W), not {shape}. "
            "If the channels come last, use tensor.permute(2, 0, 1)."
        )
    array = detach(tensor)
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _from_array(array: npt.NDArray[Any], channel_order: str, reading: Reading) -> Decoded:
    if array.ndim == 3 and reading.bands is not None:
        array = _choose_channels(array, reading.bands)
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"An image array must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}. "
            "If the channels come first, use array.transpose(1, 2, 0); for several images, pass one at a time; for "
            "more channels, choose those for red, green and blue: bands=(1, 2, 3)."
        )
    if array.size == 0:
        raise ValueError(f"An image array must have at least one pixel, this one has shape {array.shape}.")
    samples = np.atleast_3d(array)
    colours, alpha = (samples[..., :3], samples[..., 3:]) if samples.shape[2] == 4 else (samples, None)
    scale = Scale("The array", array.dtype, reading)
    valid = None if alpha is None else opaque_somewhere(alpha[..., 0])
    if alpha is not None and array.dtype == np.uint8:
        pixels = np.concatenate([scale(colours), alpha], axis=2)
    else:
        pixels = scale(samples)
    scale.check_range(colours, valid)
    # After scaling: `check_range` and the alpha channel do not depend on the order of colours.
    if channel_order == "bgr" and pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return Decoded(pixels=over_black(pixels), valid=valid, notes=scale.notes())


def _choose_channels(array: npt.NDArray[Any], bands: Sequence[int]) -> npt.NDArray[Any]:
    if max(bands) > array.shape[2]:
        raise ValueError(
            f"An array of shape {array.shape} has no band {max(bands)}: choose from 1 to {array.shape[2]}."
        )
    return array[..., [band - 1 for band in bands]]


def _check_writable(pixels: npt.NDArray[Any], image_format: str, palette: Sequence[Colour] | None) -> None:
    if pixels.dtype.type not in (np.uint8, np.uint16):
        raise TypeError(f"Images are written from uint8, label maps from uint8 or uint16, not from {pixels.dtype}.")
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype.type is np.uint8
    if pixels.size == 0 or not (is_colour or pixels.ndim == 2):
        raise ValueError(
            f"Shape {pixels.shape} of {pixels.dtype} cannot be written: (H, W, 3) uint8 RGB, (H, W) uint8 "
            "and (H, W) uint16 can, with at least one pixel."
        )
    if image_format == "JPEG" and not is_colour:
        raise ValueError("A label map cannot be written as JPEG, which would change its ids. Write it as .png.")
    if palette is not None and (is_colour or pixels.dtype.type is not np.uint8 or len(palette) > 256):
        raise ValueError(
            f"A palette is for (H, W) uint8 ids and has at most 256 colours, not for {pixels.dtype} of shape "
            f"{pixels.shape} with {len(palette)} colours. Leave it out."
        )
