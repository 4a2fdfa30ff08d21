"""Many images in one run: read ahead, write behind, skip bad files, and resume after an interruption.

`segment_files` is the entry point. The jobs come from `inputs.plan_work`, finished ones are recorded in the journal of
the results folder (`journal.py`).
"""

from __future__ import annotations

import time
import unicodedata
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from refinenet.datasets.band_reading import open_band_reader
from refinenet.deployment.file_results import DeployOptions, FileResult
from refinenet.deployment.image_search import BandParts
from refinenet.deployment.inputs import Job, JobList, skip
from refinenet.deployment.journal import (
    GREY,
    LABEL_FILES,
    FileState,
    Journal,
    check_settings,
    file_state,
    open_journal,
)
from refinenet.deployment.large_images import LargeSegmentation, Picture, Windows, refuse_files, segment_in_windows
from refinenet.deployment.latency_budget import LatencyTuner
from refinenet.deployment.pipeline import pipeline
from refinenet.inference.backends.base import BackendError
from refinenet.inference.connected_regions import count_regions
from refinenet.inference.output_kinds import Kind
from refinenet.inference.prediction import Prediction
from refinenet.inference.rendering import Renderer, open_renderer, refuse_idle
from refinenet.inference.segmenter import Segmenter
from refinenet.inference.values.subject import AS_USUAL, RenderOptions
from refinenet.io.console import format_speed, print_note, progress_bar
from refinenet.io.files import refuse_same_file, refuse_to_replace, sweep_leftovers_of, write_atomically
from refinenet.io.images.codec import read_image
from refinenet.io.images.image_files import TooLargeError
from refinenet.io.images.sample_values import Decoded, Note
from refinenet.io.processes.signals import StopRequest
from refinenet.io.raster.ground_area import read_pixel_area
from refinenet.io.raster.reader import is_installed, needs_windows
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.models.files.model_card import ModelCard
from refinenet.outputs import CLASSES


def segment_files(
    segmenter: Segmenter,
    work: JobList,
    options: DeployOptions,
    model_settings: Mapping[str, Any] | None = None,
    tuner: LatencyTuner | None = None,
) -> Generator[FileResult]:
    """Segment images and write the results; an image that fails is reported with its error and skipped.

    Files are read ahead and written behind in threads; results come in the order of the images and are computed as
    they are consumed. Closing the iterator waits for files that are being written. Notes on how images were read
    become `UserWarning`s, once for each kind of note.

    Args:
        segmenter: Segments the images.
        work: Jobs from `inputs.plan_work`.
        options: Settings for reading and segmenting.
        model_settings: What else the results depend on, as JSON-ready values for the journal.
        tuner: Chooses the segmenter for `options.max_latency_ms`.

    Raises:
        ValueError: the results in the folder were made with other settings, or a foreign file is in the way.
        OSError: the results folder cannot be used.
    """
    assert options.max_latency_ms is None or tuner is not None
    steps = _Steps(segmenter, options, tuner, is_single=len(work.items) == 1)
    _refuse_unwritable(work, options.rendering, steps.open_renderer)
    settings: dict[str, Any] = {}
    if work.folder is not None:
        settings = {**(model_settings or {}), **options.to_dict(), "kinds": list(work.kinds)}
        settings |= {LABEL_FILES: GREY} if "labels" in work.kinds else {}
        if segmenter.outputs != (CLASSES,):
            settings["outputs"] = [spec.to_dict() for spec in segmenter.outputs]
    return _segment_files(steps, work, settings)


def check_work(work: JobList, card: ModelCard, rendering: RenderOptions, *, overwrite: bool) -> None:
    """Refuse early, from the card of a model alone, what `segment_files` would refuse only later.

    Args:
        work: As for `segment_files`.
        card: Card of the model.
        rendering: Choices for the results.
        overwrite: Whether to replace existing results.

    Raises:
        ValueError: the model cannot write the results, an option has no effect, or the results in the folder were made
            by another model.
        FileExistsError: a file is in the way.
    """
    outputs, label_set = card.architecture.outputs, card.label_set
    _refuse_unwritable(work, rendering, lambda kind, suffix: open_renderer(kind, suffix, outputs, label_set, rendering))
    if overwrite:
        return
    if not work.is_named:
        refuse_to_replace(path for item in work.items for path in item.targets.values())
    if work.folder is not None and card.weights_sha256:
        check_settings(work.folder, {"model_sha256": card.weights_sha256, "label_set": label_set.to_dict()})


