"""The command `refinenet export`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from refinenet.cli.options import (
    INT8,
    AsJson,
    CalibrationSplit,
    ClassSet,
    MaxDrop,
    MaxRise,
    Model,
    Root,
    default_model_notice,
    read_size,
    refuse_early,
    refuse_idle_options,
)
from refinenet.io.console import say

_ALWAYS = {"output", "model", "size", "shape", "as_json"}
_OF_DATASET = {"dataset", "root", "classes", "split", "precision"}


def export(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Argument(
            help="The file to write: .onnx, .xml (OpenVINO), .pt2 (PyTorch), .triton (a Triton model repository), or "
            ".engine (TensorRT).",
            show_default=False,
        ),
    ],
    model: Model = "camvid",
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Also compare and evaluate the export on this dataset: a name (see `refinenet data list`), your own "
            "folder, or a YAML file.",
        ),
    ] = None,
    root: Root = None,
    classes: ClassSet = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "val",
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH",
            help="Image size for timing and comparison; may be repeated. Default: 480x360 and 512x512.",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(metavar="NxCxHxW", help="Input shape of a TensorRT engine, such as 1x3x480x640."),
    ] = None,
    precision: Annotated[
        Literal["float32", "int8"],
        typer.Option(
            metavar="PRECISION",
            help="float32 or int8; int8 is for .xml only and needs --dataset or a model prepared by `refinenet "
            "quantise`.",
            rich_help_panel=INT8,
        ),
    ] = "float32",
    calibration_split: CalibrationSplit = "train",
    max_drop: MaxDrop = 0.005,
    max_rise: MaxRise = 0.05,
    as_json: AsJson = False,
) -> None:
    """Export a model to another format, verify its predictions, and write a certificate next to it."""
    if dataset is None:
        refuse_idle_options(context, _ALWAYS | {"precision"}, "--dataset", "Without a dataset nothing is evaluated")
    if precision != "int8":
        refuse_idle_options(context, _ALWAYS | _OF_DATASET, "--precision", "In float32 nothing is quantised")
    if shape is not None:
        refuse_idle_options(context, {"output", "model", "shape", "as_json"}, "--shape", "An engine has one shape")
    chosen: dict[str, Any] = {"sizes": [read_size(text, "--size", "480x360") for text in size]} if size else {}
    sides = None if shape is None else _read_shape(shape)
    from refinenet.export import check_path

    check_path(output, precision, sides)
    if dataset is not None:
        refuse_early("An export", dataset, root, classes, split)
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
        max_rise=max_rise,
        shape=sides,
        progress=not as_json,
        **chosen,
    )
    default_model_notice(context, model)()
    if as_json:
        say(certificate.to_dict())


def _read_shape(text: str) -> tuple[int, int, int, int]:
    """Parse NxCxHxW.

    Raises:
        typer.BadParameter: the text is not a shape of four numbers above 0.
    """
    sides = text.lower().split("x")
    if len(sides) != 4 or not all(side.isdecimal() and int(side) for side in sides):
        raise typer.BadParameter(
            f"{text!r} is not a shape such as 1x3x480x640 (images, bands, height, width); engines of free sizes are "
            "not supported.",
            param_hint="--shape",
        )
    images, bands, height, width = map(int, sides)
    return images, bands, height, width
