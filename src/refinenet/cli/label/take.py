"""The command `refinenet label take`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refinenet.cli.label.options import Drafts
from refinenet.cli.options import AsJson
from refinenet.io.console import say

if TYPE_CHECKING:
    from refinenet.labelling.taking import Taken


def take(
    export: Annotated[
        Path,
        typer.Argument(
            help="Export from the annotation tool: a folder, a zip archive or a JSON file (CVAT masks or COCO, Label "
            "Studio, LabelMe, Roboflow, Supervisely, PNG masks); or the folder passed to `refinenet label correct`, or "
            "the decisions.csv saved from suspects.html."
        ),
    ],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Dataset folder of images and masks; created if missing.")],
    drafts: Drafts = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the images, if they are in neither the drafts nor the dataset."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Copy the dataset to this folder and change the copy instead of the dataset itself.",
        ),
    ] = None,
    only_corrected: Annotated[
        bool, typer.Option("--only-corrected", help="Skip images whose draft labels came back unchanged.")
    ] = False,
    reviewed: Annotated[
        bool,
        typer.Option(
            "--reviewed",
            help="Confirm that you looked at every image in the export, so that unchanged drafts and proposals count "
            "as correct. Otherwise, unchanged drafts are used only for training, and unchanged proposals are ignored.",
        ),
    ] = False,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=CLASS",
            help="Import a label as a class with another name, such as person=Pedestrian; several labels may become "
            "one class, and LABEL=void leaves pixels without a class. May be repeated.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Regular expression; images whose names have the same text in its first capture group share a split. "
            "By default, images whose names differ only in the last number share a split."
        ),
    ] = None,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share of images for validation.")] = 0.2,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Import the labels even if the checks find errors in them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check corrected labels as `refinenet data check` does, and import the changed ones into a dataset.

    Replaced files are backed up to .before/ in the dataset; labels_taken.jsonl in the dataset folder logs every image.
    """
    from refinenet.labelling import take_labels

    taken = take_labels(
        export,
        into,
        drafts=drafts,
        images=images,
        output=output,
        only_corrected=only_corrected,
        reviewed=reviewed,
        rename=_read_renames(rename or []),
        group=group,
        val=val,
        check=not no_check,
        progress=not as_json,
    )
    if as_json:
        say(taken.to_dict())
    else:
        _print(taken)


def _read_renames(texts: list[str]) -> dict[str, str]:
    """Return the new name of each label; one that is given twice is an error."""
    pairs = [text.partition("=") for text in texts]
    for text, (old, _, new) in zip(texts, pairs, strict=True):
        if not old.strip() or not new.strip():
            raise typer.BadParameter(f"{text!r} is not LABEL=CLASS, such as person=Pedestrian.", param_hint="--rename")
    names = {old.strip(): new.strip() for old, _, new in pairs}
    if len(names) < len(pairs):
        raise typer.BadParameter("a label is renamed twice.", param_hint="--rename")
    return names


def _print(taken: "Taken") -> None:
    from refinenet.io.console import print_note

    splits = sorted({image.split for image in taken.images if image.action == "new" and image.split})
    counts = [sum(image.split == split and image.action == "new" for image in taken.images) for split in splits]
    where = ", ".join(f"{count} in {split}" for split, count in zip(splits, counts, strict=True))
    pixels = sum(image.pixels for image in taken.images if image.action == "changed")
    say(f"{taken.count('new')} new images{f' ({where})' if where else ''}")
    drafts = [image for image in taken.images if image.is_draft]
    if unseen := sum(not image.is_reviewed for image in drafts):
        say(
            f"{unseen} of them came back exactly as drafted: they are used only for training. If you have looked at "
            "all images, --reviewed counts them as correct; --only-corrected leaves such images out"
        )
    if seen := sum(image.is_reviewed for image in drafts):
        say(f"{seen} of them came back exactly as drafted, and count as correct")
    say(f"{taken.count('changed')} changed ({pixels:,} pixels), {taken.count('unchanged')} unchanged")
    if withdrawn := sum(image.withdrawn for image in taken.images):
        say(
            f"{withdrawn} proposals came back exactly as proposed and were not taken: the old labels stay. If you have "
            "looked at all of them, --reviewed takes them; suspects.html lets you accept them one by one"
        )
    if taken.divided:
        say("Wrote lists of the splits: earlier images keep their split, and images of one group share it.")
    if taken.copies is not None:
        say(f"Copies of replaced files: {taken.copies}")
    for image in taken.images:
        print_note(f"{image.name} was left out: {image.reason}", enabled=bool(image.reason))
