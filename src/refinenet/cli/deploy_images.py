"""The runs of `refinenet deploy` over image files, and over one image to standard output, and what they report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from refinenet.cli.deploy_runs import Request
from refinenet.cli.options import STANDARD, complain
from refinenet.io.console import check_output, describe_error, print_note, say
from refinenet.io.files import quote_controls
from refinenet.outputs import CLASSES

if TYPE_CHECKING:
    from refinenet.api import RefineNet
    from refinenet.deployment.file_results import FileResult
    from refinenet.deployment.inputs import JobList
    from refinenet.inference.output_kinds import Kind
    from refinenet.models.files.model_card import ModelCard

_LISTED = 4
"""Largest number of classes in the line of an image."""


def deploy_files(
    request: Request,
    json_lines: str | None,
    table: str | None,
    *,
    recursive: bool,
    overwrite: bool,
    rendering: Mapping[str, Any],
    **options: Any,
) -> None:
    """Segment image files, report each, and count failures.

    Args:
        request: The images, or standard input, and where results go.
        json_lines: File for a line of JSON for each image, or "-" for standard output; None for none.
        table: File for the table of areas; None for none.
        recursive: Whether to include subfolders.
        overwrite: Whether to replace existing results.
        rendering: As for `RefineNet.deploy`.
        options: Other options of `RefineNet.deploy_work`.

    Raises:
        ValueError, OSError: an image could not be segmented, or as `RefineNet.deploy_work`.
    """
    from refinenet.deployment.files import take_all

    as_json = request.as_json
    content = sys.stdin.buffer.read() if request.images == [STANDARD] else None
    work, network = _open(request, recursive, content, rendering, overwrite)
    areas = None if table is None else network.open_table(table)
    count = len(work.items)
    report = ImageReport(is_silent=as_json or json_lines == STANDARD, collects=as_json)
    with nullcontext() if json_lines is None else json_lines_to(json_lines, work) as write_line:

        def take(result: FileResult) -> None:
            if result.error is not None and count == 1:  # the error itself, not "1 of 1 images could not ..."
                raise result.error
            if result.error is None and not as_json:  # JSON is printed at the end, and so is the notice
                request.announce()
            report.add(result)
            if write_line is not None:
                write_line(result)
            if areas is not None:
                areas.add(result)

        options["measures_areas"] = areas is not None
        results = network.deploy_work(work, overwrite, progress=not as_json, **options, **rendering)
        take_all(results, count, take, progress=not as_json)
    written = [] if json_lines in (None, STANDARD) else [json_lines]
    written += [] if areas is None else [str(areas.write())]
    request.announce()
    for path in written:
        print_note(f"Wrote {path}.", enabled=not as_json)
    report.finish(count)


def _open(
    request: Request, recursive: bool, content: bytes | None, rendering: Mapping[str, Any], overwrite: bool
) -> tuple[JobList, RefineNet]:
    """Plan the jobs, check them by the model's header, and open the network, which takes seconds, last."""
    from refinenet.api import RefineNet
    from refinenet.deployment.files import check_work
    from refinenet.deployment.image_search import refuse_missing
    from refinenet.inference.values.subject import RenderOptions, usual_kind
    from refinenet.io.images.band_images import ARRAY_SUFFIX
    from refinenet.models.files.model_card import read_card

    if content is None:
        refuse_missing(request.images)
    card = read_card(request.network["model"])
    work = _plan(request, recursive, content, card)
    if card is not None:
        check_work(work, card, RenderOptions.from_dict(rendering), overwrite=overwrite)
        return work, RefineNet(**request.network)
    network = RefineNet(**request.network)
    may_have_bands = any(item.parts or item.source.suffix.lower() == ARRAY_SUFFIX for item in work.items)
    if may_have_bands or (not request.kinds and usual_kind(network.outputs) is not None):
        work = _plan(request, recursive, content, network.card)
    return work, network


def _plan(request: Request, recursive: bool, content: bytes | None, card: ModelCard | None) -> JobList:
    """Plan the jobs; the model says what is written if the user chooses nothing, and whether arrays are images."""
    from refinenet.deployment.inputs import plan_bytes, plan_work

    output, kinds = request.output, request.kinds
    outputs = (CLASSES,) if card is None else card.architecture.outputs
    if content is not None:
        return plan_bytes(content, Path(str(output)), kinds, outputs)
    arrays = card is None or bool(card.architecture.bands)
    target = Path(output) if output else None
    options: dict[str, Any] = {"outputs": outputs, "arrays": arrays, "suffix": request.suffix}
    return plan_work(request.images, target, kinds, recursive=recursive, **options)


