"""Download, unpack and convert published datasets, as far as their owners allow, and list them.

A run can be stopped at any time and started again: it resumes where it stopped, and nothing is done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from rich.progress import Progress

from refinenet.datasets.catalog import NAMES, PUBLISHED, Dataset, Download, PublishedDataset, find_root, prepared_folder
from refinenet.datasets.published.prepared_masks import open_prepared, write_split
from refinenet.io.console import print_note, progress_bar
from refinenet.io.download.archives import forget, is_interrupted, is_unpacked, unpack, was_empty
from refinenet.io.download.download import PATIENCE, Patience, fetch
from refinenet.io.processes.locks import only_one

_Trouble = FileNotFoundError | ValueError


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """The state of a split after preparation."""

    split: str
    images: int | None
    """Number of images; None if the split cannot be opened."""
    published: int | None
    """Number of images according to the owner, if known."""
    note: str
    """A remark; empty if everything is as published."""


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """The state of a dataset after preparation, with at least one split ready."""

    name: str
    root: Path
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    """What failed; the next run tries again."""


@dataclass(frozen=True, kw_only=True)
class ListedDataset:
    """A row of the list of published datasets; `dataclasses.asdict` makes it JSON-ready."""

    name: str
    title: str
    classes: int
    images: Mapping[str, int]
    """Number of images per split, as published."""
    size: str
    licence: str
    page: str
    root: str
    """The folder where it is expected."""
    state: Literal["absent", "there", "prepared"]
    """Whether that folder holds anything, and whether masks have been prepared in it."""


def list_datasets() -> list[ListedDataset]:
    """List the published datasets and their state on this machine; no file is opened."""
    return [_describe(name, published) for name, published in PUBLISHED.items()]


def prepare(
    name: str,
    root: Path,
    *,
    published: PublishedDataset | None = None,
    mirror: str | None = None,
    download: bool = True,
    keep_archives: bool = True,
    workers: int | None = None,
    progress: bool = True,
    patience: Patience = PATIENCE,
) -> PrepareReport:
    """Prepare a published dataset: download and unpack missing files, and write masks where labels are slow to read.

    Args:
        name: One of `PUBLISHED`, or, with `published`, the name for the prepared folders.
        root: The dataset's folder, created if missing.
        published: The dataset, if it is not one of `PUBLISHED`.
        mirror: A base URL from which files are downloaded by name, instead of from their owner.
        download: Whether to download; otherwise only existing files are converted.
        keep_archives: Whether to keep archives after unpacking.
        workers: Number of processes for the conversion; by default one per core.
        progress: Whether to show progress bars and notes on standard error.
        patience: How long to try to download a file.

    Raises:
        ValueError: There is no such dataset, or a file, which the message names, is damaged, wrong or hostile.
        FileNotFoundError: No split is there and nothing can be downloaded; the message says how to get the data.
        OSError: The network failed, a server refused, or the disk is full.
    """
    published = published or _find(name)
    found = {split: _open(name, published, root, split) for split in published.splits}
    problems: list[Exception] = []
    is_whole = not any(isinstance(split, Exception) for split in found.values())
    if download and published.info.downloads and not (is_whole and _is_settled(published, root)):
        root.mkdir(parents=True, exist_ok=True)
        waiting = partial(print_note, f"Another process is preparing {root}; waiting for it.", enabled=progress)
        with only_one(root / ".prepare.lock", waiting), progress_bar(progress) as bar:
            fetcher = _Fetcher(root, mirror, keep_archives, patience, bar)
            problems = [error for file in published.info.downloads if (error := fetcher.try_to_get(file))]
            found = {split: _open(name, published, root, split) for split in published.splits}
            problems += [] if problems else _quarantine(published, root, found)
    with progress_bar(progress) as bar:
        reports = []
        for split, dataset in found.items():
            ready = _convert(name, published, root, split, dataset, workers, bar)
            problems += [ready] if isinstance(ready, ValueError) else []
            reports.append(_report(split, ready, published))
    if all(report.images is None for report in reports):
        raise _failure(name, published, root, problems, reports)
    return PrepareReport(name=name, root=root, splits=tuple(reports), problems=tuple(map(str, problems)))


def _find(name: str) -> PublishedDataset:
    if name not in PUBLISHED:
        known = "needs no files: the package draws it" if name in NAMES else "is not known"
        raise ValueError(f"The dataset {name!r} {known}. Those that can be prepared are {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def _describe(name: str, published: PublishedDataset) -> ListedDataset:
    info, root = published.info, find_root(name)
    state: Literal["absent", "there", "prepared"] = "absent"
    if any((prepared_folder(root, name, split) / "samples.tsv").is_file() for split in published.splits):
        state = "prepared"
    elif root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
        state = "there"
    return ListedDataset(
        name=name,
        title=info.title,
        classes=len(info.label_set),
        images=dict(info.images),
        size=info.size,
        licence=info.licence,
        page=info.page,
        root=str(root),
        state=state,
    )


def _open(name: str, published: PublishedDataset, root: Path, split: str) -> Dataset | _Trouble:
    try:
        prepared = open_prepared(root, name, split, published.info.label_set, published.add_targets)
        return published.open_split(root, split) if prepared is None else prepared
    except (FileNotFoundError, ValueError) as error:
        return error


def _is_settled(published: PublishedDataset, root: Path) -> bool:
    """Return whether no download or unpacking was interrupted."""
    return not any(
        (root / f"{file.file}.part").exists()
        or (file.unpack and is_interrupted(root / file.file, root, origin=file.url))
        for file in published.info.downloads
    )


def _quarantine(published: PublishedDataset, root: Path, found: Mapping[str, Dataset | _Trouble]) -> list[Exception]:
    """Quarantine unpacked archives that are empty or, if no split opens, wrong; the next run downloads them again."""
    missing = [split for split in found.values() if isinstance(split, Exception)]
    if not missing:
        return []
    is_nothing_there = len(missing) == len(found)
    problems: list[Exception] = []
    for file in published.info.downloads:
        target = root / file.file
        is_empty = was_empty(target, root)
        # A file with a verified hash is the owner's file: downloading it again would change nothing.
        if not file.unpack or file.sha256 or file.md5 or not (is_nothing_there or is_empty):
            continue
        forget(target, root)
        wrong = "is empty." if is_empty else f"does not contain the dataset: {missing[0]}"
        note = ""
        if target.exists():
            note = f" It was quarantined as {target.replace(target.with_name(target.name + '.refused')).name}."
        problems.append(ValueError(f"{target} {wrong}{note} The next run downloads it again."))
    return problems


@dataclass(frozen=True)
class _Fetcher:
    root: Path
    mirror: str | None
    keep_archives: bool
    patience: Patience
    bar: Progress

    def try_to_get(self, file: Download) -> OSError | ValueError | None:
        """Download and unpack a file; return errors instead of raising, since other files may still succeed."""
        try:
            self._get(file)
        except (OSError, ValueError) as error:
            return error
        return None

    def _get(self, file: Download) -> None:
        target = self.root / file.file
        if file.unpack and is_unpacked(target, self.root, origin=file.url):
            return
        name = PurePosixPath(file.file).name
        fetch(
            file.url,
            target,
            mirror=f"{self.mirror.rstrip('/')}/{quote(name)}" if self.mirror else None,
            sha256=file.sha256,
            md5=file.md5,
            patience=self.patience,
            progress=self._task(f"Fetching {name}"),
            note=partial(print_note, enabled=not self.bar.disable),
        )
        if not file.unpack:
            return
        try:
            unpack(target, self.root, origin=file.url, progress=self._task(f"Unpacking {name}"))
        except ValueError as error:
            if file.sha256 or file.md5:  # verified as the owner's file: a second download would not help
                raise
            aside = target.replace(target.with_name(target.name + ".refused"))
            raise ValueError(
                f"{error} It was quarantined as {aside.name}, and the next run downloads it again."
            ) from error
        if not self.keep_archives:
            target.unlink()

    def _task(self, description: str) -> Callable[[int, int | None], None]:
        task = self.bar.add_task(description, total=None, status="MB", unit="MB")

        def show(done: int, size: int | None) -> None:
            total = None if size is None else max(size // 1_000_000, 1)
            self.bar.update(task, completed=done // 1_000_000, total=total, visible=done != size)

        return show


def _convert(
    name: str,
    published: PublishedDataset,
    root: Path,
    split: str,
    dataset: Dataset | _Trouble,
    workers: int | None,
    bar: Progress,
) -> Dataset | _Trouble:
    """Return the split, with masks written if its labels are slow to read."""
    if isinstance(dataset, Exception) or not dataset.is_slow:
        return dataset
    folder = prepared_folder(root, name, split)
    folder.mkdir(parents=True, exist_ok=True)
    waiting = partial(print_note, f"Another process is preparing {folder}; waiting for it.", enabled=not bar.disable)
    with only_one(folder / ".lock", waiting):
        if open_prepared(root, name, split, dataset.label_set) is None:
            task = bar.add_task(f"Converting {name} {split}", total=len(dataset), status="images", unit="images")
            try:
                write_split(root, folder, dataset, workers=workers, advance=partial(bar.advance, task))
            except ValueError as error:
                return error
    return _open(name, published, root, split)


def _report(split: str, dataset: Dataset | _Trouble, published: PublishedDataset) -> SplitReport:
    expected = published.info.images.get(split)
    if isinstance(dataset, Exception):
        return SplitReport(split=split, images=None, published=expected, note=str(dataset))
    is_as_published = expected in (None, len(dataset))
    note = "" if is_as_published else f"{len(dataset):,} images were found, {expected:,} were published."
    return SplitReport(split=split, images=len(dataset), published=expected, note=note)


def _failure(
    name: str, published: PublishedDataset, root: Path, problems: Sequence[Exception], reports: Sequence[SplitReport]
) -> Exception:
    """Return the error to raise if nothing is ready."""
    info = published.info
    if problems:
        kind = ValueError if any(isinstance(problem, ValueError) for problem in problems) else OSError
        return problems[0] if len(problems) == 1 else kind("\n".join(map(str, problems)))
    missing = " ".join(dict.fromkeys(report.note for report in reports))
    if info.downloads:
        return FileNotFoundError(f"{name} is not in {root}. {missing}")
    return FileNotFoundError(
        f"{name} ({info.licence}) must be downloaded manually from {info.page}. {info.how_to_get} "
        f"Put it into {root} and run this again. {missing}"
    )
