"""Many images at once: reading ahead and writing behind, going past bad files, and going on after a stop.

What runs the network elsewhere shares the items of `work_plan` and a function from an image to its `Segmentation`.
"""

from __future__ import annotations

import time
import unicodedata
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from refinenet.deployment.inputs import Job, JobList, skip
from refinenet.deployment.journal import GREY, LABEL_FILES, FileState, FolderRecord, file_state, open_record
from refinenet.deployment.large_images import LargeSegmentation
from refinenet.deployment.outputs import Kind, write
from refinenet.inference.backends.base import BackendError
from refinenet.inference.segmentation import OUTPUTS, Output, Segmentation
from refinenet.io.console import describe_error, print_note, progress_bar
from refinenet.io.files import refuse_same_file, refuse_to_replace, sweep_leftovers_of
from refinenet.io.image_files import TooLargeError
from refinenet.io.raster import is_installed, needs_windows
from refinenet.io.raster_writer import TIFF_SUFFIXES
from refinenet.io.sample_values import Decoded, Note
from refinenet.io.signals import StopRequest

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Done = TypeVar("Done")
Result = TypeVar("Result")

READERS = 2
WRITERS = 2
AHEAD = 4
"""Items that at most are being read or wait to be worked on; memory stays bounded."""
BEHIND = 4
"""Results that at most are being written or wait for it."""


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Loaded],
    work: Callable[[Loaded], Done],
    write: Callable[[Done], Result],
) -> Generator[Result]:
    """`write(work(read(item)))` for each item, in order: `work` in this thread, the others beside it in threads.

    Who stops in the middle (closes the iterator) waits for what is being written; what was only read is dropped.

    Args:
        items: Taken as they are needed.
        read: What can be done ahead; it waits for files or frees the interpreter's lock, or nothing is won.
        work: The heavy part, one item after the other.
        write: What can be done behind; as `read`.

    Raises:
        Exception: what the functions raise.
    """
    remaining = iter(items)
    reading: deque[Future[Loaded]] = deque()
    writing: deque[Future[Result]] = deque()
    readers, writers = ThreadPoolExecutor(READERS, "read"), ThreadPoolExecutor(WRITERS, "write")

    def read_ahead() -> None:
        while len(reading) < AHEAD:
            for item in remaining:
                reading.append(readers.submit(read, item))
                break
            else:
                return

    try:
        read_ahead()
        while reading or writing:
            if reading:
                done = work(reading.popleft().result())
                read_ahead()
                writing.append(writers.submit(write, done))
                del done
            while writing and (len(writing) >= BEHIND or not reading or writing[0].done()):
                yield writing.popleft().result()
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown()


Read = Callable[[Path | bytes], Decoded]
"""From an image file or its bytes to its pixels."""
Segment = Callable[[Decoded], Segmentation]
"""From an image to its segmentation."""
SegmentLarge = Callable[[Path, Path, Output], LargeSegmentation]
"""From an image file to a picture file of one kind, in windows."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What is done with an image."""

    read: Read
    """It is called in a thread that reads ahead."""
    segment: Segment
    """It is called in the caller's thread."""
    segment_large: SegmentLarge
    """Takes files instead that are too large for memory, and those whose results are TIFF."""


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What became of one image."""

    image: Path
    outputs: Mapping[Kind, Path]
    """The files of its results, by their kinds; none where it could not be segmented or a result not be written."""
    error: ValueError | OSError | None = None
    """Why not; None where it worked."""
    was_there: bool = False
    """Whether the results were there, made from the same file by the same settings."""
    width: int = 0
    """Of the image, in pixels; 0 where there was an error."""
    height: int = 0
    areas: Mapping[str, float] = field(default_factory=dict)
    """Share of the image's pixels with data by class name, in [0, 1]."""
    no_data: float = 0.0
    """Share of the image's pixels without data, in [0, 1]; they have no class."""
    seconds: float = 0.0
    """What reading, segmenting and writing took, without waiting for each other."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values."""
        if self.error is not None:
            return {"image": str(self.image), "error": describe_error(self.error)}
        return {
            "image": str(self.image),
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
            "width": self.width,
            "height": self.height,
            "areas": dict(self.areas),
            **({"no_data": self.no_data} if self.no_data > 0 else {}),
            "seconds": round(self.seconds, 4),
            "was_there": self.was_there,
        }


