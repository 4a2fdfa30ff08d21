"""Many images at once: where results go, what is done meanwhile, what is passed over, and going on after a stop.

What runs the network elsewhere shares the work items of `plan_work` and a function from an image to its
`Segmentation`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from refinenet.deploy_record import FolderRecord, open_record, sweep
from refinenet.files import refuse_same_file
from refinenet.images import decode
from refinenet.interruption import Interruption
from refinenet.overlap import overlapped
from refinenet.segmenter import Segmentation
from refinenet.sinks import Kind, check_target, choose_kinds, usual_suffix, write
from refinenet.sources import STANDARD_INPUT, FoundImage, find_images, names_one_file
from refinenet.terminal import print_note, progress_bar

RESULT_SUFFIXES = (".png", ".jpg", ".jpeg", ".npz", ".json", ".geojson")
DEFAULT_FOLDER = Path("segmented")
Segment = Callable[[Any], Segmentation]
"""From an image, `(H, W, 3)` uint8 RGB or a path, to its segmentation."""


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """An image and the files that its results go to."""

    source: Path
    place: str
    """What the folder of results calls it: its folders there and its name, without a suffix."""
    targets: Mapping[Kind, Path]
    content: bytes | None = None
    """The image's file itself, where it is none on a disk."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that is to be done."""

    items: Sequence[WorkItem]
    kinds: tuple[Kind, ...]
    folder: Path | None
    """The folder of results, which keeps a record; None for one image whose results are named themselves."""


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
    """Share of the image's pixels by class name, in [0, 1]."""
    seconds: float = 0.0
    """What reading, segmenting and writing took, without waiting for each other."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values."""
        if self.error is not None:
            return {"image": str(self.image), "error": str(self.error)}
        return {
            "image": str(self.image),
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
            "width": self.width,
            "height": self.height,
            "areas": dict(self.areas),
            "seconds": round(self.seconds, 4),
            "was_there": self.was_there,
        }


def plan_work(
    sources: Sequence[str | os.PathLike[str]],
    output: Path | None = None,
    kinds: Sequence[str] = (),
    *,
    recursive: bool = False,
) -> Work:
    """Find the images and say where each result goes; nothing is opened or made.

    Args:
        sources: Image files, folders, patterns and lists; see `sources.find_images`.
        output: For one image file a file, by default `NAME_KIND.png` beside it. Else a folder, by default `segmented`:
            of one kind it holds `PLACE.png` (or what is usual for the kind), of several `KIND/PLACE.png`.
        kinds: Which files to write (`sinks.KINDS`, or "polygons" for two of them); by default label ids, or what the
            suffix of `output` says.
        recursive: Whether folders in folders are meant, too.

    Raises:
        ValueError: an unknown kind, an output that cannot hold it, no image, a file as output for several images or
            kinds, the images' own folder, or two images with one place.
    """
    names = [os.fspath(source) for source in sources]
    if STANDARD_INPUT in names:
        raise ValueError("- (standard input) is one image alone: name no other beside it, and where its result goes.")
    chosen = choose_kinds(kinds)
    is_folder = output is not None and (output.is_dir() or (len(chosen) > 1 and not _is_result(output)))
    if names_one_file(names) and not is_folder:
        return _plan_single(Path(names[0]), output, chosen)
    folder = output or DEFAULT_FOLDER
    if _is_result(folder) and not folder.is_dir():
        raise ValueError(f"Several images need a folder for their results, not one file: {folder}.")
    found = find_images(names, recursive=recursive, results=folder)
    _refuse_doubles(found)
    chosen = chosen or ("labels",)
    items = [
        WorkItem(source=image.file, place=image.place, targets=_targets(folder, image.place, chosen)) for image in found
    ]
    _refuse_mixing(items, folder)
    return Work(items=items, kinds=chosen, folder=folder)


def plan_bytes(content: bytes, output: Path, kinds: Sequence[str] = ()) -> Work:
    """As `plan_work`, for an image that came through standard input.

    Raises:
        ValueError: an unknown kind, several, or an output that cannot hold it.
    """
    work = _plan_single(Path(STANDARD_INPUT), output, choose_kinds(kinds))
    return replace(work, items=[replace(item, content=content) for item in work.items])


