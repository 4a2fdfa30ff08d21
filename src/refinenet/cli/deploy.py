"""The command `refinenet deploy`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from enum import Flag, StrEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from refinenet.cli.image_reports import ImageReport, json_lines_to
from refinenet.cli.options import (
    STANDARD,
    AbstainBelow,
    AsJson,
    Backend,
    Bands,
    Device,
    Model,
    Precision,
    ValueRange,
    complain,
    default_model_notice,
    read_bands,
    read_size,
    read_value_range,
    refuse_idle_options,
)
from refinenet.inference.output_kinds import OUTPUT_KINDS, OUTPUTS, POLYGONS
from refinenet.io.console import check_output, progress_bar, say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from refinenet.api import RefineNet
    from refinenet.deployment.files import FileResult
    from refinenet.deployment.inputs import JobList
    from refinenet.deployment.large_images import Windows
    from refinenet.deployment.ray.journal import RayResult
    from refinenet.inference.output_kinds import Output
    from refinenet.inference.segmentation import Segmentation


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
if TYPE_CHECKING:
    KindName = str
else:
    KindName = StrEnum(
        "KindName", {name.upper(): name for name in (*_KINDS[:_POLYGONS_AT], POLYGONS, *_KINDS[_POLYGONS_AT:])}
    )
    """What can be written; see `OUTPUT_KINDS`."""


def _describe_kinds() -> str:
    remarks = {kind: OUTPUT_KINDS[kind].remark for kind in _KINDS}
    return ", ".join(f"{kind} ({remark})" if remark else kind for kind, remark in remarks.items())


def deploy(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders, quoted patterns, @LIST (a text file that lists them), or - for standard input; "
            "or one video, stream or camera:0.",
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
            "Default: NAME_KIND.png next to a single image, NAME_KIND.mp4 next to a video, the folder segmented for "
            "several images.",
        ),
        ALL,
    ] = None,
    model: Annotated[Model, ALL] = "camvid",
    kind: Annotated[
        list[KindName] | None,
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            help=f"What to write: {_describe_kinds()}, or {POLYGONS} (both). May be repeated; each kind then gets a "
            "folder of that name.",
        ),
        ALL,
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
            help="Segment all images in windows of this size, such as 1024x1024, in bounded memory. Default: 768x768, "
            "for images too large for memory and for .tif output.",
        ),
        Mode.FILES,
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Minimum overlap of windows, as a share of their side; implies windows for all images. 0.75 makes "
            "labels almost independent of window positions, 0.5 is four times as fast. Default: 0.75.",
        ),
        Mode.FILES,
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(
            help="Time limit per image in milliseconds, from decoded image to labels. Backend, precision and scale "
            "are chosen by timing them on the first image; the loss in accuracy is reported.",
        ),
        Mode.FILES | Mode.STDIN,
    ] = None,
    abstain_below: Annotated[AbstainBelow, ALL & ~Mode.RAY] = 0.0,
    bands: Annotated[Bands, IMAGES] = None,
    value_range: Annotated[ValueRange, IMAGES] = None,
    device: Annotated[Device, ALL] = None,
    backend: Annotated[Backend, ALL] = "auto",
    precision: Annotated[Precision, ALL] = "float32",
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            metavar="ENGINE",
            help="local, or ray: use all machines of a cluster (RAY_ADDRESS), or several processes on this machine.",
        ),
        ALL,
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Ray workers, each with a copy of the network. Default: one per GPU or two cores."),
        Mode.RAY,
    ] = None,
    as_json: Annotated[AsJson, WITH_REPORT] = False,
    json_lines: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write one line of JSON per image to a file, or - for standard output."),
        Mode.FILES | Mode.STDIN,
    ] = None,
) -> None:
    """Segment images or a video and write the results. An interrupted run continues where it stopped."""
    request = Request(
        images=images,
        output=output,
        kinds=[str(name) for name in kind or []],
        network={"model": model, "device": device, "backend": backend, "precision": precision},
        as_json=as_json,
        announce=default_model_notice(context, model),
    )
    reading: dict[str, Any] = {"bands": read_bands(bands), "value_range": read_value_range(value_range)}
    if engine == "ray":
        _refuse_others(context, Mode.RAY, "--engine", "Ray does not support all options")
        _deploy_with_ray(request, recursive=recursive, workers=workers, **reading)
        return
    if workers is not None:
        raise typer.BadParameter("Workers need --engine ray.", param_hint="--workers")
    if _has_video(images):
        _refuse_others(context, Mode.VIDEO, "IMAGES", "A video is segmented frame by frame")
        _deploy_video(request, abstain_below=abstain_below, overwrite=overwrite)
        return
    _check_lines(json_lines)
    _check_latency(max_latency)
    _check_pipes(images, output, as_json or json_lines == STANDARD)
    if output == STANDARD:
        _refuse_others(context, Mode.STDOUT, "--output", "Standard output receives the result of one image")
        _write_to_standard_output(request, abstain_below=abstain_below, **reading)
        return
    if images == [STANDARD]:
        _refuse_others(context, Mode.STDIN, "IMAGES", "Standard input is read as one image")
    windows = _read_windows(window, overlap)
    limits = {"windows": windows, "max_latency_ms": max_latency, "abstain_below": abstain_below}
    _deploy_files(request, json_lines, recursive=recursive, overwrite=overwrite, **limits, **reading)


def _refuse_others(context: typer.Context, mode: Mode, beside: str, why: str) -> None:
    refuse_idle_options(context, options_of(deploy, mode), beside, why)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Arguments that all modes of `deploy` share."""

    images: list[str]
    """Files, folders, patterns and lists, or URIs for Ray."""
    output: str | None
    kinds: list[str]
    network: Mapping[str, Any]
    """Arguments of `RefineNet`: model, device, backend, precision."""
    as_json: bool
    """Whether to print JSON and no progress."""
    announce: Callable[[], None]
    """Reports the model in use; called with the first result."""

    def open_network(self) -> RefineNet:
        """Open the network; see `RefineNet` for errors."""
        from refinenet.api import RefineNet

        return RefineNet(**self.network)

    def single_kind(self, where: str) -> Output | None:
        """Return the one picture to write, or None for the default.

        Args:
            where: The mode, to begin the error message with.

        Raises:
            ValueError: several kinds were chosen, or one that is not a picture.
        """
        kind = next((picture for picture in OUTPUTS if [picture] == self.kinds), None)
        if self.kinds and kind is None:
            raise ValueError(
                f"{where}, --kind must be exactly one of {', '.join(OUTPUTS)}, not {', '.join(self.kinds)}."
            )
        return kind


