"""Drafts that a person corrects one by one: what is shown of each image, and the masks that are accepted.

Accepted masks are files of ids in a folder of their own, as `formats.id_masks` reads them: an image is reviewed if its
file is there, so that nothing is lost when the program ends.

Shape letters: H height, W width.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from refinenet.datasets.formats.lookup import CLASSES_FILE
from refinenet.io.images.codec import encode, read_image
from refinenet.io.images.image_files import find_size, read_picture
from refinenet.io.images.image_headers import is_changed
from refinenet.io.images.mask_files import read_ids, read_mask
from refinenet.labelling.drafts import DraftImage, DraftSet, open_drafts, read_classes_of
from refinenet.labelling.formats.base import Draft
from refinenet.labelling.formats.id_masks import MASKS, IdMaskWriter
from refinenet.labelling.todo_folder import CORRECTED, RECORD_FILE, find_drafts
from refinenet.labels import LabelMap, LabelSet

_EXACT_PIXELS = 1_000_000
"""Pixels up to which an image is sent without loss."""
_MASK = "The mask"
"""Name of what is sent, in messages."""


class Corrections:
    """The images of a folder of drafts, in the order in which to review them.

    Args:
        drafts: The drafts.

    Raises:
        ValueError: There are no images, a name leads out of the folder, or the masks accepted earlier have other
            classes.
    """

    def __init__(self, drafts: DraftSet) -> None:
        self.drafts, self.folder = drafts, drafts.folder / CORRECTED
        self._images = tuple(_to_correct(image) for image in drafts.images)
        if not self._images:
            raise ValueError(f"{drafts.folder / RECORD_FILE} lists no images.")
        self._refuse_other_classes()

    def _refuse_other_classes(self) -> None:
        if not (self.folder / CLASSES_FILE).is_file():
            return
        names = read_classes_of(self.folder).names
        if names != self.label_set.names:
            raise ValueError(
                f"{self.folder} has masks of other classes ({', '.join(names)}) than the drafts "
                f"({', '.join(self.label_set.names)}): move that folder away, or write the drafts with its classes."
            )

    @property
    def label_set(self) -> LabelSet:
        """The classes."""
        return self.drafts.options.label_set

    @property
    def images(self) -> tuple[DraftImage, ...]:
        """The images; `ids` are those to be corrected."""
        return self._images

    @property
    def reviewed(self) -> int:
        """Number of images whose mask was accepted."""
        return sum(self.is_reviewed(index) for index in range(len(self._images)))

    def is_reviewed(self, index: int) -> bool:
        """Whether the mask of an image was accepted."""
        return self._place(index).is_file()

    def _place(self, index: int) -> Path:
        return self.folder / MASKS / f"{self._images[index].stem}.png"

    def read_picture(self, index: int) -> tuple[bytes, str]:
        """Return an image as a file that browsers show, upright, and its media type.

        Raises:
            ValueError: It cannot be read, or has another size than its draft.
            OSError: It cannot be opened.
        """
        image = self._images[index]
        pixels = read_image(image.file).pixels
        height, width = self._size(index)
        if pixels.shape[:2] != (height, width):
            raise ValueError(
                f"{image.name} has {pixels.shape[1]}x{pixels.shape[0]} pixels (width x height), but its draft has "
                f"{width}x{height}: the image was changed since. Write the drafts again."
            )
        suffix, media = (".png", "image/png") if height * width <= _EXACT_PIXELS else (".jpg", "image/jpeg")
        return encode(pixels, suffix), media

    def _size(self, index: int) -> tuple[int, int]:
        path = self._images[index].ids
        return find_size(path.read_bytes(), str(path))

    def read_labels(self, index: int) -> LabelMap:
        """Return the `(H, W)` ids of an image: those that were accepted or, before, the draft.

        Raises:
            ValueError: The file is damaged, or its size or an id is wrong.
            OSError: It cannot be read.
        """
        if self.is_reviewed(index):
            place = self._place(index)
            return self._check(read_mask(place), index, str(place))
        return self.drafts.read(self._images[index]).labels

    def accept(self, index: int, content: bytes) -> None:
        """Take the mask of an image, a PNG file of ids; it is written completely or not at all.

        Raises:
            ValueError: It is no such file, its size is not that of the image, or an id is not in the label set.
            OSError: It cannot be written.
        """
        labels = self._check(_read_png(content, self._size(index)), index, _MASK)
        image = self._images[index]
        IdMaskWriter(self.folder, self.drafts.options).add(Draft(name=image.name, file=image.file, labels=labels))

    def withdraw(self, index: int) -> None:
        """Remove an accepted mask, so that the image counts as not reviewed.

        Raises:
            OSError: It cannot be removed.
        """
        self._place(index).unlink(missing_ok=True)

    def _check(self, ids: LabelMap, index: int, name: str) -> LabelMap:
        label_set, size = self.label_set, self._size(index)
        if ids.shape != size:
            raise _wrong_size(name, (ids.shape[0], ids.shape[1]), size)
        outside = ids[(ids >= len(label_set)) & (ids != label_set.ignore_index)]
        if outside.size:
            raise ValueError(
                f"{name} has the id {outside[0]}, which is not a class: allowed are 0 to {len(label_set) - 1}, and "
                f"{label_set.ignore_index} for pixels without a class."
            )
        return label_set.cast(ids)


def open_corrections(todo: str | os.PathLike[str]) -> Corrections:
    """Open the drafts that `write_labels`, `rank_images` or `find_label_errors` has written.

    Args:
        todo: The output folder of one of them.

    Raises:
        FileNotFoundError: The folder has no drafts.
        ValueError: The record of the drafts is damaged, or as for `Corrections`.
        OSError: A file cannot be read.
    """
    folder = find_drafts(Path(todo))
    if folder is None:
        raise FileNotFoundError(
            f"{todo} has no drafts: pass the output folder of `refinenet label next`, `label write` or `label errors`."
        )
    return Corrections(open_drafts(folder))


def _to_correct(image: DraftImage) -> DraftImage:
    """Return an image with the ids to be corrected.

    Raises:
        ValueError: Its name leads out of the folder in which its mask will be written.
    """
    path = PurePosixPath(image.name)
    leads_out = path.is_absolute() or not {"..", ""}.isdisjoint(image.name.split("/")) or "\\" in image.name
    if leads_out or os.path.splitdrive(image.name)[0]:
        raise ValueError(f"The name of the image {image.name!r} leads out of the folder of drafts.")
    return image if image.proposal is None else replace(image, ids=image.proposal)


def _read_png(content: bytes, size: tuple[int, int]) -> LabelMap:
    found = find_size(content, _MASK)  # before the pixels are read, of which there could be too many
    if found != size:
        raise _wrong_size(_MASK, found, size)
    if is_changed(content):
        raise ValueError(f"{_MASK} was damaged in transit. Send it again.")
    picture = read_picture(io.BytesIO(content), _MASK)
    if picture.format != "PNG":
        raise ValueError(f"{_MASK} is a {picture.format} file: send the ids as PNG.")
    return read_ids(picture)


def _wrong_size(name: str, found: tuple[int, int], size: tuple[int, int]) -> ValueError:
    return ValueError(
        f"{name} has {found[1]}x{found[0]} pixels (width x height), but the image has "
        f"{size[1]}x{size[0]}. Send as many."
    )
