"""The command `refinenet deploy`."""

from collections.abc import Callable
from enum import Flag, auto
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from refinenet.cli.deploy_images import deploy_files, write_to_standard_output
from refinenet.cli.deploy_runs import Request, deploy_video, deploy_with_ray
from refinenet.cli.options import (
    MACHINE,
    OVERLAYS,
    REPORTS,
    STANDARD,
    VALUES,
    VIDEOS,
    AbstainBelow,
    AsJson,
    Backend,
    Bands,
    Device,
    Model,
    Precision,
    ValueRange,
    check_table_name,
    default_model_notice,
    read_bands,
    read_numbers,
    read_size,
    read_value_range,
    refuse_idle_options,
)
from refinenet.inference.output_kinds import OUTPUT_KINDS, POLYGONS, is_of_values

if TYPE_CHECKING:
    from refinenet.deployment.large_images import Windows


class Mode(Flag):
    """Mode of `deploy`. Each option is annotated with the modes in which it has an effect."""

    FILES = auto()
    """Image files and folders; large images in windows."""
    STDIN = auto()
    """One image from standard input to a file."""
    STDOUT = auto()
    """One image to standard output."""
    VIDEO = auto()
    """One video, stream or camera."""
    RAY = auto()
    """Image files and folders, on the machines of a cluster."""


ALL = Mode.FILES | Mode.STDIN | Mode.STDOUT | Mode.VIDEO | Mode.RAY
WITH_REPORT = ALL & ~Mode.STDOUT
IMAGES = ALL & ~Mode.VIDEO


def options_of(command: Callable[..., None], mode: Mode) -> set[str]:
    """Return the names of the parameters of a command that serve a mode."""
    hints = get_type_hints(command, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name for name, mark in marks.items() if any(mode in modes for modes in mark if isinstance(modes, Mode))}


# Pictures of ids stand together, and so do the kinds with polygons, after the word that stands for all of them.
_KINDS = sorted(OUTPUT_KINDS, key=lambda kind: (OUTPUT_KINDS[kind].has_polygons, not OUTPUT_KINDS[kind].holds_ids))
_POLYGONS_AT = sum(not spec.has_polygons for spec in OUTPUT_KINDS.values())
_NAMES = (*_KINDS[:_POLYGONS_AT], POLYGONS, *_KINDS[_POLYGONS_AT:])
"""What can be written; see `OUTPUT_KINDS`."""


def _read_kinds(names: list[str]) -> list[str]:
    """Check the kinds; those of values may have a name, as in depth:far.

    Raises:
        typer.BadParameter: a kind is unknown.
    """
    for name in names:
        if name != POLYGONS and not (name in OUTPUT_KINDS or is_of_values(name)):
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(_NAMES)}.", param_hint="--kind")
    return names


def _describe_kinds() -> str:
    remarks = {kind: OUTPUT_KINDS[kind].remark for kind in _KINDS}
    return ", ".join(f"{kind} ({remark})" if remark else kind for kind, remark in remarks.items())


