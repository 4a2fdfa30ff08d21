"""Facts about each file: every file is opened once, and only a small summary of it is kept.

Shape letters: H height, W width, N distinct values.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.doctor.listing import Pair
from refinenet.datasets.doctor.targets.outlines import find_image_outlines
from refinenet.datasets.doctor.targets.scan import TargetFacts, read_dataset_targets, read_targets
from refinenet.datasets.doctor.value_matching import Codes, Fit, find_areas, fit, is_blended
from refinenet.datasets.folder.target_encoding import TargetEncoding
from refinenet.datasets.formats.lookup import pack_colours
from refinenet.io.images.band_images import ARRAY_SUFFIX, read_samples
from refinenet.io.images.codec import decode
from refinenet.io.images.image_files import DEEP_MODES, MAX_PIXELS, Picture, has_suffix, open_file, open_verified
from refinenet.io.images.image_headers import needs_gdal
from refinenet.io.images.mask_files import read_colours, read_ids
from refinenet.io.raster.reader import is_installed
from refinenet.labels import LabelMap


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPixels:
    """A mask as stored."""

    codes: Codes
    """Ids `(H, W)`, or colours packed into one number each."""
    is_colour: bool
    is_grey: bool
    """Whether all colours are grey (three equal channels)."""
    is_opaque: bool
    is_lossy: bool
    has_frames: bool
    palette: bytes


def open_once(path: str) -> tuple[Picture, bool]:
    """Open an image file, and return whether it has more than one frame or page.

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
        as_colours: Whether masks use class colours, so that palettes and grey values are read as colours.

    Raises:
        ValueError: the file is damaged, or its pixel format holds neither ids nor 8-bit colours.
        OSError: the file cannot be read.
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
    """A mask is a valid image, in a mode that masks do not use."""


def _read_ids(picture: Picture, path: str) -> Codes:
    if picture.format == "GIF":
        raise MaskModeError(f"{path} is a GIF file, whose ids many programs renumber on saving")
    return read_ids(picture).astype(np.int64)


THUMBNAIL = 24
"""Side of the grey thumbnail of each image, in pixels."""
MAX_VALUES = 300
"""Largest number of distinct ids or colours stored for a mask, the most frequent ones."""

ARRAY_MODE = "array"
"""Mode of an image in a NumPy file, or in one of bands that are not read as RGB."""

