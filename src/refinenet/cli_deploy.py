"""The command `refinenet deploy`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from refinenet.cli_options import AsJson, Backend, Device, Model, Precision, complain, read_window
from refinenet.terminal import say

if TYPE_CHECKING:
    from refinenet.large_images import LargeSegmentation
    from refinenet.segmenter import Segmentation


def deploy(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .png, .jpg or .tif file for one image, a folder for several."),
    ] = None,
    model: Model = "camvid",
    kind: Annotated[
        Literal["labels", "colour", "overlay", "confidence"] | None,
        typer.Option("--kind", "-k", help="What to write; by default labels in .png, colour in .jpg."),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="Windows of WIDTHxHEIGHT pixels, such as 1024x1024, in bounded memory, for images of any size; "
            "by default of 768x768 where an image is too large for memory or the output is .tif."
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Least share that windows overlap by; at 0.75 labels hardly depend on where they begin. [default: 0.5]"
        ),
    ] = None,
    device: Device = None,
    backend: Backend = "pytorch",
    precision: Precision = "float32",
    as_json: AsJson = False,
) -> None:
    """Segment images and write the results."""
    from refinenet.batch import pair_outputs, segment_files

    size = None if window is None else read_window(window)
    pairs = pair_outputs(images, output, kind)
    from refinenet.api import RefineNet

    network = RefineNet(model=model, device=device, backend=backend, precision=precision)
    reports: list[dict[str, Any]] = []
    share = 0.5 if overlap is None else overlap
    deploy_large = partial(network.deploy_large, window=size, overlap=share, progress=not as_json)
    for result in segment_files(
        network.segment, pairs, kind, deploy_large, always_large=(size, overlap) != (None, None)
    ):
        if result.segmentation is None:
            if len(pairs) == 1 and result.error is not None:
                raise result.error
            complain(str(result.error))
            reports.append({"image": str(result.image), "error": str(result.error)})
            continue
        areas = dict(result.segmentation.areas)
        reports.append({"image": str(result.image), "output": str(result.output), "areas": areas})
        if not as_json:
            say(f"{result.image} -> {result.output}: {_main_areas(result.segmentation)}")
    if as_json:
        say(reports)
    failures = sum("error" in report for report in reports)
    if failures:
        raise ValueError(f"{failures} of {len(pairs)} images could not be segmented.")


def _main_areas(segmentation: Segmentation | LargeSegmentation) -> str:
    largest = sorted(segmentation.areas.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{name} {100 * area:.0f} %" for name, area in largest if area >= 0.005)
