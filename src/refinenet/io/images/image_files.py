"""Opening and decoding of image files with Pillow; nothing else in the package does this. H is height, W width."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, ExifTags, Image, ImageFile, ImagePalette, TiffImagePlugin, UnidentifiedImageError

from refinenet.io.extras import install_extra
from refinenet.io.files import quote_controls, refuse_address
from refinenet.io.images.image_headers import PILLOW_ERRORS, SIGNATURE, exif_orientation, is_changed
from refinenet.io.images.sample_values import RGB as RGB

MAX_PIXELS = 50_000_000
"""Maximum number of pixels (H times W) that are decoded from a file, bytes or a Pillow image."""
MAX_SCANNED_PIXELS = 1_500_000_000
"""Maximum of pixels times scans of a JPEG, because each scan covers the whole picture. At `MAX_PIXELS` these are 30
scans; the usual progressive file has 10."""
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes for one channel of more than 8 bits."""
# WEBP and TIFF come last because trying them makes Pillow import all of its formats.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Suffixes of pictures that are read if pillow-heif is installed."""
CAN_READ_AVIF = find_spec("PIL._avif") is not None
CAN_READ_HEIF = find_spec("pillow_heif") is not None
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF")
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_WHITE_IS_ZERO = 0
_SIGNED = 2
_PLANAR = 2
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooLargeError(ValueError):
    """A picture has more than `MAX_PIXELS` and is not read as a whole."""


class UnknownFormatError(ValueError):
    """A file is not a picture of a format that is read."""


class Picture(NamedTuple):
    """A decoded picture: upright, and a copy of its own."""

    image: Image.Image
    name: str
    format: str | None
    raw_mode: str
    """Pillow's raw mode, how the file stores a sample ("L;4": four bits); empty if unknown."""
    is_lossy: bool = False
    """Whether its format, or the compression inside a TIFF file, changes values."""
    is_white_zero: bool = False
    """Whether a grey TIFF stores white as 0."""
    is_signed: bool = False
    """Whether a TIFF stores signed numbers."""
    bits: int = 0
    """Bits of a sample of a TIFF; 0 for other formats."""
    is_planar: bool = False
    """Whether a TIFF stores its channels one after the other instead of interleaved."""


def open_picture(path: str | os.PathLike[str]) -> Picture:
    """Read the picture in a file.

    Raises:
        ValueError: As `read_picture`, or the path is a pipe or a device.
        OSError: The file is missing (`FileNotFoundError`), a folder (`IsADirectoryError`) or not readable
            (`PermissionError`).
    """
    # Pillow gets a stream, not a path, which it would map into memory: a file truncated meanwhile kills the process.
    with open_file(Path(path)) as stream:
        return read_picture(stream, quote_controls(path))


def open_verified(path: str | os.PathLike[str]) -> Picture:
    """Read the picture in a file as `open_picture` does, and check the checksums of a PNG; other formats have none.

    Raises:
        ValueError: As `open_picture`, or a checksum does not match.
        OSError: As `open_picture`.
    """
    with open_file(Path(path)) as stream:
        if not stream.peek(len(SIGNATURE)).startswith(SIGNATURE):
            return read_picture(stream, quote_controls(path))
        content = stream.read()
    picture = read_picture(io.BytesIO(content), quote_controls(path))
    if is_changed(content):
        raise ValueError(f"{quote_controls(path)} is damaged: its checksums do not match its content. Get a new copy.")
    return picture


def read_raw(path: str | os.PathLike[str], name: str, raw_mode: str) -> Picture:
    """Read the picture in a file as if its samples were stored in another of Pillow's raw modes.

    Raises:
        ValueError: As `read_picture`.
        OSError: As `open_picture`.
    """
    with open_file(Path(path)) as stream, _clear_errors(name):
        image = Image.open(stream, formats=_FORMATS)
        _replace_raw_mode(image, raw_mode)
        return load_picture(image, name, is_ours=True, says_frames=False)


DOWNLOAD = (
    "Download it first and pass the file or its bytes; for images in a store (s3://) there is "
    "`refinenet deploy --engine ray`."
)


def open_file(target: Path) -> io.BufferedReader:
    """Open a file for reading.

    Raises:
        ValueError, OSError: As `open_picture`.
    """
    refuse_address("An image", target, DOWNLOAD)
    if os.path.isdir(target):
        raise IsADirectoryError(f"Cannot read {quote_controls(target)}: it is a folder. Pass an image file in it.")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"Cannot read {quote_controls(target)}: it is a pipe or a device. Pass its bytes, or copy it.")
    try:
        return target.open("rb")
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read {quote_controls(target)}: {error.strerror}") from error