_SEEN = 4096  # pixels are enough to tell a photograph from a mask


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """The facts of an image."""

    problem: str = ""
    """The suffix of a kind of finding ("damaged") if the image cannot be read; other facts are then unknown."""
    message: str = ""
    """What is wrong, or how many bands an image of any bands has."""
    size: tuple[int, int] = (0, 0)
    """H and W of the upright image."""
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    mode: str = ""
    """Pillow mode, or `ARRAY_MODE`."""
    is_transparent: bool = False
    has_frames: bool = False
    """Whether the file has more than one frame or page."""
    colours: int = 0
    """Number of distinct colours among about `_SEEN` evenly spaced pixels."""
    is_constant: bool = False
    """Whether all pixels have one colour."""
    digest: bytes = b""
    """Hash of the pixels."""
    thumbnail: bytes = b""
    """Grey values, `THUMBNAIL` rows of `THUMBNAIL` pixels."""
    outlines: bytes = b""
    """See `targets.outlines`; only where targets are examined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskFacts:
    """The facts of a mask."""

    problem: str = ""
    message: str = ""
    size: tuple[int, int] = (0, 0)
    is_lossy: bool = False
    """Whether the file format is lossy."""
    is_colour: bool = False
    """Whether the values are colours, packed by `pack_colours`; otherwise they are ids."""
    is_grey: bool = False
    """Whether the values are grey colours (three equal channels)."""
    is_opaque: bool = True
    has_frames: bool = False
    is_blended: bool = False
    """Whether outlines between two areas have ids in between, as smoothing filters leave them."""
    values: Codes
    """Distinct values `(N,)`, the most frequent first."""
    counts: Codes
    """Pixel counts `(N,)` of the values."""
    areas: Codes
    """Values that fill areas, from `value_matching.find_areas`."""
    fit: Fit | None = None
    """Agreement of its colours with the class colours, if these are known."""
    palette: bytes = b""
    """RGB colours of a palette image."""
    is_drawn: bool = False
    """Whether it was drawn from annotated shapes, so that its values are class ids by construction."""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a pair. Image or mask is None if it was not read; both are if the reading process crashed."""

    pair: Pair
    image: ImageFacts | None
    mask: MaskFacts | None
    targets: tuple[TargetFacts, ...] = ()

    @property
    def is_readable(self) -> bool:
        """Whether image and mask are readable."""
        return self.image is not None and self.mask is not None and not (self.image.problem or self.mask.problem)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A reader of samples, which can be sent to other processes."""

    points: Codes | None
    """The packed colours that have a meaning, if masks are in colour."""
    datasets: Mapping[str, Dataset]
    """Datasets by split, without items, if labels are not mask files."""
    masks_only: bool = False
    """Whether to skip images and targets."""
    encodings: Mapping[str, TargetEncoding] = field(default_factory=dict)
    """The meaning of the files of targets, by output."""
    targets: tuple[str, ...] = ()
    """The outputs whose ground truth datasets read, instead of files."""

    def read(self, pair: Pair) -> Facts:
        """Read the facts of a pair."""
        has_targets = bool(pair.targets or self.targets)
        if pair.split not in self.datasets:
            if self.masks_only:
                return Facts(pair, None, read_mask_facts(pair.mask, self.points))
            image = read_image_facts(pair.image, has_outlines=has_targets)
            targets = read_targets(pair.targets, self.encodings) if pair.targets else ()
            return Facts(pair, image, read_mask_facts(pair.mask, self.points), targets)
        dataset = replace(self.datasets[pair.split], items=[pair.item])
        image = _read_item(dataset, pair, has_outlines=has_targets)
        targets = read_targets(pair.targets, self.encodings)
        names = [spec.name for spec in dataset.target_specs if spec.name in self.targets]
        targets = targets or read_dataset_targets(dataset, pair.item, names)
        return Facts(pair, image, _read_labels(dataset, image), targets)


def read_image_facts(path: str, *, has_outlines: bool = False) -> ImageFacts:
    """Read the facts of an image file, with its outlines if they will be compared with those of targets."""
    if has_suffix(Path(path).name, (ARRAY_SUFFIX,)):
        return _read_array_facts(path, has_outlines=has_outlines)
    try:
        picture, has_frames = open_once(path)
        pixels = _to_rgb(picture, path)
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) and _holds_bands(path):
            return _read_array_facts(path, has_outlines=has_outlines)
        return ImageFacts(problem=_name_problem(path, error), message=str(error))
    return ImageFacts(
        size=(pixels.shape[0], pixels.shape[1]),
        orientation=_find_orientation(picture),
        mode=picture.image.mode,
        is_transparent=picture.image.has_transparency_data,
        has_frames=has_frames,
        colours=_count_colours(pixels),
        is_constant=bool((pixels == pixels[0, 0]).all()),
        digest=_digest(pixels),
        thumbnail=_shrink(pixels),
        outlines=find_image_outlines(pixels) if has_outlines else b"",
    )


def _holds_bands(path: str) -> bool:
    """Whether a file that is not read as RGB holds bands, all of which GDAL reads."""
    with open_file(Path(path)) as stream:
        return needs_gdal(stream)


def _read_array_facts(path: str, *, has_outlines: bool) -> ImageFacts:
    """Read the facts of an image of any bands, of which the first one stands for its colours."""
    try:
        samples, valid = read_samples(Path(path))
    except (ValueError, OSError) as error:
        return ImageFacts(problem=_name_problem(path, error), message=str(error))
    known = samples[np.isfinite(samples) if valid is None else valid & np.isfinite(samples)]
    first = np.nan_to_num(samples[..., 0].astype(np.float64), nan=0, posinf=0, neginf=0)
    grey = (255 * (first - first.min()) / max(np.ptp(first), np.finfo(float).tiny)).astype(np.uint8)
    pixels = np.repeat(grey[..., np.newaxis], 3, axis=2)
    return ImageFacts(
        size=(samples.shape[0], samples.shape[1]),
        mode=ARRAY_MODE,
        message=f"{samples.shape[2]} band{'s' if samples.shape[2] > 1 else ''} of {samples.dtype}",
        is_constant=not known.size or bool(known.min() == known.max()),
        digest=_digest(samples),
        thumbnail=_shrink(pixels),
        outlines=find_image_outlines(pixels) if has_outlines else b"",
    )


def read_mask_facts(path: str, points: Codes | None) -> MaskFacts:
    """Read the facts of a mask file; `points` are the colours that have a meaning, if masks are in colour."""
    try:
        pixels = read_pixels(path, as_colours=points is not None)
    except MaskModeError as error:
        return _fail("mode", error)
    except (ValueError, OSError) as error:
        return _fail(_name_problem(path, error), error)
    values, counts = count_values(pixels.codes)
    areas = find_areas(pixels.codes)
    return replace(
        _keep_most(values, counts),
        size=(pixels.codes.shape[0], pixels.codes.shape[1]),
        is_lossy=pixels.is_lossy,
        is_colour=pixels.is_colour,
        is_grey=pixels.is_grey,
        is_opaque=pixels.is_opaque,
        has_frames=pixels.has_frames,
        is_blended=not pixels.is_colour and is_blended(pixels.codes),
        areas=areas[:MAX_VALUES],
        fit=fit(values, counts, areas, points, True) if points is not None else None,
        palette=pixels.palette,
        digest=_digest(pixels.codes),
    )


def count_values(codes: Codes) -> tuple[Codes, Codes]:
    """Return the distinct values of `(H, W)` codes in order, and their pixel counts."""
    if codes.max() > 65_535:  # packed colours; below, counting is much faster than sorting
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes.ravel())
    values = np.flatnonzero(counts)
    return values, counts[values]


def _keep_most(values: Codes, counts: Codes) -> MaskFacts:
    order = np.argsort(-counts, kind="stable")[:MAX_VALUES]
    return MaskFacts(values=values[order], counts=counts[order], areas=values[:0])


def _fail(problem: str, error: ValueError | OSError) -> MaskFacts:
    nothing = np.zeros(0, np.int64)
    return MaskFacts(problem=problem, message=str(error), values=nothing, counts=nothing, areas=nothing)


def _read_item(dataset: Dataset, pair: Pair, *, has_outlines: bool) -> ImageFacts:
    if pair.image:
        return read_image_facts(pair.image, has_outlines=has_outlines)
    try:
        pixels = dataset.read_image(pair.item)
    except (ValueError, OSError) as error:
        return ImageFacts(problem="refused", message=str(error))
    size = pixels.shape[0], pixels.shape[1]
    outlines = find_image_outlines(pixels) if has_outlines else b""
    return ImageFacts(size=size, mode="RGB", digest=_digest(pixels), thumbnail=_shrink(pixels), outlines=outlines)


def _read_labels(dataset: Dataset, image: ImageFacts) -> MaskFacts:
    if not dataset.label_set.names:  # nothing has a class, and nothing needs to be read to know it
        void = np.array([dataset.label_set.ignore_index], np.int64)
        return MaskFacts(values=void, counts=np.array([math.prod(image.size)]), areas=void[:0], size=image.size)
    try:
        labels: LabelMap = dataset.labels(0)
    except (ValueError, OSError) as error:
        return _fail("refused", error)
    values, counts = count_values(labels.astype(np.int64))
    size = labels.shape[0], labels.shape[1]
    return replace(_keep_most(values, counts), size=size, digest=_digest(labels), is_drawn=True)


def _to_rgb(picture: Picture, path: str) -> npt.NDArray[np.uint8]:
    image = picture.image
    if image.mode in ("RGB", "L") and not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    return decode_quietly(path)  # `decode` knows all modes, but opens the file again; few files need it


def decode_quietly(path: str) -> npt.NDArray[np.uint8]:
    """Decode an image without the warning about further frames, which the report covers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode(path)


def _find_orientation(picture: Picture) -> int:
    value = picture.image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(2, 9) else 1


def _count_colours(pixels: npt.NDArray[np.uint8]) -> int:
    flat = pixels.reshape(-1, 3)
    return len(np.unique(pack_colours(flat[:: max(1, len(flat) // _SEEN)])))


def _digest(pixels: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(
        np.ascontiguousarray(pixels).data, digest_size=16, person=str(pixels.shape).encode()[:16]
    ).digest()


def _shrink(pixels: npt.NDArray[np.uint8]) -> bytes:
    size = (THUMBNAIL, THUMBNAIL)
    return Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BICUBIC).tobytes()


def _name_problem(path: str, error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return "unreadable"
    if not Path(path).stat().st_size:
        return "empty"
    if isinstance(error.__cause__, UnidentifiedImageError):
        return "not-an-image"
    if _holds_bands(path) and not is_installed():
        return "needs-rasterio"
    return "too-large" if f"{MAX_PIXELS:,}" in str(error) else "damaged"
