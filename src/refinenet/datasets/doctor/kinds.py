"""Kinds of findings about images, masks, splits and bands, with consequences and remedies; others: `targets.kinds`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from refinenet.io.extras import install_extra


class Kind(NamedTuple):
    """What findings of a kind have in common."""

    stops: bool
    fixable: bool
    meaning: str
    """May contain {placeholders}, filled by `find`, and <words for several|words for one> of what is counted."""
    advice: str


FIX = "`--fix OUT` writes a copy "
WITHOUT = "without <these samples|this sample>."
AGAIN = "Get <new copies of the files|a new copy of the file>, or remove both image and label; " + FIX + WITHOUT
_OTHER_RANGE = (
    "Its range is {range}: create the network with a band {band}:LOW:HIGH if its values have a different one."
)

IMAGE_KINDS: Mapping[str, Kind] = {
    # Files in the folders
    "image-without-mask": Kind(
        True, False, "<These images have|This image has> no mask of the same name, so <they|it> cannot be used for "
        "training.", AGAIN
    ),
    "mask-without-image": Kind(True, False, "<These masks have|This mask has> no image of the same name.", AGAIN),
    "sample-kind-unread": Kind(
        True, False, "The image or mask of <these samples|this sample> has an unsupported file format, so <they|it> "
        "would be left out.",
        "Save images as JPEG or PNG and masks as PNG or TIFF (HEIC images are read with `pip install "
        "'refinenet-torch[heif]'`). No file has to be deleted; " + FIX + WITHOUT,
    ),
    "file-kind-unread": Kind(
        False, False, "<These files have unsupported formats|This file has an unsupported format> and no partner. "
        "<They are|It is> not used.",
        "If <they belong|it belongs> to the dataset, save images as JPEG or PNG and masks as PNG or TIFF. NumPy files "
        "are images (of named bands) only in a folder without others.",
    ),
    "stem-case": Kind(
        True, True, "The names of image and mask differ in upper and lower case, so they do not match on most systems.",
        "Rename <the masks like their images|the mask like its image>; " + FIX + "with equal names.",
    ),
    "stem-unicode": Kind(
        False, True, "The names of image and mask use two Unicode forms of the same letters. They are paired here, "
        "but other programs may not match them.", FIX + "with equal names.",
    ),
    "stem-twice": Kind(
        True, False, "Several files have the same name except for the extension, so it is unclear which of them "
        "is meant.", "Remove or rename the wrong ones; " + FIX + WITHOUT,
    ),
    "listed-missing": Kind(
        True, True, "A list of samples names <files that do|a file that does> not exist.",
        "Restore <the files, or remove their lines|the file, or remove its line> from the list; " + FIX + "without "
        "<them|it>.",
    ),
    "listed-image-missing": Kind(
        True, True, "{message}",
        "Restore <the files, or remove their entries|the file, or remove its entry> from the JSON file; "
        + FIX + "without <them|it>.",
    ),
    "image-unlisted": Kind(
        False, False, "The JSON file has no valid entry for <these images. They are|this image. It is> not used.",
        "If <they belong|it belongs> to the dataset, export the annotations again. (In COCO, an image without objects "
        "has an entry, too.)",
    ),
    "empty-split": Kind(
        True, False, "The split has no sample with both image and label: nothing to train on or to evaluate.",
        "Add samples, or remove the folder or list. {resplit}",
    ),
    "split-missing": Kind(
        True, False, "This split does not exist, and training needs both train and val.",
        "Move samples of the other splits to it. {resplit}",
    ),
    # Files that cannot be read
    "image-empty": Kind(True, False, "<These image files are|This image file is> empty (0 bytes): training would "
        "fail.", AGAIN),
    "image-not-an-image": Kind(True, False, "<These files are not images|This file is not an image>: training would "
        "fail.", AGAIN),
    "image-damaged": Kind(
        True, False, "<These images are|This image is> truncated or damaged: training would fail.", AGAIN
    ),
    "image-too-large": Kind(
        True, False, "<These images have|This image has> more pixels than the limit of {limit:,}.",
        "Resize image and label (masks with nearest-neighbour interpolation), or cut them into tiles; "
        + FIX + WITHOUT,
    ),
    "image-unreadable": Kind(
        True, False, "<These image files cannot|This image file cannot> be opened: {message}", "Check permissions and "
        "the disk."
    ),
    "mask-empty": Kind(True, False, "<These mask files are|This mask file is> empty (0 bytes): training would "
        "fail.", AGAIN),
    "mask-not-an-image": Kind(True, False, "<These mask files are not images|This mask file is not an image>: training "
        "would fail.", AGAIN),
    "mask-damaged": Kind(
        True, False, "<These masks are|This mask is> truncated or damaged: training would fail. {message}", AGAIN
    ),
    "mask-too-large": Kind(
        True, False, "<These masks have|This mask has> more pixels than the limit of {limit:,}.",
        "Resize image and label (masks with nearest-neighbour interpolation), or cut them into tiles; "
        + FIX + WITHOUT,
    ),
    "mask-unreadable": Kind(
        True, False, "<These mask files cannot|This mask file cannot> be opened: {message}", "Check permissions and "
        "the disk."
    ),
    "reader-died": Kind(
        True, False, "Reading <these files|this file> crashes the reading process, or never ends.", AGAIN
    ),
    "sample-refused": Kind(
        True, False, "<These samples cannot|This sample cannot> be read: training would fail. {message}", AGAIN
    ),
    "labels-invalid": Kind(
        True, True,
            "<Some shapes|A shape> in the annotations cannot be used. Training does not start, because without "
            "<them, their|it, its> pixels would be learned as background or as what lies underneath:\n{message}\n",
        "Correct or delete <them|it> in the annotation tool, and export again; " + FIX + "without <them|it>, and lists "
        "what it left out.",
    ),
    "crowds-void": Kind(False, False, "{message}", ""),
    "crowds-labelled": Kind(False, False, "{message}", ""),
    "image-constant": Kind(
        False, False, "Every pixel of <these images|this image> has the same colour, so <they show|it shows> nothing.",
        "Check <their|its> export, or remove both image and label.",
    ),
    "swapped": Kind(
        True, False,
            "The masks look like photographs, and the images have few colours, like masks: the folders seem to be "
            "swapped.", "Swap the names of the two folders.",
    ),
    # Sizes
    "size-differs": Kind(
        True, False, "Image and label have different sizes, so they do not match: {message}",
        "Export the labels at the size of their images; " + FIX + WITHOUT,
    ),
    "size-exif": Kind(
        True, True, "<These photographs are|This photograph is> stored sideways, with a note in the EXIF data to turn "
        "<them|it> upright, as viewers and this package do. The labels were drawn on the unrotated image, so they do "
        "not match.", FIX + "with <these labels turned like their images|this label turned like its image>.",
    ),
    "exif-turned": Kind(
        False, True, "<These photographs have|This photograph has> a note in the EXIF data to be rotated or mirrored, "
        "which this package does. The sizes do not show whether the labels were drawn on the rotated image.",
        "Compare image and label on a contact sheet (`refinenet data info DATA --sheet sheet.png`). "
        "If they match, nothing has to be done; " + FIX + "with the images turned, without the note.",
    ),
    # Masks
    "mask-lossy-format": Kind(
        True, True, "<These masks are JPEG or WebP files|This mask is a JPEG or WebP file>, whose compression changes "
        "labels near edges.",
        "Export <them|it> again as PNG; " + FIX + "with each pixel set to the nearest class, or to void where that is "
        "ambiguous, and without masks that are mostly ambiguous.",
    ),
    "mask-near-colours": Kind(
        True, True, "<These masks contain|This mask contains> many colours close to class colours, as produced by "
        "lossy "
        "compression or smoothing.",
        "Export <them|it> again as PNG without smoothing; "
        + FIX + "with each pixel set to the nearest class, or to void where that is ambiguous.",
    ),
    "mask-interpolated": Kind(
        True, True, "<These masks contain|This mask contains> values between those of the classes, as produced by "
        "smoothing or resizing.",
        "Export <them|it> again without smoothing (resize masks with nearest neighbour); "
        + FIX + "with each pixel set to the nearest value, or to void where that is ambiguous.",
    ),
    "mask-unlisted-colours": Kind(
        True, False, "<These masks contain|This mask contains> colours that belong to no class: {values}.",
        "{lines}",
    ),
    "mask-colours-for-ids": Kind(
        True, False, "<These masks are colour images|This mask is a colour image>, but ids are expected. <They "
        "contain|It contains> {values}.",
        "{lines}",
    ),
    "mask-rgb-ids": Kind(
        True, True, "<These masks store|This mask stores> ids three times, as red, green and blue.",
        "Save <them|it> with one channel; " + FIX + "with one channel.",
    ),
    "mask-alpha": Kind(
        True, False, "<These masks are|This mask is> partly transparent, so the labels there are ambiguous.",
        "Save <them|it> without alpha; " + FIX + WITHOUT,
    ),
    "mask-mode": Kind(
        True, False, "<These masks have|This mask has> a pixel format that is not used for ids or class colours: "
        "{message}",
        "Export <them|it> as PNG with one channel; " + FIX + WITHOUT,
    ),
    "mask-0-255": Kind(
        True, True, "The masks are binary, 0 and 255. 255 is read as void, so the second class would never be learned.",
        "{where}\n{lines}\nOr: " + FIX + "with ids.",
    ),
    "mask-0-255-mixed": Kind(
        False, False, "Some masks contain 0 and 255, others 0 and 1, and none all three. 255 is read as void; this "
        "may be intended, or 255 may mean class 1.",
        "Look at <a few of them|it>. If 255 is the class, save <these masks|this mask> with 1 instead.",
    ),
    "ids-from-1": Kind(
        True, True, "The ids go from 1 to {highest}, but classes from 0 to {last}: each label would mean the next "
        "class, and {highest} would mean none.", "{where}\n{lines}\nOr: " + FIX + "with ids from 0.",
    ),
    "ids-outside": Kind(
        True, False, "<These masks contain|This mask contains> ids that belong to no class: {values} of all pixels. "
        "Training would fail.",
        "{lines}",
    ),
    "mask-all-void": Kind(
        False, True, "No pixel of <these images|this image> has a class, so nothing can be learned from <them|it>.",
        "Remove <them|it>, or check the labels; " + FIX + "without <them|it>.",
    ),
    "masks-mostly-void": Kind(
        False, False, "{values} % of the pixels have no class. Training ignores them, and a trained network "
        "assigns one of the classes to each of them.",
        "If they are background, add `background` to the names. (Without it, pixels that no shape in a JSON file "
        "covers are void.)",
    ),
    "nothing-but-void": Kind(
        True, False, "No pixel of any image has a class: there is nothing to learn.",
        "Check the labels, and 'names', 'values' and 'ignore' in classes.yaml.",
    ),
    "palettes-conflict": Kind(
        True, True, "The palettes of the masks disagree, and nothing else defines their ids: the same id may mean "
        "different classes in different masks.", "Name the classes by their colours in classes.yaml:\n{lines}\n"
        "Or: " + FIX + "with one palette.",
    ),
    "palettes-differ": Kind(
        False, True, "The same id has different colours in the palettes of different masks, and may mean different "
        "classes. The ids are used as they are.", "Look at <a few of them|it> in a viewer. If the colours are right "
        "and the "
        "ids wrong, write a classes.yaml that lists the colours (masks: colours).",
    ),
    "palettes-contradict": Kind(
        True, True,
            "<The palettes of these masks show|The palette of this mask shows> ids in colours that classes.yaml gives "
        "to other classes, so there are "
            "two interpretations. In the first mask, {lines}.", "Look at one in a viewer that shows its colours. If "
        "the colours are right: {where} `masks: colours`. If the ids are right, correct the order of 'colours' there, "
        "or remove 'colours'; " + FIX + "with the ids as they are, in the colours of classes.yaml.",
    ),
    "palettes-permuted": Kind(
        True, True, "<The palettes of these masks have|The palette of this mask has> the same colours as the others, "
        "in a different order: either the "
        "ids or the colours mean different classes.", "Look at <a few of them|it> in a viewer. If the colours are "
        "right, write a classes.yaml that lists the colours (masks: colours). If the ids are right, save the masks "
        "with one palette; " + FIX + "with the ids as they are, in one palette.",
    ),
    "mask-blended-ids": Kind(
        True, False, "<These masks seem|This mask seems> to have been resized with a smoothing filter (bilinear, "
        "bicubic, Lanczos): thin "
        "seams along outlines have ids between those of both sides, which mean other classes.",
        "Resize the original masks with nearest neighbour; the labels cannot be recovered from these. If the thin "
        "seams are real classes, continue with `--no-check`.",
    ),
    "mask-frames": Kind(
        False, True, "<These masks have|This mask has> several frames or pages; the first one is used.",
        "Save only the right one; " + FIX + "with the first one.",
    ),
    # Images
    "image-frames": Kind(
        False, True, "<These images have|This image has> several frames or pages; the first one is used.",
        "Save only the right one; " + FIX + "with the first one.",
    ),
    "image-cmyk": Kind(
        False, True, "<These images use|This image uses> CMYK print colours and <are|is> converted to RGB without a "
        "colour profile.",
        "Convert <them|it> with a profile if colours matter; " + FIX + "in RGB.",
    ),
    "image-deep": Kind(
        False, True, "<These images have|This image has> 16 or more bits per pixel and <are|is> scaled to 8: 65535 "
        "(or 1.0) becomes 255. "
        "12-bit images become dark.", "Stretch <them to the full range if they are|it to the full range if it is> "
        "dark; "
        + FIX + "as <they are|it is> read.",
    ),
    "image-alpha": Kind(
        False, True, "<These images have|This image has> transparency and <are|is> composited over black.",
        "Composite <them|it> over another colour if black is wrong. If alpha is a band of its own, such as infrared, "
        "create the network with `--bands`; " + FIX + "as <they are|it is> read.",
    ),
    "image-array": Kind(
        False, False, "<These images are NumPy files|This image is a NumPy file>, which only networks with named "
        "bands read: training any other "
        "network would fail.",
        "Create the network with the bands of the <files|file>, such as `--bands red,green,blue,nir:0:4095`. Whether "
        "their "
        "values fit is checked when it is trained.",
    ),
    "image-bands": Kind(
        False, False, "<These images hold|This image holds> {message}, which are not read as RGB: only networks with "
        "named bands are "
        "trained on them, and training any other network would not start.",
        "Create the network with the bands of the <files|file>, such as `--bands red,green,blue,nir:0:4095`. RGB "
        "models read three of them, by number: `refinenet deploy --bands 3,2,1`.",
    ),
    "image-needs-rasterio": Kind(
        True, False, "<These images are|This image is> sound, but <hold|holds> bands that only rasterio reads.",
        f"Install it: {install_extra('large')}.",
    ),
    "image-grey": Kind(
        False, True, "<These images are|This image is> grey, unlike most others; <they are|it is> read as RGB with "
        "equal channels.",
        "Do nothing if the network will be used on grey images, too; " + FIX + "in RGB.",
    ),
    "image-palette": Kind(
        False, True, "<These images have|This image has> a palette (at most 256 colours) and <are|is> converted to "
        "RGB.",
        "Use the original images if available; " + FIX + "in RGB.",
    ),
    # encoding of the mask values
    "no-classes": Kind(
        True, False, "Nothing defines the meaning of the mask values. They are {values}.",
        "Write a file classes.yaml into the folder, with your own names{order}:\n{lines}",
    ),
    "classes-file": Kind(True, False, "The file that names the classes is invalid: {message}", "Correct it."),
    "split-refused": Kind(True, False, "<The splits|The split> cannot be opened: {message}", ""),
    "class-absent": Kind(
        False, False, "{values} <occur|occurs> in no label and cannot be learned.",
        "Remove <them|it> from the names, or check whether <they are|it is> missing by mistake.",
    ),
    "class-unseen": Kind(
        False, False, "{values} <do|does> not occur in the {masks} images checked. What occurs in none of the "
        "other images, either, cannot be learned.", "Check all images with `refinenet data check`, without `--quick`.",
    ),
    "class-not-in-train": Kind(
        False, False, "{values} <are|is> evaluated but never trained: <they occur|it occurs> only in other splits "
        "than train.",
        "Add samples with <these classes|this class> to train. {resplit}",
    ),
    "class-not-in-val": Kind(
        False, False, "{values} <are trained but never evaluated: they do|is trained but never evaluated: it does> "
        "not occur in val.",
        "Add samples with <these classes|this class> to val. {resplit}",
    ),
    "class-only-one": Kind(
        False, False, "All pixels with a class are {values}: there is nothing to distinguish, and mIoU will be 100 %.",
        "Check whether other classes are missing by mistake; background is a class, too.",
    ),
    # Duplicate images
    "duplicates-across-splits": Kind(
        True, True, "The same image is in two splits, so the score rewards memorisation.",
        "Remove it from one of them; " + FIX + "without it in train.",
    ),
    "near-duplicates-across-splits": Kind(
        False, True, "Nearly the same image (recompressed, resized or brightened) is in two splits, so the score is "
        "too high.",
        "Look at the pairs and remove one of each, or split by time if the camera does not move; " + FIX
        + "without those in train whose labels agree.",
    ),
    "duplicates-within-split": Kind(
        False, True, "The same image with the same labels is in a split several times, and counts each time.",
        "Remove the duplicates; " + FIX + "with one of each.",
    ),
    "contradicting-masks": Kind(
        False, True, "The same image is in a split several times with different labels: at most one can be right.",
        "Keep the right one; " + FIX + WITHOUT,
    ),
}  # fmt: skip
"""By their identifiers, in the order of the report."""

BAND_KINDS: Mapping[str, Kind] = {
    "bands-refused": Kind(
        True, False, "<These images cannot|This image cannot> be read as the bands of the network: training would "
        "fail. {message}",
        "Create the network with the bands of the <files|file>, or name these in a bands.yaml to choose some of them.",
    ),
    "band-constant": Kind(
        False, False, "The band {band} has one value in <each of these images|this image>, so it shows the network "
        "nothing.",
        "Check its export, or leave the band out.",
    ),
    "band-clipped": Kind(
        False, False, "More than {share} of the values of the band {band} are missing (read as 0), or are clipped "
        "because they lie at or beyond the ends of its range.", _OTHER_RANGE,
    ),
    "band-narrow": Kind(
        False, False, "The band {band} fills only {low} to {high} of its range from 0 to 1: it may be stored on "
        "another scale, such as metres instead of centimetres.", _OTHER_RANGE,
    ),
}  # fmt: skip
"""The same of findings about images for networks of named bands."""
