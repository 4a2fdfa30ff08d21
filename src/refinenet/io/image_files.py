"""Image and mask files into Pillow pictures and ids: the only place that opens them. H is height, W width."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageFile,
    ImagePalette,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from refinenet.io.files import quote_controls, refuse_address
from refinenet.io.sample_values import RGB as RGB
from refinenet.labels import Colour, LabelMap

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIECE = 2**20


def is_changed(file: bytes) -> bool:
    """Whether the bytes of a PNG file were changed since they were written, or lack their end; others are sound."""
    if not file.startswith(SIGNATURE):
        return False
    return is_changed_stream(io.BytesIO(file))


def is_changed_stream(file: BinaryIO) -> bool:
    """As `is_changed`, of a PNG file that is open at its start: it is read chunk by chunk."""
    file.seek(len(SIGNATURE))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        checksum, length = _checksum(file, kind, length)
        stored = file.read(4)
        if length > 0 or len(stored) < 4:
            return True
        # A capital letter marks a chunk that the pixels depend on; sloppy programs damage the others.
        if kind[:1].isupper() and checksum != int.from_bytes(stored):
            return True
        if kind == b"IEND":
            return False
    return True


def _checksum(file: BinaryIO, kind: bytes, length: int) -> tuple[int, int]:
    """The CRC-32 of a chunk, and how many of its bytes are missing."""
    checksum = zlib.crc32(kind)
    while length > 0 and (piece := file.read(min(length, _PIECE))):
        checksum = zlib.crc32(piece, checksum)
        length -= len(piece)
    return checksum, length


MAX_PIXELS = 50_000_000
"""The most pixels (H times W) that are decoded from a file, bytes or a Pillow image."""

MAX_SCANNED_PIXELS = 1_500_000_000
"""The most pixels times scans of a JPEG that is decoded: each scan goes over the whole picture. At `MAX_PIXELS` these
are 30 scans; the usual progressive file has 10."""

DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes of one channel with more than 8 bits."""

# WEBP and TIFF come last: reaching them makes Pillow import all of its formats.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Of pictures that are read where pillow-heif is installed."""

CAN_READ_AVIF = find_spec("PIL._avif") is not None
CAN_READ_HEIF = find_spec("pillow_heif") is not None
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_LOSSLESS_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF")
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_COLOUR_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX")
_WHITE_IS_ZERO = 0
_SIGNED = 2
_PLANAR = 2
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
"""Pillow keeps the high byte of each 16-bit channel. Read in the other byte order, it keeps the low one."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises on damaged files: its fuzzers' list, and what they let through from its parsers.
_PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, NotImplementedError, OverflowError, MemoryError, EOFError),
    *(IndexError, KeyError, TypeError, struct.error, zlib.error),
)


class TooLargeError(ValueError):
    """A picture of more than `MAX_PIXELS`, which is not read as a whole."""


class Picture(NamedTuple):
    """A picture read whole: upright, a copy that nobody else holds."""

    image: Image.Image
    name: str
    format: str | None
    raw_mode: str
    """How the file stores a sample, in Pillow's words ("L;4": four bits), empty where it is not known."""
    is_lossy: bool = False
    """Whether its format, or the compression inside its TIFF file, changes values."""
    is_white_zero: bool = False
    """Whether a grey TIFF stores white as 0."""
    is_signed: bool = False
    """Whether a TIFF stores signed numbers."""
    bits: int = 0
    """Of a sample of a TIFF, 0 for other formats."""
    is_planar: bool = False
    """Whether a TIFF stores its channels one after the other."""


def read_mask(path: str | os.PathLike[str]) -> LabelMap:
    """Read a label map: the ids as stored, which are a palette image's indices and a 1-bit image's 0 and 1.

    Args:
        path: a PNG, TIFF or BMP file with one channel.

    Returns:
        `(H, W)` ids, uint8, or uint16 from a file of 16 or 32 bits; turned upright as `images.decode` does it.

    Raises:
        ValueError: not an image, damaged, too large, lossy, or a colour picture instead of ids.
        OSError: as `open_picture`.
    """
    return read_ids(_read_lossless(path))