def read_picture(stream: BinaryIO, name: str) -> Picture:
    """Read a picture from a stream at its start; `name` is used in messages.

    Raises:
        ValueError: As `load_picture`, or the stream is empty or not an image of a supported format.
    """
    image = _open_header(stream, name)
    with _clear_errors(name):
        # Pillow misreads the headers of some sound files; it is corrected before the pixels are read.
        if isinstance(image, BmpImagePlugin.BmpImageFile):
            _correct_bmp(image)
        elif isinstance(image, TiffImagePlugin.TiffImageFile):
            _correct_tiff(image)
    return load_picture(image, name, is_ours=True)


def find_size(content: bytes, name: str) -> tuple[int, int]:
    """Return height and width of the picture in the bytes of a file, as stored, from its header alone.

    Raises:
        UnknownFormatError: It is not an image of a supported format.
        TooLargeError: It is far larger than any picture that is read.
        ValueError: It is empty, or its header is damaged.
    """
    with _open_header(io.BytesIO(content), name) as image:
        return image.height, image.width


def _open_header(stream: BinaryIO, name: str) -> ImageFile.ImageFile:
    start = stream.read(12)
    if not start:
        raise ValueError(f"{name} is empty (0 bytes).")
    formats = _find_box_formats(start[8:], name) if start[4:8] == b"ftyp" else _FORMATS
    with _clear_errors(name):
        return Image.open(stream, formats=formats)


def _correct_bmp(image: BmpImagePlugin.BmpImageFile) -> None:
    """Restore a grey palette, which Pillow drops together with the bits per pixel: it reads 4 as 8, and 4 or 8 as 1."""
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
    """Correct 8-bit colour maps, which Pillow reads as black, and numbers whose bytes it swaps a second time."""
    colour_map = image.tag_v2.get(ExifTags.Base.ColorMap) if image.mode in ("P", "PA") else None
    if colour_map and max(colour_map) <= 255:  # libtiff's rule for files of old programs
        image.palette = ImagePalette.raw("RGB;L", bytes(colour_map))
    raw_mode = _raw_mode(image)
    if image.tile and image.tile[0][0] == "libtiff" and raw_mode in _NATIVE:
        _replace_raw_mode(image, _NATIVE[raw_mode])


_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""libtiff returns numbers in the byte order of this machine, whatever that of the file."""


def _replace_raw_mode(image: ImageFile.ImageFile, raw_mode: str) -> None:
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]


def _find_box_formats(brand: bytes, name: str) -> tuple[str, ...]:
    """Return the formats that a file of boxes (ISO 14496-12), as phones write it, may be read as."""
    if brand in (b"avif", b"avis") and CAN_READ_AVIF:
        return ("AVIF",)
    if brand not in _HEIF_BRANDS:
        return _FORMATS
    if not CAN_READ_HEIF:
        raise ValueError(
            f"{name} is a HEIC picture, which needs one more package: {install_extra('heif')}. Or save it as JPEG."
        )
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF", "AVIF") if CAN_READ_AVIF else ("HEIF",)


def load_picture(image: Image.Image, name: str, *, is_ours: bool = False, says_frames: bool = True) -> Picture:
    """Read the pixels of an opened Pillow image, which is not changed unless `is_ours`; `name` is used in messages.

    Raises:
        ValueError: It is damaged, has no pixels, or more than `MAX_PIXELS`.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise too_large(name, f"{width} x {height}")
    if width * height == 0:
        raise ValueError(f"{name} has no pixels ({width} x {height}).")
    with _clear_errors(name):
        # The second picture of an MPO, as phones write it, is only a preview or a depth map.
        animated = image.format != "MPO" and getattr(image, "is_animated", False) and image.tell() == 0
        raw_mode, traits = _raw_mode(image), _find_traits(image)
        _refuse_many_scans(image, name)
        image.load()
        method = _UPRIGHT.get(exif_orientation(image))
        upright = image.transpose(method) if method is not None else image if is_ours else image.copy()
    if animated and says_frames:
        warnings.warn(f"{name} has more than one frame or page: only the first one is used.", stacklevel=4)
    return Picture(upright, name, image.format, raw_mode, *traits)


