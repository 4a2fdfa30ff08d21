"""The table of formats, and the recognition of exports."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from refinenet.datasets.formats.lookup import CLASSES_FILE
from refinenet.io.download.archives import unpack
from refinenet.labelling.formats import coco, cvat, id_masks, label_studio, labelme, supervisely
from refinenet.labelling.formats.base import DraftOptions, Shapes, ToolExport, Writer, read_json, strip_suffix

FormatName = Literal["cvat", "coco", "label-studio", "labelme", "roboflow", "supervisely", "png"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of drafts."""

    title: str
    """The tool, in the help."""
    shapes: tuple[Shapes, ...]
    """What it can hold; the first one is usual."""
    open_writer: Callable[[Path, DraftOptions], AbstractContextManager[Writer]]
    """Opens a writer into a folder; the files are complete when its context ends without an error."""
    advice: str
    """What to do with the files; `{folder}` stands for that of the files and `{images}` for that of the images."""


def _of_single_files(
    writer: Callable[[Path, DraftOptions], Writer],
) -> Callable[[Path, DraftOptions], AbstractContextManager[Writer]]:
    """Return a writer of files of one image each, which are complete at once."""
    return lambda folder, options: nullcontext(writer(folder, options))


FORMATS: Mapping[FormatName, Format] = {
    "cvat": Format(
        title="CVAT, Segmentation mask 1.1",
        shapes=("masks",),
        open_writer=cvat.write_cvat,
        advice=(
            f"Paste {{folder}}/{cvat.LABELS_FILE} into the labels of a new task (Raw), add the images, and upload "
            f"{{folder}}/{cvat.FILE} as annotations, format Segmentation mask 1.1."
        ),
    ),
    "coco": Format(
        title="COCO, for CVAT (COCO 1.0) and others",
        shapes=("polygons", "masks"),
        open_writer=lambda folder, options: coco.write_coco(folder / coco.FILE, options),
        advice=f"Import {{folder}}/{coco.FILE} for the images in {{images}}.",
    ),
    "label-studio": Format(
        title="Label Studio",
        shapes=("masks", "polygons"),
        open_writer=label_studio.write_label_studio,
        advice=(
            f"Paste {{folder}}/{label_studio.CONFIG_FILE} as labelling interface (Code) and import "
            f"{{folder}}/{label_studio.FILE}; export as JSON."
        ),
    ),
    "labelme": Format(
        title="LabelMe",
        shapes=("polygons", "masks"),
        open_writer=_of_single_files(labelme.LabelMeWriter),
        advice="Run: labelme {images} --output {folder}",
    ),
    "roboflow": Format(
        title="Roboflow, COCO segmentation",
        shapes=("polygons",),
        open_writer=lambda folder, options: coco.write_coco(folder / coco.ROBOFLOW_FILE, options),
        advice=f"Upload the images together with {{folder}}/{coco.ROBOFLOW_FILE}; export as COCO Segmentation.",
    ),
    "supervisely": Format(
        title="Supervisely",
        shapes=("masks",),
        open_writer=_of_single_files(supervisely.SuperviselyWriter),
        advice="Import the folder {folder} as a project in Supervisely's format; export as JSON.",
    ),
    "png": Format(
        title="PNG files of class ids",
        shapes=("masks",),
        open_writer=_of_single_files(id_masks.IdMaskWriter),
        advice=f"Correct the files in {{folder}}/{id_masks.MASKS} in place.",
    ),
}
"""The formats that drafts are written in and exports are read from."""


