"""Datasets as models of named bands read them: from one file for each image, or several that hold some bands each.

Shape letters: H height, W width, B bands of the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import BandFiles, Dataset, with_value_range
from refinenet.io.images.bands import Band, choose_shown, name_bands
from refinenet.io.images.codec import read_image
from refinenet.io.images.sample_values import Decoded, ImageWarning, Mask, Note, Reading, ValueRange


def with_bands(dataset: Dataset, bands: Sequence[Band]) -> Dataset:
    """Return the dataset with images of the bands of a model, `(H, W, B)` float32 in [0, 1]; none changes nothing.

    If the dataset declares the bands of its files, those of the model are found by their names, and a range that is
    declared there holds for these files. Otherwise each image is one file with the bands in the order of the model.

    Raises:
        ValueError: The images are not files, a band is not declared, or has a range there that the model lacks; or the
            dataset joins others, each of which declares its bands.
    """
    if not bands:
        return dataset
    if len({files.origin for files in dataset.band_files}) > 1:
        raise ValueError(
            f"{dataset.name} joins datasets that each have a bands.yaml: choose the bands of each before joining them."
        )
    files = dataset.band_files or [BandFiles(bands=tuple(bands), find=dataset.image_file, origin=Path())]
    if len(dataset) and any(each.find(dataset.items[0]) is None for each in files):
        raise ValueError(
            f"The model takes {name_bands(bands)}, which are read from files, but the images of {dataset.name} are "
            "not files."
        )
    return replace(dataset, read_image=_open_reader(dataset, files, bands), bands=tuple(bands))


def open_band_reader(dataset: Dataset, bands: Sequence[Band]) -> Callable[[str], Decoded]:
    """Return a function from an item of a dataset with band files to its image as a model reads it.

    Raises:
        ValueError: As `with_bands`.
    """
    return _open_reader(dataset, dataset.band_files, bands).decode


def _open_reader(dataset: Dataset, files: Sequence[BandFiles], bands: Sequence[Band]) -> _BandReader:
    return _BandReader(places=_find_places(dataset, files, bands), count=len(bands), name=dataset.name)


def with_shown_bands(dataset: Dataset) -> Dataset:
    """Return the dataset with images that can be shown: those of a bands.yaml as their colours or first bands."""
    declared = tuple(band for files in dataset.band_files for band in files.bands)
    if not declared or dataset.bands:
        return dataset
    channels = dict.fromkeys(choose_shown(declared))
    return with_bands(dataset, [declared[channel] for channel in channels])


def read_for_model(dataset: Dataset, value_range: ValueRange | None, bands: Sequence[Band]) -> Dataset:
    """Return the dataset with images as a model takes them: in its value range, or as its bands.

    Raises:
        ValueError: See `with_value_range` and `with_bands`; or there are both a value range and bands.
    """
    if bands and value_range is not None:
        raise ValueError(
            f"The model takes {name_bands(bands)}, each with its own range: leave value_range out, and give the ranges "
            "when you create the network, such as nir:0:4095."
        )
    return with_bands(dataset, bands) if bands else with_value_range(dataset, value_range)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Bands of the model that lie in one file of an image."""

    find: Callable[[str], Path | None]
    reading: Reading
    channels: tuple[int, ...]
    """Their channels in the image."""


def _find_places(dataset: Dataset, files: Sequence[BandFiles], bands: Sequence[Band]) -> tuple[_Place, ...]:
    known = {band.name for each in files for band in each.bands}
    missing = [band for band in bands if band.name not in known]
    if missing:
        raise ValueError(
            f"The model takes {name_bands(bands)}, but {files[0].origin} does not declare "
            f"{', '.join(band.name for band in missing)}: it has {', '.join(sorted(known))}."
        )
    is_declared = bool(dataset.band_files)
    return tuple(_place(each, bands, is_declared=is_declared) for each in files if _are_used(each, bands))


def _are_used(files: BandFiles, bands: Sequence[Band]) -> bool:
    return not {band.name for band in files.bands}.isdisjoint(band.name for band in bands)


def _place(files: BandFiles, bands: Sequence[Band], *, is_declared: bool) -> _Place:
    numbers = {band.name: number for number, band in enumerate(files.bands, start=1)}
    ranges: Mapping[str, tuple[float, float] | None] = {band.name: band.range for band in files.bands}
    channels = tuple(k for k, band in enumerate(bands) if band.name in numbers)
    chosen = []
    for band in (bands[k] for k in channels):
        declared = ranges[band.name] or band.range
        if declared is not None and band.range is None:
            # Otherwise the model would be trained on other values than it sees when it is used.
            text = replace(band, range=declared).to_text()
            raise ValueError(
                f"{files.origin} declares a range for the band {band.name}, but the model has none: create the model "
                f"with the band {text}."
            )
        chosen.append(replace(band, range=declared))
    # A file whose bands are declared must have no others; one without is refused for another number.
    reading = Reading(model_bands=tuple(chosen), bands=tuple(numbers[band.name] for band in chosen))
    return _Place(
        find=files.find, reading=reading if is_declared else Reading(model_bands=tuple(bands)), channels=channels
    )


@dataclass(frozen=True, kw_only=True)
class _BandReader:
    """Maps an item to its image."""

    places: tuple[_Place, ...]
    count: int
    name: str

    def __call__(self, item: str) -> npt.NDArray[np.float32]:
        decoded = self.decode(item)
        for note in decoded.notes:
            warnings.warn(ImageWarning(note), stacklevel=2)
        return decoded.pixels

    def decode(self, item: str) -> Decoded:
        """Read the bands of an item; a pixel has data where one of its files has."""
        image: npt.NDArray[np.float32] | None = None
        first: Path | None = None
        notes: list[Note] = []
        known: Mask | None = None
        for place in self.places:
            path = place.find(item)
            if path is None:
                raise ValueError(f"{self.name}: there is no file with the bands of {item}.")
            part = read_image(path, reading=place.reading)
            pixels, notes = part.pixels, [*notes, *part.notes]
            if image is None:
                image, first = np.zeros((*pixels.shape[:2], self.count), np.float32), path
            if pixels.shape[:2] != image.shape[:2]:
                raise ValueError(
                    f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels (width x height), but {first} has "
                    f"{image.shape[1]}x{image.shape[0]}. The files of an image must have the same size."
                )
            image[..., list(place.channels)] = pixels
            valid: Mask = np.ones(pixels.shape[:2], np.bool_) if part.valid is None else part.valid
            known = valid if known is None else known | valid
        assert image is not None
        assert known is not None
        return Decoded(pixels=image, valid=None if known.all() else known, notes=tuple(notes))
