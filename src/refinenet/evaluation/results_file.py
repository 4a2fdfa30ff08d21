"""Results files that `refinenet eval --output` wrote: read with mistrust, for each may come from anywhere.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from refinenet.evaluation.metrics.regions import Counts
from refinenet.evaluation.results import RESULTS_VERSION
from refinenet.labels import LabelSet, voc_colours

MAX_BYTES = 256 * 2**20
"""Of a file; 5,000 images with 170 classes take less than 10 MiB."""
MAX_COUNTS = 2**24
"""Images times classes, which bounds the memory."""
MAX_PIXELS = 2**53
"""Of all images together: sums stay exact."""
_KINDS: Mapping[str, type] = {"dataset": str, "split": str, "images": int, "class_iou": dict, "per_image": list}
AGAIN = "Measure again: refinenet eval --dataset ... --output FILE."


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an evaluation counted, image by image."""

    path: Path
    dataset: str
    split: str
    classes: tuple[str, ...]
    """Names by id, K of them."""
    images: tuple[str, ...]
    """Names, N of them, none twice."""
    counts: Counts
    """`(N, 3, K)`: pixels of each class in both, in the truth and in the prediction."""
    protocol: str | None
    """How the images were put before the network, in words."""
    model_sha256: str | None
    """Of the model's weights, where it was one."""


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read a results file.

    Raises:
        ValueError: it is none, is damaged, too large, of another version, or its counts cannot be; says where and what
            to do.
        OSError: it is not there or cannot be read.
    """
    file = Path(path)
    try:
        values = json.loads(_read(file), object_pairs_hook=_refuse_doubled_keys, parse_constant=_refuse_constant)
        return _to_results(file, values)
    except RecursionError:
        raise ValueError(f"{file} cannot be used: it is nested too deeply for a results file. {AGAIN}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} cannot be used: it is no text in UTF-8 (byte {error.start}). {AGAIN}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} cannot be used: it is no JSON, or damaged ({error}). {AGAIN}") from error
    except ValueError as error:
        raise ValueError(f"{file} cannot be used: {error} {AGAIN}") from error


def shorten(value: object, limit: int = 60) -> str:
    """A value as a message shows it, whatever it is: printable, and not long."""
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
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than the {MAX_BYTES // 2**20} MiB that a results file may have.")
    return content.decode("utf-8")


def _refuse_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        doubled = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shorten(doubled)} stands twice in one object.")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number of JSON.")


def _to_results(file: Path, values: Any) -> Results:
    if not isinstance(values, dict) or ("per_image" not in values and "class_iou" not in values):
        raise ValueError("it is no results file of `refinenet eval`.")
    version = values.get("version")  # first: another version may have other keys
    if "version" not in values:
        raise ValueError("it has no 'version': it is from an earlier package, which did not keep the images' counts.")
    if type(version) is not int or version != RESULTS_VERSION:
        raise ValueError(f"its 'version' is {shorten(version)}, this package compares version {RESULTS_VERSION}.")
    for key, kind in _KINDS.items():
        if type(values.get(key)) is not kind:
            raise ValueError(f"its {key!r} is {shorten(values.get(key))}, not a {_WORDS[kind]}.")
    for key in ("dataset", "split"):
        if not values[key].isprintable():
            raise ValueError(f"its {key!r} is {shorten(values[key])}, which cannot be printed.")
    for key in ("protocol", "model_sha256"):
        if values.get(key) is not None and not (isinstance(values[key], str) and values[key].isprintable()):
            raise ValueError(f"its {key!r} is {shorten(values[key])}, not a text to print.")
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


_WORDS: Mapping[type, str] = {str: "text", int: "whole number", dict: "JSON object", list: "list"}


def _check_classes(names: tuple[str, ...]) -> None:
    try:
        LabelSet(names=names, colours=voc_colours(len(names)))
    except ValueError as error:
        raise ValueError(f"the classes of its 'class_iou' are none: {error}") from error


def _image_names(values: dict[str, Any]) -> tuple[str, ...]:
    images = values["per_image"]
    if not images or len(images) != values["images"]:
        raise ValueError(f"its 'images' is {values['images']}, its 'per_image' has {len(images)} of at least 1.")
    if len(images) * len(values["class_iou"]) > MAX_COUNTS:
        raise ValueError(f"{len(images)} images with {len(values['class_iou'])} classes are more than can be compared.")
    seen: dict[str, int] = {}
    for index, image in enumerate(images):
        where = f"its 'per_image'[{index}]"
        if not isinstance(image, dict):
            raise ValueError(f"{where} is {shorten(image)}, not a JSON object.")
        name = image.get("name")
        if not isinstance(name, str):
            raise ValueError(f"{where}['name'] is {shorten(name)}, not a text.")
        if name in seen:
            raise ValueError(f"{where}['name'] is {shorten(name)}, the name of 'per_image'[{seen[name]}], too.")
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
                raise ValueError(f"{where} have {shorten(name)}, which is no class of its 'class_iou'.")
            _check_numbers(numbers, f"{where} are {shorten(numbers)} for {shorten(name)}")
            pixels += numbers[1]
            if pixels > MAX_PIXELS:
                raise ValueError(f"{where}, with those before it, are more than {MAX_PIXELS}.")
            counts[index, :, columns[name]] = numbers
        _, truth, prediction = counts[index].sum(1).tolist()
        if prediction > truth:
            raise ValueError(f"{where} contradict each other: {prediction} are predicted, {truth} have a truth.")
    return counts


def _check_numbers(numbers: Any, where: str) -> None:
    if not (isinstance(numbers, list) and len(numbers) == 3 and all(type(number) is int for number in numbers)):
        raise ValueError(f"{where}, not three whole numbers: in both, in the truth, in the prediction.")
    both, truth, prediction = numbers
    if not 0 <= both <= min(truth, prediction):
        raise ValueError(f"{where}: those in both cannot be more than in truth or prediction, and none is negative.")
    if max(numbers) > MAX_PIXELS:
        raise ValueError(f"{where}: no image has so many pixels.")
