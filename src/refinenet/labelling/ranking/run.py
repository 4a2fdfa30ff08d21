"""Ranking of unlabelled images: measure all of them, choose those whose labels help most together, write the list.

Memory holds a few hundred bytes for each image of any size; an interrupted pass continues where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from refinenet.datasets import Dataset, DatasetSource, open_dataset
from refinenet.deployment import FoundImage, Search, SharedModel, file_state, find_images
from refinenet.io.console import describe_error, print_note, progress_bar
from refinenet.io.files import write_atomically
from refinenet.io.images.band_images import as_picture
from refinenet.io.images.codec import read_image, write
from refinenet.io.images.sample_values import Pixels, Reading, choose_reading, first_of_each_kind
from refinenet.io.tables import write_table
from refinenet.labelling.drafts import DraftSet, choose_prefix, describe_drafts, write_labels
from refinenet.labelling.image_journal import Entry, ImageJournal, open_image_journal
from refinenet.labelling.ranking.choice import Chosen, Labelled, Pool, choose
from refinenet.labelling.ranking.measures import Gauge, Measures
from refinenet.labelling.ranking.sheet import draw_cell, draw_sheet
from refinenet.labelling.todo_folder import refuse_corrected
from refinenet.models import check_same_classes, digest

TABLE, LIST, PATHS, SHEET, DRAFTS = "todo.csv", "todo.json", "todo.txt", "sheet.jpg", "drafts"
COLUMNS = (
    *("rank", "image", "gain", "unsureness", "doubt", "outlines", "disagreement", "novelty"),
    *("like", "classes", "reasons", "draft"),
)
"""Columns of the table."""
COUNT = 50
_MANY = 1.5
"""From this ratio to the mean of all images on, the amount of a class is a reason."""
_NAMED = 3
"""Maximum number of classes named among the reasons for an image."""
_UNSURE = 0.7
"""Rank of doubt, in [0, 1], from which it is a reason by itself."""


@dataclass(frozen=True, kw_only=True)
class RankedImage:
    """A chosen image."""

    file: Path
    place: str
    """Name below the results folder, without suffix."""
    measures: Measures
    chosen: Chosen
    like: str
    """The most similar image that is labelled or was chosen before; "" for none."""
    reasons: str
    """Why it was chosen, in words."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Outcome of a ranking."""

    folder: Path
    """Folder of the results."""
    images: int
    """Number of images that were measured."""
    failed: tuple[str, ...]
    """Images that could not be read, with the reason."""
    chosen: tuple[RankedImage, ...]
    """In the order in which to label them."""
    drafts: DraftSet
    """What the model predicts for them, for an annotation tool."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "folder": str(self.folder),
            "images": self.images,
            "failed": list(self.failed),
            "chosen": [str(each.file) for each in self.chosen],
            "drafts": describe_drafts(self.drafts),
        }

    def describe(self) -> str:
        """Describe the outcome in a sentence or two."""
        failed = f" {len(self.failed)} could not be read: {self.failed[0]}" if self.failed else ""
        return (
            f"{len(self.chosen)} of {self.images:,} images to label next: {self.folder / TABLE}, with the reasons in "
            f"{self.folder / SHEET}.{failed}\nNext: {self.drafts.advice}\n"
            f"Or, without a tool, in the browser: refinenet label correct {self.folder}\n"
            f"Then: refinenet label take EXPORT --drafts {self.drafts.folder} --into DATASET"
        )


def rank_images(
    model: SharedModel,
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    count: int = COUNT,
    labelled: DatasetSource | None = None,
    root: str | os.PathLike[str] | None = None,
    recursive: bool = False,
    progress: bool = True,
    **drafting: Any,
) -> Ranking:
    """Choose the images whose labels would help a model most, and write the list, a contact sheet and drafts.

    For each image, this measures how unsure the model is away from and along the outlines of objects, how much its
    predictions change when the image is mirrored and reduced, which classes it predicts, and the encoder's features.
    `choice.choose` then picks images of which the model is unsure, that differ from each other and from the
    labelled ones, and that show classes which those lack.

    Args:
        model: A network that predicts classes, such as a `RefineNet`.
        sources: As for `RefineNet.deploy_files`: images, folders, patterns, `@list.txt`.
        output: Folder for the results, created if missing; images below it are not ranked.
        count: Number of images to choose.
        labelled: Dataset of images already labelled: images unlike those of its split "train" are preferred.
        root: Folder of a named dataset.
        recursive: Whether to include subfolders.
        progress: Whether to show progress and notes on standard error.
        drafting: How drafts are written: `file_format`, `shapes`, `simplify` and others of `write_labels`.

    Returns:
        The chosen images, in the order in which to label them.

    Raises:
        ValueError: No image is found or none can be read, the model predicts no classes or is an exported graph, the
            labelled dataset has other classes, or the folder holds results of another model or accepted masks.
        OSError: The folder cannot be read or written.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count!r}.")
    folder, gauge = Path(output), Gauge(model.network, model.card)
    refuse_corrected(folder)
    named = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    search = Search(recursive=recursive, results=folder, arrays=bool(model.card.architecture.bands))
    images = find_images([os.fspath(name) for name in named], search)
    settings = {"format": 1, "model_sha256": _digest(model), "temperature": model.card.temperature}
    with open_image_journal(folder, "measured", settings) as journal, first_of_each_kind():
        found, failed = _measure_all(gauge, images, journal, progress=progress)
        if not found:
            raise ValueError(f"None of the {len(images)} images can be read: {failed[0] if failed else ''}")
        known = None if labelled is None else _measure_labelled(gauge, labelled, root, journal, progress=progress)
    pool = Pool.of([measures for _, measures in found])
    print_note(f"Choosing {min(count, len(found))} of {len(found):,} images.", enabled=progress)
    chosen = choose(pool, count, known)
    ranked = [_explain(each, found, model, labelled is not None) for each in chosen]
    write_atomically(folder / PATHS, "".join(f"{each.file}\n" for each in ranked).encode("utf-8", "surrogateescape"))
    if len(named) == 1 and Path(named[0]).is_dir():
        drafting = _as_of_folder(named[0], ranked, drafting)
    drafts = write_labels(f"@{folder / PATHS}", folder / DRAFTS, model=model, progress=progress, **drafting)
    drafts = _give_reasons(drafts, ranked)
    _write(model, gauge, ranked, drafts, folder, len(found), progress=progress)
    return Ranking(folder=folder, images=len(found), failed=tuple(failed), chosen=tuple(ranked), drafts=drafts)


