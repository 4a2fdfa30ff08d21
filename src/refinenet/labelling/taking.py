"""Import of corrected labels into a dataset: only what changed, after checks, with copies of replaced files and a log.

Changes are found by comparison with the drafts: pixels that come back unchanged keep the dataset's labels or, in new
images, the predicted ones, so that a simplified polygon that nobody touched changes nothing. What comes back exactly as
proposed is no evidence that anybody looked at it: such a draft may train but not validate, and such a proposal of
`label errors` changes no label, unless the tool or the caller says that the image was reviewed.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from refinenet.datasets import group_stems
from refinenet.datasets.formats import Renames, is_background, is_void
from refinenet.io.console import print_note, progress_bar
from refinenet.labelling.dataset_change import BEFORE, DatasetChange
from refinenet.labelling.dataset_growth import VAL_SHARE, GrowingDataset, open_growing
from refinenet.labelling.drafts import DraftSet, open_drafts, render
from refinenet.labelling.errors.decisions import SUFFIX as DECISIONS
from refinenet.labelling.errors.decisions import read_decisions
from refinenet.labelling.formats.base import ToolExport, translate
from refinenet.labelling.formats.table import open_export
from refinenet.labelling.image_matching import ImageMatcher, MatchedImage
from refinenet.labelling.proposals import read_proposals
from refinenet.labelling.renaming import Renaming, rename_classes
from refinenet.labelling.staging import Staging
from refinenet.labelling.todo_folder import CORRECTED, find_corrected, find_drafts
from refinenet.labels import LabelMap, LabelSet, voc_colours

Action = Literal["new", "changed", "unchanged", "left out"]


@dataclass(frozen=True, kw_only=True)
class TakenImage:
    """Outcome for the labels of one image."""

    name: str
    """Its stem in the dataset, or the export's name of an image that was left out."""
    action: Action
    split: str = ""
    pixels: int = 0
    """Number of pixels that differ from the dataset's labels before, or for new images from the draft."""
    changes: Mapping[str, int] = field(default_factory=dict)
    """The same by classes, such as {"road > car": 120}."""
    is_draft: bool = False
    """Whether it is new, and its labels are the draft as it was written."""
    is_reviewed: bool = False
    """Whether a person is known to have looked at it: something was changed, or the tool or the caller says so."""
    withdrawn: int = 0
    """Number of proposals of `label errors` that came back exactly as proposed and unreviewed, so that their labels
    stay."""
    has_no_draft: bool = False
    """Whether drafts were passed, and none is of this image, so that all of its labels count as a person's."""
    reason: str = ""
    """Why it was left out."""

    def to_dict(self) -> dict[str, Any]:
        """Return the values that apply, ready for JSON."""
        values = {
            "image": self.name,
            "action": self.action,
            "split": self.split,
            "pixels": self.pixels,
            "changes": dict(self.changes),
            "is_draft": self.is_draft or "",
            "is_reviewed": self.is_reviewed if self.is_draft else "",
            "withdrawn": self.withdrawn or "",
            "has_no_draft": self.has_no_draft or "",
            "reason": self.reason,
        }
        return {key: value for key, value in values.items() if value not in ("", {}) or key in ("image", "action")}


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The outcome of `take_labels`."""

    dataset: Path
    images: tuple[TakenImage, ...]
    copies: Path | None
    """Folder with copies of the files that were replaced; None if none was."""
    divided: Mapping[str, int] = field(default_factory=dict)
    """Number of images in each split, if lists were written for a folder that had none."""

    def count(self, action: Action) -> int:
        """Return the number of images with an action."""
        return sum(image.action == action for image in self.images)

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON-ready values."""
        return {
            "dataset": str(self.dataset),
            "copies": None if self.copies is None else str(self.copies),
            "splits": dict(self.divided),
            "images": [image.to_dict() for image in self.images],
        }


