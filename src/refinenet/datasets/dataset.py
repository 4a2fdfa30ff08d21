"""The type of all datasets: sample names, and functions that read an image and its ground truth.

Shape letters: H height, W width, K classes, D channels of a target.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from refinenet.io.images.bands import Band
from refinenet.io.images.codec import decode, read_image
from refinenet.io.images.mask_files import read_mask
from refinenet.io.images.sample_values import ImageWarning, Pixels, Reading, ValueRange
from refinenet.io.images.shrinking import find_factor, shrink_image, shrink_map
from refinenet.labels import NO_CLASSES, LabelMap, LabelSet
from refinenet.outputs import OutputSpec

Result = TypeVar("Result")
Target = npt.NDArray[np.float32]
"""`(D, H, W)` float32: the true values of an output, in its unit; NaN where there is no ground truth."""
TargetReader = Callable[[str], Target]


class Intrinsics(NamedTuple):
    """A pinhole camera: the pixel in row v, column u shows the point `depth * ((u - cx) / fx, (v - cy) / fy, 1)`."""

    fx: float
    """Focal length in pixels along a row."""
    fy: float
    """Focal length in pixels along a column."""
    cx: float
    """Column of the principal point; the centre of the first pixel is at 0."""
    cy: float
    """Row of the principal point."""


def spread(count: int, most: int) -> list[int]:
    """Return the indices of up to `most` of `count` samples, ascending, at equal distances from first to last."""
    indices: list[int] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
    return indices


UNLABELLED = "test"
"""The split whose labels some dataset owners withhold and evaluate on their own server."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its ground truth."""

    name: str
    image: Pixels
    """`(H, W, 3)` uint8 RGB, or `(H, W, B)` float32 in [0, 1] of a dataset with bands."""
    labels: LabelMap
    """`(H, W)` ids below K or equal to the ignore index, in the label set's dtype."""
    targets: Mapping[str, Target] = field(default_factory=dict)
    """The chosen targets by name, each `(D, H, W)` float32 in the unit of its specification; NaN where unknown."""


def no_file(item: str) -> None:
    """Return None: no file is known for this item."""


def no_camera(item: str) -> None:
    """Return None: the camera of this item is not known."""


