"""The command `refinenet eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from refinenet.cli_options import DATASET_HELP, AsJson, ClassSet, Device, Model, Root
from refinenet.terminal import say

if TYPE_CHECKING:
    from refinenet.inference import Protocol

MEASURING, WAYS = "What is measured", "How images are put before the network"


def evaluate(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help=DATASET_HELP)],
    root: Root = None,
    classes: ClassSet = None,
    split: Annotated[str, typer.Option(help="Which part of the dataset.")] = "val",
    model: Model = "camvid",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file for the figures.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="A folder for a page on them, report.html, and its pictures.")
    ] = None,
    protocol: Annotated[
        Literal["plain", "paper"],
        typer.Option(help="plain: whole images, once; paper: as the network's paper measures.", rich_help_panel=WAYS),
    ] = "plain",
    scales: Annotated[
        str | None, typer.Option(help="Sizes relative to the image's own, such as 0.5,1,1.5.", rich_help_panel=WAYS)
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Mirrored images, too.", rich_help_panel=WAYS)] = False,
    window: Annotated[
        str | None, typer.Option(help="Windows of WIDTHxHEIGHT pixels, such as 512x512.", rich_help_panel=WAYS)
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(help="Least share that windows overlap by. [default: 0.5]", rich_help_panel=WAYS)
    ] = None,
    abstain_below: Annotated[
        float, typer.Option(help="Pixels of less confidence (0 to 1) get no class.", rich_help_panel=WAYS)
    ] = 0.0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a dataset."""
    chosen = _choose_protocol(protocol, scales, flip, window, overlap)
    from refinenet.api import RefineNet

    evaluation = RefineNet(model=model, device=device).eval(
        dataset,
        root=root,
        split=split,
        output_file=output,
        classes=classes,
        protocol=chosen,
        abstain_below=abstain_below,
        report=report,
        progress=not as_json,
    )
    if as_json:
        say(evaluation.summary())


def _choose_protocol(
    name: Literal["plain", "paper"], scales: str | None, flip: bool, window: str | None, overlap: float | None
) -> Protocol | Literal["plain", "paper"]:
    if scales is None and window is None and overlap is None and not flip:
        return name
    if name == "paper":
        raise typer.BadParameter(
            "It says all of --scales, --flip, --window and --overlap.", param_hint="--protocol paper"
        )
    if overlap is not None and window is None:
        raise typer.BadParameter("It is of use with --window only.", param_hint="--overlap")
    from refinenet.inference import PLAIN, Protocol

    return Protocol(
        scales=PLAIN.scales if scales is None else _read_scales(scales),
        flip=flip,
        window=None if window is None else _read_window(window),
        overlap=PLAIN.overlap if overlap is None else overlap,
    )


def _read_scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 0.5,1,1.5.", param_hint="--scales") from None


def _read_window(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is no size such as 512x512 (width x height).", param_hint="--window")
    return int(height), int(width)