def take_labels(
    export: str | os.PathLike[str],
    into: str | os.PathLike[str],
    *,
    drafts: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    only_corrected: bool = False,
    reviewed: bool = False,
    rename: Mapping[str, str] | None = None,
    group: str | None = None,
    val: float = VAL_SHARE,
    check: bool = True,
    progress: bool = True,
) -> Taken:
    """Import labels exported by an annotation tool into a dataset of images and masks.

    All are checked as by `refinenet data check` before anything is changed. Replaced files are backed up to `.before/`
    in the dataset, and `labels_taken.jsonl` there gets a line for each image. A second call with the same export
    changes nothing.

    New images whose draft came back exactly as it was written join "train", because a model that is measured on them
    would be measured against its own predictions; if the images related to them are in another split, they are left
    out.
    Proposals of `find_label_errors` that came back exactly as proposed are withdrawn: the dataset keeps its labels.
    Neither applies to images that a person is known to have looked at (`reviewed`, or a task submitted in Label
    Studio).

    Args:
        export: A folder, a zip archive or a JSON file, in any format of `FORMATS`; or the folder that was given to
            `correct_labels`, whose accepted masks are imported; or the table of decisions that the page
            `suspects.html` has saved, with the folder of the search as `drafts`.
        into: The dataset's folder; if missing, it is created with `images/`, `masks/`, `classes.yaml` and lists of the
            splits.
        drafts: The folder that `write_labels`, `rank_images` or `find_label_errors` wrote; it records where the images
            are, and shows which pixels were changed. Not needed after `correct_labels`.
        images: Folder of the images, for those that neither the dataset nor `drafts` nor the export has.
        output: New or empty folder for a copy of the dataset, which is changed instead of the original.
        only_corrected: Whether to skip images whose draft labels came back unchanged.
        reviewed: Whether a person has looked at all images of the export, so that unchanged drafts and proposals are
            correct.
        rename: The class of the dataset for labels of other names: `{"person": "Pedestrian"}`. Several labels may
            become one class, and "void" leaves pixels without a class.
        group: As for `refinenet data split`: new images join the split of their group.
        val: Share of images for validation, which new groups preserve.
        check: Whether to refuse labels with errors that would stop training, as `refinenet data check` finds them.
        progress: Whether to show progress on standard error.

    Raises:
        ValueError: The export or the dataset is damaged or not recognised, nothing was accepted in the folder of
            `correct_labels`, a label is not a class of the dataset, a label to rename does not exist, there are
            errors that would stop training, none of the images has one of the drafts, or a new dataset would have
            only unchanged drafts for validation; nothing was changed.
        FileExistsError: `output` is not empty.
        FileNotFoundError: The export or the drafts are missing.
        OSError: A file cannot be read or written.
    """
    source, known = _find_source(Path(export), None if drafts is None else Path(drafts))
    is_corrector = known is not None and source.resolve() == (known.folder / CORRECTED).resolve()
    if known is not None and is_corrector:
        # The corrector shows the ids themselves, not as the format of another tool would hold them.
        known = replace(known, format="png", options=replace(known.options, shapes="masks"))
    if (only_corrected or reviewed) and known is None:
        name = "only_corrected" if only_corrected else "reviewed"
        raise ValueError(f"{name} needs drafts: only they say what was proposed.")
    with tempfile.TemporaryDirectory(prefix="refinenet-") as temporary:
        scratch = Path(temporary)
        is_table = source.suffix.lower() == DECISIONS and source.is_file()
        found = read_decisions(source, known) if is_table else open_export(source, scratch / "export")
        if reviewed or is_corrector:  # there each mask was accepted by a person
            found = replace(found, reviewed=frozenset(found.items))
        renames = Renames(rename or {}, "rename (--rename)")
        renames.check([*found.label_names, *(known.options.label_set.names if known is not None else ())])
        root = _copy(Path(into), output)
        dataset = open_growing(root, _new_label_set(found, known, renames))
        print_note(_describe_new(root, dataset.label_set), enabled=progress and dataset.layout is None)
        taking = _Taking(found, dataset, known, scratch, renames, only_corrected=only_corrected, group=group, val=val)
        return taking.run(None if images is None else Path(images), check=check, progress=progress)


def _find_source(export: Path, drafts: Path | None) -> tuple[Path, DraftSet | None]:
    """Return what to take, and the drafts: of the folder of `correct_labels`, the accepted masks.

    Raises:
        ValueError: Nothing in that folder was accepted, or the record of the drafts is damaged.
        FileNotFoundError: The drafts are missing.
        OSError: The record cannot be read.
    """
    corrected = find_corrected(export)
    if corrected is not None:
        return corrected, open_drafts(corrected.parent)
    if drafts is None and (own := find_drafts(export)) is not None:
        raise ValueError(
            f"{export} has drafts, none of which was accepted: accept some with `refinenet label correct {export}`, or "
            f"pass what your annotation tool exported, with --drafts {own}."
        )
    return export, None if drafts is None else open_drafts(find_drafts(drafts) or drafts)


def _copy(into: Path, output: str | os.PathLike[str] | None) -> Path:
    """Return the folder to change: the dataset, or a copy of it."""
    if output is None:
        return into
    target = Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is not empty: name a new folder for the copy of {into}.")
    if into.exists():
        shutil.copytree(into, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(BEFORE))
    return target


def _new_label_set(export: ToolExport, drafts: DraftSet | None, renames: Renames) -> LabelSet:
    """Return the classes of a new dataset: those of the model, or the export's labels in alphabetical order."""
    if drafts is not None:
        return rename_classes(drafts.options.label_set, renames)
    found = set(map(renames.apply, export.label_names))
    labels = sorted(label for label in found if not is_background(label) and not is_void(label))
    names = ("background", *labels)
    return LabelSet(names=names, colours=voc_colours(len(names)))