@dataclass(frozen=True, kw_only=True)
class BandFiles:
    """A file for each image that holds some of its bands."""

    bands: tuple[Band, ...]
    """The bands in the file, in their order; those with a range have it in these files."""
    find: Callable[[str], Path | None]
    """Maps an item to its file; picklable."""
    origin: Path
    """The bands.yaml that declares them."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The images of one split with their label maps, read lazily, one by one.

    `dataset[i]` is a `Sample` whose image, label map and targets have the same size and whose ids all belong to
    `label_set`. Otherwise it raises a ValueError that names the file and the problem. Without classes (`NO_CLASSES`)
    the label map holds only the ignore index.

    All functions can be pickled, so that worker processes can read samples.
    """

    name: str
    split: str
    label_set: LabelSet
    items: Sequence[str]
    """Sample names, in a fixed order."""
    read_image: Callable[[str], Pixels]
    """Maps an item to its image, `(H, W, 3)` uint8 RGB, upright; with bands `(H, W, B)` float32 in [0, 1]."""
    read_labels: Callable[[str], LabelMap]
    """Maps an item to its `(H, W)` ids in `label_set`."""
    locate: Callable[[str], str] = str
    """Maps an item to the name of its mask in messages: its path if it has one."""
    image_file: Callable[[str], Path | None] = no_file
    """Maps an item to the file that holds its image and nothing else, or to None if there is no such file."""
    label_file: Callable[[str], Path | None] = no_file
    """Maps an item to the file with its labels, possibly shared with other items, or to None if it is not known."""
    slow_sources: Sequence[Path] = ()
    """Where labels are much slower to read than a mask file: the files and folders they come from, and those that would
    take precedence if they existed. Otherwise empty."""
    target_specs: tuple[OutputSpec, ...] = ()
    """What is known of each pixel besides its class: the quantities that `with_targets` can choose."""
    target_readers: Mapping[str, TargetReader] = field(default_factory=dict)
    """For each of them by name: maps an item to its `(D, H, W)` values, or to `(D, 1, 1)` NaN if it has none."""
    target_files: Mapping[str, Callable[[str], Path | None]] = field(default_factory=dict)
    """For those that are files, by name: maps an item to its file."""
    chosen_targets: tuple[str, ...] = ()
    """The names of the targets that `dataset[i]` reads."""
    target_origins: Sequence[Path] = ()
    """The targets.yaml that says what the numbers in files of targets mean, whether it exists or not."""
    read_intrinsics: Callable[[str], Intrinsics | None] = no_camera
    """Maps an item to its camera, or to None if it is not known."""
    bands: tuple[Band, ...] = ()
    """The bands of the images, if a model of named bands is to read them; none for RGB of 8 bits."""
    band_files: Sequence[BandFiles] = ()
    """The files of an image by their bands, if the dataset declares them; see `with_bands`. Those of joined datasets
    find a file only for the items of their dataset."""
    longest_side: int | None = None
    """Length, in pixels, to which `dataset[i]` reduces the longer side of larger images and their ground truth."""

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.target_specs]
        assert sorted(names) == sorted(self.target_readers)
        assert {*self.chosen_targets, *self.target_files} <= {*names}

    @property
    def chosen_specs(self) -> tuple[OutputSpec, ...]:
        """Specifications of the targets that `dataset[i]` reads, in the order of its `targets`."""
        known = {spec.name: spec for spec in self.target_specs}
        return tuple(known[name] for name in self.chosen_targets)

    @property
    def is_slow(self) -> bool:
        """Whether labels are much slower to read than a mask file, so that `refinenet data prepare` writes masks."""
        return bool(self.slow_sources)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        image = self.read_image(item)
        labels = self.labels(index) if self.label_set.names else _void(image, self.label_set)
        if image.shape[:2] != labels.shape:
            raise ValueError(
                f"{self.locate(item)}: the image has {image.shape[1]}x{image.shape[0]} pixels (width x height), "
                f"but its mask has {labels.shape[1]}x{labels.shape[0]}. They must be equal."
            )
        targets = {name: self._read_in_size(name, item, image.shape[:2]) for name in self.chosen_targets}
        sample = Sample(name=item, image=image, labels=labels, targets=targets)
        return sample if self.longest_side is None else _shrink(sample, self.longest_side)

    def without_classes(self) -> Dataset:
        """Return the dataset without classes, for networks that predict none: its masks are not read."""
        return replace(self, label_set=NO_CLASSES) if self.label_set.names else self

    def with_void_labels(self, label_set: LabelSet) -> Dataset:
        """Return a dataset without classes as one of a label set, in which no pixel has a class; others as they are."""
        if self.label_set.names:
            return self
        return replace(self, label_set=label_set, read_labels=partial(void_labels, self.read_image, label_set))

    def with_targets(self, names: Iterable[str]) -> Dataset:
        """Return the dataset with other targets in its samples; by default there are none, since reading takes time.

        Args:
            names: Names in `target_specs`.

        Raises:
            ValueError: There is no such target; the message names those that there are.
        """
        chosen, known = tuple(dict.fromkeys(names)), [spec.name for spec in self.target_specs]
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise ValueError(
                f"{self.name} {self.split} has no ground truth for {', '.join(map(repr, unknown))}: it has "
                f"{', '.join(map(_describe, self.target_specs)) or 'only classes'}. Folders hold further ones in "
                "depth/ and normals/, and in values/ and others if targets.yaml names their quantities."
            )
        return replace(self, chosen_targets=chosen)

    def read_target(self, name: str, item: str) -> Target | None:
        """Return the `(D, H, W)` values of a target of an item without reading its image; None if it has none.

        Raises:
            ValueError: The values have another shape or type, or their file is damaged.
            OSError: Their file cannot be read.
        """
        target, channels = self.target_readers[name](item), self._count_channels(name)
        if target.shape == (channels, 1, 1) and np.isnan(target).all():
            return None
        if target.ndim != 3 or len(target) != channels or target.dtype != np.float32:
            raise ValueError(
                f"{self._locate_target(name, item)}: the values have shape {target.shape} and type {target.dtype}, "
                f"instead of ({channels}, H, W) and float32."
            )
        return target

    def _read_in_size(self, name: str, item: str, size: Sequence[int]) -> Target:
        """Read a target of an image of `size` (height, width): NaN if it has none."""
        target = self.read_target(name, item)
        if target is None:
            return np.full((self._count_channels(name), *size), np.nan, np.float32)
        if target.shape[1:] != tuple(size):
            raise ValueError(
                f"{self._locate_target(name, item)}: the image has {size[1]}x{size[0]} pixels (width x height), but "
                f"its {name} has {target.shape[2]}x{target.shape[1]}. They must be equal."
            )
        return target

    def _count_channels(self, target: str) -> int:
        return next(spec for spec in self.target_specs if spec.name == target).count_channels(0)

    def _locate_target(self, name: str, item: str) -> str:
        path = self.target_files[name](item) if name in self.target_files else None
        return str(path or f"{self.locate(item)}, {name}")

    def labels(self, index: int) -> LabelMap:
        """Return the `(H, W)` ids of a sample without reading its image, checked and in the label set's dtype.

        Raises:
            ValueError: An id belongs to no class; the message names mask, id and position.
        """
        item = self.items[index]
        labels = self.read_labels(item)
        invalid = (labels >= len(self.label_set)) & (labels != self.label_set.ignore_index)
        if invalid.any():
            row, column = np.argwhere(invalid)[0]
            raise ValueError(
                f"{self.locate(item)}: the mask has the id {labels[row, column]} at row {row}, column {column} "
                f"({invalid.sum()} pixels in total have such ids). Allowed are 0 to {len(self.label_set) - 1} and "
                f"{self.label_set.ignore_index} for ignored pixels."
            )
        return self.label_set.cast(labels)