def segment_files(
    steps: Steps,
    work: JobList,
    settings: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    always_large: bool = False,
) -> Generator[FileResult]:
    """Segment images and write the results; one that cannot be is reported with its error, and the next one follows.

    Files are read ahead and written behind in threads, results come in the order of the images. Work is done as
    results are taken; whoever closes the iterator waits for the files that are being written.

    Args:
        steps: What is done with an image. What is to be reported of how it was read becomes a `UserWarning`, once of
            each kind.
        work: As `work_plan.plan_work` gives it.
        settings: What results are made by, beside the kinds, for a folder's record; JSON-ready values.
        overwrite: Whether to make results anew that a folder has, and to replace what is not the command's.
        always_large: Whether `segment_large` takes all files.

    Raises:
        ValueError: a folder's results were made by other settings, or a file is in the way.
        OSError: the folder of results cannot be used.
    """
    if not (work.is_named or overwrite):
        refuse_to_replace(path for item in work.items for path in item.targets.values())
    noted = {**(settings or {}), "kinds": list(work.kinds)}
    noted |= {LABEL_FILES: GREY} if "labels" in work.kinds else {}
    held = nullcontext() if work.folder is None else open_record(work.folder, noted, overwrite=overwrite)
    with held as record:
        run, items = _Run(steps, record, always_large, len(work.items) > 1), work.items
        if record is not None:
            items = run.prepare(items)
            record.begin()
            sweep_leftovers_of(path for item in items for path in item.targets.values())
            if record.has_palettes:
                print_note(f"The label files in {work.folder} have a palette, and those that are added get one, too.")
        results = overlapped(items, run.read, run.segment, run.write)
        with closing(results):
            yield from results
        if record is not None:
            record.finish()


def take_all(
    results: Generator[FileResult], count: int, take: Callable[[FileResult], object], *, progress: bool = True
) -> None:
    """Take all results of `segment_files` under a progress bar.

    The first Ctrl-C or SIGTERM lets what is being written be finished.

    Args:
        results: They are made as they are taken.
        count: How many there will be.
        take: What to do with each.
        progress: Whether to show the bar, if standard error is a terminal.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        SystemExit: another signal asked to stop.
    """
    started, taken, made = time.perf_counter(), 0, 0
    with StopRequest() as interruption, progress_bar(progress and count > 1) as bar, closing(results):
        task = bar.add_task("segmenting", total=count, status="")
        for result in results:
            take(result)
            taken += 1
            made += not result.was_there
            rate = made / (time.perf_counter() - started)
            bar.update(task, advance=1, status=f"{rate:.1f} images/s")
            if interruption.asked_by is not None:
                break
    if interruption.asked_by is not None:
        print_note(f"Stopped with {taken} of {count} images done; the same command goes on from there.")
        interruption.stop(interruption.asked_by)


@dataclass(kw_only=True)
class _Job:
    """An image on its way through the three steps."""

    item: Job
    state: FileState = field(default_factory=dict)
    seconds: float = 0.0
    pixels: Decoded | None = None
    segmentation: Segmentation | None = None
    large: LargeSegmentation | None = None
    is_large: bool = False
    result: FileResult | None = None