def _describe_new(root: Path, label_set: LabelSet) -> str:
    rest = "background" if any(map(is_background, label_set.names)) else "void, which is no class"
    return f"{root} is new. Its classes are {', '.join(label_set.names)}; pixels that nobody labelled become {rest}."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Merged:
    """What the labels of an image become."""

    labels: LabelMap
    """`(H, W)` ids."""
    draft: LabelMap | None = None
    """The draft in the dataset's classes; None without one."""
    is_corrected: bool = True
    """Whether a person changed something."""
    withdrawn: int = 0
    """As in `TakenImage`."""


class _Taking:
    """One call of `take_labels`; the steps are in the order of `run`."""

    def __init__(
        self,
        export: ToolExport,
        dataset: GrowingDataset,
        drafts: DraftSet | None,
        scratch: Path,
        renames: Renames,
        *,
        only_corrected: bool,
        group: str | None,
        val: float,
    ) -> None:
        self._export, self._dataset, self._drafts, self._scratch = export, dataset, drafts, scratch
        self._only_corrected, self._group, self._val = only_corrected, group, val
        self._staged = Staging(scratch / "staged", dataset.label_set)
        self._renaming = Renaming(dataset.label_set, renames)

    def run(self, images: Path | None, *, check: bool, progress: bool) -> Taken:
        """Find the images, read their labels, check them, and write them."""
        matched, reasons = ImageMatcher(self._export, self._dataset, self._drafts, images).match()
        results = [TakenImage(name=item, action="left out", reason=reason) for item, reason in reasons.items()]
        with progress_bar(progress) as bar:
            task = bar.add_task("Reading labels", total=len(matched), status="", unit="images")
            for one in matched:
                results.append(self._stage(one))
                bar.advance(task)
        self._warn_of_no_drafts([one.name for one in results if one.has_no_draft], len(matched))
        if check:
            self._staged.check(str(self._export.path), progress=progress)
        return self._write(results)

    def _warn_of_no_drafts(self, names: list[str], total: int) -> None:
        if names and self._drafts is not None:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            warnings.warn(
                f"{len(names)} of {total} images have no draft in {self._drafts.folder}: {', '.join(names[:5])}{more}. "
                "All of their labels count as a person's. If they were drafted, pass the folder of their drafts.",
                stacklevel=4,
            )

    def _stage(self, found: MatchedImage) -> TakenImage:
        """Compute the labels of an image, and put them aside for the doctor; nothing is put aside if they are equal."""
        member = self._dataset.members.get(found.stem)
        before = None if member is None else member.read_labels()
        merged = self._merge(found, before)
        old = merged.draft if before is None else before
        taken = TakenImage(
            name=found.stem,
            action="unchanged",
            split="" if member is None else member.split,
            is_reviewed=merged.is_corrected or found.item in self._export.reviewed,
            withdrawn=merged.withdrawn,
            has_no_draft=self._drafts is not None and found.draft is None,
        )
        if self._only_corrected and not merged.is_corrected:
            return replace(taken, action="left out", reason="its draft came back unchanged")
        changes = {} if old is None else _count_changes(old, merged.labels, self._dataset.label_set)
        if before is not None and not changes:
            return taken
        image = member.dataset.image_file(found.stem) if member is not None else found.image
        assert image is not None
        self._staged.add(found.stem, image, merged.labels)
        is_draft = member is None and merged.draft is not None and not merged.is_corrected
        action: Action = "new" if member is None else "changed"
        return replace(taken, action=action, pixels=sum(changes.values()), changes=changes, is_draft=is_draft)

    def _merge(self, found: MatchedImage, before: LabelMap | None) -> _Merged:
        """Compare an image's labels with its draft and those of the dataset.

        Raises:
            ValueError: The labels have another size than the image, or a label is no class.
        """
        label_set, renaming = self._dataset.label_set, self._renaming
        draft = self._drafts.read(found.draft) if found.draft is not None and self._drafts is not None else None
        known = draft.labels if draft is not None else before
        size = None if known is None else (known.shape[0], known.shape[1])
        corrected = renaming.apply(self._export.read_sized(found.item, renaming.wide, size))
        if before is not None and before.shape != corrected.shape:
            raise ValueError(_describe_sizes(self._export.path, found.item, corrected, before))
        if draft is None or self._drafts is None:
            return _Merged(labels=corrected)
        if draft.labels.shape != corrected.shape:
            raise ValueError(_describe_sizes(self._export.path, found.item, corrected, draft.labels))
        corrected, withdrawn = self._withdraw(found, corrected)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            written = renaming.apply(render(self._drafts, draft, renaming.wide, Path(folder)))
        exact = renaming.apply(translate(draft.labels, self._drafts.options.label_set, renaming.wide, draft.name))
        is_changed = corrected != written
        labels = label_set.cast(np.where(is_changed, corrected, exact if before is None else before))
        return _Merged(labels=labels, draft=exact, is_corrected=bool(is_changed.any()), withdrawn=withdrawn)

    def _withdraw(self, found: MatchedImage, corrected: LabelMap) -> tuple[LabelMap, int]:
        """Return the labels without proposals that nobody reviewed, and the number of these."""
        assert self._drafts is not None
        assert found.draft is not None
        if found.item in self._export.reviewed:
            return corrected, 0
        proposals = read_proposals(self._drafts, found.draft, self._renaming)
        if proposals is None:
            return corrected, 0
        withdrawn = proposals.all - proposals.find_touched(corrected)
        return proposals.withdraw(corrected, withdrawn), len(withdrawn)

    def _write(self, results: list[TakenImage]) -> Taken:
        dataset = self._dataset
        splits, divided = self._choose_splits(results)
        homes = splits | {stem: split for split, stems in divided.items() for stem in stems}
        change = DatasetChange(dataset, self._scratch / "prepared")
        written = []
        for one in results:
            if one.action == "new" and dataset.has_splits and one.name not in splits:
                written.append(TakenImage(name=one.name, action="left out", reason=_MAY_NOT_VALIDATE))
                continue
            if one.action in ("new", "changed"):
                split = splits.get(one.name) if one.action == "new" else one.split or None
                change.prepare(self._staged.load(one.name, split))
            written.append(replace(one, split=one.split or homes.get(one.name, "")))
        change.write()
        new = [one for one in written if one.action == "new"]
        if dataset.layout is None and new:
            change.write_classes()
        change.extend_lists(splits)
        change.write_lists(divided)
        change.log(_describe_all(written, self._export))
        copies = change.copies if change.copies.is_dir() else None
        counts = {split: len(stems) for split, stems in divided.items()}
        if splits and dataset.keeps_deal:
            counts = Counter([*splits.values(), *(member.split for member in dataset.members.values())])
        return Taken(dataset=dataset.root, images=tuple(written), copies=copies, divided=counts)

    def _choose_splits(self, results: list[TakenImage]) -> tuple[dict[str, str], Mapping[str, tuple[str, ...]]]:
        """Return the split of each new image or, for a folder without splits, all images of each split.

        Raises:
            ValueError: The folder has no splits, and no image may validate.
        """
        new = [one.name for one in results if one.action == "new"]
        training = [one.name for one in results if one.is_draft and not one.is_reviewed]
        if self._dataset.has_splits or not new:
            return self._dataset.choose_splits(new, self._group, self._val, training), {}
        groups = group_stems([*self._dataset.members, *new], self._group)
        is_single = len(groups) == 1  # which is cut
        bound = set(training)
        if all(bound.issuperset(stems) if is_single else not bound.isdisjoint(stems) for stems in groups.values()):
            raise ValueError(_describe_no_validation(len(training), len(new), len(groups)))
        return {}, self._dataset.plan_lists(new, self._group, self._val, training)


