"""Kinds of findings about depth, normals and other quantities."""

from __future__ import annotations

from collections.abc import Mapping

from refinenet.datasets.doctor.kinds import FIX, WITHOUT, Kind

_LEAVE_OUT = FIX + WITHOUT
_DECLARE = "If these pixels have no ground truth, state their stored value in targets.yaml: `missing: VALUE`; "

TARGET_KINDS: Mapping[str, Kind] = {
    # Files
    "targets-file": Kind(
        True, False, "The file that describes depth, normals and values is invalid: {message}", "Fix the file."
    ),
    "target-missing": Kind(
        True, False, "<These images have|This image has> no file of {message}, so training on it would fail.",
        "Add the <files. If these images have|file. If this image has> no ground truth, state `optional: true` in "
        "targets.yaml; " + _LEAVE_OUT,
    ),
    "target-twice": Kind(
        True, False, "Several files of a folder have the same name except for the extension, so it is unclear which of "
        "them is meant.", "Remove or rename the wrong ones; " + _LEAVE_OUT,
    ),
    "target-without-image": Kind(
        False, False, "<These files of depth, normals or values have no image of the same name. They are|This file of "
        "depth, "
        "normals or values has no image of the same name. It is> not used.",
        "If <they belong to an image, name them|it belongs to an image, name it> like it.",
    ),
    "target-kind-unread": Kind(
        False, False, "<These files have|This file has> formats that are not read as measurements. JPEG and WebP "
        "change values, and "
        "tables (.csv) are not maps.", "Save measurements of each pixel as PNG of 8 or 16 bits, TIFF or .npy.",
    ),
    "target-damaged": Kind(
        True, False, "<These files cannot|This file cannot> be read: training on them would fail. {message}",
        "Get <new copies of the files|a new copy of the file>; " + _LEAVE_OUT,
    ),
    "target-channels": Kind(
        True, False, "<These files have|This file has> a different number of channels from their output. {message}",
        "Export one channel for each quantity, three for normals, one for depth; " + _LEAVE_OUT,
    ),
    "target-size": Kind(
        True, False, "Values and image have different sizes, so they do not match: {message}",
        "Export them at the size of their images (with nearest neighbour, which only copies values); " + _LEAVE_OUT,
    ),
    "target-not-in-split": Kind(
        False, False, "Train or val has no ground truth for an output that others have: it cannot be trained, or is "
        "not evaluated.", "Add the folder, or leave the output out of --outputs.",
    ),
    "values-undeclared": Kind(
        False, False, "Nothing says what the channels in the folder values/ are, so it is not used.",
        "Name them in targets.yaml, for example:\nvalues: {{quantities: [{{name: height, unit: m}}]}}",
    ),
    "values-alone-undeclared": Kind(
        True, False, "The only ground truth is in the folder values/, and nothing says what its channels are: there is "
        "nothing to train on.",
        "Name them in targets.yaml, for example:\nvalues: {{quantities: [{{name: height, unit: m}}]}}",
    ),
    "target-folder-unread": Kind(
        False, False, "<These folders hold|This folder holds> files with the names of the images, but are not read, "
        "since nothing says "
        "what is in them.",
        "If they hold a quantity for each pixel, name it and its unit in targets.yaml, for example:\n"
        "{folder}: {{unit: m}}",
    ),
    # Meaning of the numbers
    "target-undeclared": Kind(True, False, "{message}", ""),
    "depth-scale": Kind(
        True, False, "The scale of the depths seems to be wrong: {message}",
        "If the depths are right, state their range in targets.yaml, for example `range: [0.01, 2000]`. Otherwise, "
        "correct the stored value of a metre there, under `depth:`.\n{lines}",
    ),
    "depth-scale-mixed": Kind(
        True, False, "All depths of <these maps|this map> are much larger or smaller than those of the others, as if "
        "in another unit: {message}",
        "Convert <them|it> to the unit of the others. If <they are|it is> right, continue with `--no-check`.",
    ),
    "depth-out-of-range": Kind(
        False, False, "The median of <these maps|this map> is not in the range that targets.yaml states, {message}",
        "Widen `range:`, or check their unit; predictions are clipped to the range.",
    ),
    "depth-stretched": Kind(
        True, False, "<These maps go|This map goes> from 0 or 1 to the largest number of their type, as pictures made "
        "for viewing do: "
        "each has a scale of its own, so they do not hold metres.", "Export the depths themselves, for example in "
        "millimetres as PNG of 16 bits.",
    ),
    "depth-8-bit": Kind(
        False, False, "<These maps have|This map has> 8 bits, and so at most 256 different depths.",
        "Export them as PNG of 16 bits, TIFF or .npy, if finer ones are available.",
    ),
    "depth-zeros": Kind(
        True, True, "<These maps hold|This map holds> depths of 0, which nothing can have: {message}",
        "They are probably missing: state it in targets.yaml, `missing: 0`; " + FIX + "in which they are missing.",
    ),
    "depth-negative": Kind(
        True, False, "<These maps hold|This map holds> depths below 0: {message}",
        _DECLARE + "if the axis points towards the viewer, export its opposite; " + _LEAVE_OUT,
    ),
    "depth-saturated": Kind(
        False, False, "A large share of the pixels of <these maps|this map> has the same depth, the largest one, as "
        "if beyond the reach of a sensor: {message}",
        "These depths are probably not measured: state the value as `missing:` in targets.yaml, in stored units.",
    ),
    # Other quantities
    "values-scale-mixed": Kind(
        True, False, "All values of <these files|this file> are much larger or smaller than those of the others, as "
        "if in another unit: {message}",
        "Convert <them|it> to the unit of the others. If <they are|it is> right, continue with `--no-check`.",
    ),
    "values-exchanged": Kind(
        True, False, "Two quantities of <these files|this file> seem to be swapped: {message}",
        "Swap their channels. If they are right, continue with `--no-check`.",
    ),
    "values-edge": Kind(
        False, False, "One exact value fills areas of <these files|this file> and lies apart from all others, as "
        "if nothing was measured there: {message}", _DECLARE + "if it is a measurement, nothing has to be done.",
    ),
    "values-whole-units": Kind(
        False, False, "<These files hold|This file holds> integers without a declared scale, so they are read as "
        "whole units: {message}",
        "State the stored value of one unit in targets.yaml, for example `scale: 100`; `scale: 1` if this is right.",
    ),
    "values-constant": Kind(
        False, False, "<These quantities have|This quantity has> one value in each file, so there is nothing to learn "
        "within an image.",
        "Check their export, or leave them out of targets.yaml and of the files.",
    ),
    # Values
    "target-infinite": Kind(
        True, True, "<These files hold|This file holds> infinite values: {message}",
        _DECLARE + FIX + "in which they are missing.",
    ),
    "target-marker": Kind(
        True, False, "One value, far from all others, fills many pixels of <these files|this file>; it probably means "
        "that there "
        "is no ground truth: {message}", _DECLARE + "if it is a measurement, continue with `--no-check`.",
    ),
    "target-constant": Kind(
        False, False, "All values of <these files|this file> are equal.", "Check <their|its> export.",
    ),
    "target-empty": Kind(
        False, False, "<These files hold|This file holds> no ground truth: all of <their|its> pixels are missing.",
        "Check <their|its> export, and `missing:` in targets.yaml.",
    ),
    "target-nothing": Kind(
        True, False, "No file has any ground truth for this output or quantity: there is nothing to learn.",
        "Check the export, and `missing:` in targets.yaml, or leave the output out.",
    ),
    "target-splits-differ": Kind(
        False, False, "The values in train and val hardly overlap, so val measures extrapolation: the medians of the "
        "maps are around {message}", "Split the images again, so that train and val have similar values.",
    ),
    # Values and images
    "target-repeated": Kind(
        True, False, "The same values belong to different images: at most one of them can be right.",
        "Export them again; " + _LEAVE_OUT,
    ),
    "target-of-another-image": Kind(
        True, False, "The outlines in the values of <these images|this image> are those in another image: the values "
        "seem to be "
        "swapped. Each file is followed by the one that fits its image.", "Rename them; " + _LEAVE_OUT,
    ),
    "values-flipped": Kind(
        False, False, "Outlines in these values fit those of <their images|the image> much better after a flip: the "
        "values seem "
        "to be stored {message}",
        "Look at <a few of them beside their images|it beside its image> (`refinenet data info DATA --sheet "
        "sheet.png`), and flip the files "
        "if this is right.",
    ),
    "target-unrelated": Kind(
        False, False, "On average, outlines in these values fit the image no better than those of other images.",
        "Look at a few of them beside their images: names may be shifted, or images cropped or turned.",
    ),
    # Normals
    "normals-length": Kind(
        True, False, "<These files hold|This file holds> vectors that are not of length 1: {message}",
        _DECLARE + "check `encoding:` otherwise; " + _LEAVE_OUT,
    ),
    "normals-frame": Kind(
        True, True, "The normals are in another frame. They should have x right, y down and z into the scene, and so "
        "point towards the camera (z below 0). These axes point the other way: {message}",
        "State it in targets.yaml, under `normals:`.\n{lines}\nOr: " + FIX + "that states it.",
    ),
    "normals-upside-down": Kind(
        False, False, "In the lower third of the images, surfaces face down on average, as they do where the y axis "
        "points up.",
        "If these surfaces are the ground, state `flip: [y]` in targets.yaml, under `normals:`.",
    ),
    "normals-unlike-depth": Kind(
        False, False, "Normals and depth hardly fit: the mean cosine of the normals with those computed from the depth "
        "is {message}.", "Look at a few of them: axes may be permuted, or files belong to other images.",
    ),
}  # fmt: skip