def _as_of_folder(
    source: str | os.PathLike[str], ranked: Sequence[RankedImage], drafting: Mapping[str, Any]
) -> dict[str, Any]:
    """Name the drafts of a folder as `write_labels` does: without the folder, which would become one of the dataset."""
    names = {each.file: f"{each.place}{each.file.suffix}" for each in ranked}
    prefix = drafting.get("image_prefix")
    return {**drafting, "names": names, "image_prefix": choose_prefix([source]) if prefix is None else prefix}


def _digest(model: SharedModel) -> str:
    return model.card.weights_sha256 or digest(model.network.state_dict())


def _reading(gauge: Gauge) -> Reading:
    return choose_reading(gauge.card.value_range, None, None, gauge.card.architecture.bands)[0]


def _measure_all(
    gauge: Gauge, images: Sequence[FoundImage], journal: ImageJournal, *, progress: bool
) -> tuple[list[tuple[FoundImage, Measures]], list[str]]:
    """Measure the images that the journal has no measures of; return all that can be read, and the other's reasons."""
    found, failed, reading = [], [], _reading(gauge)
    with progress_bar(progress) as bar:
        task = bar.add_task("Measuring images", total=len(images), status="", unit="images")
        for image in images:
            state = file_state(image.file)
            entry = journal.find(image.place, state)
            if entry is None or "problem" in entry:  # earlier versions recorded problems
                measured = _measure(gauge, image, reading)
                if isinstance(measured, str):
                    # Not recorded: what was missing, such as a package, may be there the next time.
                    failed.append(f"{image.file}: {measured}")
                    bar.advance(task)
                    continue
                entry = {**state, **measured}
                journal.add(image.place, entry)
            found.append((image, Measures.from_dict(entry)))
            bar.advance(task)
    return found, failed


def _measure(gauge: Gauge, image: FoundImage, reading: Reading) -> Entry | str:
    """Return the measures of an image, or the reason why it cannot be read."""
    if image.problem is not None:
        return describe_error(image.problem)
    try:
        pixels = read_image(image.file, reading=reading).pixels
    except (ValueError, OSError) as error:
        return describe_error(error)
    return gauge.measure(pixels)[0].to_dict()


