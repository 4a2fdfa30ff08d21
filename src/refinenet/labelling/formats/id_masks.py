"""Plain PNG files of class ids, with a classes.yaml: the format of dataset folders."""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.doctor.mask_values import write_classes
from refinenet.datasets.folder.classes_file import of_ids, read_classes_file
from refinenet.datasets.formats.lookup import CLASSES_FILE
from refinenet.io.files import write_atomically
from refinenet.io.images.codec import write
from refinenet.io.images.image_files import IMAGE_SUFFIXES, walk_names
from refinenet.labelling.formats.base import Draft, DraftOptions, ToolExport, strip_suffix, translate
from refinenet.labels import LabelMap, LabelSet

MASKS = "masks"


class IdMaskWriter:
    """A writer of one PNG for each image, with the classes' colours as palette (16-bit above 255 classes).

    Args:
        folder: Folder that gets `masks/` and a classes.yaml.
        options: How to write.
    """

    def __init__(self, folder: Path, options: DraftOptions) -> None:
        self._folder, self._options = folder, options
        label_set = options.label_set
        text = write_classes(of_ids(label_set, list(range(len(label_set))), [], ""))
        write_atomically(folder / CLASSES_FILE, text.encode())

    def add(self, draft: Draft) -> None:
        """Write the mask of a draft."""
        label_set = self._options.label_set
        palette = label_set.colours if len(label_set) <= 255 else None
        write(self._folder / MASKS / f"{draft.stem}.png", draft.labels, palette=palette)


def read_id_masks(root: Path) -> ToolExport:
    """Open a folder of masks with a classes.yaml: all PNG files in `masks/`, or else in the folder itself.

    Raises:
        ValueError: The classes.yaml is damaged.
        FileNotFoundError: There are no masks.
        OSError: A file cannot be read.
    """
    encoding = read_classes_file(root / CLASSES_FILE)
    folder = root / MASKS if (root / MASKS).is_dir() else root
    masks = {strip_suffix(name): folder / name for name in sorted(walk_names(folder, (".png",)))}
    if not masks:
        raise FileNotFoundError(f"{folder} has no masks (PNG files).")
    images = root / "images"
    found = (
        {strip_suffix(name): images / name for name in walk_names(images, IMAGE_SUFFIXES)} if images.is_dir() else {}
    )

    def read(item: str, label_set: LabelSet) -> LabelMap:
        return translate(encoding.read(masks[item]), encoding.label_set, label_set, str(masks[item]))

    return ToolExport(
        path=root,
        format="png",
        items=tuple(masks),
        label_names=encoding.label_set.names,
        read=read,
        image_files={item: path for item, path in found.items() if item in masks},
    )
