"""Downloads that arrive completely or not at all, however the connection and the server behave.

Downloaded bytes are kept in `NAME.part` until the file is complete and verified. `NAME.part.json` records which version
of the file they belong to, so that a later attempt, or a later run, resumes the download. `NAME.fetched.json` records
the address of the file, its size and its SHA-256 afterwards.

Names, paths and hashes come from the caller, never from the server. By the rules of HTTP a file ends where its
Content-Length says, and only a hash can disprove that. Without a known hash, an existing file is recognised by the
recorded address and size; the recorded SHA-256 is for people to compare.
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
from refinenet.io.processes.locks import only_one

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes downloaded, and of all bytes, or None if the server does not say."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Limits on attempts and waiting."""

    attempts: int = 6
    """Maximum number of consecutive attempts that bring less than a megabyte each."""
    timeout: float = 30.0
    """Seconds that the server may send nothing, or next to nothing, of the file. Connection, status and headers must be
    complete after twice as many, for each redirect."""
    pause: float = 1.0
    """Seconds before the second attempt; the pauses double from there (exponential backoff)."""
    longest_pause: float = 120.0
    """Maximum seconds between two attempts; a server that asks for a longer pause is given up."""
    max_unannounced: int = MAX_UNANNOUNCED
    """Maximum bytes of a file whose length the server does not announce."""


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
    """Download `url` to the file `target`, unless it exists already.

    An existing file is accepted if its hash is right or, without a known hash, if `url` and its size are the recorded
    ones or nothing is recorded (the user put it there). A wrong file is renamed to `NAME.wrong`.

    Args:
        url: An http or https address. Redirects are followed, but never from https to http.
        target: The file to write; missing folders are created.
        mirror: Another address to download the same file from.
        sha256: Hexadecimal SHA-256, if known.
        md5: Hexadecimal MD5, used only without `sha256`.
        patience: Limits on attempts and waiting.
        progress: Called with the number of bytes.
        note: Called with a sentence on each failed attempt and each restart.

    Returns:
        `target`.

    Raises:
        ValueError: The address is not valid, or the file has another hash than expected and was quarantined.
        OSError: The server refuses, the connection fails repeatedly, or the disk is full. Downloaded bytes are kept.
    """
    check_address(mirror or url)
    job = _Job(
        url=url,
        address=mirror or url,
        target=target,
        hashes={name: value.lower() for name, value in (("sha256", sha256), ("md5", md5)) if value},
        patience=patience,
        progress=progress or _ignore,
        note=note or _ignore,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    waiting = partial(job.note, f"{target.name}: another process is downloading it; waiting.")
    with only_one(job.beside(".lock"), waiting):
        if not _is_there(job):
            _download(job)
            _finish(job)
    return target


def _ignore(*_: object) -> None:
    """Ignore progress and notes."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    url: str
    """Address of the owner, which identifies the file."""
    address: str
    """Address that the file is downloaded from."""
    target: Path
    hashes: Mapping[str, str]
    """Expected hash by algorithm, the strongest first."""
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
        raise FileExistsError(f"{job.target} exists and is not a file. Move it away.")
    problem = _wrong_hash(job, job.target) if job.hashes else _wrong_record(job)
    if problem is None:
        return True
    quarantined = job.target.replace(job.beside(".wrong"))
    job.note(f"{job.target} is not the expected file ({problem}). Renamed to {quarantined.name}; downloading again.")
    return False


def _download(job: _Job) -> None:
    """Try until the part is complete."""
    failures, most = 0, job.have()
    while True:
        try:
            return _attempt(job)
        except PassingError as error:
            have = job.have()
            # Progress of a megabyte resets the count, so a slow connection may need any number of attempts.
            failures = 0 if have >= most + BLOCK else failures + 1
            most = max(most, have)
            wait = job.patience.pause * 2 ** max(failures - 1, 0) if error.wait is None else error.wait
            if failures >= job.patience.attempts or (error.wait or 0) > job.patience.longest_pause:
                asked = "" if error.wait is None else f" and asks to wait {error.wait:,.0f} s"
                raise OSError(
                    f"{job.address} could not be downloaded: {error}{asked}. Run again later, or use a mirror"
                    + (f"; {job.part} keeps the {have:,} bytes downloaded so far." if have else ".")
                ) from error
            wait = min(wait, job.patience.longest_pause)
            job.note(f"{job.target.name}: {error}. Trying again in {wait:.3g} s.")
            time.sleep(wait)


def _attempt(job: _Job) -> None:
    version, have = _known_version(job), job.have()
    if version and have and have == version.size:
        return
    # Without a validator or a hash nothing would show that the rest belongs to another version.
    can_resume = version and (version.validator or job.hashes) and have < (version.size or have + 1)
    have = have if can_resume else 0
    try:
        response = ask(job.address, job.patience.timeout, have=have, version=version)
    except PassingError as error:
        if error.is_misfit:
            job.part.unlink(missing_ok=True)
        raise
    with closing(response):
        _check(job, response)
        if response.start == 0:
            _restart(job, response, bool(have))
        _store(job, response)


def _known_version(job: _Job) -> Version | None:
    """Return the version that the part belongs to, if it is recorded and the part comes from the same address."""
    values = _read_json(job.beside(".part.json"))
    validator, size = values.get("validator"), values.get("bytes")
    if values.get("url") != job.address:
        return None
    return Version(
        validator=validator if isinstance(validator, str) else None, size=size if isinstance(size, int) else None
    )


def _check(job: _Job, response: Response) -> None:
    if not response.ends_clearly and not job.hashes:
        raise OSError(
            f"{job.address}: the server does not state the length of the file, so completeness cannot be checked. "
            "Download it by other means, or use a mirror."
        )
    needed, free = (response.version.size or 0) - response.start, shutil.disk_usage(job.target.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{job.target} needs {needed:,} more bytes, but the disk has {free:,}. Free some space and run again",
        )


def _restart(job: _Job, response: Response, was_asked_to_continue: bool) -> None:
    if was_asked_to_continue:
        job.note(f"{job.target.name}: the server has another version, or cannot resume a download. Starting again.")
    job.part.unlink(missing_ok=True)
    version = {"url": job.address, "validator": response.version.validator, "bytes": response.version.size}
    _write_json(job.beside(".part.json"), version)


def _store(job: _Job, response: Response) -> None:
    have, size = response.start, response.version.size
    try:
        with job.part.open("ab") as stream:
            for block in response.blocks(job.patience.timeout):
                stream.write(block)
                have += len(block)
                if size is None and have > job.patience.max_unannounced:
                    break
                job.progress(have, size)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OSError(
            error.errno,
            f"Cannot write {job.part}: {error.strerror}. The downloaded part is kept: free some space and run again",
        ) from error
    if size is None and have > job.patience.max_unannounced:
        job.part.unlink()
        raise OSError(
            f"{job.address}: the server does not state the length of the file, and sent more than "
            f"{job.patience.max_unannounced:,} bytes. Download it by other means, or use a mirror."
        )
    if size is not None and job.have() != size:
        raise PassingError(f"the connection ended after {have:,} of {size:,} bytes")


def _finish(job: _Job) -> None:
    problem = _wrong_hash(job, job.part) if job.hashes else None
    if problem:
        with job.part.open("rb") as stream:
            is_page = stream.read(200).lstrip().lower().startswith((b"<!doctype", b"<html"))
        quarantined = job.part.replace(job.beside(".wrong"))
        job.beside(".part.json").unlink(missing_ok=True)
        raise ValueError(
            f"{job.address} is not the expected file: {problem}.{' It is a web page.' if is_page else ''} "
            f"It was quarantined as {quarantined}. Run again to download it again; if it is the same, use a mirror."
        )
    record = {"url": job.url, "from": job.address, "bytes": job.have(), "sha256": _digest("sha256", job.part)}
    # The record comes last: a target without a record counts as put there by the user, never as wrong.
    job.part.replace(job.target)
    _write_json(job.beside(".fetched.json"), record)  # also flushes the folder, and with it the rename
    job.beside(".part.json").unlink(missing_ok=True)


def _wrong_hash(job: _Job, path: Path) -> str | None:
    name, expected = next(iter(job.hashes.items()))
    actual = _digest(name, path)
    return None if actual == expected else f"its {name.upper()} is {actual}, expected {expected}"


def _wrong_record(job: _Job) -> str | None:
    record = _read_json(job.beside(".fetched.json"))
    if record.get("url", job.url) != job.url:
        return f"it came from {record['url']}"
    recorded, size = record.get("bytes"), job.target.stat().st_size
    return f"it has {size:,} bytes instead of {recorded:,}" if isinstance(recorded, int) and recorded != size else None


def _digest(name: str, path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()


def _read_json(path: Path) -> Mapping[str, object]:
    """Read the object in one of our small JSON files; empty if the file is missing or damaged."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write_json(path: Path, values: Mapping[str, object]) -> None:
    write_atomically(path, json.dumps(values, indent=1).encode())