_MAY_NOT_VALIDATE = (
    "its draft came back unchanged, and images related to it are not in train: it may not measure a model "
    "(--reviewed counts it as correct)"
)


def _describe_no_validation(drafts: int, new: int, groups: int) -> str:
    among = f"and each of the {groups} groups of related images has one" if drafts < new else "and nothing else is new"
    return (
        f"Nothing was changed. {drafts} of {new} images came back exactly as drafted, {among}, so that none is left "
        "for validation: a model would be measured by its own predictions. Correct the labels; or say that you have "
        "looked at all of them, and unchanged ones are correct (--reviewed); or leave unchanged images out "
        "(--only-corrected)."
    )


def _describe_sizes(path: Path, item: str, found: LabelMap, wanted: LabelMap) -> str:
    return (
        f"{path}: the labels of {item} have {found.shape[1]}x{found.shape[0]} pixels (width x height), its image has "
        f"{wanted.shape[1]}x{wanted.shape[0]}. Export the labels at the size of the image. Nothing was changed."
    )


def _count_changes(before: LabelMap, after: LabelMap, label_set: LabelSet) -> dict[str, int]:
    """Return the number of changed pixels by their classes before and after, most frequent first."""
    where = before != after
    pairs = Counter(zip(before[where].tolist(), after[where].tolist(), strict=True))
    names = {**dict(enumerate(label_set.names)), label_set.ignore_index: "void"}
    return {f"{names[one]} > {names[other]}": count for (one, other), count in pairs.most_common()}


def _describe_all(images: list[TakenImage], export: ToolExport) -> Iterator[Mapping[str, object]]:
    time = datetime.now(UTC).isoformat(timespec="seconds")
    for image in images:
        if image.action != "unchanged":
            yield {"time": time, "export": str(export.path), "format": export.format, **image.to_dict()}