def _deploy_with_ray(request: Request, *, recursive: bool, workers: int | None, **reading: Any) -> None:
    """Segment images with Ray and report the results, failures last.

    Args:
        request: What to segment.
        recursive: Whether to include subfolders.
        workers: How many processes hold the network; by default one for each GPU, or for two cores.
        reading: Bands and value range, as for `segment_with_ray`.

    Raises:
        ValueError: some images could not be segmented, or as `segment_with_ray`.
    """
    from refinenet.deployment.ray.engine import segment_with_ray
    from refinenet.deployment.ray.journal import failed
    from refinenet.deployment.ray.storage import find_skipped, pair_places
    from refinenet.inference.backends import choose_backend
    from refinenet.models.factory import choose_device

    kind, network = request.single_kind("With Ray"), request.network
    device_type = choose_device(network["device"]).type
    backend = choose_backend(network["backend"], device_type, network["precision"])
    settings: dict[str, Any] = {**network, **reading, "backend": backend}
    pairs, folder = pair_places(request.images, request.output, recursive=recursive)
    skipped = find_skipped(request.images, request.output, recursive=recursive)
    results: list[RayResult] = [failed(place, str(folder), problem) for place, problem in skipped.items()]
    # Ray reports dead processes on standard output, which is reserved for results.
    with redirect_stdout(sys.stderr), progress_bar(not request.as_json) as bar:
        task = bar.add_task("segment", total=len(pairs), status="")
        for result in segment_with_ray(pairs, record=folder, kind=kind, workers=workers, **settings):
            if result.error is None:
                request.announce()
            results.append(result)
            bar.update(task, advance=1)
    _report_ray(results, folder, as_json=request.as_json)


def _report_ray(results: Sequence[RayResult], folder: str | None, *, as_json: bool) -> None:
    failed = [result for result in results if result.error is not None]
    new = sum(result.is_new for result in results) - len(failed)
    old = len(results) - new - len(failed)
    if as_json:
        say([result.to_dict() for result in results])
    else:
        text = f"{new} of {len(results)} images segmented"
        text += f", {old} were already done, with the same model and settings" if old else ""
        say(f"{text}: {folder or results[0].output}.")
    for result in failed:
        complain(str(result.error))
    if failed:
        raise ValueError(f"{len(failed)} of {len(results)} images could not be segmented.")


