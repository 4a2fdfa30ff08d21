"""The command `refinenet deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from refinenet.cli_options import AsJson, Backend, Device, Model, Precision, complain
from refinenet.cli_ray import Engine, Workers, deploy_with_ray
from refinenet.terminal import say

if TYPE_CHECKING:
    from refinenet.segmenter import Segmentation


def deploy(
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them.", show_default=False)],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A .png or .jpg file for one image, a folder for several."),
    ] = None,
    model: Model = "camvid",
    kind: Annotated[
        Literal["labels", "colour", "overlay", "confidence"] | None,
        typer.Option("--kind", "-k", help="What to write; by default labels in .png, colour in .jpg."),
    ] = None,
    device: Device = None,
    backend: Backend = "pytorch",
    precision: Precision = "float32",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="With ray: folders in folders, too.")] = False,
    engine: Engine = "local",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Segment images and write the results."""
    if engine == "ray":
        settings = {"model": model, "backend": backend, "precision": precision, "kind": kind, "device": device}
        deploy_with_ray(images, output, recursive=recursive, as_json=as_json, workers=workers, **settings)
        return
    if workers is not None or recursive:
        raise typer.BadParameter("these are Ray's: add --engine ray.", param_hint="--workers or --recursive")
    from refinenet.batch import pair_outputs, segment_files

    pairs = pair_outputs([Path(image) for image in images], None if output is None else Path(output), kind)
    from refinenet.api import RefineNet

    network = RefineNet(model=model, device=device, backend=backend, precision=precision)
    reports: list[dict[str, Any]] = []
    for result in segment_files(network.segment, pairs, kind):
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


def _main_areas(segmentation: Segmentation) -> str:
    largest = sorted(segmentation.areas.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{name} {100 * area:.0f} %" for name, area in largest if area >= 0.005)
