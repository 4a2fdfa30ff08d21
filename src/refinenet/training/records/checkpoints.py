"""Checkpoints of a training run that survive killed processes and full or failing disks.

`step-000123/` holds the files of a checkpoint, with their checksums in `meta.json`; it gets that name once it is
complete. `latest.json` names the newest. Broken checkpoints are quarantined as `*.corrupt`, never removed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from refinenet.io.files import flush_folder, make_folders, sweep_leftovers, write_atomically
from refinenet.io.sealed_folder import check_names, damage_described, read_checksummed, read_step, write_checksummed

SPACE_RESERVE = 1.2
"""Free disk space required before a checkpoint is written, as a multiple of its size."""

_LATEST = "latest.json"
_NAME = re.compile(r"step-(\d{6,18})(?:\.(\d{1,6}))?")
_TEMPORARY = re.compile(r"step-[\d.]+\.tmp-\d+-[0-9a-f]+")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was saved: the size and SHA-256 of each file have been verified."""

    step: int
    """Step at which it was saved, whatever its folder is called now."""
    files: Mapping[str, bytes]
    """Contents by name."""
    folder: Path
    """Folder it was read from."""
    quarantined: tuple[str, ...] = ()
    """Messages to report: on newer checkpoints that are broken and quarantined, or missing."""


@dataclass(frozen=True)
class _Candidate:
    folder: Path
    step: int
    attempt: int
    """Number of the checkpoint among those saved at the same step, from 1."""