class _Run:
    """The three steps, each of which passes on what is done already."""

    def __init__(self, steps: Steps, record: FolderRecord | None, always_large: bool, is_several: bool) -> None:
        self._steps, self._record = steps, record
        self._always_large = always_large
        self._reported: set[str] = set()
        self._once = " This is reported of the first such image only." if is_several else ""
        self._done: dict[str, Mapping[str, Any]] = {}

    def prepare(self, items: Sequence[Job]) -> list[Job]:
        """Find out what is done, and skip images whose results cannot be written.

        Raises:
            ValueError: files are in the way that are not results.
        """
        assert self._record is not None
        alike: dict[str, Job] = {}
        is_one_name = self._record.is_one_name()
        prepared = []
        for item in items:
            problem = item.problem
            if problem is None and is_one_name:
                problem = _find_double(item, alike)
            try:
                entry = None if problem is not None else _find_done(self._record, item)
            except OSError as error:
                entry, problem = None, error
            if entry is not None:
                self._done[item.place] = entry
            prepared.append(skip(item, problem))
        return prepared

    def read(self, item: Job) -> _Job:
        job = _Job(item=item)
        if item.problem is not None:
            job.result = FileResult(image=item.source, outputs={}, error=item.problem)
            return job
        entry = self._done.get(item.place)
        if entry is not None:
            job.result = _from_entry(item, entry)
            return job
        return _tried(job, self._read)

    def segment(self, job: _Job) -> _Job:
        return job if job.result is not None else _tried(job, self._work)

    def write(self, job: _Job) -> FileResult:
        if job.result is None:
            _tried(job, self._write)
        assert job.result is not None
        return job.result

    def _read(self, job: _Job) -> None:
        job.state = file_state(job.item.source)
        if job.item.content is not None:
            job.pixels = self._steps.read(job.item.content)
            return
        for target in job.item.targets.values():
            refuse_same_file(job.item.source, target)
        job.is_large = self._always_large or _asks_for_windows(job.item)
        if job.is_large:
            return
        try:
            job.pixels = self._steps.read(job.item.source)
        except TooLargeError:
            if not is_installed():
                raise
            job.is_large = True

    def _work(self, job: _Job) -> None:
        if job.is_large:
            self._work_in_windows(job)
        else:
            try:
                assert job.pixels is not None
                self._report(job.pixels.notes)
                job.segmentation, job.pixels = self._steps.segment(job.pixels), None
            except (RuntimeError, MemoryError) as error:  # PyTorch tells of a full memory by RuntimeError
                reason = str(error).strip().partition("\n")[0] or "the memory is full"
                raise ValueError(
                    f"{job.item.source} cannot be segmented: {reason}. If it is too large for the memory, segment it "
                    "in windows (--window 512x512)."
                ) from error

    def _work_in_windows(self, job: _Job) -> None:
        strange = [kind for kind in job.item.targets if kind not in OUTPUTS]
        if strange:
            raise ValueError(f"{job.item.source}: {strange[0]} is not written in windows; {', '.join(OUTPUTS)} are.")
        self._make_way(job.item)
        for picture in OUTPUTS:
            if picture in job.item.targets:
                stored_as = "palette" if picture == "labels" and self._has_palettes else picture
                job.large = self._steps.segment_large(job.item.source, job.item.targets[picture], stored_as)
                self._report(job.large.notes)

    def _make_way(self, item: Job) -> None:
        if self._record is not None:
            self._record.make_way(list(item.targets.values()))

    @property
    def _has_palettes(self) -> bool:
        return self._record is not None and self._record.has_palettes

    def _report(self, notes: Sequence[Note]) -> None:
        """Report what is to be known of how an image was read, once of each kind."""
        for note in notes:
            if note.kind not in self._reported:
                self._reported.add(note.kind)
                warnings.warn(f"{note.text}{self._once}", stacklevel=2)

    def _write(self, job: _Job) -> None:
        started = time.perf_counter()
        if job.large is not None:
            (height, width), areas, no_data = job.large.size, job.large.areas, job.large.no_data
        else:
            assert job.segmentation is not None
            self._make_way(job.item)
            for kind, target in job.item.targets.items():
                stored_as: Kind = "palette" if kind == "labels" and self._has_palettes else kind
                write(job.segmentation, target, stored_as, job.item.name)
            (height, width), areas = job.segmentation.labels.shape, job.segmentation.areas
            no_data = job.segmentation.no_data
        result = FileResult(
            image=job.item.source,
            outputs=job.item.targets,
            width=width,
            height=height,
            areas=areas,
            no_data=no_data,
            seconds=job.seconds + time.perf_counter() - started,
        )
        if self._record is not None:
            facts = {key: value for key, value in result.to_dict().items() if key in _NOTED}
            self._record.note(job.item.place, job.item.source, job.state, facts)
        job.result = result


def _find_double(item: Job, alike: dict[str, Job]) -> ValueError | None:
    """Why an image is skipped where its result's name differs from another one's in capitals or accents alone."""
    name = unicodedata.normalize("NFC", item.place.casefold())
    first = alike.setdefault(name, item)
    if first is item:
        return None
    return ValueError(
        f"{item.source}: here its result would be that of {first.source}, since the folder's file system takes the "
        "names for one. Rename one of them."
    )


def _asks_for_windows(item: Job) -> bool:
    """Whether a result is to be TIFF, or the image is a TIFF that can be read in windows only."""
    endings = {target.suffix.lower() for target in item.targets.values()}
    return bool(endings & set(TIFF_SUFFIXES)) or (
        item.source.suffix.lower() in TIFF_SUFFIXES and needs_windows(item.source)
    )


_NOTED = ("width", "height", "areas", "no_data", "seconds")


def _tried(job: _Job, step: Callable[[_Job], None]) -> _Job:
    started = time.perf_counter()
    try:
        step(job)
    except BackendError:  # no image is at fault, and none will do
        raise
    except (ValueError, OSError) as error:
        job.result = FileResult(image=job.item.source, outputs={}, error=error)
    job.seconds += time.perf_counter() - started
    return job


def _find_done(record: FolderRecord, item: Job) -> Mapping[str, Any] | None:
    entry = record.find_done(item.place, item.source, list(item.targets.values()))
    if entry is None or not isinstance(entry.get("areas"), dict):
        return None
    numbers = [
        entry.get("width"),
        entry.get("height"),
        entry.get("seconds"),
        entry.get("no_data", 0.0),
        *entry["areas"].values(),
    ]
    return entry if all(isinstance(number, int | float) for number in numbers) else None


def _from_entry(item: Job, entry: Mapping[str, Any]) -> FileResult:
    facts = {key: entry[key] for key in _NOTED if key in entry}
    return FileResult(image=item.source, outputs=item.targets, was_there=True, **facts)
