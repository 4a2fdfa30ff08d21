"""Fetch a file from the web so that it arrives whole or not at all, however the connection and the server behave.

What has come lies in `NAME.part` until all of it is there and has been verified; `NAME.part.json` says which version of
the file it belongs to, so that a later attempt, or a later run, goes on where the last one ended. `NAME.fetched.json`
records afterwards where the file came from, its size and its SHA-256.

Names, places and hashes come from the caller, never from the server. By HTTP's rules a file ends where its
Content-Length says, whatever follows: only a hash tells that this was a lie. Where none is known, a file that came
earlier is known again by the address and the size recorded; the recorded SHA-256 is for people who compare.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from refinenet.io.download.http import BLOCK, MAX_UNANNOUNCED, PassingError, Response, Version, ask, check_address
from refinenet.io.files import write_atomically
from refinenet.io.locks import only_one

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes that there will be, None where the server does not say."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try."""

    attempts: int = 6
    """Attempts in a row, each bringing less than a megabyte, after which it gives up."""
    timeout: float = 30.0
    """Seconds that the server may be silent, or send next to nothing of the file; after twice as many it must be
    connected and its status and headers complete (for each address that it redirects to)."""
    pause: float = 1.0
    """Seconds before the second attempt; each pause is twice as long as the one before."""
    longest_pause: float = 120.0
    """Seconds at most between two attempts; a server that asks for a longer pause is given up."""
    max_unannounced: int = MAX_UNANNOUNCED
    """Bytes at most of a file whose length the server does not announce; a server that sends more is given up."""


PATIENCE = Patience()


