"""Which images a run with Ray works on, and where each result goes: folders, files and stores mixed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from posixpath import splitext

from refinenet.datasets.catalog import FOREIGN_SUFFIXES, IMAGE_SUFFIXES
from refinenet.deployment.inputs import Problem, walk_images
from refinenet.deployment.ray.storage import as_place, is_here, join, list_names

DEFAULT_FOLDER = "segmented"


def pair_places(
    images: Sequence[str], output: str | None = None, *, recursive: bool = False
) -> tuple[list[tuple[str, str]], str | None]:
    """Pair each image with the place that its result goes to.

    Args:
        images: Files and folders: paths, `file://` or `s3://` URIs. Those of a folder are taken in alphabetical order.
        output: For one image file a file; else a folder, by default `segmented`, in which each image gets a `.png` file
            of its name, below the folders that it lies in below the folder named.
        recursive: Whether folders in folders are meant, too.

    Returns:
        The pairs, and the folder of the results, None where it is one file.

    Raises:
        ValueError: a place that is none, a folder without images, a file as output for several images, or the images'
            own folder.
        OSError: a folder cannot be read.
    """
    places = [as_place(image) for image in dict.fromkeys(images)]
    target = as_place(output or DEFAULT_FOLDER)
    if _is_image(target) and not _is_folder(target):
        if len(places) > 1 or not _is_image(places[0]) or _is_folder(places[0]):
            raise ValueError(f"Several images need a folder for their results, not one file: {target}.")
        return [(places[0], target)], None
    found = {image: name for place in places for image, name in _find(place, recursive, target)}
    # A picture of a kind that is not read fails alone: its place is in nobody's way.
    pairs = [
        (image, join(target, f"{splitext(name)[0] if _is_image(name) else name}.png")) for image, name in found.items()
    ]
    homes = {_folder_of(result) for _, result in pairs}
    mixed = next((image for image, _ in pairs if _folder_of(image) in homes), None)
    if mixed is not None:
        raise ValueError(f"{target} holds images themselves, such as {mixed}: results would mix. Name another folder.")
    return pairs, target


def find_skipped(images: Sequence[str], output: str | None = None, *, recursive: bool = False) -> dict[str, Problem]:
    """The folders that `pair_places` does not look through, with the reason: see `sources.find_images`.

    Args:
        images: As for `pair_places`.
        output: As for `pair_places`; what lies below it is left out.
        recursive: As for `pair_places`.
    """
    target = f"{_whole(as_place(output or DEFAULT_FOLDER))}/"
    skipped: dict[str, Problem] = {}
    for place in (as_place(image) for image in images):
        if is_here(place) and _is_folder(place):
            _, problems = walk_images(Path(place), recursive=recursive)
            skipped |= {join(place, name): problem for name, problem in problems.items()}
    return {place: problem for place, problem in skipped.items() if not f"{_whole(place)}/".startswith(target)}


def _find(place: str, recursive: bool, target: str) -> list[tuple[str, str]]:
    """Images with their names in the folder that they were found in."""
    if _is_image(place) and not _is_folder(place):
        return [(place, place.replace("\\", "/").rpartition("/")[2])]
    base, results = f"{_whole(place)}/", f"{_whole(target)}/"
    below = results.removeprefix(base) if results.startswith(base) else ""  # what an earlier run made is not meant
    names, problems = _list(place)
    names = [name for name in names if not below or not name.startswith(below)]
    chosen = [name for name in names if recursive or "/" not in name]
    if not any(map(_is_image, chosen)) and not problems:
        hint = " Folders in it do: --recursive looks into them." if any(map(_is_image, names)) else ""
        raise ValueError(f"{place} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}).{hint}")
    return [(join(place, name), name) for name in chosen]


def _list(place: str) -> tuple[list[str], dict[str, Problem]]:
    if not is_here(place) or not _is_folder(place):
        return list_names(place, (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES)), {}
    names, problems = walk_images(Path(place), recursive=True)
    return sorted(names), problems


def _folder_of(place: str) -> str:
    return _whole(str(Path(place).parent) if is_here(place) else place.rpartition("/")[0])


def _whole(folder: str) -> str:
    """A folder by its only name."""
    return Path(os.path.realpath(folder)).as_posix() if is_here(folder) else folder.rstrip("/")


def _is_folder(place: str) -> bool:
    return is_here(place) and os.path.isdir(place)


def _is_image(place: str) -> bool:
    return place.lower().endswith(IMAGE_SUFFIXES)
