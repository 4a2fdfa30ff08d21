"""Bands of a raster file: the bands to read, the range of their samples, and pixels without data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.images.sample_values import Mask, Note, Reading

MAX_BLOCK = 256 * 2**20
"""Maximum size of a block, the part of a file that can only be decoded as a whole, in bytes."""
_WANTED = "8 or 16 bits of grey or RGB, with or without alpha, or a palette"
_COLOURS = ("red", "green", "blue")
_ALPHA = "alpha"


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Bands of a file that are read, numbered from 1."""

    chosen: tuple[int, ...]
    """Bands of red, green and blue, or the one of grey or of palette indices."""
    alpha: int | None
    """Band of the transparency."""
    left_out: tuple[int, ...]
    is_palette: bool = False


@dataclass(frozen=True, kw_only=True)
class MissingData:
    """How a file marks pixels without data, apart from alpha."""

    bands: tuple[int, ...]
    nodata: tuple[float | None, ...]
    """Value that stands for no data, for each band."""
    is_outside: tuple[bool, ...]
    """Whether that value cannot be a sample. If so, a pixel lacks data where one band has it; otherwise all must."""
    has_mask: bool
    """Whether there is a mask, in the file or beside it in `NAME.msk`."""
    is_float: bool

    @classmethod
    def read_from(cls, dataset: Any, bands: tuple[int, ...], value_range: tuple[float, float] | None) -> MissingData:
        """Read from a rasterio dataset how it marks missing data in some of its bands."""
        flags = [{flag.name for flag in dataset.mask_flag_enums[band - 1]} for band in bands]
        nodata = tuple(dataset.nodatavals[band - 1] for band in bands)
        low, high = value_range or (-np.inf, np.inf)
        usual = (*({"all_valid"}, {"nodata"}), {"per_dataset", "alpha"}, {"alpha"})
        return cls(
            bands=bands,
            nodata=nodata,
            is_outside=tuple(value is not None and not low <= value <= high for value in nodata),
            has_mask=any(flag not in usual for flag in flags)
            or (dataset.driver == "PNG" and any(value is not None for value in nodata)),
            is_float=np.dtype(dataset.dtypes[bands[0] - 1]).kind == "f",
        )

    def __bool__(self) -> bool:
        return self.has_mask or self.is_float or any(value is not None for value in self.nodata)

    def find(self, dataset: Any, values: npt.NDArray[Any], window: Any) -> Mask | None:
        """Return where there are data, `(H, W)` bool, or None if there are data everywhere."""
        if not self:
            return None
        valid = np.ones(values.shape[:2], np.bool_)
        if self.has_mask:
            valid &= (dataset.read_masks(list(self.bands), window=window) > 0).any(axis=0)
        if self.is_float:
            valid &= np.isfinite(values).all(axis=-1)
        equal = np.stack([_is_value(values[..., k], value) for k, value in enumerate(self.nodata)], axis=-1)
        valid &= ~(equal.all(axis=-1) | (equal & np.array(self.is_outside)).any(axis=-1))
        return valid

    def find_each(self, dataset: Any, values: npt.NDArray[Any], window: Any = None) -> Mask | None:
        """Return for each band of a file, or of a window of it, where it has data.

        Returns:
            `(H, W, C)` bool, or None if all have data everywhere. NaN and infinities are left to the caller.
        """
        if not (self.has_mask or any(value is not None for value in self.nodata)):
            return None
        missing = np.stack([_is_value(values[..., k], value) for k, value in enumerate(self.nodata)], axis=-1)
        if self.has_mask:
            missing |= (dataset.read_masks(list(self.bands), window=window) == 0).transpose(1, 2, 0)
        return ~missing


def _is_value(band: npt.NDArray[Any], value: float | None) -> Mask:
    if value is None or np.isnan(value):  # NaN is found by `is_float`
        return np.zeros(band.shape, np.bool_)
    if band.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(band == band.dtype.type(value))
    return np.asarray(band == value)


