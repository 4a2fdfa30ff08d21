"""Results of an evaluation: as an object, as a table, and as results.json, which is written and read here."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from refinenet.evaluation.metric_tables import By, list_rows
from refinenet.evaluation.metrics import METRICS, RULE, RULES, ImageMetrics, Metric, Metrics, SegmentationScores
from refinenet.evaluation.metrics.confusion import Counts
from refinenet.evaluation.metrics.target_accumulator import TargetAccumulator
from refinenet.io.console import print_table
from refinenet.io.files import write_atomically
from refinenet.io.tables import to_frame, write_table
from refinenet.labels import LabelSet, voc_colours

RESULTS_VERSION = 2
"""Version of the JSON file; before version 2 it held neither a version nor the counts of images."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Time spent on each part of an evaluation, summed over all images and processes."""

    load: float
    """Reading and decoding images and masks."""
    network: float
    """From the image to labels and confidence, or reading predictions from files."""
    metrics: float
    """Counting pixels for the metrics."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a model or of label maps on a dataset, with how they were obtained."""

    dataset: str
    split: str
    label_set: LabelSet
    metrics: Metrics
    names: Sequence[str]
    """Names of the images, in the order of the dataset."""
    seconds: float
    """Wall-clock time, from loading the first image to counting the last one."""
    parts: Seconds
    protocol: str
    """How images were passed to the network, in words."""
    official: str
    """Protocol of the dataset's publishers, in words; empty if there is none."""
    model_sha256: str | None
    """SHA-256 of the model's weights as stored (`tensors.digest`); None for predictions from files."""
    package_version: str
    targets: Mapping[str, TargetAccumulator] = field(default_factory=dict)
    """Errors of the outputs besides classes, by name."""
    image_targets: Mapping[str, Sequence[Mapping[str, float | None]]] = field(default_factory=dict)
    """The metrics of them that logs have, of each image, in the order of the dataset."""

    @property
    def scores(self) -> SegmentationScores:
        """mIoU, accuracies, and IoU by class."""
        return self.metrics.scores

    @property
    def figures(self) -> Metrics:
        """Former name of `metrics`, kept for programs that use it."""
        return self.metrics

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.names)

    def summary(self) -> dict[str, Any]:
        """Return the metrics over all images as JSON-ready values, in [0, 1], null if undefined."""
        metrics, scores, images = self.metrics, self.scores, max(self.images, 1)
        calibration = metrics.calibration
        return {
            "version": RESULTS_VERSION,
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            **{metric.key: self._value(metric) for metric in METRICS},
            "intervals": {name: list(item) if item else None for name, item in metrics.intervals.items()},
            "class_iou": dict(zip(self.label_set.names, scores.class_iou, strict=True)),
            "classes": dict(zip(self.label_set.names, map(asdict, metrics.classes), strict=True)),
            "classes_averaged": scores.classes_averaged,
            "classes_absent": len(self.label_set) - scores.classes_averaged,
            "reliability": [asdict(item) for item in calibration.reliability] if calibration else None,
            "coverage": [asdict(item) for item in calibration.coverage] if calibration else None,
            "seconds": self.seconds,
            "seconds_per_image": {"all": self.seconds / images, **_share(self.parts, images)},
            "protocol": self.protocol,
            "official_protocol": self.official or None,
            "rule": RULE,
            "rules": dict(RULES),
            "model_sha256": self.model_sha256,
            "package_version": self.package_version,
            **({"outputs": self.outputs(), "output_rules": self._output_rules()} if self.targets else {}),
        }

    def outputs(self) -> dict[str, Any]:
        """Return the metrics of the outputs besides classes by name, JSON-ready, null if undefined."""
        return {name: asdict(accumulator.result()) for name, accumulator in self.targets.items()}

    def _output_rules(self) -> dict[str, dict[str, str]]:
        return {name: dict(accumulator.rules) for name, accumulator in self.targets.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return `summary` with the confusion matrix (rows are true classes) and the metrics of each image."""
        return {
            **self.summary(),
            "confusion_matrix": self.metrics.confusion.tolist(),
            "per_image": list(self.list_images()),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as a JSON file; missing folders are created, an existing file is replaced."""
        return write_atomically(path, self._to_json().encode())

    def to_frame(self, by: By = "class") -> Any:
        """Return metrics as a `pandas.DataFrame`, in [0, 1]; undefined ones are NaN.

        Args:
            by: What has a row: "class", "image" (also with the metrics of other outputs, as `depth.rmse`), or
                "image_class": each class that occurs in the ground truth or the prediction of an image.

        Raises:
            ValueError: pandas is not installed, or there are no classes.
        """
        return to_frame(*list_rows(self, by))

    def save_table(self, path: str | os.PathLike[str], by: By = "class") -> Path:
        """Write the table of `to_frame` as a `.csv` or `.parquet` file; an existing file is replaced.

        Raises:
            ValueError: the suffix is another one, pyarrow is not installed, or there are no classes.
            OSError: the file cannot be written.
        """
        return write_table(path, *list_rows(self, by))

    def print(self) -> None:
        """Print the metrics as tables, in percent."""
        title = f"{self.dataset} {self.split}: {self.images} images in {self.seconds:.1f} s"
        if self.label_set.names:
            self._print_classes(title)
        for name, accumulator in self.targets.items():
            for caption, heads, cells in accumulator.tables():
                prefix = "" if self.label_set.names else f"{title}. "
                print_table(f"{prefix}{name}: {caption}", heads, cells)

    def _print_classes(self, title: str) -> None:
        rows = [
            [
                name,
                *map(percent, (item.iou, item.precision, item.recall, item.boundary_iou)),
                _range(item.iou_interval),
            ]
            for name, item in zip(self.label_set.names, self.metrics.classes, strict=True)
        ]
        print_table(title, ["class", "IoU %", "precision %", "recall %", "boundary IoU %", "95 % of IoU"], rows)
        print_table("All classes", ["", "%", "95 %"], list(self._overall()))

    def _value(self, metric: Metric) -> float | dict[str, float | None] | None:
        """Return a metric as a JSON-ready value."""
        if metric.at:
            return {str(width): value for width, value in self.metrics.by_width[metric.key].items()}
        return self.metrics.overall[metric.key]

    def _overall(self) -> Iterator[list[str]]:
        metrics = self.metrics
        for metric in METRICS:
            name = metric.title if metric.printed is None else metric.printed
            if not name or (metric.needs_confidence and metrics.calibration is None):
                continue
            if metric.at:
                values = metrics.by_width[metric.key]
                yield from ([name.format(at=width), percent(values[width]), ""] for width in metric.printed_at)
                continue
            value = metrics.overall[metric.key]
            if value or not metric.only_above_zero:
                interval = _range(metrics.intervals[metric.key]) if metric.has_interval else ""
                yield [name.format(classes=self.scores.classes_averaged), percent(value), interval]

    def list_images(self) -> Iterator[dict[str, Any]]:
        """Yield the metrics of each image as JSON-ready values, as `per_image` of the file has them."""
        for index, (name, item) in enumerate(zip(self.names, self.metrics.images, strict=True)):
            of_outputs = {output: dict(images[index]) for output, images in self.image_targets.items()}
            yield {
                "name": name,
                "miou": item.miou,
                "pixel_accuracy": item.pixel_accuracy,
                "boundary_miou": item.boundary_miou,
                "confident_mistakes": item.confident_mistakes,
                "pixels": self._pixels(item),
                **({"outputs": of_outputs} if of_outputs else {}),
            }

    def _pixels(self, item: ImageMetrics) -> dict[str, list[int]]:
        """Return, for each class that occurs, its pixels in both, in the truth and in the prediction."""
        return {
            name: counts.tolist()
            for name, counts in zip(self.label_set.names, item.regions.T, strict=True)
            if counts.any()
        }

    def _to_json(self) -> str:
        """Return indented JSON with a single line for each row of the matrix and each image."""
        # With an indentation, `json` would give each number of the matrix a line.
        head = json.dumps(self.summary(), indent=2, ensure_ascii=False).removesuffix("\n}")
        matrix = ",\n".join(f"    {row}" for row in self.metrics.confusion.tolist())
        images = ",\n".join(f"    {json.dumps(item, ensure_ascii=False)}" for item in self.list_images())
        return f'{head},\n  "confusion_matrix": [\n{matrix}\n  ],\n  "per_image": [\n{images}\n  ]\n}}\n'


def _share(parts: Seconds, images: int) -> Mapping[str, float]:
    # Results files have always had the key "figures"; programs that read them keep working.
    seconds = {"load": parts.load, "network": parts.network, "figures": parts.metrics}
    return {name: each / images for name, each in seconds.items()}


def percent(value: float | None) -> str:
    """Format a value in percent, None as "-"."""
    return "-" if value is None else f"{100 * value:.2f}"


def _range(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


MAX_BYTES = 256 * 2**20
"""Largest size of a results file; 5,000 images with 170 classes take less than 10 MiB."""
MAX_COUNTS = 2**24
"""Largest number of images times classes, which bounds memory."""
MAX_PIXELS = 2**53
"""Largest number of pixels of all images together, so that sums in float64 stay exact."""
_KINDS: Mapping[str, type] = {"dataset": str, "split": str, "images": int, "class_iou": dict, "per_image": list}
AGAIN = "Measure again: refinenet eval --dataset ... --output FILE."


@dataclass(frozen=True, kw_only=True)
class Results:
    """Counts of an evaluation, image by image, read from its results file."""

    path: Path
    dataset: str
    split: str
    classes: tuple[str, ...]
    """Names of the K classes, by id."""
    images: tuple[str, ...]
    """Names of the N images, all different."""
    counts: Counts
    """`(N, 3, K)`: pixels of each class in both, in the truth and in the prediction."""
    protocol: str | None
    """How images were passed to the network, in words."""
    model_sha256: str | None
    """SHA-256 of the model's weights; None without a model."""


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read a results file.

    Raises:
        ValueError: the file is not a results file, is damaged, too large, of another version, or has impossible counts;
            the message says where, and what to do.
        OSError: the file is missing or cannot be read.
    """
    file = Path(path)
    try:
        values = json.loads(_read(file), object_pairs_hook=_refuse_doubled_keys, parse_constant=_refuse_constant)
        return _to_results(file, values)
    except RecursionError:
        raise ValueError(f"{file} cannot be used: it is nested too deeply for a results file. {AGAIN}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} cannot be used: it is not UTF-8 text (byte {error.start}). {AGAIN}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} cannot be used: it is not valid JSON ({error}). {AGAIN}") from error
    except ValueError as error:
        raise ValueError(f"{file} cannot be used: {error} {AGAIN}") from error


def shorten(value: object, limit: int = 60) -> str:
    """Return any value as printable ASCII of limited length, for messages."""
    text = ascii(value if not isinstance(value, str) else value[: limit + 1])
    return text if len(text) <= limit else text[:limit] + "..."


def _read(file: Path) -> str:
    if not file.exists():
        raise FileNotFoundError(
            f"There is no results file {file}. Write one: refinenet eval --dataset ... --output {file}"
        )
    if not file.is_file():
        raise ValueError("it is a folder, a pipe or a device, not a file.")
    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)  # one more than allowed shows that there are more
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than the {MAX_BYTES // 2**20} MiB that a results file may have.")
    return content.decode("utf-8")


def _refuse_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        doubled = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shorten(doubled)} occurs twice in one object.")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a JSON number.")


def _to_results(file: Path, values: Any) -> Results:
    if not isinstance(values, dict) or ("per_image" not in values and "class_iou" not in values):
        raise ValueError("it is not a results file of `refinenet eval`.")
    version = values.get("version")  # first: another version may have other keys
    if "version" not in values:
        raise ValueError(
            "it has no 'version': it is from an earlier package, which did not store the counts of each image."
        )
    if type(version) is not int or version != RESULTS_VERSION:
        raise ValueError(f"its 'version' is {shorten(version)}; this package compares version {RESULTS_VERSION}.")
    for key, kind in _KINDS.items():
        if type(values.get(key)) is not kind:
            raise ValueError(f"its {key!r} is {shorten(values.get(key))}, not a {_WORDS[kind]}.")
    for key in ("dataset", "split"):
        if not values[key].isprintable():
            raise ValueError(f"its {key!r} is {shorten(values[key])}, which is not printable.")
    for key in ("protocol", "model_sha256"):
        if values.get(key) is not None and not (isinstance(values[key], str) and values[key].isprintable()):
            raise ValueError(f"its {key!r} is {shorten(values[key])}, not printable text.")
    classes = tuple(values["class_iou"])
    _check_classes(classes)
    images = _image_names(values)
    return Results(
        path=file,
        dataset=values["dataset"],
        split=values["split"],
        classes=classes,
        images=images,
        counts=_read_counts(classes, images, values["per_image"]),
        protocol=values.get("protocol"),
        model_sha256=values.get("model_sha256"),
    )


_WORDS: Mapping[type, str] = {str: "string", int: "whole number", dict: "JSON object", list: "list"}


def _check_classes(names: tuple[str, ...]) -> None:
    if not names:
        raise ValueError("it has no classes: only metrics of classes are compared.")
    try:
        LabelSet(names=names, colours=voc_colours(len(names)))
    except ValueError as error:
        raise ValueError(f"the classes of its 'class_iou' are not valid: {error}") from error


def _image_names(values: dict[str, Any]) -> tuple[str, ...]:
    images = values["per_image"]
    if not images or len(images) != values["images"]:
        raise ValueError(
            f"its 'images' is {values['images']}, but its 'per_image' has {len(images)}. Both must be equal and at "
            "least 1."
        )
    if len(images) * len(values["class_iou"]) > MAX_COUNTS:
        raise ValueError(f"{len(images)} images with {len(values['class_iou'])} classes are too many to compare.")
    seen: dict[str, int] = {}
    for index, image in enumerate(images):
        where = f"its 'per_image'[{index}]"
        if not isinstance(image, dict):
            raise ValueError(f"{where} is {shorten(image)}, not a JSON object.")
        name = image.get("name")
        if not isinstance(name, str):
            raise ValueError(f"{where}['name'] is {shorten(name)}, not a string.")
        if name in seen:
            raise ValueError(f"{where}['name'] is {shorten(name)}, also the name of 'per_image'[{seen[name]}].")
        if not isinstance(image.get("pixels"), dict):
            raise ValueError(f"{where}['pixels'] is {shorten(image.get('pixels'))}, not a JSON object.")
        seen[name] = index
    return tuple(seen)


def _read_counts(classes: tuple[str, ...], images: tuple[str, ...], entries: list[dict[str, Any]]) -> Counts:
    columns = {name: k for k, name in enumerate(classes)}
    counts = np.zeros((len(images), 3, len(classes)), np.int64)
    pixels = 0
    for index, (image, entry) in enumerate(zip(images, entries, strict=True)):
        where = f"the 'pixels' of its image {shorten(image)}"
        for name, numbers in entry["pixels"].items():
            if name not in columns:
                raise ValueError(f"{where} have {shorten(name)}, which is not a class of its 'class_iou'.")
            _check_numbers(numbers, f"{where} are {shorten(numbers)} for {shorten(name)}")
            pixels += numbers[1]
            if pixels > MAX_PIXELS:
                raise ValueError(f"{where}, with those before it, exceed the limit of {MAX_PIXELS} pixels.")
            counts[index, :, columns[name]] = numbers
        _, truth, prediction = counts[index].sum(1).tolist()
        if prediction > truth:
            raise ValueError(f"{where} contradict each other: {prediction} are predicted, {truth} have a ground truth.")
    return counts


def _check_numbers(numbers: Any, where: str) -> None:
    # `type`, not `isinstance`: true and false of JSON are of a subclass of int.
    if not (isinstance(numbers, list) and len(numbers) == 3 and all(type(number) is int for number in numbers)):
        raise ValueError(f"{where}, not three whole numbers: pixels in both, in the ground truth, in the prediction.")
    both, truth, prediction = numbers
    if not 0 <= both <= min(truth, prediction):
        raise ValueError(
            f"{where}: pixels in both cannot exceed those in ground truth or prediction, and none can be negative."
        )
    if max(numbers) > MAX_PIXELS:
        raise ValueError(f"{where}: no image has so many pixels.")