def _refuse_unwritable(work: JobList, rendering: RenderOptions, open_one: Callable[[Kind, str], Renderer]) -> None:
    """Refuse results that the model cannot write, and options without effect, before anything is read."""
    written = {(kind, path.suffix): None for item in work.items for kind, path in item.targets.items()}
    renderers = [open_one(*each) for each in written]
    if rendering != AS_USUAL:
        refuse_idle(rendering, renderers)


def _segment_files(steps: _Steps, work: JobList, settings: Mapping[str, Any]) -> Generator[FileResult]:
    overwrite, items = steps.options.overwrite, work.items
    if not (work.is_named or overwrite):
        refuse_to_replace(path for item in items for path in item.targets.values())
    opened = nullcontext() if work.folder is None else open_journal(work.folder, settings, overwrite=overwrite)
    with opened as journal:
        if journal is not None:
            items = steps.resume(journal, items)
            journal.begin()
            sweep_leftovers_of(path for item in items for path in item.targets.values())
            if journal.has_palettes:
                print_note(f"The label files in {work.folder} have a palette; new ones get one, too.")
        results: Generator[FileResult] = (
            (steps.write(steps.segment(steps.read(item))) for item in items)
            if len(items) == 1  # no other image to read ahead
            else pipeline(items, steps.read, steps.segment, steps.write)
        )
        with closing(results):
            yield from results
        if journal is not None:
            journal.finish()


def take_all(
    results: Generator[FileResult], count: int, take: Callable[[FileResult], object], *, progress: bool = True
) -> None:
    """Consume all results of `segment_files` under a progress bar.

    The first Ctrl-C or SIGTERM lets files that are being written finish.

    Args:
        results: Computed as they are consumed.
        count: Expected number of results.
        take: Called with each result.
        progress: Whether to show the bar, if standard error is a terminal.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        SystemExit: another signal asked to stop.
    """
    started, taken, made = time.perf_counter(), 0, 0
    with StopRequest() as interruption, progress_bar(progress and count > 1) as bar, closing(results):
        task = bar.add_task("Segmenting", total=count, status="", unit="images")
        for result in results:
            take(result)
            taken += 1
            made += not result.was_there
            if count > 1:
                rate = made / (time.perf_counter() - started)
                bar.update(task, advance=1, status=f"{format_speed(rate)} images/s")
            if interruption.asked_by is not None:
                break
    if interruption.asked_by is not None:
        print_note(f"Stopped with {taken} of {count} images done. Run the same command again to continue.")
        interruption.stop(interruption.asked_by)


@dataclass(kw_only=True)
class _InFlight:
    """An image on its way through the three steps."""

    item: Job
    state: FileState = field(default_factory=dict)
    seconds: float = 0.0
    image: Decoded | None = None
    prediction: Prediction | None = None
    large: LargeSegmentation | None = None
    is_large: bool = False
    result: FileResult | None = None