def read_ids(picture: Picture) -> LabelMap:
    """The ids in a picture, as `read_mask` gives them.

    Raises:
        ValueError: as `read_mask`, but for lossy formats.
    """
    if picture.format == "GIF":
        raise ValueError(
            f"{picture.name} is a GIF: programs that write one renumber its values, unseen, so it is no label map of "
            "ids. Save the ids as PNG from where they come from."
        )
    image = picture.image
    if image.mode == "F":
        raise ValueError(
            f"{picture.name} holds floating-point numbers (mode F), not ids: save whole numbers of 8 or 16 bits, as "
            "PNG or TIFF."
        )
    if image.mode not in ("1", "L", "P", *DEEP_MODES):
        raise ValueError(
            f"{picture.name} is a colour picture (mode {image.mode}), not ids: a label map has one channel, "
            "the id of each pixel's class. Save the ids, or give the colours of the classes in classes.yaml."
        )
    if picture.is_white_zero:
        raise ValueError(f"{picture.name} stores white as 0, so its ids are not clear. Save it as PNG.")
    ids = np.asarray(image)
    if picture.is_signed and image.mode == "L":
        ids = ids.view(np.int8)  # Pillow reads -1 as 255, which is void.
    if image.mode in DEEP_MODES or ids.dtype == np.int8:
        values = to_sixteen_bits(ids, picture.name)
        return values if image.mode in DEEP_MODES else values.astype(np.uint8)
    # Pillow stretches grey of 2 and 4 bits to 0 to 255, which would multiply the ids.
    return ids.astype(np.uint8) // np.uint8(_grey_step(picture))


def read_palette(path: str | os.PathLike[str]) -> list[Colour] | None:
    """The RGB colours of a palette image's indices, in their order, or None for an image without a palette.

    Raises:
        ValueError: as `read_mask`.
        OSError: as `open_picture`.
    """
    image = _read_lossless(path).image
    if image.mode != "P":
        return None
    values = image.getpalette("RGB") or []
    return [(values[k], values[k + 1], values[k + 2]) for k in range(0, len(values) - 2, 3)]


def read_colour_mask(path: str | os.PathLike[str]) -> RGB:
    """Read a label map that is drawn in the colours of its classes.

    Args:
        path: a PNG, TIFF, BMP or GIF file: RGB, grey, or a palette (its colours are read), opaque everywhere.

    Returns:
        `(H, W, 3)` uint8 RGB, the exact colours; turned upright as `images.decode` does it.

    Raises:
        ValueError: not an image, damaged, too large, lossy, partly transparent, or of another colour space.
        OSError: as `open_picture`.
    """
    picture = _read_lossless(path)
    if picture.image.mode not in _COLOUR_MODES:
        raise ValueError(f"{picture.name} has mode {picture.image.mode}: save a mask of colours as 8-bit RGB.")
    pixels = read_colours(picture, path)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        raise ValueError(f"{picture.name} is partly transparent, so its colours are not clear. Save it without alpha.")
    return np.ascontiguousarray(pixels[..., :3])