def _measure_labelled(
    gauge: Gauge,
    source: DatasetSource,
    root: str | os.PathLike[str] | None,
    journal: ImageJournal,
    *,
    progress: bool,
) -> Labelled:
    """Return the features and the class shares of the training images of a dataset."""
    dataset = open_dataset(source, root)("train")
    check_same_classes(gauge.card.label_set, dataset)
    shares, features = [], []
    with progress_bar(progress) as bar:
        task = bar.add_task("Reading labelled images", total=len(dataset), status="", unit="images")
        for index, item in enumerate(dataset.items):
            name, state = f"labelled/{item}", _state(dataset, item)
            entry = journal.find(name, state)
            if entry is None:
                sample = dataset[index]
                counts = np.bincount(sample.labels.ravel(), minlength=len(dataset.label_set))
                mean = counts[: len(dataset.label_set)] / sample.labels.size
                described = gauge.describe(sample.image).tobytes().hex()
                entry = {**state, "shares": [float(f"{share:.3g}") for share in mean], "features": described}
                journal.add(name, entry)
            shares.append(entry["shares"])
            features.append(np.frombuffer(bytes.fromhex(entry["features"]), np.float16))
            bar.advance(task)
    return Labelled(shares=np.array(shares, np.float32), features=np.stack(features))


def _state(dataset: Dataset, item: str) -> dict[str, Any]:
    files = [file for file in (dataset.image_file(item), dataset.label_file(item)) if file is not None]
    return dict(file_state(*files)) if files else {}


def _explain(
    chosen: Chosen, found: Sequence[tuple[FoundImage, Measures]], model: SharedModel, has_labelled: bool
) -> RankedImage:
    image, measures = found[chosen.index]
    like = found[chosen.nearest][0].place if chosen.nearest is not None else "a labelled image" if has_labelled else ""
    names = model.label_set.names
    rich = [f"{ratio:.1f} times the average amount of {names[k]}" for k, ratio in chosen.classes if ratio >= _MANY]
    words = rich[:_NAMED]
    if chosen.unsureness >= _UNSURE or not words:
        words.append(f"among the {max(1 - chosen.unsureness, 0.01):.0%} of which the model is least sure")
    words += [f"{1 - chosen.novelty:.0%} similar to {like}"] if like else []
    return RankedImage(
        file=image.file, place=image.place, measures=measures, chosen=chosen, like=like, reasons="; ".join(words)
    )


def _give_reasons(drafts: DraftSet, ranked: Sequence[RankedImage]) -> DraftSet:
    """Record why each image was chosen, and the order in which to label them."""
    by_file = {image.file: image for image in drafts.images}
    images = [replace(by_file[each.file], reasons=each.reasons) for each in ranked if each.file in by_file]
    drafts = replace(drafts, images=tuple(images))
    drafts.save()
    return drafts


def _write(
    model: SharedModel,
    gauge: Gauge,
    ranked: Sequence[RankedImage],
    drafts: DraftSet,
    folder: Path,
    images: int,
    *,
    progress: bool,
) -> None:
    ids = {image.file: os.path.relpath(drafts.find_file(image), folder) for image in drafts.images}
    rows = [_row(each, rank, model, ids.get(each.file)) for rank, each in enumerate(ranked, start=1)]
    cells, reading = [], _reading(gauge)
    with progress_bar(progress) as bar:
        task = bar.add_task("Drawing the sheet", total=len(ranked), status="", unit="images")
        for rank, each in enumerate(ranked, start=1):
            pixels: Pixels = read_image(each.file, reading=reading).pixels
            picture = as_picture(pixels, model.card.architecture.bands)
            maps = gauge.measure(pixels)[1]
            cells.append(draw_cell(picture, maps, model.label_set, f"{rank}. {each.place}", each.reasons))
            bar.advance(task)
    title = f"{len(ranked)} of {images:,} images: image, predicted classes, doubt (the darker, the less sure)"
    write(folder / SHEET, draw_sheet(title, cells, model.label_set))
    write_atomically(folder / LIST, (json.dumps({"format": 1, "images": rows}, indent=1) + "\n").encode())
    write_table(folder / TABLE, rows, COLUMNS)


def _row(ranked: RankedImage, rank: int, model: SharedModel, draft: str | None) -> dict[str, str | int | float | None]:
    chosen, measures = ranked.chosen, ranked.measures
    names = model.label_set.names
    return {
        "rank": rank,
        "image": str(ranked.file),
        "gain": round(chosen.gain, 4),
        "unsureness": round(chosen.unsureness, 4),
        "doubt": round(measures.doubt, 4),
        "outlines": round(measures.outlines, 4),
        "disagreement": round(measures.disagreement, 4),
        "novelty": round(chosen.novelty, 4),
        "like": ranked.like,
        "classes": ", ".join(f"{names[k]} {ratio:.1f}" for k, ratio in chosen.classes),
        "reasons": ranked.reasons,
        "draft": draft,
    }