class Checkpoints:
    """The checkpoints of one run. One process at a time may save to the folder.

    Args:
        folder: Folder of the checkpoints; made when the first one is saved.
        keep: Number of steps whose checkpoints are kept, at least 1.

    Raises:
        ValueError: `keep` is less than 1.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"At least one checkpoint must be kept, not {keep}.")
        self.folder, self.keep = folder, keep

    def save(self, step: int, files: Mapping[str, bytes]) -> Path:
        """Save a checkpoint, then remove the oldest.

        The files are written to a temporary folder, flushed to the disk (fsync), checksummed, and read back; then the
        folder gets its name, and `latest.json` names it. Only then are older ones removed.

        Args:
            step: Number of the step, from 0. A step can be saved again: its earlier checkpoint stays until all is done.
            files: Contents by file name, without folders.

        Returns:
            The folder of the checkpoint.

        Raises:
            ValueError: The step or a name is not allowed.
            OSError: The disk is full or fails. Earlier checkpoints are untouched, and nothing half-written is left.
        """
        if not 0 <= step < 10**18:
            raise ValueError(f"The step of a checkpoint must be a number of at least 0, not {step}.")
        check_names(files)
        before = "earlier ones are untouched" if self.steps() else "there is no earlier one"
        with _described(f"Cannot save the checkpoint of step {step} in {self.folder}, {before}"):
            make_folders(self.folder)
            self._check_space(sum(map(len, files.values())))
            folder = self._write(step, files)
        with _described(f"The checkpoint {folder} was saved, but the steps after it failed"):
            # Only now, and before any is removed: at every moment it names a checkpoint that is complete on the disk.
            write_atomically(self.folder / _LATEST, (json.dumps({"checkpoint": folder.name}) + "\n").encode())
            self._prune(folder)
        return folder

    def load_newest(self) -> Checkpoint | None:
        """Read the newest good checkpoint; newer ones that are broken are quarantined as `*.corrupt`.

        Returns:
            The checkpoint, or None if none was ever saved.

        Raises:
            ValueError: There were checkpoints, and none of them is good.
            OSError: A checkpoint cannot be read although it may be good, for example for lack of permission.
        """
        messages = self._check_latest()
        for candidate in self._candidates():
            try:
                step, files = read_checksummed(candidate.folder)
            except ValueError as error:
                messages.append(_quarantine(candidate.folder, error))
                continue
            if candidate.folder.name != _name(step, candidate.attempt):
                messages.append(f"{candidate.folder} holds the checkpoint of step {step}: it was renamed.")
            return Checkpoint(step, files, candidate.folder, tuple(messages))
        if messages or any(name.endswith(".corrupt") for name in self._names()):
            details = " ".join(messages) or "All of them are quarantined as *.corrupt."
            raise ValueError(f"{self.folder} has no valid checkpoint left: {details} The run cannot be resumed.")
        return None

    def steps(self) -> list[int]:
        """Return the steps in the names of the checkpoints, good or not, in ascending order.

        Raises:
            OSError: The folder cannot be read.
        """
        return sorted(int(match[1]) for name in self._names() if (match := _NAME.fullmatch(name)))

    def sweep(self) -> None:
        """Remove what killed processes left half-written or half-removed; no process may be saving meanwhile.

        Raises:
            OSError: The folder cannot be read.
        """
        sweep_leftovers(self.folder)
        for name in self._names():
            if _TEMPORARY.fullmatch(name):
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def _check_space(self, size: int) -> None:
        needed, free = round(SPACE_RESERVE * size), shutil.disk_usage(self.folder).free
        if free < needed:
            megabytes = f"{needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB free"
            raise OSError(errno.ENOSPC, f"No space left on device ({megabytes})")

    def _write(self, step: int, files: Mapping[str, bytes]) -> Path:
        temporary = self._temporary(_name(step, 1))
        try:
            write_checksummed(temporary, step, files)
            folder = self._free_name(step)
            # After the files are on the disk: a folder of this name is complete, even after a power cut.
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush_folder(self.folder)  # a rename is on the disk only once the folder above it is
        return folder

    def _temporary(self, name: str) -> Path:
        return self.folder / f"{name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"

    def _free_name(self, step: int) -> Path:
        """Return a name after those of the same step, so that none has to be removed or renamed first."""
        attempt = 1 + max((other.attempt for other in self._candidates() if other.step == step), default=0)
        while (folder := self.folder / _name(step, attempt)).exists():
            attempt += 1
        return folder

    def _prune(self, saved: Path) -> None:
        """Remove all but the checkpoint just saved and the newest of each of the newest steps."""
        retained: set[int] = set()
        for candidate in self._candidates():
            if candidate.folder == saved or (candidate.step not in retained and len(retained) < self.keep):
                retained.add(candidate.step)
                continue
            doomed = self._temporary(candidate.folder.name)
            candidate.folder.rename(doomed)  # so that a kill half-way leaves nothing that looks like a checkpoint
            shutil.rmtree(doomed)

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []

    def _candidates(self) -> list[_Candidate]:
        """Return all with a checkpoint's name, newest first, by the step in a valid meta.json, or else in the name."""
        candidates = []
        for name in self._names():
            if match := _NAME.fullmatch(name):
                folder, step, attempt = self.folder / name, int(match[1]), int(match[2] or 1)
                with suppress(ValueError):
                    step = read_step(folder)
                candidates.append(_Candidate(folder, step, attempt))
        return sorted(candidates, key=lambda candidate: (candidate.step, candidate.attempt), reverse=True)

    def _check_latest(self) -> list[str]:
        """Return messages on `latest.json` if it is damaged, or names a checkpoint that is not there any more."""
        path, names = self.folder / _LATEST, self._names()
        if _LATEST not in names:  # killed before it named the first one
            return []
        try:
            with damage_described():
                name = json.loads(path.read_bytes())["checkpoint"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return [f"{path} is damaged; the newest valid checkpoint is found without it."]
        if isinstance(name, str) and _NAME.fullmatch(name) and name in names:
            return []
        corrupt = [other for other in names if other.startswith(f"{name}.") and other.endswith(".corrupt")]
        where = f"which was quarantined as {corrupt[0]}" if corrupt else "which is missing"
        return [f"{path} names {name!r} as the newest checkpoint, {where}."]


def _name(step: int, attempt: int) -> str:
    return f"step-{step:06d}" if attempt == 1 else f"step-{step:06d}.{attempt}"


@contextmanager
def _described(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"{what}: {error.strerror or error}") from error


def _quarantine(folder: Path, reason: ValueError) -> str:
    target = folder.with_name(f"{folder.name}.corrupt")
    if target.exists():
        target = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.corrupt")
    try:
        folder.rename(target)
    except OSError as error:
        return f"The checkpoint {folder} is broken ({reason}) and cannot be quarantined: {error.strerror}."
    return f"The checkpoint {folder} is broken ({reason}); it is quarantined as {target.name}."