def read_colours(picture: Picture, path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """The exact colours of a mask's picture, which was read from `path`.

    A mask of 16 bits a channel may hold its 8-bit colours as they are (0 to 255), times 256 or times 257.

    Returns:
        `(H, W, 4)` RGBA where there is any transparency, else `(H, W, 3)` RGB.

    Raises:
        ValueError: its palette lacks a colour that is used, or its colours have more than 8 bits.
        OSError: as `open_picture`.
    """
    image = picture.image
    if image.mode in ("P", "PA"):
        _refuse_missing_colours(picture)
    high = convert(picture)
    if picture.bits > 8 and (picture.is_planar or ";16" not in picture.raw_mode):
        raise _too_deep(picture.name)  # Pillow reads planes of 16 bits as if they had 8, or only their high bytes.
    if ";16" not in picture.raw_mode:
        return high
    low = _read_low_bytes(picture, path)
    if low.shape != high.shape:
        raise _too_deep(picture.name)
    parts = [_to_eight_bits(high[..., :3], low[..., :3], picture.name)]
    if high.shape[2] == 4:
        alpha = _to_eight_bits(high[..., 3:], low[..., 3:], picture.name)
        parts.append(alpha)
    return np.concatenate(parts, 2)


def _refuse_missing_colours(picture: Picture) -> None:
    """Pillow draws an index beyond the palette in a colour of its own."""
    indices = np.asarray(picture.image)
    indices = indices[..., 0] if indices.ndim == 3 else indices
    count = len(picture.image.getpalette("RGB") or ()) // 3
    if indices.max() >= count:
        raise ValueError(
            f"{picture.name} has the index {indices.max()}, but its palette has {count} colours only. "
            "Save the mask anew, as RGB or with its whole palette."
        )


def _to_eight_bits(high: npt.NDArray[np.uint8], low: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """8-bit values from both bytes of 16-bit ones: `v`, `256 * v` or `257 * v`, each of which excludes the others."""
    if not high.any():
        return low
    if not low.any() or np.array_equal(high, low):
        return high
    raise _too_deep(name)


def _too_deep(name: str) -> ValueError:
    return ValueError(
        f"{name} has 16 bits a channel, and its values are no 8-bit colours: each has to be 0 to 255, or that times "
        "256 or 257. Save a mask of colours as 8-bit RGB."
    )


def _read_low_bytes(picture: Picture, path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """The low bytes of 16-bit channels, as `convert` gives the high ones."""
    if picture.raw_mode == "LA;16B":
        raw_mode = "RGBA"  # Four bytes: grey's high and low one, alpha's high and low one.
    else:
        kind, _, order = picture.raw_mode.partition(";")
        if order not in _OTHER_BYTE or kind not in ("RGB", "RGBA", "RGBX"):
            raise _too_deep(picture.name)
        raw_mode = f"{kind};{_OTHER_BYTE[order]}"
    with open_file(Path(path)) as stream, _clear_errors(picture.name):
        image = Image.open(stream, formats=_FORMATS)
        _replace_raw_mode(image, raw_mode)
        low = load_picture(image, picture.name, is_ours=True, says_frames=False)
    pixels = convert(low)
    return pixels if raw_mode != "RGBA" else pixels[..., [1, 1, 1, 3]]


def open_picture(path: str | os.PathLike[str]) -> Picture:
    """Read the picture in a file.

    Raises:
        ValueError: as `read_picture`, or the path is a pipe or a device.
        OSError: the file is missing (`FileNotFoundError`), a folder (`IsADirectoryError`) or may not be read
            (`PermissionError`).
    """
    # Pillow gets no name: it would map the file into memory, and a file cut short then kills the process.
    with open_file(Path(path)) as stream:
        return read_picture(stream, quote_controls(path))


def open_verified(path: str | os.PathLike[str]) -> Picture:
    """As `open_picture`, but a PNG must have the checksums that it was written with; other formats have none.

    Raises:
        ValueError: as `open_picture`, or the checksums are others.
        OSError: as `open_picture`.
    """
    with open_file(Path(path)) as stream:
        if not stream.peek(len(SIGNATURE)).startswith(SIGNATURE):
            return read_picture(stream, quote_controls(path))
        content = stream.read()
    picture = read_picture(io.BytesIO(content), quote_controls(path))
    if is_changed(content):
        raise ValueError(
            f"{quote_controls(path)} is damaged: its checksums say that it is not what was written. Get it again."
        )
    return picture


DOWNLOAD = (
    "Download it first and pass the file or its bytes; for images in a store (s3://) there is "
    "`refinenet deploy --engine ray`."
)


def open_file(target: Path) -> io.BufferedReader:
    """Open a file for reading.

    Raises:
        ValueError, OSError: as `open_picture`.
    """
    refuse_address("An image", target, DOWNLOAD)
    if os.path.isdir(target):
        raise IsADirectoryError(f"Cannot read {quote_controls(target)}: it is a folder. Name an image file in it.")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"Cannot read {quote_controls(target)}: it is a pipe or a device. Pass its bytes, or copy it.")
    try:
        return target.open("rb")
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read {quote_controls(target)}: {error.strerror}") from error


def read_picture(stream: BinaryIO, name: str) -> Picture:
    """Read a picture from a stream at its start; messages call it `name`.

    Raises:
        ValueError: as `load_picture`, or the stream is empty or no image of the formats allowed.
    """
    start = stream.read(12)
    if not start:
        raise ValueError(f"{name} is empty (0 bytes).")
    formats = _find_box_formats(start[8:], name) if start[4:8] == b"ftyp" else _FORMATS
    with _clear_errors(name):
        image = Image.open(stream, formats=formats)
        _correct_pillow(image)
    return load_picture(image, name, is_ours=True)


def _correct_pillow(image: Image.Image) -> None:
    """Correct what Pillow takes wrongly from the headers of sound files, before the pixels are read."""
    if isinstance(image, BmpImagePlugin.BmpImageFile):
        _correct_bmp(image)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        _correct_tiff(image)


def _correct_bmp(image: BmpImagePlugin.BmpImageFile) -> None:
    """Pillow drops a grey palette, and with it the bits of a pixel: 4 are read as 8, and 4 or 8 as 1."""
    assert image.fp is not None
    place = image.fp.tell()
    image.fp.seek(14)
    header = image.fp.read(16)
    image.fp.seek(place)
    bits = struct.unpack_from("<H", header, 10 if header[0] == 12 else 14)[0]
    if image.mode not in ("1", "L") or bits == {"1": 1, "L": 8}[image.mode]:
        return
    greys = (0, 255) if image.mode == "1" else range(256)
    image._mode = "P"
    image.palette = ImagePalette.raw("RGB", bytes(value for value in greys for _ in range(3)))
    _replace_raw_mode(image, {1: "P;1", 4: "P;4"}.get(bits, "P"))


def _correct_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Pillow takes colour maps of 8 bits for black, and swaps the bytes of signed and float numbers a second time."""
    colour_map = image.tag_v2.get(ExifTags.Base.ColorMap) if image.mode in ("P", "PA") else None
    if colour_map and max(colour_map) <= 255:  # libtiff's rule for maps that old programs wrote
        image.palette = ImagePalette.raw("RGB;L", bytes(colour_map))
    raw_mode = _raw_mode(image)
    if image.tile and image.tile[0][0] == "libtiff" and raw_mode in _NATIVE:
        _replace_raw_mode(image, _NATIVE[raw_mode])


_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""libtiff hands numbers on in the order of this machine, whatever that of the file."""


def _replace_raw_mode(image: ImageFile.ImageFile, raw_mode: str) -> None:
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]


def _find_box_formats(brand: bytes, name: str) -> tuple[str, ...]:
    """The formats that a file of boxes (ISO 14496-12), as telephones write it, may be read as."""
    if brand in (b"avif", b"avis") and CAN_READ_AVIF:
        return ("AVIF",)
    if brand not in _HEIF_BRANDS:
        return _FORMATS
    if not CAN_READ_HEIF:
        raise ValueError(
            f"{name} is a HEIC picture, which needs one more package: pip install 'refinenet[heif]'. Or save it as "
            "JPEG."
        )
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF", "AVIF") if CAN_READ_AVIF else ("HEIF",)


def load_picture(image: Image.Image, name: str, *, is_ours: bool = False, says_frames: bool = True) -> Picture:
    """Read the pixels of an opened Pillow image, which is left as it was unless `is_ours`; messages call it `name`.

    Raises:
        ValueError: it is damaged, has no pixels, or more than `MAX_PIXELS`.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise too_large(name, f"{width} x {height}")
    if width * height == 0:
        raise ValueError(f"{name} has no pixels ({width} x {height}).")
    with _clear_errors(name):
        # The second picture of an MPO, as phones write it, is a preview or a depth map and not missed.
        animated = image.format != "MPO" and getattr(image, "is_animated", False) and image.tell() == 0
        raw_mode, traits = _raw_mode(image), _find_traits(image)
        _refuse_many_scans(image, name)
        image.load()
        method = _UPRIGHT.get(_orientation(image))
        upright = image.transpose(method) if method is not None else image if is_ours else image.copy()
    if animated and says_frames:
        warnings.warn(f"{name} has more than one frame or page: only the first one is used.", stacklevel=4)
    return Picture(upright, name, image.format, raw_mode, *traits)


def _find_traits(image: Image.Image) -> tuple[bool, bool, bool, int, bool]:
    """Whether a picture is lossy, stores white as 0, is of signed numbers, and its bits and planes."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.format in LOSSY_FORMATS, False, False, 0, False
    photometric = image.tag_v2.get(ExifTags.Base.PhotometricInterpretation, _WHITE_IS_ZERO)
    formats = image.tag_v2.get(ExifTags.Base.SampleFormat, (1,))
    compression = image.info.get("compression")
    bits = max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))
    is_planar = image.tag_v2.get(ExifTags.Base.PlanarConfiguration, 1) == _PLANAR
    return compression in _LOSSY_TIFF, photometric == _WHITE_IS_ZERO, _SIGNED in formats, bits, is_planar