def _find_traits(image: Image.Image) -> tuple[bool, bool, bool, int, bool]:
    """Return whether a picture is lossy, white as 0 and signed, its bits per sample, and whether it is planar."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.format in LOSSY_FORMATS, False, False, 0, False
    photometric = image.tag_v2.get(ExifTags.Base.PhotometricInterpretation, _WHITE_IS_ZERO)
    formats = image.tag_v2.get(ExifTags.Base.SampleFormat, (1,))
    compression = image.info.get("compression")
    bits = max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))
    is_planar = image.tag_v2.get(ExifTags.Base.PlanarConfiguration, 1) == _PLANAR
    return compression in _LOSSY_TIFF, photometric == _WHITE_IS_ZERO, _SIGNED in formats, bits, is_planar


def convert(picture: Picture) -> npt.NDArray[np.uint8]:
    """Convert a picture to `(H, W, 4)` uint8 RGBA if there is any transparency, else to `(H, W, 3)` RGB."""
    image = picture.image
    with _clear_errors(picture.name):
        if image.mode == "La":
            image = image.convert("LA")
        if isinstance(image.info.get("transparency"), int) and image.mode == "L":
            image.info["transparency"] *= grey_step(picture)
        return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def to_sixteen_bits(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint16]:
    """Convert `(H, W)` whole numbers to uint16.

    Raises:
        ValueError: One is negative or above 65535; the message begins with `name`.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise ValueError(f"{name} has values from {low} to {high}: 0 to 65535 are allowed. Rescale them.")
    return values.astype(np.uint16)


class _ManyScansError(ValueError):
    pass


def _refuse_many_scans(image: Image.Image, name: str) -> None:
    """Refuse progressive JPEG bombs: a few hundred kilobytes of empty scans cost the decoder minutes."""
    stream = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or stream is None:
        return
    place = stream.tell()
    stream.seek(0)
    # FF DA is Start of Scan. Within a scan FF is always escaped, so only scans of an embedded preview count besides.
    scans, last = 0, b""
    while block := stream.read(1 << 20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:] if block.endswith(b"\xff") else b""
    stream.seek(place)
    width, height = image.size
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise _ManyScansError(
            f"{name} is a progressive JPEG of {scans:,} scans, which would take very long to decode: for {width} x "
            f"{height} pixels at most {MAX_SCANNED_PIXELS // (width * height):,} are read. Save it again as a plain "
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
        raise UnknownFormatError(
            f"{name} is not a JPEG, PNG, WebP, BMP, TIFF or GIF image, or its start is damaged. Save it as one of them."
        ) from error
    except PILLOW_ERRORS as error:
        raise ValueError(
            f"{name} is damaged, incomplete or of an unsupported kind ({type(error).__name__}: {error}). Get a new "
            "copy, or save it again as PNG."
        ) from error


def too_large(name: str, size: str) -> TooLargeError:
    """Return the error for an image that is too large to be read as a whole."""
    return TooLargeError(
        f"{name} has {size} pixels, at most {MAX_PIXELS:,} are read as a whole. Segment its file in windows "
        f"(`refinenet deploy FILE --window 1024x1024`, by {install_extra('large')}), or resize the image."
    )


def _raw_mode(image: Image.Image) -> str:
    """Return the first argument of the decoder, which Pillow drops once the pixels are read."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ()
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw_mode if isinstance(raw_mode, str) else ""


def grey_step(picture: Picture) -> int:
    """Return the factor by which Pillow multiplies grey of 2 and 4 bits, to reach 255; 1 for other pictures."""
    bits = picture.raw_mode.partition(";")[2][:1] if picture.image.mode == "L" else ""
    return {"2": 85, "4": 17}.get(bits, 1)


IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *((".avif",) if CAN_READ_AVIF else ()),
    *(HEIF_SUFFIXES if CAN_READ_HEIF else ()),
)
"""Suffixes of image files, in lower case."""
FOREIGN_SUFFIXES = tuple(
    suffix
    for suffix in (
        *(".avif", *HEIF_SUFFIXES, ".jp2", ".j2k", ".jpx", ".jxl", ".psd", ".xcf", ".tga", ".exr", ".hdr", ".dds"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".svg", ".dcm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf"),
        *(".rw2", ".pef", ".srw"),
    )
    if suffix not in IMAGE_SUFFIXES
)
"""Suffixes of image formats that cannot be read: such files are reported, not skipped silently."""


def list_files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Return the files in a folder with one of `suffixes`, without hidden ones, in any order."""
    return (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))


def walk_names(folder: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """Yield the names of the files in a folder with one of `suffixes`, without hidden ones, in any order.

    Names of files in subfolders begin with those of the subfolders, separated by "/".
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder).as_posix()
        before = "" if inside == "." else f"{inside}/"
        yield from (before + name for name in names if has_suffix(name, suffixes))


def _raise(error: OSError) -> None:
    raise error  # os.walk takes an unreadable folder for an empty one by default


def has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file name ends in one of `suffixes`, in lower or upper case, and is not hidden."""
    return name.lower().endswith(tuple(suffixes)) and not name.startswith(".")
