"""The checkpoints of a training run, kept so that neither a killed process nor a full or failing disk loses the run.

`step-000123/` holds the files of a checkpoint, sealed by `meta.json`; it gets that name when it is whole. `latest.json`
names the newest. What is found broken is put aside as `*.corrupt`, never removed.
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
from refinenet.io.sealed_folder import check_names, damage_told, read_checksummed, read_step, write_checksummed

SPACE_RESERVE = 1.2
"""How many times its size must be free on the disk before a checkpoint is written."""

_LATEST = "latest.json"
_NAME = re.compile(r"step-(\d{6,18})(?:\.(\d{1,6}))?")
_TEMPORARY = re.compile(r"step-[\d.]+\.tmp-\d+-[0-9a-f]+")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was saved: each file has the size and the SHA-256 that were noted then."""

    step: int
    """The step that it was saved at, whatever its folder is called now."""
    files: Mapping[str, bytes]
    """Contents by name."""
    folder: Path
    """Where it was found."""
    set_aside: tuple[str, ...] = ()
    """What is to be said: of newer ones that are broken and put aside, or gone."""


@dataclass(frozen=True)
class _Candidate:
    folder: Path
    step: int
    again: int
    """Which of those saved at the same step, from 1."""


class Checkpoints:
    """The folder of the checkpoints of one run. One process at a time may save to it.

    Args:
        folder: Made when the first one is saved.
        keep: How many steps to keep the checkpoints of, from 1 up.

    Raises:
        ValueError: `keep` is less than 1.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"At least one checkpoint has to be kept, not {keep}.")
        self.folder, self.keep = folder, keep

    def save(self, step: int, files: Mapping[str, bytes]) -> Path:
        """Save a checkpoint, then remove the oldest.

        The files go to a temporary folder, are flushed to the disk (fsync), sealed, and read back; then the folder gets
        its name, and `latest.json` names it. Only then older ones are removed.

        Args:
            step: From 0 up. A step can be saved again: until all is done, the one saved before stays.
            files: Contents by plain names.

        Returns:
            The folder of the checkpoint.

        Raises:
            ValueError: the step or a name is not allowed.
            OSError: the disk is full or fails. The checkpoints before, if there are any, are untouched, and nothing
                half-written is left.
        """
        if not 0 <= step < 10**18:
            raise ValueError(f"A checkpoint is saved at a step from 0 up, not {step}.")
        check_names(files)
        before = "those before it are untouched" if self.steps() else "there is none before it"
        with _told(f"Cannot save the checkpoint of step {step} in {self.folder}, {before}"):
            make_folders(self.folder)
            self._check_space(sum(map(len, files.values())))
            folder = self._write(step, files)
        with _told(f"The checkpoint {folder} is saved, but not all that goes with it is done"):
            write_atomically(self.folder / _LATEST, (json.dumps({"checkpoint": folder.name}) + "\n").encode())
            self._prune(folder)
        return folder

    def load_newest(self) -> Checkpoint | None:
        """Read the newest good checkpoint; newer ones that are broken are put aside as `*.corrupt`.

        Returns:
            The checkpoint, or None where none was ever saved.

        Raises:
            ValueError: there were checkpoints, and none of them is good.
            OSError: a checkpoint cannot be read for a reason that is no damage, such as missing rights.
        """
        messages = self._look_at_pointer()
        for candidate in self._candidates():
            try:
                step, files = read_checksummed(candidate.folder)
            except ValueError as error:
                messages.append(_put_aside(candidate.folder, error))
                continue
            if candidate.folder.name != _name(step, candidate.again):
                messages.append(f"{candidate.folder} holds the checkpoint of step {step}: it was renamed.")
            return Checkpoint(step, files, candidate.folder, tuple(messages))
        if messages or any(name.endswith(".corrupt") for name in self._names()):
            told = " ".join(messages) or "What was there is put aside as *.corrupt."
            raise ValueError(f"{self.folder} holds no good checkpoint any more: {told} The run cannot be taken up.")
        return None

    def steps(self) -> list[int]:
        """The steps in the names of the checkpoints that are there, good or not, the lowest first.

        Raises:
            OSError: the folder cannot be read.
        """
        return sorted(int(match[1]) for name in self._names() if (match := _NAME.fullmatch(name)))

    def sweep(self) -> None:
        """Remove what killed processes left half-written or half-removed; nobody may be saving meanwhile.

        Raises:
            OSError: the folder cannot be read.
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
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush_folder(self.folder)
        return folder

    def _temporary(self, name: str) -> Path:
        return self.folder / f"{name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"

    def _free_name(self, step: int) -> Path:
        """A name behind those of the same step, so that none has to make room for it first."""
        again = 1 + max((other.again for other in self._candidates() if other.step == step), default=0)
        while (folder := self.folder / _name(step, again)).exists():
            again += 1
        return folder

    def _prune(self, saved: Path) -> None:
        """Remove all but what was just saved and the newest of each of the newest steps."""
        kept: set[int] = set()
        for candidate in self._candidates():
            if candidate.folder == saved or (candidate.step not in kept and len(kept) < self.keep):
                kept.add(candidate.step)
                continue
            doomed = self._temporary(candidate.folder.name)
            candidate.folder.rename(doomed)  # so that a kill halfway leaves nothing that looks like a checkpoint
            shutil.rmtree(doomed)

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []

    def _candidates(self) -> list[_Candidate]:
        """What has the name of a checkpoint, the newest first, by the step that a good seal tells, or else the name."""
        found = []
        for name in self._names():
            if match := _NAME.fullmatch(name):
                folder, step, again = self.folder / name, int(match[1]), int(match[2] or 1)
                with suppress(ValueError):
                    step = read_step(folder)
                found.append(_Candidate(folder, step, again))
        return sorted(found, key=lambda candidate: (candidate.step, candidate.again), reverse=True)

    def _look_at_pointer(self) -> list[str]:
        """What is to be said of `latest.json`, which names the checkpoint that should be the newest at least."""
        path, names = self.folder / _LATEST, self._names()
        if _LATEST not in names:  # killed before the first was named
            return []
        try:
            with damage_told():
                name = json.loads(path.read_bytes())["checkpoint"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return [f"{path} is damaged; the newest good checkpoint is looked for without it."]
        if isinstance(name, str) and _NAME.fullmatch(name) and name in names:
            return []
        aside = [other for other in names if other.startswith(f"{name}.") and other.endswith(".corrupt")]
        where = f"which was put aside as {aside[0]}" if aside else "which is gone"
        return [f"{path} names {name!r} as the newest checkpoint, {where}."]


def _name(step: int, again: int) -> str:
    return f"step-{step:06d}" if again == 1 else f"step-{step:06d}.{again}"


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"{what}: {error.strerror or error}") from error


def _put_aside(folder: Path, reason: ValueError) -> str:
    aside = folder.with_name(f"{folder.name}.corrupt")
    if aside.exists():
        aside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.corrupt")
    try:
        folder.rename(aside)
    except OSError as error:
        return f"The checkpoint {folder} is broken ({reason}) and cannot be put aside: {error.strerror}."
    return f"The checkpoint {folder} is broken ({reason}); it is put aside as {aside.name}."