def segment_files(
    segment: Segment, work: Work, settings: Mapping[str, Any] | None = None, *, overwrite: bool = False
) -> Generator[FileResult]:
    """Segment images and write the results; one that cannot be is told of, and the next one follows.

    Files are read ahead and written behind in threads, results come in the order of the images. Work is done as
    results are taken; whoever closes the iterator waits for the files that are being written.

    Args:
        segment: From an image to its segmentation; it is called in this thread.
        work: As `plan_work` gives it.
        settings: What results are made by, beside the kinds, for a folder's record; JSON-ready values.
        overwrite: Whether to make results anew that a folder has, and to replace what is not the command's.

    Raises:
        ValueError: a folder's results were made by other settings, or a file is in the way.
        OSError: the folder of results cannot be used.
    """
    noted = {**(settings or {}), "kinds": list(work.kinds)}
    held = nullcontext() if work.folder is None else open_record(work.folder, noted, overwrite=overwrite)
    with held as record:
        run = _Run(segment, record)
        if record is not None:
            done = {item.place: entry for item in work.items if (entry := _find_done(record, item)) is not None}
            record.begin()
            sweep(list({path.parent for item in work.items for path in item.targets.values()}))
            run.done = done
        results = overlapped(work.items, run.read, run.segment, run.write)
        with closing(results):
            yield from results


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
    with Interruption() as interruption, progress_bar(progress and count > 1) as bar, closing(results):
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

    item: WorkItem
    seconds: float = 0.0
    pixels: Any = None
    segmentation: Segmentation | None = None
    result: FileResult | None = None


class _Run:
    """The three steps, each of which passes on what is done already."""

    def __init__(self, segment: Segment, record: FolderRecord | None) -> None:
        self._segment, self._record = segment, record
        self.done: Mapping[str, Mapping[str, Any]] = {}

    def read(self, item: WorkItem) -> _Job:
        job = _Job(item=item)
        entry = self.done.get(item.place)
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
        if job.item.content is not None:
            job.pixels = decode(job.item.content)
            return
        for target in job.item.targets.values():
            refuse_same_file(job.item.source, target)
        job.pixels = decode(job.item.source)

    def _work(self, job: _Job) -> None:
        job.segmentation, job.pixels = self._segment(job.pixels), None

    def _write(self, job: _Job) -> None:
        assert job.segmentation is not None
        started = time.perf_counter()
        for kind, target in job.item.targets.items():
            write(job.segmentation, target, kind, job.item.source.name)
        height, width = job.segmentation.labels.shape
        result = FileResult(
            image=job.item.source,
            outputs=job.item.targets,
            width=width,
            height=height,
            areas=job.segmentation.areas,
            seconds=job.seconds + time.perf_counter() - started,
        )
        if self._record is not None:
            facts = {key: value for key, value in result.to_dict().items() if key in _NOTED}
            self._record.note(job.item.place, job.item.source, facts)
        job.result = result


_NOTED = ("width", "height", "areas", "seconds")


def _tried(job: _Job, step: Callable[[_Job], None]) -> _Job:
    started = time.perf_counter()
    try:
        step(job)
    except (ValueError, OSError) as error:
        job.result = FileResult(image=job.item.source, outputs={}, error=error)
    job.seconds += time.perf_counter() - started
    return job


def _find_done(record: FolderRecord, item: WorkItem) -> Mapping[str, Any] | None:
    entry = record.find_done(item.place, item.source, list(item.targets.values()))
    return entry if entry is not None and all(key in entry for key in _NOTED) else None


def _from_entry(item: WorkItem, entry: Mapping[str, Any]) -> FileResult:
    facts = {key: entry[key] for key in _NOTED}
    return FileResult(image=item.source, outputs=item.targets, was_there=True, **facts)


def _plan_single(source: Path, output: Path | None, kinds: tuple[Kind, ...]) -> Work:
    if output is None:
        chosen = kinds or ("labels",)
        targets = {kind: source.with_name(f"{source.stem}_{kind}{usual_suffix(kind)}") for kind in chosen}
    elif len(kinds) > 1:
        raise ValueError(f"{', '.join(kinds)} are several files: name a folder for them, not {output}.")
    else:
        chosen = (check_target(output, kinds[0] if kinds else None),)
        targets = {chosen[0]: output}
    return Work(items=[WorkItem(source=source, place=source.stem, targets=targets)], kinds=chosen, folder=None)


def _is_result(path: Path) -> bool:
    return path.suffix.lower() in RESULT_SUFFIXES


def _targets(folder: Path, place: str, kinds: tuple[Kind, ...]) -> dict[Kind, Path]:
    homes = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
    return {kind: home / f"{place}{usual_suffix(kind)}" for kind, home in homes.items()}


def _refuse_doubles(found: Sequence[FoundImage]) -> None:
    place, times = Counter(image.place for image in found).most_common(1)[0]
    if times > 1:
        first, second = [image.file for image in found if image.place == place][:2]
        raise ValueError(
            f"{times} images would have the result {place!r}, among them {first} and {second}, and one would replace "
            "the other. Rename one, or name the folder that they lie in, with --recursive (recursive=True)."
        )


def _refuse_mixing(items: Sequence[WorkItem], folder: Path) -> None:
    homes = {path.parent.resolve() for item in items for path in item.targets.values()}
    mixed = next((item.source for item in items if item.source.parent.resolve() in homes), None)
    if mixed is not None and folder.exists():
        raise ValueError(
            f"{folder} holds the images themselves, such as {mixed}: results would mix with them. Name another folder."
        )