def choose_bands(path: Path, dataset: Any, reading: Reading) -> Bands:
    """Choose the bands that are read: those asked for, or those that the file declares as colours or grey.

    Raises:
        ValueError: The choice is not clear, a band does not exist, or its samples are of a type that is not read.
    """
    names = tuple(band.name for band in dataset.colorinterp)
    alphas = [number for number, name in enumerate(names, start=1) if name == _ALPHA]
    is_palette = names[0] == "palette" and reading.bands in (None, (1,))
    chosen = _declared_bands(names) if reading.bands is None else reading.bands
    space = dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE", "RGB")
    is_jpeg = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION") in ("JPEG", "YCbCr JPEG")
    types = sorted(
        {dataset.dtypes[number - 1] for number in chosen or range(1, dataset.count + 1) if number <= dataset.count}
    )
    what = f"{dataset.count} bands ({', '.join(names)}) of {', '.join(types)}"
    what += "" if space == "RGB" else f", colours as {space}"
    if chosen is None or (space != "RGB" and not is_jpeg):
        raise ValueError(
            f"{path} has {what}; {_WANTED} are read. "
            "Choose its bands for red, green and blue, or one for grey: --bands 3,2,1 (bands=(3, 2, 1))."
        )
    if max(chosen) > dataset.count:
        raise ValueError(f"{path} has {what}: there is no band {max(chosen)}. Choose bands from 1 to {dataset.count}.")
    _check_types(path, what, types, reading)
    alpha = next((number for number in alphas if number not in chosen), None)
    if alpha is not None and dataset.dtypes[alpha - 1] not in ("uint8", "uint16"):
        alpha = None
    left_out = tuple(k for k in range(1, dataset.count + 1) if k not in chosen and k != alpha)
    return Bands(chosen=chosen, alpha=alpha, left_out=left_out, is_palette=is_palette)


def _declared_bands(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the bands that are declared as red, green and blue, or as grey; None if that is not clear."""
    if all(names.count(colour) == 1 for colour in _COLOURS):
        return tuple(names.index(colour) + 1 for colour in _COLOURS)
    others = [name for name in names if name != _ALPHA]
    return (names.index(others[0]) + 1,) if others in (["gray"], ["undefined"], ["palette"]) else None


def _check_types(path: Path, what: str, types: Sequence[str], reading: Reading) -> None:
    is_plain = types in (["uint8"], ["uint16"])
    is_number = len(types) == 1 and np.dtype(types[0]).kind in "iuf"
    if is_plain or (is_number and (reading.value_range is not None or types[0].startswith("float"))):
        return
    raise ValueError(
        f"{path} has {what}; {_WANTED} are read. Specify which values are black and white: "
        "--value-range 0,10000 (value_range=(0, 10000))."
    )


def read_bits(path: Path, dataset: Any) -> int:
    """Return the declared bits of a sample.

    Raises:
        ValueError: There are other than 1, 2, 4 or 8 to 64 bits, or white is stored as 0.
    """
    size = np.dtype(dataset.dtypes[0]).itemsize * 8
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", str(size))
    is_odd = bits not in ("1", "2", "4", "8") and not (bits.isdecimal() and 8 < int(bits) <= 64)
    if is_odd or "MINISWHITE" in dataset.tags(ns="IMAGE_STRUCTURE"):
        raise ValueError(f"{path} has samples of {bits} bits or white as 0; {_WANTED} are read. Save it as one.")
    return int(bits)


def describe_bands(path: Path, dataset: Any, bands: Bands) -> list[Note]:
    """Report the bands that are not used."""
    if not bands.left_out:
        return []
    used = "red, green and blue" if len(bands.chosen) == 3 else "grey"
    left_out = ", ".join(f"{k} ({dataset.colorinterp[k - 1].name})" for k in bands.left_out)
    chosen = ", ".join(map(str, bands.chosen))
    text = f"{path}: bands {chosen} are used for {used}; left out: {left_out}. Choose others with --bands (bands)."
    return [Note("bands", text)]


def describe_scaling(path: Path, dataset: Any, bands: Bands) -> list[Note]:
    """Report a declared scale and offset, which are not applied."""
    declared = [(dataset.scales[k - 1], dataset.offsets[k - 1]) for k in bands.chosen]
    if all(pair == (1.0, 0.0) for pair in declared):
        return []
    scale, offset = next(pair for pair in declared if pair != (1.0, 0.0))
    text = f"{path} declares a scale ({scale:g}) and an offset ({offset:g}) for its values; they are not applied."
    return [Note("scale", f"{text} A value range refers to the stored values.")]


def check_blocks(path: Path, dataset: Any) -> None:
    """Check that blocks fit into bounded memory.

    Raises:
        ValueError: A block has more than `MAX_BLOCK` bytes.
    """
    height, width = dataset.block_shapes[0]
    if dataset.driver == "PNG" and _is_interlaced(path):
        height, width = dataset.shape
    if height * width * dataset.count * np.dtype(dataset.dtypes[0]).itemsize > MAX_BLOCK:
        raise ValueError(
            f"{path} can only be decoded in parts of {width} x {height} pixels, too many for bounded memory. "
            "Save it as a tiled TIFF: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
        )


def _is_interlaced(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(29)[28:] == b"\1"  # the last byte of IHDR: interlace method


def read_palette(dataset: Any) -> npt.NDArray[np.uint8]:
    """Return the palette as `(2^bits, 4)` uint8 RGBA; indices without a colour are transparent black."""
    palette = np.zeros((2 ** (8 * np.dtype(dataset.dtypes[0]).itemsize), 4), np.uint8)
    for index, colour in dataset.colormap(1).items():
        palette[index] = colour
    return palette