class _Steps:
    """Reading, segmenting and writing; each step passes on images that have a result already."""

    def __init__(
        self, segmenter: Segmenter, options: DeployOptions, tuner: LatencyTuner | None, *, is_single: bool
    ) -> None:
        self.options = options
        self._segmenter, self._tuner, self._is_single = segmenter, tuner, is_single
        self._journal: Journal | None = None
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._reported: set[str] = set()

    def resume(self, journal: Journal, items: Sequence[Job]) -> list[Job]:
        """Look up finished images in the journal, and skip images whose results cannot be written.

        Raises:
            ValueError: foreign files are in the way.
        """
        self._journal = journal
        first_of_name: dict[str, Job] = {}
        is_caseless = journal.is_caseless()
        prepared = []
        for item in items:
            problem = item.problem
            if problem is None and is_caseless:
                problem = _find_name_clash(item, first_of_name)
            try:
                entry = None if problem is not None else self._find_done(journal, item)
            except OSError as error:
                entry, problem = None, error
            if entry is not None:
                self._entries[item.place] = entry
            prepared.append(skip(item, problem))
        return prepared

    def _find_done(self, journal: Journal, item: Job) -> Mapping[str, Any] | None:
        entry = _find_entry(journal, item)
        lacks_regions = self.options.measures_areas and entry is not None and "regions" not in entry
        return None if lacks_regions else entry

    def read(self, item: Job) -> _InFlight:
        image = _InFlight(item=item)
        if item.problem is not None:
            image.result = FileResult(image=item.source, outputs={}, error=item.problem)
            return image
        entry = self._entries.get(item.place)
        if entry is not None:
            image.result = replace(_from_entry(item, entry), pixel_area=self._find_pixel_area(item))
            return image
        return _attempt(image, self._read)

    def segment(self, image: _InFlight) -> _InFlight:
        return image if image.result is not None else _attempt(image, self._segment)

    def write(self, image: _InFlight) -> FileResult:
        if image.result is None:
            _attempt(image, self._write)
        assert image.result is not None
        return image.result

    def _read(self, image: _InFlight) -> None:
        # Before reading: a file that is replaced meanwhile then differs from its journal entry, and is redone.
        if self._journal is not None:
            image.state = file_state(*image.item.files)
        if image.item.content is not None:
            image.image = read_image(image.item.content, reading=self.options.reading)
            return
        for target, file in product(image.item.targets.values(), image.item.files):
            refuse_same_file(file, target)
        if image.item.parts is not None:
            image.image = self._read_parts(image.item, image.item.parts)
            return
        image.is_large = self.options.windows is not None or _requires_windows(image.item)
        if image.is_large:
            return
        try:
            image.image = read_image(image.item.source, reading=self.options.reading)
        except TooLargeError:
            if not is_installed():
                raise
            image.is_large = True

    def _read_parts(self, item: Job, parts: BandParts) -> Decoded:
        reading, (dataset, name) = self.options.reading, parts
        if reading.bands is not None:
            raise ValueError(f"{item.source}: its bands are chosen by bands.yaml: leave bands (--bands) out.")
        if self.options.windows is not None or _requires_windows(item):
            raise ValueError(
                f"{item.source}: an image whose bands are in several files cannot be segmented in windows, which TIFF "
                "results need: stack its bands in one file, or write another type of result."
            )
        return open_band_reader(dataset, reading.model_bands)(name)

    def _segment(self, image: _InFlight) -> None:
        if image.is_large:
            self._segment_in_windows(image)
            return
        decoded, image.image = image.image, None
        assert decoded is not None
        self._report(decoded.notes)
        try:
            segmenter, limit = self._segmenter, self.options.max_latency_ms
            if self._tuner is not None and limit is not None:
                segmenter = self._tuner.within(decoded.pixels, limit).segmenter
            image.prediction = segmenter.predict_outputs(decoded.pixels, self.options.abstain_below, decoded.valid)
        except (RuntimeError, MemoryError) as error:  # PyTorch reports a full memory as RuntimeError
            reason = str(error).strip().partition("\n")[0] or "out of memory"
            raise ValueError(
                f"{image.item.source} cannot be segmented: {reason}. If it is too large for memory, segment it in "
                "windows (--window 512x512)."
            ) from error

    def _segment_in_windows(self, image: _InFlight) -> None:
        source, targets = image.item.source, image.item.targets
        refuse_files(source, [self.open_renderer(kind, path.suffix) for kind, path in targets.items()])
        if self.options.max_latency_ms is not None:
            raise ValueError(
                f"{source} is too large for memory, or its result is a TIFF, so it is segmented in windows, which "
                "takes time in proportion to its size: leave out max_latency_ms (--max-latency)."
            )
        if self._journal is not None:
            self._journal.clear_targets([*targets.values()])
        pictures = []
        for kind, path in targets.items():
            rendering = self.options.rendering.only(self.open_renderer(kind, path.suffix).options)
            pictures.append(Picture(path=path, kind=self._stored_as(kind), rendering=rendering))
        image.large = segment_in_windows(
            self._segmenter,
            source,
            pictures,
            self.options.windows or Windows(),
            self.options.abstain_below,
            self.options.reading,
            progress=self.options.progress and self._is_single,
        )
        self._report(image.large.notes)

    def open_renderer(self, kind: Kind, suffix: str) -> Renderer:
        """Open the renderer of a kind of files; see `rendering.open_renderer`."""
        segmenter = self._segmenter
        return open_renderer(kind, suffix, segmenter.outputs, segmenter.label_set, self.options.rendering)

    def _stored_as(self, kind: Kind) -> Kind:
        has_palettes = self._journal is not None and self._journal.has_palettes
        return "palette" if kind == "labels" and has_palettes else kind

    def _report(self, notes: Sequence[Note]) -> None:
        """Warn about how an image was read, once for each kind of note."""
        suffix = "" if self._is_single else " This is reported for the first such image only."
        for note in notes:
            if note.kind not in self._reported:
                self._reported.add(note.kind)
                warnings.warn(f"{note.text}{suffix}", stacklevel=2)

    def _write(self, image: _InFlight) -> None:
        started = time.perf_counter()
        if image.large is not None:
            (height, width), areas, no_data = image.large.size, image.large.areas, image.large.no_data
        else:
            assert image.prediction is not None
            if self._journal is not None:
                self._journal.clear_targets([*image.item.targets.values()])
            for kind, target in image.item.targets.items():
                renderer = self.open_renderer(self._stored_as(kind), target.suffix)
                write_atomically(target, renderer.encode(image.prediction, image.item.name))
            (height, width), areas = image.prediction.size, image.prediction.areas
            no_data = image.prediction.no_data
        result = FileResult(
            image=image.item.source,
            outputs=image.item.targets,
            width=width,
            height=height,
            areas=areas,
            no_data=no_data,
            seconds=image.seconds + time.perf_counter() - started,
            **(self._measure(image) if self.options.measures_areas else {}),
        )
        # The journal comes last: an entry promises that all files of the image are complete.
        if self._journal is not None:
            # None, too: regions of images in windows are not counted, and a later run shall not try again.
            facts: dict[str, Any] = {"regions": None} if self.options.measures_areas else {}
            facts |= {key: value for key, value in result.to_dict().items() if key in _JOURNAL_FIELDS}
            self._journal.append(image.item.place, image.item.source, image.state, facts)
        image.result = result

    def _measure(self, image: _InFlight) -> dict[str, Any]:
        """Return the regions of the classes and the ground area of a pixel."""
        found = None if image.prediction is None else image.prediction.segmentation
        regions = None if found is None else count_regions(found.labels, found.label_set)
        return {"regions": regions, "pixel_area": self._find_pixel_area(image.item)}

    def _find_pixel_area(self, item: Job) -> float | None:
        is_asked = self.options.measures_areas and item.content is None
        return read_pixel_area(item.source) if is_asked else None


