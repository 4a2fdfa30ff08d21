"""The command `refinenet export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refinenet.cli_options import DATASET_HELP, AsJson, ClassSet, Model, Root
from refinenet.terminal import say


def export(
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
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs, once they give its answers; figures on that lie beside it."""
    from refinenet.api import RefineNet

    network = RefineNet(model=model, device="cpu")
    certificate = network.export(output, dataset=dataset, root=root, classes=classes, split=split, progress=not as_json)
    if as_json:
        say(certificate.to_dict())