def fetch(
    url: str,
    target: Path,
    *,
    mirror: str | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    patience: Patience = PATIENCE,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Path:
    """Fetch `url` to the file `target`, unless it is there already.

    A file that is there is taken as it is where its hash is right or, where none is known, `url` and its size are the
    recorded ones or nothing is recorded (somebody put it there). One that is wrong is renamed to `NAME.wrong`.

    Args:
        url: An http or https address. Redirects may lead to others of them, but never from https to http.
        target: The file to make; missing folders are made.
        mirror: An address to fetch the same file from instead.
        sha256: In hexadecimal digits, where it is known.
        md5: The same; used only where `sha256` is not known.
        patience: How long to try.
        progress: Told how many bytes are there.
        note: Told, in a sentence, of each failed attempt and each new beginning.

    Returns:
        `target`.

    Raises:
        ValueError: the address is none, or the file has another hash than expected; it was put aside.
        OSError: the server refuses, the connection fails again and again, or the disk is full. What has come is kept.
    """
    check_address(mirror or url)
    job = _Job(
        url=url,
        address=mirror or url,
        target=target,
        hashes={name: value.lower() for name, value in (("sha256", sha256), ("md5", md5)) if value},
        patience=patience,
        progress=progress or _say_nothing,
        note=note or _say_nothing,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    waiting = partial(job.note, f"{target.name}: somebody else is fetching it; waiting for that.")
    with only_one(job.beside(".lock"), waiting):
        if not _is_there(job):
            _bring(job)
            _finish(job)
    return target


def _say_nothing(*_: object) -> None:
    """For callers who do not listen."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    url: str
    """The owner's, by which the file is known."""
    address: str
    """Where it is fetched from."""
    target: Path
    hashes: Mapping[str, str]
    """By algorithm, the strongest first."""
    patience: Patience
    progress: Progress
    note: Callable[[str], None]

    def beside(self, ending: str) -> Path:
        return self.target.with_name(self.target.name + ending)

    @property
    def part(self) -> Path:
        return self.beside(".part")

    def have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def _is_there(job: _Job) -> bool:
    if not job.target.exists():
        return False
    if not job.target.is_file():
        raise FileExistsError(f"{job.target} is to become a file, and something else is there. Move it away.")
    trouble = _wrong_hash(job, job.target) if job.hashes else _wrong_record(job)
    if trouble is None:
        return True
    aside = job.target.replace(job.beside(".wrong"))
    job.note(f"{job.target} is not the file that is wanted ({trouble}). It is now {aside.name}; fetching it anew.")
    return False


def _bring(job: _Job) -> None:
    """Make attempts until the part is whole."""
    failures, most = 0, job.have()
    while True:
        try:
            return _attempt(job)
        except PassingError as trouble:
            have = job.have()
            failures = 0 if have >= most + BLOCK else failures + 1
            most = max(most, have)
            wait = job.patience.pause * 2 ** max(failures - 1, 0) if trouble.wait is None else trouble.wait
            if failures >= job.patience.attempts or (trouble.wait or 0) > job.patience.longest_pause:
                asked = "" if trouble.wait is None else f" and asks to wait {trouble.wait:,.0f} s"
                raise OSError(
                    f"{job.address} could not be fetched: {trouble}{asked}. Run again later, or use a mirror"
                    + (f": {job.part} keeps the {have:,} bytes that have come." if have else ".")
                ) from trouble
            wait = min(wait, job.patience.longest_pause)
            job.note(f"{job.target.name}: {trouble}. Trying again in {wait:.3g} s.")
            time.sleep(wait)


def _attempt(job: _Job) -> None:
    version, have = _known_version(job), job.have()
    if version and have and have == version.size:
        return
    can_resume = version and (version.validator or job.hashes) and have < (version.size or have + 1)
    have = have if can_resume else 0
    try:
        answer = ask(job.address, job.patience.timeout, have=have, version=version)
    except PassingError as trouble:
        if trouble.is_misfit:
            job.part.unlink(missing_ok=True)
        raise
    with closing(answer):
        _check(job, answer)
        if answer.start == 0:
            _start_anew(job, answer, bool(have))
        _store(job, answer)


def _known_version(job: _Job) -> Version | None:
    """The version that the part belongs to, where that is recorded and the part comes from the same address."""
    values = _read_json(job.beside(".part.json"))
    validator, size = values.get("validator"), values.get("bytes")
    if values.get("url") != job.address:
        return None
    return Version(
        validator=validator if isinstance(validator, str) else None, size=size if isinstance(size, int) else None
    )


def _check(job: _Job, answer: Response) -> None:
    if not answer.ends_clearly and not job.hashes:
        raise OSError(
            f"{job.address}: the server does not say how long the file is, so nobody can know whether it came whole. "
            "Fetch it by other means, or use a mirror."
        )
    needed, free = (answer.version.size or 0) - answer.start, shutil.disk_usage(job.target.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{job.target} needs {needed:,} more bytes, the disk has {free:,}. Make room and run again",
        )


def _start_anew(job: _Job, answer: Response, was_asked_to_continue: bool) -> None:
    if was_asked_to_continue:
        job.note(f"{job.target.name}: the server has another version, or cannot continue a file. Starting anew.")
    job.part.unlink(missing_ok=True)
    version = {"url": job.address, "validator": answer.version.validator, "bytes": answer.version.size}
    _write_json(job.beside(".part.json"), version)


def _store(job: _Job, answer: Response) -> None:
    have, size = answer.start, answer.version.size
    try:
        with job.part.open("ab") as stream:
            for block in answer.blocks(job.patience.timeout):
                stream.write(block)
                have += len(block)
                if size is None and have > job.patience.max_unannounced:
                    break
                job.progress(have, size)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OSError(
            error.errno, f"Cannot write {job.part}: {error.strerror}. What has come is kept: make room and run again"
        ) from error
    if size is None and have > job.patience.max_unannounced:
        job.part.unlink()
        raise OSError(
            f"{job.address}: the server does not say how long the file is, and sent more than "
            f"{job.patience.max_unannounced:,} bytes. Fetch it by other means, or use a mirror."
        )
    if size is not None and job.have() != size:
        raise PassingError(f"the connection ended after {have:,} of {size:,} bytes")


def _finish(job: _Job) -> None:
    trouble = _wrong_hash(job, job.part) if job.hashes else None
    if trouble:
        with job.part.open("rb") as stream:
            is_page = stream.read(200).lstrip().lower().startswith((b"<!doctype", b"<html"))
        aside = job.part.replace(job.beside(".wrong"))
        job.beside(".part.json").unlink(missing_ok=True)
        raise ValueError(
            f"{job.address} is not the file that is wanted: {trouble}.{' It is a web page.' if is_page else ''} "
            f"It was put aside as {aside}. Run again to fetch it anew; if it comes the same, use a mirror."
        )
    record = {"url": job.url, "from": job.address, "bytes": job.have(), "sha256": _digest("sha256", job.part)}
    job.part.replace(job.target)
    _write_json(job.beside(".fetched.json"), record)  # This flushes the folder with the renamed file, too.
    job.beside(".part.json").unlink(missing_ok=True)


def _wrong_hash(job: _Job, path: Path) -> str | None:
    name, expected = next(iter(job.hashes.items()))
    came = _digest(name, path)
    return None if came == expected else f"its {name.upper()} is {came}, expected is {expected}"


def _wrong_record(job: _Job) -> str | None:
    record = _read_json(job.beside(".fetched.json"))
    if record.get("url", job.url) != job.url:
        return f"it came from {record['url']}"
    recorded, size = record.get("bytes"), job.target.stat().st_size
    return f"it has {size:,} bytes, {recorded:,} had come" if isinstance(recorded, int) and recorded != size else None


def _digest(name: str, path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()


def _read_json(path: Path) -> Mapping[str, object]:
    """The object in a small file of ours; nothing where it is missing or damaged."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write_json(path: Path, values: Mapping[str, object]) -> None:
    write_atomically(path, json.dumps(values, indent=1).encode())
