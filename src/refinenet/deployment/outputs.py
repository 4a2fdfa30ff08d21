"""Kinds of result files: those that a user asks for, or that the suffix of a file implies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from refinenet.inference.output_kinds import OUTPUT_KINDS, PICTURE_SUFFIXES, POLYGONS, Kind, Output, split_kind
from refinenet.inference.rendering import check_suffix_of
from refinenet.inference.segmentation import check_output
from refinenet.inference.values.subject import kinds_of, usual_kind
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.outputs import CLASSES, OutputSpec

_POLYGON_KINDS: Sequence[Kind] = [kind for kind, spec in OUTPUT_KINDS.items() if spec.has_polygons]


def choose_kinds(asked: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds asked for, each once, with `polygons` expanded.

    Raises:
        ValueError: an unknown kind, or a kind whose library is not installed.
    """
    names = [part for name in asked for part in (_POLYGON_KINDS if name == POLYGONS else (name,))]
    unknown = [name for name in names if not _is_kind(name)]
    if unknown:
        raise ValueError(f"kind must be one of {', '.join(OUTPUT_KINDS)} and {POLYGONS}, not {min(unknown)!r}.")
    order = list(OUTPUT_KINDS)
    chosen = tuple(sorted(dict.fromkeys(names), key=lambda name: order.index(split_kind(name)[0])))
    for kind in chosen:
        OUTPUT_KINDS[split_kind(kind)[0]].require()
    return chosen


def _is_kind(name: str) -> bool:
    key, part = split_kind(name)
    return key in OUTPUT_KINDS and (key == name or (bool(part) and OUTPUT_KINDS[key].shows_values))


def usual_suffix(kind: Kind) -> str:
    """Return the default suffix of a kind."""
    return OUTPUT_KINDS[split_kind(kind)[0]].suffix


def check_target(target: Path, kind: Kind | None, outputs: Sequence[OutputSpec] = (CLASSES,)) -> Kind:
    """Return the kind of a result file: the one asked for, or the one that its suffix implies.

    Args:
        target: The file.
        kind: What to write; None for the default.
        outputs: Outputs of the network.

    Raises:
        ValueError: the suffix does not fit the kind, or no kind has such a suffix.
    """
    suffix = target.suffix.lower()
    kind = kind or _usual_for(suffix, outputs)
    row = None if kind is None else OUTPUT_KINDS[split_kind(kind)[0]]
    if kind is None or row is None or row.is_picture:
        output = cast("Output | None", kind)
        # TIFF is written in windows, for every kind of picture.
        return kind or "labels" if suffix in TIFF_SUFFIXES else check_output(target, output)
    if row.shows_values:
        check_suffix_of(kind, suffix)
    elif suffix != row.suffix:
        raise ValueError(f"{kind} is written as {row.suffix}, not as {str(target)!r}.")
    return kind


def _usual_for(suffix: str, outputs: Sequence[OutputSpec]) -> Kind | None:
    """Return the kind that the suffix of a file implies; None for pictures of classes."""
    usual = usual_kind(outputs)
    if usual is not None:
        plain = ".tif" if suffix in TIFF_SUFFIXES else suffix
        possible = [usual] if suffix in PICTURE_SUFFIXES else kinds_of(outputs)
        rows = {kind: OUTPUT_KINDS[split_kind(kind)[0]] for kind in possible}
        return next((kind for kind, row in rows.items() if plain in (*row.forms, *row.contents)), usual)
    found = (kind for kind, row in OUTPUT_KINDS.items() if not row.is_picture and row.suffix == suffix)
    kind = None if suffix in PICTURE_SUFFIXES else next(found, None)
    return None if kind is None else choose_kinds([kind])[0]
