"""Draft labels for a folder of images: a model's predictions, or id masks, in the format of an annotation tool.

The ids are written first (`predicted/` in the output folder, resumable like every run over files), then converted image
by image, so that memory does not grow with the number of images. `drafts.json` records what was written: `taking` needs
it to find out what has been changed.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from refinenet.deployment.file_results import FileResult
from refinenet.deployment.inputs import plan_work
from refinenet.deployment.sharing import SharedModel
from refinenet.inference.segmenter import check_abstention
from refinenet.io.console import describe_error, progress_bar
from refinenet.io.files import write_atomically
from refinenet.io.images.mask_files import read_mask
from refinenet.labelling.formats.base import Draft, DraftOptions, Shapes, read_json, strip_suffix, translate, write_json
from refinenet.labelling.formats.id_masks import MASKS, read_id_masks
from refinenet.labelling.formats.table import FORMATS, FormatName
from refinenet.labelling.specks import drop_specks
from refinenet.labelling.todo_folder import RECORD_FILE, refuse_corrected
from refinenet.labels import LabelMap, LabelSet

PREDICTED = "predicted"
"""Folder of the ids that a model predicted."""
SUSPECTS = "suspects"
"""Origin of drafts that are proposals of `find_label_errors`."""
SIMPLIFY = 1.0
MIN_AREA = 20
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DraftImage:
    """An image with a draft."""

    name: str
    """Its path below the folder of images, with "/" between folders, and with its suffix."""
    file: Path
    ids: Path
    """The PNG of its ids, as predicted; of suspects, the labels of the dataset."""
    proposal: Path | None = None
    """The PNG of the ids that are to be corrected, where they are not those that count as unchanged: of suspects, the
    labels with the models' classes in the suspect regions."""
    reasons: str = ""
    """Why a person should look at it, in words."""
    sample: str = ""
    """Of suspects, the name of the image in the dataset, with its split in front."""
    regions: Path | None = None
    """Of suspects, the PNG of the numbers of its suspect regions."""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return strip_suffix(self.name)


@dataclass(frozen=True, kw_only=True)
class DraftSet:
    """The drafts of a folder, as `drafts.json` records them."""

    folder: Path
    """Folder of the record, the predicted ids, and a folder for the tool."""
    format: FormatName
    options: DraftOptions
    min_area: int
    images: tuple[DraftImage, ...]
    failed: Mapping[str, str]
    """The reason for each image that has no draft, by its file."""

    @property
    def origin_is_suspects(self) -> bool:
        """Whether these are proposals of `find_label_errors`."""
        return self.options.origin == SUSPECTS

    @property
    def files(self) -> Path:
        """The folder for the tool, in `folder`."""
        return self.folder / self.format

    def find_file(self, image: DraftImage) -> Path:
        """Return the file of a draft: the mask to correct, or the predicted ids where a tool has its own files."""
        return self.files / MASKS / f"{image.stem}.png" if self.format == "png" else image.ids

    @property
    def advice(self) -> str:
        """What to do with the files."""
        parents = {image.file.parent for image in self.images}
        images = os.path.commonpath(parents) if parents else "IMAGES"
        return FORMATS[self.format].advice.format(folder=self.files, images=images)

    def read(self, image: DraftImage) -> Draft:
        """Read the draft of an image: the ids as predicted, without specks.

        Raises:
            ValueError: The file of ids is damaged.
            OSError: It cannot be read.
        """
        labels = drop_specks(self.options.label_set.cast(read_mask(image.ids)), self.min_area)
        return Draft(name=image.name, file=image.file, labels=labels)

    def save(self) -> None:
        """Write `drafts.json`."""
        options = self.options
        values = {
            "format_version": _VERSION,
            "format": self.format,
            "label_set": options.label_set.to_dict(),
            "shapes": options.shapes,
            "simplify": options.simplify,
            "first_id": options.first_id,
            "image_prefix": options.image_prefix,
            "origin": options.origin,
            "min_area": self.min_area,
            "failed": dict(self.failed),
            "images": [_record(image, self.folder) for image in self.images],
        }
        write_atomically(self.folder / RECORD_FILE, (write_json(values) + "\n").encode())