def deploy(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders, quoted glob patterns, or @FILE (a text file that lists images); or - for "
            "standard input; or one video, stream or camera:0.",
            show_default=False,
        ),
        ALL,
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for one image (- for standard output) or one video (.mp4, ...); a folder for several images. "
            "Default: NAME_KIND.png next to a single image, NAME_KIND.mp4 next to a video, a folder named "
            "'segmented' for several images.",
        ),
        ALL,
    ] = None,
    model: Annotated[Model, ALL] = "camvid",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            autocompletion=lambda: list(_NAMES),
            help=f"What to write: {_describe_kinds()}, or {POLYGONS} (coco and geojson). May be repeated; each kind "
            "then gets a folder of that name. depth:NAME and values:NAME select one of several outputs or quantities.",
        ),
        ALL,
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            metavar=".EXT",
            help="Suffix of the files in a folder of results, such as .jpg for overlays or .tif for values.",
        ),
        Mode.FILES,
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Include subfolders."), Mode.FILES | Mode.RAY
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Recompute existing results and replace existing files."),
        Mode.FILES | Mode.VIDEO,
    ] = False,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Segment all images in windows of this size, such as 1024x1024, to limit memory use. Default: "
            "768x768, only for images too large for memory and for .tif output.",
            rich_help_panel="Large images",
        ),
        Mode.FILES,
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Minimum overlap of windows, as a fraction of their side; if given, all images are segmented in "
            "windows. With 0.75, labels hardly depend on window positions; 0.5 is four times as fast. Default: 0.75.",
            rich_help_panel="Large images",
        ),
        Mode.FILES,
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(
            help="Time limit per image in milliseconds, from decoded image to labels. Backend, precision and "
            "image scale are chosen by timing them on the first image; the share of labels that change is reported.",
            rich_help_panel=MACHINE,
        ),
        Mode.FILES | Mode.STDIN,
    ] = None,
    abstain_below: Annotated[AbstainBelow, ALL & ~Mode.RAY] = 0.0,
    bands: Annotated[Bands, IMAGES] = None,
    value_range: Annotated[ValueRange, IMAGES] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            help="Factor by which values are multiplied before they are stored as integers in .png files. Default for "
            "depth: 1000 (millimetres).",
            rich_help_panel=VALUES,
        ),
        ALL,
    ] = None,
    limits: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Values at the two ends of the colour scale. Default: chosen from the image.",
            rich_help_panel=VALUES,
        ),
        ALL,
    ] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option(
            metavar="FX,FY,CX,CY", help="Camera intrinsics for the point cloud, in pixels.", rich_help_panel=VALUES
        ),
        IMAGES,
    ] = None,
    opacity: Annotated[
        float | None,
        typer.Option(
            help="Opacity of the class colours, from 0 (invisible) to 1. Default: 0.5.", rich_help_panel=OVERLAYS
        ),
        ALL,
    ] = None,
    outline: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="Width of opaque outlines. Default: no outlines.", rich_help_panel=OVERLAYS
        ),
        ALL,
    ] = None,
    legend: Annotated[
        bool,
        typer.Option(
            "--legend",
            help="Add a legend with names and areas below the image; the result is taller than the image.",
            rich_help_panel=OVERLAYS,
        ),
        ALL,
    ] = False,
    show: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Class to draw; may be repeated. Default: all except those coloured black (usually background).",
            rich_help_panel=OVERLAYS,
        ),
        ALL,
    ] = None,
    hide: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Class not to draw; may be repeated.", rich_help_panel=OVERLAYS),
        ALL,
    ] = None,
    display: Annotated[
        bool,
        typer.Option(
            "--display",
            help="Show the frames in a window while they are segmented; without --output nothing is written. Press Esc "
            "or Q, or close the window, to stop.",
            rich_help_panel=VIDEOS,
        ),
        Mode.VIDEO,
    ] = False,
    steady: Annotated[
        bool,
        typer.Option(
            "--steady",
            help="Average class probabilities over frames, following the motion, so that labels flicker less.",
            rich_help_panel=VIDEOS,
        ),
        Mode.VIDEO,
    ] = False,
    device: Annotated[Device, ALL] = None,
    backend: Annotated[Backend, ALL] = "auto",
    precision: Annotated[Precision, ALL] = "float32",
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            metavar="ENGINE",
            help="local, or ray: use all machines of a cluster (RAY_ADDRESS), or several processes on this machine.",
            rich_help_panel=MACHINE,
        ),
        ALL,
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of Ray workers, each with a copy of the network. Default: one per GPU or, without GPUs, one "
            "per two cores.",
            rich_help_panel=MACHINE,
        ),
        Mode.RAY,
    ] = None,
    as_json: Annotated[AsJson, WITH_REPORT] = False,
    json_lines: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write one line of JSON per image to this file, or to standard output (-).",
            rich_help_panel=REPORTS,
        ),
        Mode.FILES | Mode.STDIN,
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a table to a .csv or .parquet file: pixels, share, number of regions and, if georeferenced, "
            "square metres, for each image and class.",
            rich_help_panel=REPORTS,
        ),
        Mode.FILES | Mode.STDIN,
    ] = None,
) -> None:
    """Segment images or a video and write the results.

    Rerun the same command to resume an interrupted run.
    """
    from refinenet.deployment.video.reader import is_video

    request = Request(
        images=images,
        output=output,
        kinds=_read_kinds(kind) if kind else [],
        suffix=suffix,
        network={"model": model, "device": device, "backend": backend, "precision": precision},
        as_json=as_json,
        announce=default_model_notice(context, model),
    )
    rendering: dict[str, Any] = {
        "scale": scale,
        "limits": None if limits is None else read_numbers(limits, 2, "--limits", "0,50"),
        "intrinsics": None if intrinsics is None else read_numbers(intrinsics, 4, "--intrinsics", "500,500,320,240"),
        "opacity": opacity,
        "outline": outline,
        "legend": legend or None,
        "show": show or None,
        "hide": hide or None,
    }
    bands_and_range: dict[str, Any] = {
        "bands": None if bands is None else read_bands(bands),
        "value_range": None if value_range is None else read_value_range(value_range),
    }
    reading = {**bands_and_range, **rendering}
    if engine == "ray":
        _refuse_others(context, Mode.RAY, "--engine", "Ray does not support all options")
        deploy_with_ray(request, recursive=recursive, workers=workers, **reading)
        return
    if workers is not None:
        raise typer.BadParameter("Workers need --engine ray.", param_hint="--workers")
    if any(is_video(source) for source in images):
        _refuse_others(context, Mode.VIDEO, "IMAGES", "A video is segmented frame by frame")
        chosen: dict[str, Any] = {"abstain_below": abstain_below, "display": display, "steady": steady}
        deploy_video(request, rendering, overwrite=overwrite, **chosen)
        return
    if json_lines not in (None, STANDARD):
        _check_lines(str(json_lines))
    if table is not None:
        check_table_name(table)
    if max_latency is not None:
        _check_latency(max_latency)
    if STANDARD in (*images, output):
        _check_pipes(images, output, as_json or json_lines == STANDARD)
    if output == STANDARD:
        _refuse_others(context, Mode.STDOUT, "--output", "Standard output receives the result of one image")
        write_to_standard_output(request, rendering, abstain_below=abstain_below, **bands_and_range)
        return
    if images == [STANDARD]:
        _refuse_others(context, Mode.STDIN, "IMAGES", "Standard input is read as one image")
    else:
        _refuse_others(context, Mode.FILES, "IMAGES", "Images are segmented one by one")
    windows = None if window is None and overlap is None else _read_windows(window, overlap)
    options = {"windows": windows, "max_latency_ms": max_latency, "abstain_below": abstain_below}
    deploy_files(
        request,
        json_lines,
        table,
        recursive=recursive,
        overwrite=overwrite,
        rendering=rendering,
        **options,
        **bands_and_range,
    )


