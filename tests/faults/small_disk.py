"""A disk that is really full: a small file system in memory, mounted where only one process sees it.

`unshare` and `mount` make it, for root and wherever users may have namespaces of their own. Beside it, the system's
limit on the size of files lets writes fail in their middle.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

from trials import Tally, contents, is_whole, leftovers, newest

from refinenet.training.records.checkpoints import Checkpoints

SIZE = 240_000
"""Of each of two files: half a megabyte to save."""
_ENTER = ["unshare", "--user", "--map-root-user", "--mount"]
_SIZES = [f"size={kilobytes}k" for kilobytes in (800, 1300, 1900, 2600)]
_COUNTS = [f"size=20m,nr_inodes={count}" for count in range(2, 24)]
"""Disks that are full of files: making the first one fails, the second one, and so on."""
_LIMITS = (0, 100, 1000, 100_000, 239_000)


def full_disk(folder: Path) -> list[Tally]:
    """Fill small disks, of few bytes and of few files, and limit the size of files, in processes of their own."""
    full = Tally("a disk that is really full (tmpfs)")
    _run([*_ENTER, sys.executable, __file__, "full", str(folder / "full")], full)
    full.remarks = "" if full.trials else "not possible on this machine: unshare or mount is missing or refused"
    limited = Tally("writes beyond the limit on file sizes")
    _run([sys.executable, __file__, "limited", str(folder / "limited")], limited)
    return [full, limited]


def _run(command: list[str], tally: Tally) -> None:
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    except FileNotFoundError:
        return
    lines = process.stdout.splitlines()
    tally.trials += lines.count("tried")
    tally.lost += [line for line in lines if line != "tried"]
    if "Traceback" in process.stderr:
        tally.other.append(process.stderr.splitlines()[-1])


def try_full_disks(folder: Path) -> None:
    """Print a line for each trial made and each problem found; ends at the first disk that may not be made."""
    for option in [*_SIZES, *_COUNTS]:
        place = folder / option
        place.mkdir(parents=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", option, "none", place], capture_output=True).returncode:
            return
        print(*(f"{option}: {problem}" for problem in fill(place)), "tried", sep="\n")


def try_limits(folder: Path) -> None:
    """Print a line for each trial made and each problem found."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for size in _LIMITS:
        print(*(f"{size} bytes: {problem}" for problem in limit(folder / str(size), size)), "tried", sep="\n")


def fill(folder: Path) -> list[str]:
    """Save until the disk is full; returns what went wrong."""
    good, place = 0, folder / "run" / "checkpoints"
    problems: list[str] = []
    for step in range(1, 40):
        try:
            Checkpoints(place, keep=100).save(step, contents(step, SIZE))
        except OSError as error:
            if "No space left" not in str(error):
                problems.append(f"step {step}: {error}")
            break
        good = step
    else:
        problems.append("the disk never became full")
    return problems + _problems(place, good)


def limit(folder: Path, size: int) -> list[str]:
    """Save while no file may become larger than `size` bytes; returns what went wrong."""
    place = folder / "checkpoints"
    Checkpoints(place).save(1, contents(1, SIZE))
    _, highest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, highest))
    try:
        Checkpoints(place).save(2, contents(2, SIZE))
        problems = ["no error"]
    except OSError as error:
        problems = [] if "File too large" in str(error) else [str(error)]
    problems += _problems(place, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (highest, highest))
    Checkpoints(place).save(2, contents(2, SIZE))
    return problems + _problems(place, 2)


def _problems(folder: Path, good: int) -> list[str]:
    if good == 0:
        return [f"left over {leftovers(folder)}"] if leftovers(folder) else []
    checkpoint = newest(folder)
    problems = [f"step {checkpoint.step} is the newest, {good} was acknowledged"] if checkpoint.step < good else []
    problems += [] if is_whole(checkpoint, SIZE) else [f"step {checkpoint.step} is not what was saved"]
    problems += list(checkpoint.quarantined)
    return problems + ([f"left over {leftovers(folder)}"] if leftovers(folder) else [])


if __name__ == "__main__":
    {"full": try_full_disks, "limited": try_limits}[sys.argv[1]](Path(sys.argv[2]))