def open_export(path: Path, unpacked: Path) -> ToolExport:
    """Recognise the export of a tool, and open it.

    Args:
        path: A folder, a zip archive, or a JSON file of COCO or Label Studio.
        unpacked: Empty folder into which archives are unpacked.

    Raises:
        ValueError: It is not recognised, or damaged; the message says what is.
        FileNotFoundError: There is no such file, or it has no labels.
        OSError: A file cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: pass what the tool exported, a folder, an archive or a file.")
    archives = sorted(path.glob("*.zip")) if path.is_dir() else [path] if zipfile.is_zipfile(path) else []
    if len(archives) == 1:
        unpack(archives[0], unpacked)
        return replace(_open_folder(unpacked, path), path=path)
    if path.is_dir():
        return _open_folder(path, path)
    if path.suffix.lower() == ".json":
        return _open_json(path)
    raise ValueError(f"{path} is not recognised: {_ALLOWED}")


_ALLOWED = (
    "pass a folder, a zip archive or a JSON file that CVAT (Segmentation mask 1.1 or COCO 1.0), Label Studio (JSON), "
    "LabelMe, Roboflow (COCO Segmentation) or Supervisely exported, or a folder of PNG masks with a classes.yaml."
)


def _open_folder(root: Path, path: Path) -> ToolExport:
    root = _skip_single_folders(root)
    if (root / cvat.LABEL_MAP).is_file():
        return cvat.read_cvat(root)
    if (root / supervisely.META_FILE).is_file():
        return supervisely.read_supervisely(root)
    if (root / CLASSES_FILE).is_file() and not any(root.glob("*.json")):
        return id_masks.read_id_masks(root)
    files = sorted(file for file in root.rglob("*.json") if not file.name.startswith("."))
    found = {_kind_of(read_json(file)): file for file in files[:1]}
    if "labelme" in found:
        named = {strip_suffix(file.relative_to(root).as_posix()): file for file in files}
        return labelme.read_labelme(named, root)
    if "coco" in found:
        return _join([_open_json(file) for file in files], path)
    if found and len(files) == 1:
        return _open_json(files[0])
    if found:
        names = ", ".join(file.relative_to(root).as_posix() for file in files[:5])
        raise ValueError(f"{path} holds {len(files)} JSON files ({names}): pass one of them.")
    raise ValueError(f"{path} is not recognised: {_ALLOWED}")


def _join(exports: list[ToolExport], path: Path) -> ToolExport:
    """Join the exports of several splits.

    Raises:
        ValueError: Two of them have an image of the same name.
    """
    if len(exports) == 1:
        return exports[0]
    homes: dict[str, ToolExport] = {}
    for export in exports:
        for item in export.items:
            if item in homes:
                raise ValueError(f"{homes[item].path} and {export.path} both have labels for {item}: pass one of them.")
            homes[item] = export
    return ToolExport(
        path=path,
        format=exports[0].format,
        items=tuple(homes),
        label_names=tuple(dict.fromkeys(name for export in exports for name in export.label_names)),
        read=lambda item, label_set: homes[item].read(item, label_set),
        image_files={item: file for export in exports for item, file in export.image_files.items()},
        reviewed=frozenset().union(*(export.reviewed for export in exports)),
    )


def _skip_single_folders(root: Path) -> Path:
    """Return the folder that archives often have at their top, instead of the one around it."""
    entries = [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    is_single = len(entries) == 1 and entries[0].is_dir()
    return _skip_single_folders(entries[0]) if is_single and entries[0].name not in ("annotations",) else root


def _kind_of(values: Any) -> str:
    if isinstance(values, dict) and {"images", "annotations", "categories"} <= values.keys():
        return "coco"
    if isinstance(values, dict) and "shapes" in values:
        return "labelme"
    return "label-studio" if isinstance(values, list) else ""


def _open_json(path: Path) -> ToolExport:
    kind = _kind_of(read_json(path))
    if kind == "coco":
        return coco.read_coco(path, "roboflow" if path.name == coco.ROBOFLOW_FILE else "coco")
    if kind == "label-studio":
        return label_studio.read_label_studio(path)
    if kind == "labelme":
        return labelme.read_labelme({path.stem: path}, path.parent)
    raise ValueError(f"{path} is not recognised: {_ALLOWED}")
