"""The command `refinenet deploy`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from refinenet.cli.options import (
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
    read_value_range,
    read_window,
    refuse_idle_options,
)
from refinenet.io.console import check_output, describe_error, progress_bar, say
from refinenet.io.files import quote_controls

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from refinenet.api import RefineNet
    from refinenet.deployment.files import FileResult
    from refinenet.deployment.inputs import JobList
    from refinenet.deployment.large_images import Windows
    from refinenet.deployment.ray.journal import RayResult
    from refinenet.inference.segmentation import Segmentation


Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(help="ray works on all machines of a cluster (RAY_ADDRESS), or in several processes of this one."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With ray: how many hold the network; by default one for each GPU, or two cores."),
]


def deploy_with_ray(
    images: Sequence[str],
    output: str | None,
    kinds: Sequence[str],
    arguments: Mapping[str, Any],
    *,
    recursive: bool,
    workers: int | None,
    as_json: bool,
    announce: Callable[[], None],
) -> None:
    """Segment images with Ray and tell what became of them, of those that failed at the end.

    Args:
        images: Files and folders, as paths or URIs.
        output: Where results go: a file for one image, a folder for several.
        kinds: Which picture to write; one, or none for the usual one.
        arguments: Of the network: model, device, backend, precision, as for `ray_engine.segment_with_ray`.
        recursive: Whether folders in folders are meant, too.
        workers: How many hold the network.
        as_json: Whether to tell it to a machine.
        announce: Called with each result, to say which model is used.

    Raises:
        ValueError: some images could not be segmented, or as `segment_with_ray`.
    """
    from refinenet.deployment.ray.engine import segment_with_ray
    from refinenet.deployment.ray.journal import failed
    from refinenet.deployment.ray.storage import find_skipped, pair_places
    from refinenet.inference.backends import choose_backend
    from refinenet.inference.segmentation import OUTPUTS
    from refinenet.models.factory import choose_device

    kind = next((picture for picture in OUTPUTS if [picture] == list(kinds)), None)
    if kinds and kind is None:
        raise ValueError(f"With Ray, --kind is one of {', '.join(OUTPUTS)}, once, not {', '.join(kinds)}.")
    on = choose_device(arguments["device"]).type
    backend = choose_backend(arguments["backend"], on, arguments["precision"])
    settings: dict[str, Any] = {**arguments, "backend": backend}
    pairs, folder = pair_places(images, output, recursive=recursive)
    skipped = find_skipped(images, output, recursive=recursive)
    results: list[RayResult] = [failed(place, str(folder), problem) for place, problem in skipped.items()]
    # Ray tells of processes that died on standard output, which is for what was asked for.
    with redirect_stdout(sys.stderr), progress_bar(not as_json) as bar:
        task = bar.add_task("segment", total=len(pairs), status="")
        for result in segment_with_ray(pairs, record=folder, kind=kind, workers=workers, **settings):
            if result.error is None:
                announce()
            results.append(result)
            bar.update(task, advance=1)
    _tell(results, folder, as_json=as_json)


def _tell(results: Sequence[RayResult], folder: str | None, *, as_json: bool) -> None:
    failed = [result for result in results if result.error is not None]
    new = sum(result.is_new for result in results) - len(failed)
    old = len(results) - new - len(failed)
    if as_json:
        say([result.to_dict() for result in results])
    else:
        text = f"{new} of {len(results)} images segmented"
        text += f", {old} were done before, by the same model and settings" if old else ""
        say(f"{text}: {folder or results[0].output}.")
    for result in failed:
        complain(str(result.error))
    if failed:
        raise ValueError(f"{len(failed)} of {len(results)} images could not be segmented.")


def has_video(sources: Sequence[str]) -> bool:
    """Whether one of them is taken for a video, a stream or a camera."""
    from refinenet.deployment.video.reader import is_video

    return any(is_video(source) for source in sources)


def deploy_video(
    sources: Sequence[str],
    output: str | None,
    kinds: Sequence[str],
    network: Mapping[str, Any],
    *,
    abstain_below: float,
    overwrite: bool,
    as_json: bool,
    announce: Callable[[], None],
) -> None:
    """Segment one video and say what was written.

    Args:
        sources: The video, alone.
        output: As for `RefineNet.deploy_video`; by default, for a file, `NAME_overlay.mp4` (or the kind's name) beside
            it.
        kinds: Which picture of each frame; one, or none for the usual one.
        network: Arguments for `RefineNet`.
        abstain_below: As for `RefineNet.segment`.
        overwrite: Whether a video may be replaced whose name nobody said.
        as_json: Whether to print for machines, and no progress.
        announce: Called with the first frame, to say which model is used.

    Raises:
        ValueError, OSError: as `RefineNet.deploy_video`, or several sources.
    """
    from refinenet.deployment.video.runner import choose_output, plan_output, segment_video
    from refinenet.inference.segmentation import OUTPUTS
    from refinenet.io.files import refuse_to_replace

    if len(sources) > 1:
        raise ValueError(f"One video at a time, and without images beside it: {', '.join(map(str, sources))}.")
    kind = next((picture for picture in OUTPUTS if [picture] == list(kinds)), None)
    if kinds and kind is None:
        raise ValueError(f"Of a video, --kind is one of {', '.join(OUTPUTS)}, once, not {', '.join(kinds)}.")
    target = Path(output) if output else choose_output(sources[0], kind)
    if not (output or overwrite):
        refuse_to_replace([target])
    plan_output(sources[0], target, kind)  # what is wrong with it is said before the model is loaded
    from refinenet.api import RefineNet

    model = RefineNet(**network)

    def segment(frame: npt.NDArray[np.uint8]) -> Segmentation:
        announce()
        return model.segment(frame, channel_order="rgb", abstain_below=abstain_below)

    result = segment_video(segment, sources[0], target, kind, progress=not as_json)
    if as_json:
        say({key: str(value) if isinstance(value, Path) else value for key, value in asdict(result).items()})
    else:
        say(result.describe())


STANDARD = "-"
_NETWORK = {"images", "output", "model", "kind", "device", "backend", "precision"}
_OF_RAY = _NETWORK | {"recursive", "engine", "workers", "as_json"}
_OF_VIDEO = _NETWORK | {"engine", "as_json", "abstain_below", "overwrite"}
_OF_INPUT = _NETWORK | {"engine", "as_json", "json_lines", "max_latency", "abstain_below", "bands", "value_range"}
_OF_PIPE = _NETWORK | {"engine", "abstain_below", "bands", "value_range"}


class KindName(StrEnum):
    """What can be written; see `sinks.KINDS`."""

    LABELS = "labels"
    PALETTE = "palette"
    COLOUR = "colour"
    OVERLAY = "overlay"
    CONFIDENCE = "confidence"
    PROBABILITIES = "probabilities"
    POLYGONS = "polygons"
    COCO = "coco"
    GEOJSON = "geojson"


def deploy(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders, patterns in quotes, @LIST (a text file of them), or - for standard input; or "
            "one video, stream or camera:0.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for one image (- for standard output) or video (.mp4, ...), a folder for several images. By "
            "default NAME_KIND.png beside one image, NAME_KIND.mp4 beside a video, the folder segmented for several.",
        ),
    ] = None,
    model: Model = "camvid",
    kind: Annotated[
        list[KindName] | None,
        typer.Option(
            "--kind",
            "-k",
            help="What to write, by default labels in .png, colour in .jpg; several times for several, each in a "
            "folder of its name. probabilities are .npz, polygons coco and geojson.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders in folders, too.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make results anew, and replace what is in the way.")
    ] = False,
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
            help="Least share that windows overlap by, in which all images are seen then; at 0.75 labels hardly depend "
            "on where they begin, 0.5 is four times as fast. [default: 0.75]"
        ),
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(
            help="Milliseconds that an image may take from memory to labels; backend, precision and scale are chosen "
            "by measuring them on the first image, and what that costs is said."
        ),
    ] = None,
    abstain_below: AbstainBelow = 0.0,
    bands: Bands = None,
    value_range: ValueRange = None,
    device: Device = None,
    backend: Backend = "auto",
    precision: Precision = "float32",
    engine: Engine = "local",
    workers: Workers = None,
    as_json: AsJson = False,
    json_lines: Annotated[
        str | None, typer.Option(help="A file for a line of JSON for each image, or - for standard output.")
    ] = None,
) -> None:
    """Segment images or a video and write the results; what a stopped run has written already is not made again."""
    kinds = [str(name) for name in kind or []]
    arguments = {"model": model, "device": device, "backend": backend, "precision": precision}
    announce = default_model_notice(context, model)
    if engine == "ray":
        refuse_idle_options(context, _OF_RAY, "--engine", "With Ray this works otherwise")
        deploy_with_ray(
            images, output, kinds, arguments, recursive=recursive, workers=workers, as_json=as_json, announce=announce
        )
        return
    if workers is not None:
        raise typer.BadParameter("Workers are Ray's: add --engine ray.", param_hint="--workers")
    if has_video(images):
        refuse_idle_options(context, _OF_VIDEO, "IMAGES", "A video is segmented frame by frame")
        deploy_video(
            images,
            output,
            kinds,
            arguments,
            abstain_below=abstain_below,
            overwrite=overwrite,
            as_json=as_json,
            announce=announce,
        )
        return
    reading: dict[str, Any] = {"bands": read_bands(bands), "value_range": read_value_range(value_range)}
    _check_lines(json_lines)
    _check_latency(max_latency)
    _check_pipes(images, output, as_json or json_lines == STANDARD)
    if output == STANDARD:
        refuse_idle_options(context, _OF_PIPE, "--output", "Standard output takes the result of one image")
        _write_to_standard_output(images[0], kinds, arguments, abstain_below, reading, announce)
        return
    if images == [STANDARD]:
        refuse_idle_options(context, _OF_INPUT, "IMAGES", "Standard input is one image, read as a whole")
    windows = _read_windows(window, overlap)
    from refinenet.deployment.files import take_all

    work = _plan(images, output, kinds, recursive)
    teller = _Teller(is_silent=as_json or json_lines == STANDARD, keeps=as_json)
    with _lines_to(json_lines, work) as write_line:

        def take(result: FileResult) -> None:
            if result.error is not None and len(work.items) == 1:
                raise result.error
            if result.error is None and not as_json:  # for machines at the end, as all else
                announce()
            teller.tell(result)
            write_line(result)

        results = _make(arguments).deploy_work(
            work, overwrite, windows, max_latency, abstain_below, progress=not as_json, **reading
        )
        take_all(results, len(work.items), take, progress=not as_json)
    announce()
    teller.finish(len(work.items))


def _plan(images: list[str], output: str | None, kinds: list[str], recursive: bool) -> JobList:
    from refinenet.deployment.inputs import plan_bytes, plan_work

    if images == [STANDARD]:
        return plan_bytes(sys.stdin.buffer.read(), Path(str(output)), kinds)
    return plan_work(images, Path(output) if output else None, kinds, recursive=recursive)


def _check_latency(milliseconds: float | None) -> None:
    if milliseconds is not None and not milliseconds > 0:
        raise typer.BadParameter(f"Milliseconds above 0, not {milliseconds}.", param_hint="--max-latency")


def _check_lines(json_lines: str | None) -> None:
    if json_lines in (None, STANDARD):
        return
    if Path(str(json_lines)).suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        raise typer.BadParameter(
            f"A file of lines of JSON ends in .jsonl, .ndjson or .json, unlike {json_lines!r}.",
            param_hint="--json-lines",
        )


def _read_windows(window: str | None, overlap: float | None) -> Windows | None:
    from refinenet.deployment.large_images import OVERLAP, Windows

    if window is None and overlap is None:
        return None
    size = None if window is None else read_window(window)
    return Windows(size=size, overlap=OVERLAP if overlap is None else overlap)


class _Teller:
    """What is said of each image: a line, or for machines all at the end."""

    def __init__(self, *, is_silent: bool, keeps: bool) -> None:
        self._is_silent = is_silent
        self._reports: list[dict[str, Any]] | None = [] if keeps else None
        self._failures = 0
        # A progress bar takes standard output over, to show lines above itself: only those that go to the terminal.
        self._stream = None if sys.stdout.isatty() else sys.stdout

    def tell(self, result: FileResult) -> None:
        if self._reports is not None:
            self._reports.append(result.to_dict())
        if result.error is not None:
            self._failures += 1
            complain(quote_controls(describe_error(result.error)))
        elif not self._is_silent:
            made = ", ".join(str(path) for path in result.outputs.values())
            known = " (was there)" if result.was_there else ""
            line = f"{result.image} -> {made}{known}: {_main_areas(result.areas)}"
            print(quote_controls(line), file=self._stream)

    def finish(self, count: int) -> None:
        """Say the rest.

        Raises:
            ValueError: there were images that could not be segmented.
        """
        if self._reports is not None:
            say(self._reports)
        if self._failures:
            raise ValueError(f"{self._failures} of {count} images could not be segmented.")


@contextmanager
def _lines_to(target: str | None, work: JobList) -> Iterator[Callable[[FileResult], object]]:
    """How to write a line of JSON for a result as soon as it is known."""
    if target is None:
        yield lambda _: None
        return
    if target == STANDARD:
        stream = sys.stdout
        yield lambda result: print(json.dumps(result.to_dict()), file=stream, flush=True)
        return
    from refinenet.deployment.journal import JOURNAL_FILE, SETTINGS_FILE
    from refinenet.io.files import is_same_file, make_folders

    path = Path(target)
    used = [file for item in work.items for file in (item.source, *item.targets.values())]
    used += [work.folder / own for own in (SETTINGS_FILE, JOURNAL_FILE)] if work.folder is not None else []
    if any(is_same_file(file, path) for file in used):
        raise ValueError(f"--json-lines {path}: this command reads or writes that file itself. Name another one.")
    with ExitStack() as stack:
        opened: list[TextIO] = []

        def write_line(result: FileResult) -> None:
            if not opened:  # not before there is something to write: a command that fails leaves an older file as it is
                make_folders(path.parent)
                opened.append(stack.enter_context(path.open("w", encoding="utf-8")))
            print(json.dumps(result.to_dict()), file=opened[0], flush=True)

        yield write_line


def _check_pipes(images: list[str], output: str | None, prints: bool) -> None:
    """Refuse what standard input and output cannot be used for."""
    if STANDARD in images and output is None:
        raise typer.BadParameter("Say where the result goes: a file, or - for standard output.", param_hint="--output")
    if (STANDARD in images or output == STANDARD) and len(images) > 1:
        raise typer.BadParameter("Standard input and output are for one image alone.", param_hint="IMAGES")
    if output == STANDARD and prints:
        raise typer.BadParameter("Standard output is taken by the result.", param_hint="--output")


def _write_to_standard_output(
    image: str,
    kinds: list[str],
    arguments: dict[str, Any],
    abstain_below: float,
    reading: dict[str, Any],
    announce: Callable[[], None],
) -> None:
    from refinenet.deployment.outputs import choose_kinds, render, usual_suffix

    chosen = choose_kinds(kinds) or ("labels",)
    if len(chosen) > 1:
        raise ValueError(f"Standard output takes one kind of result, not {', '.join(chosen)}.")
    check_output(is_result=True)
    network = _make(arguments)
    source = sys.stdin.buffer.read() if image == STANDARD else image
    found = network.segment(source, abstain_below=abstain_below, **reading)
    announce()
    sys.stdout.buffer.write(render(found, chosen[0], usual_suffix(chosen[0]), Path(image).name))
    check_output(is_result=True)


def _make(arguments: dict[str, Any]) -> RefineNet:
    from refinenet.api import RefineNet

    return RefineNet(**arguments)


def _main_areas(areas: Mapping[str, float]) -> str:
    largest = sorted(areas.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{name} {100 * area:.0f} %" for name, area in largest if area >= 0.005)