def _has_video(sources: Sequence[str]) -> bool:
    from refinenet.deployment.video.reader import is_video

    return any(is_video(source) for source in sources)


def _deploy_video(request: Request, *, abstain_below: float, overwrite: bool) -> None:
    """Segment one video and report what was written.

    Args:
        request: The video, and where its result goes; by default, for a file, `NAME_overlay.mp4` (or another kind's
            name) next to it.
        abstain_below: As for `RefineNet.segment`.
        overwrite: Whether to replace an existing video that `--output` does not name.

    Raises:
        ValueError, OSError: as `RefineNet.deploy_video`, or there are several inputs.
    """
    from refinenet.deployment.video.runner import choose_output, plan_output, segment_video
    from refinenet.io.files import refuse_to_replace

    video, *others = request.images
    if others:
        raise ValueError(f"Pass a single video and no other inputs: {', '.join(request.images)}.")
    kind = request.single_kind("For a video")
    target = Path(request.output) if request.output else choose_output(video, kind)
    if not (request.output or overwrite):
        refuse_to_replace([target])
    plan_output(video, target, kind)  # fail before the model is loaded
    model = request.open_network()

    def segment(frame: npt.NDArray[np.uint8]) -> Segmentation:
        request.announce()
        return model.segment(frame, channel_order="rgb", abstain_below=abstain_below)

    result = segment_video(segment, video, target, kind, progress=not request.as_json)
    if request.as_json:
        say({key: str(value) if isinstance(value, Path) else value for key, value in asdict(result).items()})
    else:
        say(result.describe())


def _deploy_files(
    request: Request, json_lines: str | None, *, recursive: bool, overwrite: bool, **options: Any
) -> None:
    """Segment image files, report each, and count failures; `options` are those of `RefineNet.deploy_work`."""
    from refinenet.deployment.files import take_all

    as_json = request.as_json
    work = _plan(request, recursive)
    count = len(work.items)
    report = ImageReport(is_silent=as_json or json_lines == STANDARD, collects=as_json)
    with json_lines_to(json_lines, work) as write_line:

        def take(result: FileResult) -> None:
            if result.error is not None and count == 1:  # the error itself, not "1 of 1 images could not ..."
                raise result.error
            if result.error is None and not as_json:  # JSON is printed at the end, and so is the notice
                request.announce()
            report.add(result)
            write_line(result)

        results = request.open_network().deploy_work(work, overwrite, progress=not as_json, **options)
        take_all(results, count, take, progress=not as_json)
    request.announce()
    report.finish(count)


def _plan(request: Request, recursive: bool) -> JobList:
    from refinenet.deployment.inputs import plan_bytes, plan_work

    output, kinds = request.output, request.kinds
    if request.images == [STANDARD]:
        return plan_bytes(sys.stdin.buffer.read(), Path(str(output)), kinds)
    return plan_work(request.images, Path(output) if output else None, kinds, recursive=recursive)


def _check_latency(milliseconds: float | None) -> None:
    if milliseconds is not None and not milliseconds > 0:
        raise typer.BadParameter(
            f"The time limit must be a number of milliseconds above 0, not {milliseconds}.", param_hint="--max-latency"
        )


def _check_lines(json_lines: str | None) -> None:
    if json_lines in (None, STANDARD):
        return
    if Path(str(json_lines)).suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        raise typer.BadParameter(
            f"The file name must end in .jsonl, .ndjson or .json, not {json_lines!r}.",
            param_hint="--json-lines",
        )


def _read_windows(window: str | None, overlap: float | None) -> Windows | None:
    from refinenet.deployment.large_images import OVERLAP, Windows

    if window is None and overlap is None:
        return None
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


def _write_to_standard_output(request: Request, **options: Any) -> None:
    """Segment one image and write the bytes of its result; `options` are those of `RefineNet.segment`."""
    from refinenet.deployment.outputs import choose_kinds, render, usual_suffix

    chosen = choose_kinds(request.kinds) or ("labels",)
    if len(chosen) > 1:
        raise ValueError(f"Only one kind of result can be written to standard output, not {', '.join(chosen)}.")
    check_output(is_result=True)
    network = request.open_network()
    image = request.images[0]
    segmentation = network.segment(sys.stdin.buffer.read() if image == STANDARD else image, **options)
    request.announce()
    sys.stdout.buffer.write(render(segmentation, chosen[0], usual_suffix(chosen[0]), Path(image).name))
    check_output(is_result=True)