def _describe(spec: OutputSpec) -> str:
    return spec.to_text() if spec.channels else spec.name


def _shrink(sample: Sample, longest_side: int) -> Sample:
    factor = find_factor(sample.image.shape, longest_side)
    if factor == 1:
        return sample
    return Sample(
        name=sample.name,
        image=shrink_image(sample.image, factor),
        labels=shrink_map(sample.labels, factor),
        targets={name: shrink_map(target, factor, channels_first=True) for name, target in sample.targets.items()},
    )


def _void(image: Pixels, label_set: LabelSet) -> LabelMap:
    """Return a label map of an image without labels: the ignore index everywhere."""
    return label_set.cast(np.full(image.shape[:2], label_set.ignore_index))


def void_labels(read_image: Callable[[str], Pixels], label_set: LabelSet, item: str) -> LabelMap:
    """Return a label map for an image without labels; with `functools.partial` a `read_labels` for `Dataset`."""
    return _void(read_image(item), label_set)


Splits = Callable[[str], Dataset]
"""Maps the name of a split, such as "train" or "val", to its dataset."""


def with_value_range(dataset: Dataset, value_range: ValueRange | None) -> Dataset:
    """Return the dataset with images scaled so that `value_range` spans black to white; None changes nothing.

    8-bit images are not affected.

    Raises:
        ValueError: The images are not files.
    """
    if value_range is None:
        return dataset
    if len(dataset) and dataset.image_file(dataset.items[0]) is None:
        raise ValueError(f"value_range needs images stored as files, unlike those of {dataset.name}. Leave it out.")
    return replace(dataset, read_image=partial(_read_scaled, dataset.image_file, value_range))


def _read_scaled(image_file: Callable[[str], Path | None], value_range: ValueRange, item: str) -> npt.NDArray[np.uint8]:
    path = image_file(item)
    if path is None:
        raise ValueError(f"value_range needs images stored as files, unlike {item}. Leave it out.")
    decoded = read_image(path, reading=Reading(value_range=value_range, is_from_model=True))
    for note in decoded.notes:
        if note.kind != "range-of-model":
            warnings.warn(ImageWarning(note), stacklevel=2)
    return decoded.pixels


def from_files(
    *,
    name: str,
    split: str,
    label_set: LabelSet,
    items: Sequence[str],
    image_file: Callable[[str], Path],
    mask_file: Callable[[str], Path],
    read_labels: Callable[[Path], LabelMap] = read_mask,
    slow_sources: Sequence[Path] = (),
) -> Dataset:
    """Build a dataset whose images and masks are files.

    Args:
        name: The dataset's name in messages.
        split: The name of the split.
        label_set: The classes.
        items: The sample names.
        image_file: Maps an item to the path of its image; picklable.
        mask_file: Maps an item to the path of the file with its labels; picklable.
        read_labels: Maps that path to `(H, W)` ids in `label_set`; picklable.
        slow_sources: See `Dataset.slow_sources`.
    """
    return Dataset(
        name=name,
        split=split,
        label_set=label_set,
        items=items,
        read_image=partial(_chain, image_file, decode),
        read_labels=partial(_chain, mask_file, read_labels),
        locate=partial(_chain, mask_file, str),
        image_file=image_file,
        label_file=mask_file,
        slow_sources=slow_sources,
    )


def without_labels(
    *, name: str, split: str, label_set: LabelSet, items: Sequence[str], image_file: Callable[[str], Path]
) -> Dataset:
    """Build a dataset of image files whose labels are withheld by its owners; reading labels is an error.

    Args:
        name: The dataset's name in messages.
        split: The name of the split.
        label_set: The classes.
        items: The image names.
        image_file: Maps an item to the path of its image; picklable.
    """
    return Dataset(
        name=name,
        split=split,
        label_set=label_set,
        items=items,
        read_image=partial(_chain, image_file, decode),
        read_labels=partial(_refuse_labels, name, split),
        image_file=image_file,
    )


def _refuse_labels(name: str, split: str, _item: str) -> NoReturn:
    raise no_labels(name, split)


def no_labels(name: str, split: str) -> ValueError:
    """Return the error for evaluating or training on a split without labels."""
    return ValueError(
        f"{name} {split} has no public labels. Evaluate on val, or write a submission for the evaluation server: "
        f"`refinenet eval --dataset {name} --split {split} --submission FILE`, or RefineNet.submit in Python."
    )


def _chain(find: Callable[[str], Path], read: Callable[[Path], Result], item: str) -> Result:
    return read(find(item))


def place(folder: Path, ending: str, item: str) -> Path:
    """Return `folder`/`item` + `ending`; with `functools.partial` an `image_file` or `mask_file` for `from_files`."""
    return folder / f"{item}{ending}"
