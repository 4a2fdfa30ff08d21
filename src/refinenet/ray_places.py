"""Which images a run with Ray works on, and where each result goes: folders, files and stores mixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refinenet.batch import pair_outputs
from refinenet.datasets import IMAGE_SUFFIXES
from refinenet.segmenter import Output
from refinenet.storage import as_place, is_here, join, list_names

Pairs = Sequence[tuple[str, str]]


def pair_places(images: Sequence[str], output: str | None, kind: Output | None) -> tuple[Pairs, str | None]:
    """Pair each image with the place that its result goes to.

    What is here is paired as without Ray (`batch.pair_outputs`). Where a store is among the places, folders are taken
    with all that is below them, and the results keep their subfolders.

    Args:
        images: Files and folders: paths, `file://` or `s3://` URIs.
        output: As for `batch.pair_outputs`, or such a URI.
        kind: Which picture will be written; see `Segmentation.save`.

    Returns:
        The pairs, and the folder of the results, None where it is one file.

    Raises:
        ValueError: as `batch.pair_outputs`.
        OSError: a folder cannot be read.
    """
    places = [as_place(image) for image in images]
    target = None if output is None else as_place(output)
    if all(is_here(place) for place in (*places, target or "")):
        pairs = pair_outputs([Path(place) for place in places], None if target is None else Path(target), kind)
        is_file = len(pairs) == 1 and not Path(places[0]).is_dir()
        return [(str(image), str(result)) for image, result in pairs], None if is_file else target or "segmented"
    if target is None:
        raise ValueError("Where do the results go? Images in a store need --output FOLDER or s3://BUCKET/FOLDER.")
    if _is_image(target):
        return _pair_one(places, target), None
    found = [found for place in places for found in _find(place)]
    return [(image, join(target, f"{name.rpartition('.')[0]}.png")) for image, name in found], target


def _pair_one(places: Sequence[str], target: str) -> Pairs:
    if len(places) > 1 or not _is_image(places[0]):
        raise ValueError(f"Several images need a folder for their results, not one file: {target}.")
    return [(places[0], target)]


def _find(place: str) -> list[tuple[str, str]]:
    """Images with their names in the folder that they were found in."""
    if _is_image(place):
        return [(place, place.replace("\\", "/").rpartition("/")[2])]
    names = list_names(place)
    if not names:
        raise ValueError(f"{place} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}).")
    return [(join(place, name), name) for name in names]


def _is_image(place: str) -> bool:
    return place.lower().endswith(IMAGE_SUFFIXES)