def convert(picture: Picture) -> npt.NDArray[np.uint8]:
    """`(H, W, 4)` RGBA where there is any transparency, else `(H, W, 3)` RGB."""
    image = picture.image
    with _clear_errors(picture.name):
        if image.mode == "La":
            image = image.convert("LA")
        if isinstance(image.info.get("transparency"), int) and image.mode == "L":
            image.info["transparency"] *= _grey_step(picture)
        return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def to_sixteen_bits(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint16]:
    """`(H, W)` whole numbers as uint16.

    Raises:
        ValueError: one is negative or above 65535; `name` is named.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise ValueError(f"{name} has values from {low} to {high}: 0 to 65535 are allowed. Rescale them.")
    return values.astype(np.uint16)


def _read_lossless(path: str | os.PathLike[str]) -> Picture:
    picture = open_verified(path)
    if picture.is_lossy or picture.format not in _LOSSLESS_FORMATS:
        kind = "TIFF file compressed as JPEG or WebP" if picture.format == "TIFF" else f"{picture.format} file"
        raise ValueError(
            f"{picture.name} is a {kind}, a lossy format that changes labels: a mask is PNG, "
            "TIFF or BMP. Make it anew from its source; converting this file does not bring labels back."
        )
    return picture


class _ManyScansError(ValueError):
    pass


def _refuse_many_scans(image: Image.Image, name: str) -> None:
    """A few hundred kilobytes of empty scans cost the decoder minutes."""
    stream = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or stream is None:
        return
    place = stream.tell()
    stream.seek(0)
    # No pair of bytes within a scan is a marker, so only an embedded preview could be counted as well.
    scans, last = 0, b""
    while block := stream.read(1 << 20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:] if block.endswith(b"\xff") else b""
    stream.seek(place)
    width, height = image.size
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise _ManyScansError(
            f"{name} is a progressive JPEG of {scans:,} scans, which would take very long to read: for {width} x "
            f"{height} pixels at most {MAX_SCANNED_PIXELS // (width * height):,} are read. Save it anew as a plain "
            "JPEG or PNG."
        )


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        raise too_large(name, count.group() if count else "too many") from error
    except _ManyScansError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name} is not a JPEG, PNG, WebP, BMP, TIFF or GIF image, or its start is damaged. "
            "Save it anew as one of them."
        ) from error
    except _PILLOW_ERRORS as error:
        raise ValueError(
            f"{name} is damaged, incomplete or of a kind that cannot be read "
            f"({type(error).__name__}: {error}). Get it again, or save it anew as PNG."
        ) from error


def too_large(name: str, size: str) -> TooLargeError:
    """The error for an image that is not read as a whole."""
    return TooLargeError(
        f"{name} has {size} pixels, at most {MAX_PIXELS:,} are read as a whole. Segment its file in windows "
        "(`refinenet deploy FILE --window 1024x1024`, by pip install 'refinenet[large]'), or resize the image."
    )


def _raw_mode(image: Image.Image) -> str:
    """The first of the decoder's arguments, which Pillow drops once the pixels are read."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ()
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw_mode if isinstance(raw_mode, str) else ""