def _find_name_clash(item: Job, first_of_name: dict[str, Job]) -> ValueError | None:
    """Return why to skip an image whose result differs from an earlier one only in case or Unicode normal form."""
    name = unicodedata.normalize("NFC", item.place.casefold())
    first = first_of_name.setdefault(name, item)
    if first is item:
        return None
    return ValueError(
        f"{item.source}: its result would overwrite that of {first.source}, since this file system treats the two "
        "names as the same. Rename one of them."
    )


def _requires_windows(item: Job) -> bool:
    """Return whether a result is TIFF, or the image is a TIFF file that can only be read in windows."""
    suffixes = {target.suffix.lower() for target in item.targets.values()}
    return bool(suffixes & set(TIFF_SUFFIXES)) or (
        item.source.suffix.lower() in TIFF_SUFFIXES and needs_windows(item.source)
    )


_JOURNAL_FIELDS = ("width", "height", "areas", "no_data", "seconds", "regions")


def _attempt(image: _InFlight, step: Callable[[_InFlight], None]) -> _InFlight:
    """Run a step; an error of the image becomes its result."""
    started = time.perf_counter()
    try:
        step(image)
    except BackendError:  # not the image's fault: every other image would fail, too
        raise
    except (ValueError, OSError) as error:
        image.result = FileResult(image=image.item.source, outputs={}, error=error)
    image.seconds += time.perf_counter() - started
    return image


def _find_entry(journal: Journal, item: Job) -> Mapping[str, Any] | None:
    entry = journal.find_done(item.place, item.source, list(item.targets.values()), item.files)
    if entry is None or not isinstance(entry.get("areas"), dict):
        return None
    numbers = [
        entry.get("width"),
        entry.get("height"),
        entry.get("seconds"),
        entry.get("no_data", 0.0),
        *entry["areas"].values(),
    ]
    regions = entry.get("regions")
    numbers += regions.values() if isinstance(regions, dict) else []
    return entry if all(isinstance(number, int | float) for number in numbers) else None


def _from_entry(item: Job, entry: Mapping[str, Any]) -> FileResult:
    facts = {key: entry[key] for key in _JOURNAL_FIELDS if key in entry}
    return FileResult(image=item.source, outputs=item.targets, was_there=True, **facts)