def _refuse_rendering(card: ModelCard, kind: Kind, suffix: str, rendering: Mapping[str, Any]) -> None:
    """Refuse, before a model is loaded, what its renderer of a kind would refuse.

    Args:
        card: Card of the model.
        kind: Kind of the result.
        suffix: Suffix of its file.
        rendering: As for `RefineNet.deploy`.

    Raises:
        ValueError: the model cannot write the kind, or an option is invalid or has no effect.
    """
    from refinenet.inference.rendering import open_renderer, refuse_idle
    from refinenet.inference.values.subject import RenderOptions

    options = RenderOptions.from_dict(rendering)
    refuse_idle(options, [open_renderer(kind, suffix, card.architecture.outputs, card.label_set, options)])


def write_to_standard_output(request: Request, rendering: Mapping[str, Any], **options: Any) -> None:
    """Predict for one image and write the bytes of its result to standard output.

    Args:
        request: The image, or standard input, and at most one kind of result.
        rendering: As for `RefineNet.deploy`.
        options: Options of `RefineNet.predict`.

    Raises:
        ValueError, OSError: several kinds were chosen, or as `RefineNet.predict`.
    """
    from refinenet.api import RefineNet
    from refinenet.deployment.inputs import choose_kinds, usual_suffix
    from refinenet.inference.values.subject import usual_kind
    from refinenet.models.files.model_card import read_card

    chosen = choose_kinds(request.kinds)
    if len(chosen) > 1:
        raise ValueError(f"Only one kind of result can be written to standard output, not {', '.join(chosen)}.")
    check_output(is_result=True)
    kind = chosen[0] if chosen else None
    card = read_card(request.network["model"])
    if card is not None:
        kind = kind or usual_kind(card.architecture.outputs) or "labels"
        _refuse_rendering(card, kind, usual_suffix(kind), rendering)
    network = RefineNet(**request.network)
    kind = kind or usual_kind(network.outputs) or "labels"
    renderer = network.open_renderer(kind, usual_suffix(kind), **rendering)
    image = request.images[0]
    prediction = network.predict(sys.stdin.buffer.read() if image == STANDARD else image, **options)
    request.announce()
    sys.stdout.buffer.write(renderer.encode(prediction, Path(image).name))
    check_output(is_result=True)


class ImageReport:
    """A printed line for each image, or JSON for all images at the end."""

    def __init__(self, *, is_silent: bool, collects: bool) -> None:
        self._is_silent = is_silent
        self._results: list[dict[str, Any]] | None = [] if collects else None
        self._failures = 0
        # A progress bar redirects standard output to print lines above itself. That is wanted on a terminal only:
        # lines for a file or a pipe go to the stream of before.
        self._stream = None if sys.stdout.isatty() else sys.stdout

    def add(self, result: FileResult) -> None:
        """Report an image."""
        if self._results is not None:
            self._results.append(result.to_dict())
        if result.error is not None:
            self._failures += 1
            complain(quote_controls(describe_error(result.error)))
        elif not self._is_silent:
            written = ", ".join(str(path) for path in result.outputs.values())
            existed = " (already done)" if result.was_there else ""
            areas = f": {_main_areas(result.areas)}" if result.areas else ""
            line = f"{result.image} -> {written}{existed}{areas}"
            print(quote_controls(line), file=self._stream)

    def finish(self, count: int) -> None:
        """Print collected results.

        Raises:
            ValueError: some images could not be segmented.
        """
        if self._results is not None:
            say(self._results)
        if self._failures:
            raise ValueError(f"{self._failures} of {count} images could not be segmented.")


@contextmanager
def json_lines_to(target: str, work: JobList) -> Iterator[Callable[[FileResult], object]]:
    """Yield a function that writes a result as a line of JSON at once."""
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
        raise ValueError(f"--json-lines {path}: this file is an input or output of the command. Choose another file.")
    with ExitStack() as stack:
        opened: list[TextIO] = []

        def write_line(result: FileResult) -> None:
            if not opened:  # opened late, so that a command that fails leaves an existing file as it is
                make_folders(path.parent)
                opened.append(stack.enter_context(path.open("w", encoding="utf-8")))
            print(json.dumps(result.to_dict()), file=opened[0], flush=True)

        yield write_line


def _main_areas(areas: Mapping[str, float]) -> str:
    shown = sorted((each for each in areas.items() if each[1] >= 0.005), key=lambda item: -item[1])
    words = [f"{name} {100 * area:.0f} %" for name, area in shown[:_LISTED]]
    if len(shown) > _LISTED:
        words.append(f"{len(shown) - _LISTED} more")
    return ", ".join(words)
