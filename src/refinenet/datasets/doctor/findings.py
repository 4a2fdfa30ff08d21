"""What the doctor can find: each kind with its consequence and its cure, as data, and one finding of a kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

MAX_EXAMPLES = 5

_FIX_CLAUSE = re.compile(r"(; |\s*Or: | )?`--fix OUT` writes a copy (\([^)]*\)|[^.(])*\.")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a dataset that its owner should know."""

    kind: str
    """A stable identifier, one of `KINDS`."""
    stops: bool
    """Whether training would fail or learn something wrong, so that it does not begin."""
    count: int
    """Files (or pairs of files, or classes) that it is true of."""
    examples: tuple[str, ...]
    """Up to five of them, files relative to the dataset's folder."""
    meaning: str
    """What it does to training."""
    advice: str
    """What to do."""
    fixable: bool
    """Whether `--fix` mends it; otherwise it leaves the samples out, where they are what is wrong."""

    def told(self) -> str:
        """Kind, count and examples on one line; meaning and advice on the next, and any lines for a classes.yaml."""
        more = self.count - len(self.examples)
        examples = ", ".join(self.examples) + (f" and {more} more" if more > 0 else "")
        return f"{self.kind}: {self.count} ({examples})\n{self.meaning} {self.advice}"

    def without_fix(self) -> Finding:
        """The same where no repaired copy can be written: its advice speaks of none."""
        advice = _FIX_CLAUSE.sub(lambda found: "." if found[0].startswith(";") else "", self.advice).strip()
        return replace(self, advice=advice or self.advice)

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON-ready values."""
        return {**asdict(self), "examples": list(self.examples)}


class Kind(NamedTuple):
    """What all findings of a kind have in common."""

    stops: bool
    fixable: bool
    meaning: str
    """May hold {placeholders}, filled in when something is found."""
    advice: str


_FIX = "`--fix OUT` writes a copy "
_AGAIN = "Get the files again or remove both image and mask; " + _FIX + "without these samples."

KINDS: Mapping[str, Kind] = {
    # What lies in the folders
    "image-without-mask": Kind(
        True, False, "The images have no mask of the same name, so they cannot be trained on.", _AGAIN
    ),
    "mask-without-image": Kind(True, False, "The masks have no image of the same name.", _AGAIN),
    "sample-kind-unread": Kind(
        True, False, "These samples have an image or a mask of a kind that is not read, so they would be missing.",
        "Save images as JPEG or PNG and masks as PNG or TIFF (HEIC images are read with `pip install "
        "'refinenet[heif]'`). Nothing has to be deleted; " + _FIX + "without these samples.",
    ),
    "file-kind-unread": Kind(
        False, False, "These files are of kinds that are not read, and have no partner: they are not used.",
        "Save images as JPEG or PNG and masks as PNG or TIFF if they belong to the dataset.",
    ),
    "stem-case": Kind(
        True, True, "Names of image and mask differ in upper and lower case, so they do not pair on most systems.",
        "Rename the masks as their images; " + _FIX + "with equal names.",
    ),
    "stem-unicode": Kind(
        False, True, "Names of image and mask spell the same letters in two Unicode forms. They are paired all the "
        "same; other programs may not find them.", _FIX + "with equal names.",
    ),
    "stem-twice": Kind(
        True, False, "Several files have the same name but for the ending: which one belongs to the partner is "
        "not known.", "Remove or rename the wrong ones; " + _FIX + "without these samples.",
    ),
    "listed-missing": Kind(
        True, True, "A list of samples names files that are not there.",
        "Get the files, or remove their lines; " + _FIX + "without them.",
    ),
    "empty-split": Kind(
        True, False, "The split has no sample with both image and mask: there is nothing to train on or to measure by.",
        "Put samples there, or remove the folder or list. {resplit}",
    ),
    "split-missing": Kind(
        True, False, "There is no such split, and training needs both train and val.",
        "Make it of samples of the other splits. {resplit}",
    ),
    # Files that cannot be read
    "image-empty": Kind(True, False, "The image files have 0 bytes: training ends with an error.", _AGAIN),
    "image-not-an-image": Kind(True, False, "The files are no images: training ends with an error.", _AGAIN),
    "image-damaged": Kind(
        True, False, "The images are cut short or damaged: training ends with an error.", _AGAIN
    ),
    "image-too-large": Kind(
        True, False, "The images have more than {limit:,} pixels and are not read.",
        "Resize image and mask (the mask with nearest neighbour), or cut them into tiles; "
        + _FIX + "without these samples.",
    ),
    "image-unreadable": Kind(
        True, False, "The image files cannot be opened: {message}", "Check the permissions and the disk."
    ),
    "mask-empty": Kind(True, False, "The mask files have 0 bytes: training ends with an error.", _AGAIN),
    "mask-not-an-image": Kind(True, False, "The mask files are no images: training ends with an error.", _AGAIN),
    "mask-damaged": Kind(
        True, False, "The masks are cut short or damaged: training ends with an error. {message}", _AGAIN
    ),
    "mask-too-large": Kind(
        True, False, "The masks have more than {limit:,} pixels and are not read.",
        "Resize image and mask (the mask with nearest neighbour), or cut them into tiles; "
        + _FIX + "without these samples.",
    ),
    "mask-unreadable": Kind(
        True, False, "The mask files cannot be opened: {message}", "Check the permissions and the disk."
    ),
    "reader-died": Kind(
        True, False, "Reading these files kills the process that reads them, or does not end.", _AGAIN
    ),
    "sample-refused": Kind(
        True, False, "These samples cannot be read: training ends with an error. {message}", _AGAIN
    ),
    "labels-invalid": Kind(
        True, True, "The annotation files have entries that cannot be used. Training without them would take what "
        "they show for something else, so it does not begin:\n{message}\n",
        "Mend or remove them where they come from; " + _FIX + "without them, and lists them in changes.json.",
    ),
    "crowds-void": Kind(False, False, "{message}", ""),
    "crowds-labelled": Kind(False, False, "{message}", ""),
    "image-constant": Kind(
        False, False, "The images have one colour all over, so there is nothing to see in them.",
        "Check whether they were exported rightly, or remove both image and mask.",
    ),
    "swapped": Kind(
        True, False, "The masks are photographs, and the images hold few colours, as masks do: their folders seem to "
        "be swapped.", "Give the two folders each other's names.",
    ),
    # Sizes
    "size-differs": Kind(
        True, False, "Image and mask have different sizes, so the labels belong to other pixels: {message}",
        "Export the masks at the size of their images; " + _FIX + "without these samples.",
    ),
    "size-exif": Kind(
        True, True, "The camera noted in the image (EXIF) that it is to be turned; the mask was drawn on the unturned "
        "picture, so their sizes differ.", _FIX + "with these masks turned as their images are.",
    ),
    "exif-turned": Kind(
        False, True, "The camera noted in the image (EXIF) that it is to be turned, and we turn it. Whether the mask "
        "was drawn on the turned picture cannot be told, as the sizes agree either way.",
        "Look at a few of them; " + _FIX + "with the images turned and without the note, the masks as they are.",
    ),
    # Masks
    "mask-lossy-format": Kind(
        True, True, "The masks are JPEG or WebP files, which change labels near every edge.",
        "Export them anew as PNG; " + _FIX + "with each pixel set to the class it is near, void where that is not "
        "clear, and without the masks where it is not clear at all.",
    ),
    "mask-near-colours": Kind(
        True, True, "The masks hold many colours close to those of the classes, as a lossy format or smoothing leaves "
        "them.", "Export them anew as PNG without smoothing; " + _FIX + "with each pixel set to the class it is near, "
        "void where that is not clear.",
    ),
    "mask-interpolated": Kind(
        True, True, "The masks hold values between those of the classes, as smoothed edges or resizing leave them.",
        "Export them anew without smoothing (resize masks with nearest neighbour); "
        + _FIX + "with each pixel set to the value it is near, void where that is not clear.",
    ),
    "mask-unlisted-colours": Kind(
        True, False, "The masks hold colours that nothing gives a meaning: {values}.",
        "{lines}",
    ),
    "mask-colours-for-ids": Kind(
        True, False, "The masks are colour pictures where ids are expected. They hold {values}.",
        "{lines}",
    ),
    "mask-rgb-ids": Kind(
        True, True, "The masks hold ids, but three times, in the channels red, green and blue.",
        "Save them with one channel; " + _FIX + "of that kind.",
    ),
    "mask-alpha": Kind(
        True, False, "The masks are partly transparent, so what they hold there is not clear.",
        "Save them without alpha; " + _FIX + "without these samples.",
    ),
    "mask-mode": Kind(
        True, False, "The masks are of a kind that holds no ids or colours of classes: {message}",
        "Export them as PNG with one channel; " + _FIX + "without these samples.",
    ),
    "mask-0-255": Kind(
        True, True, "The masks are binary, 0 and 255, and 255 is read as void: the second class would never be learnt.",
        "{where}\n{lines}\nOr: " + _FIX + "with ids.",
    ),
    "mask-0-255-mixed": Kind(
        False, False, "Some masks hold 0 and 255, the others 0 and 1, and none both: 255 is read as void, which may be "
        "meant, or the same class as 1.", "Look at a few of them. If 255 is the class, save these masks anew with 1.",
    ),
    "ids-from-1": Kind(
        True, True, "The ids go from 1 to {highest}, the classes from 0 to {last}: each label would mean the class "
        "after it, and {highest} is none.", "{where}\n{lines}\nOr: " + _FIX + "with ids from 0.",
    ),
    "ids-outside": Kind(
        True, False, "The masks hold ids that are no class: {values} of all pixels. Training ends with an error.",
        "{lines}",
    ),
    "mask-all-void": Kind(
        False, True, "The masks hold nothing but void, so these samples teach nothing.",
        "Remove them, or check what they should hold; " + _FIX + "without them.",
    ),
    "masks-mostly-void": Kind(
        False, False, "{values} % of the masks' pixels have no class. Training sees none of them, and a trained "
        "network calls each one of the classes.",
        "If they are background, make `background` one of the names (of shapes in json files all that none covers is "
        "void without it).",
    ),
    "nothing-but-void": Kind(
        True, False, "Every mask holds nothing but void: there is nothing to learn.",
        "Check what the masks should hold, and 'names', 'values' and 'ignore' in classes.yaml.",
    ),
    "palettes-conflict": Kind(
        True, True, "The masks' palettes disagree, and nothing else says what their ids mean: the same id may be "
        "another class in another mask.", "Name the classes by their colours in classes.yaml:\n{lines}\n"
        "Or: " + _FIX + "with one palette.",
    ),
    "palettes-differ": Kind(
        False, True, "The same id has different colours in the palettes of different masks: it may be another class "
        "there. The ids are taken as they are.", "Look at a few of them in a viewer. If the colours are right and the "
        "ids wrong, write a classes.yaml that lists the colours (masks: colours).",
    ),
    "palettes-contradict": Kind(
        True, True, "The masks' palettes draw ids in the colours that classes.yaml gives to other classes, so there "
        "are two readings: {lines} (in the first).", "Look at one in a viewer that shows its colours. If the colours "
        "are right: {where} `masks: colours`. If the ids are right, correct the order of 'colours' there, or remove "
        "'colours'; " + _FIX + "with the ids as they are, in the colours of classes.yaml.",
    ),
    "palettes-permuted": Kind(
        True, True, "The palettes of these masks hold the same colours as those of the others in another order: the "
        "ids, or the colours, mean other classes there.", "Look at a few of them in a viewer. If the colours are "
        "right, write a classes.yaml that lists the colours (masks: colours). If the ids are right, save the masks "
        "with one palette; " + _FIX + "with the ids as they are, in one palette.",
    ),
    "mask-blended-ids": Kind(
        True, False, "The masks seem to have been resized with a filter that blends (bilinear, bicubic, Lanczos): "
        "along the outlines of areas lie thin seams of ids between those of both sides, which mean other classes.",
        "Resize the original masks with nearest neighbour; converting these does not bring the labels back. Where "
        "the thin seams are classes in order, go on with `--no-check`.",
    ),
    "mask-frames": Kind(
        False, True, "The masks have more than one frame or page; the first one is used.",
        "Save the right one alone; " + _FIX + "with the first one.",
    ),
    # Images
    "image-frames": Kind(
        False, True, "The images have more than one frame or page; the first one is used.",
        "Save the right one alone; " + _FIX + "with the first one.",
    ),
    "image-cmyk": Kind(
        False, True, "The images are for print (CMYK) and are converted to RGB without a colour profile.",
        "Convert them yourself if colours matter; " + _FIX + "in RGB.",
    ),
    "image-deep": Kind(
        False, True, "The images have 16 or more bits for a pixel and are scaled to 8: 65535 (or 1.0) becomes 255. "
        "Pictures of 12 bits come out dark.", "Stretch them to the full range yourself if they are dark; "
        + _FIX + "as they are read.",
    ),
    "image-alpha": Kind(
        False, True, "The images have transparency and are laid over black.",
        "Lay them over another ground yourself if black is wrong; " + _FIX + "as they are read.",
    ),
    "image-grey": Kind(
        False, True, "Some images are grey among colour images; they are read as RGB with equal channels.",
        "Nothing, if the network will meet grey images, too; " + _FIX + "in RGB.",
    ),
    "image-palette": Kind(
        False, True, "The images have a palette (at most 256 colours) and are converted to RGB.",
        "Use the originals if there are any; " + _FIX + "in RGB.",
    ),
    # What values mean
    "no-classes": Kind(
        True, False, "Nothing says what the masks' values mean. They hold {values}.",
        "Write a file classes.yaml into the folder, with names of your own{order}:\n{lines}",
    ),
    "classes-file": Kind(True, False, "The file that names the classes cannot be used: {message}", "Mend the file."),
    "split-refused": Kind(True, False, "The split cannot be opened: {message}", "Mend what the message names."),
    "class-absent": Kind(
        False, False, "Classes that occur in no mask cannot be learnt: {values}.",
        "Remove them from the names, or check whether the masks lack them by mistake.",
    ),
    "class-unseen": Kind(
        False, False, "Classes that do not occur in the {masks} masks looked at: {values}. If they occur in no other "
        "mask, they cannot be learnt.", "Look at all masks with `refinenet data check`, without `--quick`.",
    ),
    "class-not-in-train": Kind(
        False, False, "Classes that are measured but never trained: {values} occur in other splits than train.",
        "Add such samples to train. {resplit}",
    ),
    "class-not-in-val": Kind(
        False, False, "Classes that are trained but never measured: {values} do not occur in val.",
        "Add such samples to val. {resplit}",
    ),
    "class-only-one": Kind(
        False, False, "All pixels with a class are {values}: there is nothing to tell apart, and mIoU will be 100 %.",
        "Check whether the masks lack the other classes by mistake; a background is a class of its own.",
    ),
    # The same picture more than once
    "duplicates-across-splits": Kind(
        True, True, "The same picture stands in two splits, so the score counts what was learnt by heart.",
        "Remove it from one of them; " + _FIX + "without it in train.",
    ),
    "near-duplicates-across-splits": Kind(
        False, True, "Nearly the same picture (compressed, resized or brightened anew) stands in two splits, so the "
        "score flatters.",
        "Look at the pairs and remove one of each, or split by time where a camera stands still; " + _FIX
        + "without those in train whose masks agree.",
    ),
    "duplicates-within-split": Kind(
        False, True, "The same picture with the same mask stands several times in a split and counts as often.",
        "Remove the repetitions; " + _FIX + "with one of each.",
    ),
    "contradicting-masks": Kind(
        False, True, "The same picture stands several times in a split with different masks: at most one is right.",
        "Keep the right one; " + _FIX + "without these samples.",
    ),
}  # fmt: skip
"""Every kind of finding, in the order of the report."""


def find(kind: str, names: Sequence[str], *, fixable: bool | None = None, **words: object) -> Finding:
    """A finding of a kind, true of `names`; `words` fill the placeholders of its texts."""
    known = KINDS[kind]
    return Finding(
        kind=kind,
        stops=known.stops,
        count=len(names),
        examples=tuple(names[:MAX_EXAMPLES]),
        meaning=known.meaning.format(**words).strip(),
        advice=known.advice.format(**words).strip(),
        fixable=known.fixable if fixable is None else fixable,
    )
