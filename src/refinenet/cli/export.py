"""The command `refinenet export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from refinenet.cli.options import DATASET_HELP, AsJson, ClassSet, Model, Root, default_model_notice, refuse_idle_options
from refinenet.io.console import say

_ALWAYS = {"output", "model", "size", "as_json"}
_OF_DATASET = {"dataset", "root", "classes", "split", "precision"}


def export(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Argument(
            help="The file to write: .onnx, .xml (OpenVINO) or .pt2 (PyTorch); or .triton, a folder for Triton.",
            show_default=False,
        ),
    ],
    model: Model = "camvid",
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help=f"Compare and measure on its images, too. {DATASET_HELP}")
    ] = None,
    root: Root = None,
    classes: ClassSet = None,
    split: Annotated[str, typer.Option(help="Which part of the dataset.")] = "val",
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="WIDTHxHEIGHT of images to time it with, and to compare on, too; more than once for several. "
            "[default: 480x360, 512x512]"
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "int8"],
        typer.Option(help="Of the arithmetic; int8 is for .xml, fitted to and measured on --dataset."),
    ] = "float32",
    calibration_split: Annotated[
        str, typer.Option(help="For int8: which part of the dataset shows what values occur.")
    ] = "train",
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="For int8: how far mIoU may fall; 0.005 is half a point.")
    ] = 0.005,
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs, once they give its answers; figures on that lie beside it."""
    if dataset is None:
        refuse_idle_options(context, _ALWAYS | {"precision"}, "--dataset", "Without a dataset nothing is measured")
    if precision != "int8":
        refuse_idle_options(context, _ALWAYS | _OF_DATASET, "--precision", "In float32 nothing is quantised")
    chosen: dict[str, Any] = {"sizes": [_read_size(text) for text in size]} if size else {}
    from refinenet.api import RefineNet

    network = RefineNet(model=model, device="cpu")
    certificate = network.export(
        output,
        dataset=dataset,
        root=root,
        classes=classes,
        split=split,
        precision=precision,
        calibration_split=calibration_split,
        max_drop=max_drop,
        progress=not as_json,
        **chosen,
    )
    default_model_notice(context, model)()
    if as_json:
        say(certificate.to_dict())


def _read_size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is no size such as 480x360 (width x height).", param_hint="--size")
    return int(height), int(width)