def read_orientation(path: str | os.PathLike[str]) -> int:
    """How a TIFF, PNG or JPEG file is to be turned: EXIF's 1 (not at all) to 8; 1 where nothing sound says so.

    Only its header is read, whatever size the image has.

    Raises:
        ValueError, OSError: as `open_picture`.
    """
    with open_file(Path(path)) as stream:
        start = stream.peek(4)[:4]
        try:
            if start[:2] not in (b"II", b"MM"):
                opened = PngImagePlugin.PngImageFile if start == SIGNATURE[:4] else JpegImagePlugin.JpegImageFile
                return _orientation(opened(stream))
            directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(16 if b"+" in start else 8))
            stream.seek(directory.next)
            directory.load(stream)
            return int(directory.get(ExifTags.Base.Orientation, 1))
        except _PILLOW_ERRORS:
            return 1


def needs_gdal(stream: io.BufferedReader) -> bool:
    """Whether Pillow cannot read all of a file's samples, or not where it has no data.

    These are TIFF files with other than 8 bits of grey, RGB or a palette, with alpha, a value for no data or a mask,
    and PNG files of 16-bit colours. Only headers are read, and the stream stays at its start.
    """
    start = stream.peek(26)[:26]
    if start.startswith(SIGNATURE):
        return start[24:25] == b"\x10" and start[25:26] != b"\0"
    if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return False
    try:
        directories = list(_directories(stream))
    except _PILLOW_ERRORS:
        return False
    finally:
        stream.seek(0)
    has_mask = any(_frame_kind(directory) & _MASK_FRAME for directory in directories)
    return has_mask or (bool(directories) and not _is_plain(directories[0]))


