"""The list of suspects on disk: a table, label maps with proposals in place of the suspects, and a page."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from refinenet.io.files import write_atomically
from refinenet.io.images.band_images import as_picture
from refinenet.io.images.codec import write
from refinenet.io.images.mask_files import read_mask
from refinenet.io.tables import write_table
from refinenet.labelling.drafts import SUSPECTS, DraftImage, DraftSet, choose_shapes, convert
from refinenet.labelling.errors.judging import REGIONS
from refinenet.labelling.errors.suspect_page import SuspectView, draw_entry, render_page
from refinenet.labelling.errors.suspect_scores import ScoredSuspect
from refinenet.labelling.formats.base import DraftOptions
from refinenet.labelling.formats.table import FormatName
from refinenet.labelling.labelled_images import LabelledImages

TABLE, LIST, PAGE, PROPOSALS, LABELS = "suspects.csv", "suspects.json", "suspects.html", "proposals", "labels"
COLUMNS = (
    *("rank", "score", "image", "split", "label", "prediction", "confidence", "pixels"),
    *("left", "top", "right", "bottom", "region", "number", "file"),
)
"""Columns of the table."""
VOID = "void"


def write_suspects(
    images: LabelledImages, listed: Sequence[ScoredSuspect], total: int, judged: int, folder: Path
) -> Path:
    """Write the table, the proposals and the page.

    Args:
        images: The images.
        listed: The suspects to list, in order.
        total: Number of all suspects.
        judged: Number of images that were judged.
        folder: Folder of the results, which has the maps of suspects already.

    Returns:
        The page.

    Raises:
        OSError: A file cannot be read or written.
    """
    rows = [_describe(images, each, rank) for rank, each in enumerate(listed, start=1)]
    write_table(folder / TABLE, rows, COLUMNS)
    values = {"format": 1, "dataset": images.name, "images": judged, "found": total, "suspects": rows}
    write_atomically(folder / LIST, (json.dumps(values, indent=1) + "\n").encode())
    entries: dict[int, Any] = {}
    by_image = defaultdict(list)
    for rank, each in enumerate(listed):
        by_image[each.image].append(rank)
    # Image by image, so that each is read once and only one is in memory.
    for index, ranks in by_image.items():
        view = _propose(images, index, [listed[rank] for rank in ranks], folder)
        for rank in ranks:
            entries[rank] = draw_entry(view, listed[rank].suspect, rows[rank], images.all.label_set)
    # Without image files, such as those of drawn scenes, there are no drafts that decisions could refer to.
    origin = None if None in _image_files(images, sorted(by_image)) else folder
    page = render_page(images.name, origin, [entries[rank] for rank in range(len(listed))], total, judged)
    return write_atomically(folder / PAGE, page.encode())


def _propose(images: LabelledImages, index: int, suspects: Sequence[ScoredSuspect], folder: Path) -> SuspectView:
    """Write the label map of an image with what the model says in place of its suspects."""
    name, sample = images.names[index], images.all[index]
    regions = read_mask(folder / REGIONS / f"{name}.png")
    proposal = sample.labels.copy()
    for each in suspects:
        proposal[regions == each.suspect.number] = each.suspect.prediction
    write(folder / PROPOSALS / f"{name}.png", proposal)
    write(folder / LABELS / f"{name}.png", sample.labels)
    image = as_picture(sample.image, images.all.bands)
    return SuspectView(image=image, labels=sample.labels, proposal=proposal, regions=regions)


def write_drafts(
    images: LabelledImages, listed: Sequence[ScoredSuspect], folder: Path, file_format: FormatName
) -> DraftSet | None:
    """Write the proposals in the format of an annotation tool, for a person to accept or to correct.

    The record of the drafts (`drafts.json`) names the labels of the dataset as the original ones, and what is proposed,
    so that `take_labels` takes accepted proposals as well as corrections, and nothing else.

    Returns:
        The drafts; None if there are no suspects, or the images are not files (such as drawn ones).

    Raises:
        ValueError: There is no such format.
        OSError: A file cannot be written.
    """
    indices = list(dict.fromkeys(each.image for each in listed))
    names, files = [images.names[index].partition("/")[2] for index in indices], _image_files(images, indices)
    if not indices or None in files:
        return None
    repeated = {name for name, count in Counter(names).items() if count > 1}
    proposed, before = [], []
    for index, name, file in zip(indices, names, files, strict=True):
        assert file is not None
        whole = images.names[index]
        plain = f"{whole if name in repeated else name}{file.suffix}"
        proposed.append(DraftImage(name=plain, file=file, ids=folder / PROPOSALS / f"{whole}.png"))
        old = DraftImage(name=plain, file=file, ids=folder / LABELS / f"{whole}.png", sample=whole)
        why = "; ".join(_explain(images, each) for each in listed if each.image == index)
        before.append(replace(old, proposal=proposed[-1].ids, regions=folder / REGIONS / f"{whole}.png", reasons=why))
    options = DraftOptions(label_set=images.all.label_set, shapes=choose_shapes(file_format, None), origin=SUSPECTS)
    options = replace(options, simplify=0.0)  # nothing but the suspects may come back changed
    drafts = DraftSet(folder=folder, format=file_format, options=options, min_area=0, images=tuple(proposed), failed={})
    recorded = replace(convert(drafts, progress=False), images=tuple(before))
    recorded.save()
    return recorded


def _explain(images: LabelledImages, scored: ScoredSuspect) -> str:
    suspect, names = scored.suspect, images.all.label_set.names
    label = VOID if suspect.label == images.all.label_set.ignore_index else names[suspect.label]
    return f"{suspect.pixels:,} pixels labelled {label} look like {names[suspect.prediction]}"


def _image_files(images: LabelledImages, indices: Sequence[int]) -> list[Path | None]:
    return [images.all.image_file(images.all.items[index]) for index in indices]


def _describe(images: LabelledImages, scored: ScoredSuspect, rank: int) -> Mapping[str, str | int | float | None]:
    name, suspect, label_set = images.names[scored.image], scored.suspect, images.all.label_set
    split, _, item = name.partition("/")
    left, top, right, bottom = suspect.box
    file = images.all.label_file(images.all.items[scored.image])
    return {
        "rank": rank,
        "score": round(scored.score, 4),
        "image": item,
        "split": split,
        "label": VOID if suspect.label == label_set.ignore_index else label_set.names[suspect.label],
        "prediction": label_set.names[suspect.prediction],
        "confidence": round(suspect.confidence, 4),
        "pixels": suspect.pixels,
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
        "region": f"{REGIONS}/{name}.png",
        "number": suspect.number,
        "file": None if file is None else str(file),
    }