def _refuse_others(context: typer.Context, mode: Mode, beside: str, why: str) -> None:
    refuse_idle_options(context, options_of(deploy, mode), beside, why)


def _check_latency(milliseconds: float) -> None:
    if not milliseconds > 0:
        raise typer.BadParameter(
            f"The time limit must be a number of milliseconds above 0, not {milliseconds}.", param_hint="--max-latency"
        )


def _check_lines(json_lines: str) -> None:
    if Path(json_lines).suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        raise typer.BadParameter(
            f"The file name must end in .jsonl, .ndjson or .json, not {json_lines!r}.",
            param_hint="--json-lines",
        )


def _read_windows(window: str | None, overlap: float | None) -> "Windows":
    from refinenet.deployment.large_images import OVERLAP, Windows

    size = None if window is None else read_size(window)
    return Windows(size=size, overlap=OVERLAP if overlap is None else overlap)


def _check_pipes(images: list[str], output: str | None, prints: bool) -> None:
    """Reject what standard input and output cannot be used for."""
    if STANDARD in images and output is None:
        raise typer.BadParameter("Specify the output file, or - for standard output.", param_hint="--output")
    if (STANDARD in images or output == STANDARD) and len(images) > 1:
        raise typer.BadParameter("Standard input and output are for a single image.", param_hint="IMAGES")
    if output == STANDARD and prints:
        raise typer.BadParameter("Standard output is used for the result.", param_hint="--output")