def _record(image: DraftImage, folder: Path) -> dict[str, str]:
    files = {"file": image.file, "ids": image.ids, "proposal": image.proposal, "regions": image.regions}
    places = {key: _relative(path, folder) for key, path in files.items() if path is not None}
    words = {"sample": image.sample, "reasons": image.reasons}
    return {"name": image.name, **places, **{key: text for key, text in words.items() if text}}


def _relative(path: Path, folder: Path) -> str:
    """Return a path relative to a folder, so that both may move together."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return path.resolve().as_posix()


def open_drafts(folder: Path) -> DraftSet:
    """Open the drafts that `write_labels` has written to a folder.

    Raises:
        FileNotFoundError: There is no record.
        ValueError: The record is damaged, or of a newer version.
        OSError: It cannot be read.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {RECORD_FILE}: pass the folder that `refinenet label write` wrote.")
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format_version") != _VERSION:
        raise ValueError(f"{path} is not a record of drafts of version {_VERSION}: write the drafts again.")
    try:
        options = DraftOptions(
            label_set=LabelSet.from_dict(values["label_set"]),
            shapes=values["shapes"],
            simplify=float(values["simplify"]),
            first_id=int(values["first_id"]),
            image_prefix=str(values["image_prefix"]),
            origin=str(values["origin"]),
        )
        images = tuple(_read_record(one, folder) for one in values["images"])
        return DraftSet(
            folder=folder,
            format=check_format(values["format"]),
            options=options,
            min_area=int(values["min_area"]),
            images=images,
            failed=dict(values["failed"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): write the drafts again.") from error


def _read_record(values: Mapping[str, Any], folder: Path) -> DraftImage:
    proposal, regions = (folder / str(values[key]) if key in values else None for key in ("proposal", "regions"))
    return DraftImage(
        name=str(values["name"]),
        file=folder / str(values["file"]),
        ids=folder / str(values["ids"]),
        proposal=proposal,
        reasons=str(values.get("reasons", "")),
        sample=str(values.get("sample", "")),
        regions=regions,
    )


def check_format(name: object) -> FormatName:
    """Return the name of a format.

    Raises:
        ValueError: There is no such format.
    """
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {name!r}.")
    return cast("FormatName", name)


def choose_shapes(name: FormatName, shapes: str | None) -> Shapes:
    """Return the shapes asked for, or the usual ones of a format.

    Raises:
        ValueError: The format cannot hold them.
    """
    allowed = FORMATS[name].shapes
    if shapes is None:
        return allowed[0]
    if shapes not in allowed:
        others = [other for other, row in FORMATS.items() if shapes in row.shapes]
        hint = f" Formats with {shapes}: {', '.join(others)}." if others else ""
        raise ValueError(f"{name} holds {' or '.join(allowed)}, not {shapes!r}.{hint}")
    return shapes


def write_labels(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    model: SharedModel | None = None,
    masks: str | os.PathLike[str] | None = None,
    file_format: str = "cvat",
    shapes: str | None = None,
    simplify: float = SIMPLIFY,
    min_area: int = MIN_AREA,
    min_confidence: float = 0.0,
    first_id: int = 1,
    image_prefix: str | None = None,
    recursive: bool = False,
    names: Mapping[Path, str] | None = None,
    progress: bool = True,
) -> DraftSet:
    """Write draft labels for images, in the format of an annotation tool, to be corrected by a person.

    An interrupted run continues where it stopped when the function is called again.

    Args:
        images: A folder, image files, patterns, or "@list.txt", as for `RefineNet.deploy_files`.
        output: Folder for the files, new or from an earlier call with the same model.
        model: A `RefineNet` whose predictions become the drafts.
        masks: Instead of a model, a folder of PNG masks (class ids) and a `classes.yaml`.
        file_format: A name of `FORMATS`: "cvat", "coco", "label-studio", "labelme", "roboflow", "supervisely" or "png".
        shapes: "masks" or "polygons"; by default the shapes usually edited in the tool.
        simplify: Largest distance, in pixels, between a polygon and the border that it approximates; neighbours share
            the simplified border. 0 follows the edges of pixels exactly.
        min_area: Regions with fewer pixels are merged into the neighbour with the longest shared border.
        min_confidence: Confidence in [0, 1]; pixels below it are marked "void", for a person to label.
        first_id: Id of the first class in COCO's files.
        image_prefix: For Label Studio, the prefix of the image URLs; by default "/data/local-files/?d=FOLDER/"
            with the name of the folder of images.
        recursive: Whether to include subfolders.
        names: Names of the images in the tool and in a dataset, by file, with "/" between folders and with suffixes;
            by default their paths below the folder of images or, for a list, as the list has them.
        progress: Whether to show progress on standard error.

    Returns:
        The drafts, as `open_drafts` finds them later.

    Raises:
        ValueError: An argument is not valid, no image is found, all failed, or the folder holds accepted masks.
        OSError: A file cannot be read or written.
    """
    if (model is None) == (masks is None):
        raise ValueError("Pass exactly one of model (whose predictions become the drafts) and masks (a folder).")
    check_abstention(min_confidence)
    name, folder = check_format(file_format), Path(output)
    refuse_corrected(folder)
    named = [images] if isinstance(images, str | os.PathLike) else list(images)
    options = DraftOptions(
        label_set=model.label_set if model is not None else read_classes_of(Path(cast("str", masks))),
        shapes=choose_shapes(name, shapes),
        simplify=simplify,
        first_id=first_id,
        image_prefix=choose_prefix(named) if image_prefix is None else image_prefix,
        origin="masks" if model is None else str(model.card.recipe.get("dataset", "")),
    )
    if model is not None:
        found = _predict(model, named, folder / PREDICTED, min_confidence, recursive=recursive, progress=progress)
    else:
        found = _copy_masks(Path(cast("str", masks)), named, folder / PREDICTED, options, recursive=recursive)
    images_found = tuple(replace(image, name=(names or {}).get(image.file, image.name)) for image in found[0])
    drafts = DraftSet(
        folder=folder, format=name, options=options, min_area=min_area, images=images_found, failed=found[1]
    )
    return convert(drafts, progress=progress)


def convert(drafts: DraftSet, *, progress: bool = True) -> DraftSet:
    """Write the files of drafts whose ids exist, and their record.

    Images whose ids cannot be read are left out; `failed` of the result has the reasons.

    Raises:
        ValueError: No draft is left.
        OSError: A file cannot be written.
    """
    written, failed = [], dict(drafts.failed)
    if not drafts.images:
        raise ValueError(_describe_nothing(failed))
    with (
        FORMATS[drafts.format].open_writer(drafts.files, drafts.options) as writer,
        progress_bar(progress) as bar,
    ):
        task = bar.add_task(f"Writing for {drafts.format}", total=len(drafts.images), status="", unit="images")
        for image in drafts.images:
            try:
                draft = drafts.read(image)
            except ValueError as error:
                failed[str(image.file)] = describe_error(error)
            else:
                writer.add(draft)
                written.append(image)
            bar.advance(task)
        if not written:
            raise ValueError(_describe_nothing(failed))
    result = replace(drafts, images=tuple(written), failed=failed)
    result.save()
    return result


def _describe_nothing(failed: Mapping[str, str]) -> str:
    return f"No draft was written: {next(iter(failed.values()), 'there are no images')}"


def read_classes_of(masks: Path) -> LabelSet:
    """Return the classes of a folder of masks.

    Raises:
        FileNotFoundError: It has no `classes.yaml`.
        ValueError: The file is damaged.
    """
    from refinenet.datasets.folder.classes_file import read_classes_file

    path = masks / "classes.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{masks} has no classes.yaml with the names of the ids in its masks.")
    return read_classes_file(path).label_set


def choose_prefix(images: Sequence[str | os.PathLike[str]]) -> str:
    """Return the beginning of the addresses under which Label Studio serves local files."""
    folder = Path(images[0]) if len(images) == 1 and Path(images[0]).is_dir() else None
    return "/data/local-files/?d=" + (f"{folder.resolve().name}/" if folder is not None else "")


_Found = tuple[list[DraftImage], dict[str, str]]


def _predict(
    model: SharedModel,
    images: Sequence[str | os.PathLike[str]],
    folder: Path,
    min_confidence: float,
    *,
    recursive: bool,
    progress: bool,
) -> _Found:
    """Predict the ids of all images, as `deploy_files` does: resumable, and with the reasons of failures."""
    kind = "palette" if len(model.label_set) <= 255 else "labels"
    results = model.deploy_files(
        images, folder, kind, recursive=recursive, abstain_below=min_confidence, progress=progress
    )
    found: _Found = ([], {})
    for result in results:
        _sort(result, folder, found)
    return found


def _sort(result: FileResult, folder: Path, found: _Found) -> None:
    if result.error is not None:
        found[1][str(result.image)] = describe_error(result.error)
        return
    ids = next(iter(result.outputs.values()))
    name = strip_suffix(ids.relative_to(folder).as_posix()) + result.image.suffix
    found[0].append(DraftImage(name=name, file=result.image, ids=ids))


def _copy_masks(
    masks: Path, images: Sequence[str | os.PathLike[str]], folder: Path, options: DraftOptions, *, recursive: bool
) -> _Found:
    """Copy id masks beside the record, so that later changes of the originals do not count as a person's."""
    from refinenet.io.images.codec import write

    export = read_id_masks(masks)
    stems = frozenset(export.items)
    found: _Found = ([], {})
    for job in plan_work(images, folder, ["labels"], recursive=recursive).items:
        if job.problem is not None or job.place not in stems:
            found[1][str(job.source)] = str(job.problem or f"there is no mask {job.place}.png in {masks}")
            continue
        try:
            labels = export.read(job.place, options.label_set)
        except ValueError as error:
            found[1][str(job.source)] = describe_error(error)
            continue
        palette = options.label_set.colours if len(options.label_set) <= 255 else None
        path = write(folder / f"{job.place}.png", labels, palette=palette)
        name = f"{job.place}{job.source.suffix}"
        found[0].append(DraftImage(name=name, file=job.source, ids=path))
    return found


def render(drafts: DraftSet, draft: Draft, label_set: LabelSet, folder: Path) -> LabelMap:
    """Return an unchanged draft as it reads back from its format, for comparison with an export.

    Args:
        drafts: The drafts that it belongs to.
        draft: The draft.
        label_set: Classes of the result.
        folder: Empty folder for temporary files, when polygons are simplified.

    Returns:
        `(H, W)` ids in `label_set`.

    Raises:
        ValueError: A class of the draft is not in `label_set`.
    """
    from refinenet.labelling.formats.table import open_export

    options = drafts.options
    if options.shapes == "masks" or options.simplify == 0:
        return translate(draft.labels, options.label_set, label_set, draft.name)
    with FORMATS[drafts.format].open_writer(folder, options) as writer:
        writer.add(draft)
    export = open_export(folder, folder / "unpacked")
    return export.read_sized(export.items[0], label_set, draft.size)


def describe_drafts(drafts: DraftSet) -> dict[str, Any]:
    """Return drafts as JSON-ready values."""
    return {
        "folder": str(drafts.folder),
        "format": drafts.format,
        "shapes": drafts.options.shapes,
        "images": len(drafts.images),
        "failed": dict(drafts.failed),
        "next": drafts.advice,
    }