def count_pages(stream: io.BufferedReader) -> int:
    """The pages of a TIFF file without masks and reduced copies; 1 for other files."""
    try:
        return sum(not _frame_kind(directory) & (_MASK_FRAME | _REDUCED_FRAME) for directory in _directories(stream))
    except _PILLOW_ERRORS:
        return 1
    finally:
        stream.seek(0)


_REDUCED_FRAME, _MASK_FRAME = 1, 4
_NODATA_TAG = 42113
_MAX_DIRECTORIES = 10_000


def _directories(stream: io.BufferedReader) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    start = stream.peek(4)[:4]
    size = 16 if b"+" in start else 8
    directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(size))
    for _ in range(_MAX_DIRECTORIES):
        if not directory.next:
            return
        stream.seek(directory.next)
        directory.load(stream)
        yield directory


def _frame_kind(directory: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    kind = directory.get(254, 0)
    return kind if isinstance(kind, int) else 0


def _is_plain(directory: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether the page is of a kind that Pillow reads wholly, or one that GDAL does not read."""
    bits, count, ink = directory.get(258, (1,)), directory.get(277, 1), directory.get(262)
    if _NODATA_TAG in directory:
        return False
    if ink not in (1, 2, 3):  # white as 0, and spaces of colours that are converted by Pillow alone
        return True
    usual = 3 if ink == 2 else 1
    return all(value <= 8 for value in bits) and count == usual and 338 not in directory


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _PILLOW_ERRORS:  # The pixels are sound, and a note about them that cannot be read is as none.
        return 1
    return value if isinstance(value, int) else 1


def _grey_step(picture: Picture) -> int:
    bits = picture.raw_mode.partition(";")[2][:1] if picture.image.mode == "L" else ""
    return {"2": 85, "4": 17}.get(bits, 1)


IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *((".avif",) if CAN_READ_AVIF else ()),
    *(HEIF_SUFFIXES if CAN_READ_HEIF else ()),
)
"""What names of images end in, in small letters."""


def list_files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The files in a folder that end in one of `suffixes`, hidden ones aside, in any order."""
    return (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))


def walk_names(folder: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """The names of a folder's files that end in one of `suffixes`, in any order, hidden ones aside.

    Files in subfolders have these in front of their names, parted by "/".
    """
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder).as_posix()
        before = "" if inside == "." else f"{inside}/"
        yield from (before + name for name in names if has_suffix(name, suffixes))


def _refuse(error: OSError) -> None:
    raise error  # a folder that cannot be read would else be taken for an empty one


def has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file's name ends in one of `suffixes`, in small letters or capitals, and is not hidden."""
    return name.lower().endswith(tuple(suffixes)) and not name.startswith(".")
