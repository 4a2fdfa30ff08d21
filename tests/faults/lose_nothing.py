"""Kill training's checkpoint writing, let the disk fail, damage what was written: no run may be lost, none begun anew.

    python tests/faults/lose_nothing.py --kills 200

prints a table, and ends with exit code 1 where a run was lost, or begun anew without a word. It needs a system with
signals (Linux, macOS); the trials on a full disk need Linux.
"""

from __future__ import annotations

import argparse
import errno
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from damage import damage
from failing_disk import ERRORS, sweep, sweep_loading
from killed_training import kill_training
from kills import kill
from lost_power import lose_power
from small_disk import full_disk
from trials import Tally

from refinenet.io.console import print_table

QUICK_DISK = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""A death of a process, unlike one of the machine, looks the same in memory and on a disk, and memory is quick."""


def trials(kills: int, trainings: int, seed: int, folder: Path) -> Iterator[Tally]:
    """All trials, one kind of fault after the other."""
    if trainings:
        yield kill_training(trainings, seed, folder / "trainings")
    yield kill(kills, seed, folder / "kills")
    yield sweep(0, folder / "operations")
    for error in ERRORS:
        yield sweep(error, folder / "operations")
        yield sweep(error, folder / "operations", lasting=True)
    yield sweep(errno.EIO, folder / "operations", done=True)
    yield sweep_loading(folder / "loading")
    yield lose_power(seed, folder / "power", disks=10)
    yield from full_disk(folder / "disks")
    yield from damage(seed, folder / "damage", flips=200)


def main() -> None:
    """Parse, try, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="processes to kill while they save (default: 200)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments and bits; by default another each time")
    parser.add_argument("--folder", type=Path, default=QUICK_DISK, help="where to work (default: in memory)")
    parser.add_argument("--training", type=int, default=0, help="real trainings to kill, too (default: 0; each ~10 s)")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(10**6)
    started, tallies = time.monotonic(), []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for tally in trials(arguments.kills, arguments.training, seed, Path(folder).resolve()):
            tallies.append(tally)
            print(f"{time.monotonic() - started:5.0f} s  {tally.fault}: {tally.trials} trials. {tally.remarks}")
    rows = [[t.fault, *map(str, (t.trials, len(t.lost), len(t.silent), len(t.other)))] for t in tallies]
    sums = [str(sum(int(row[column]) for row in rows)) for column in range(1, 5)]
    columns = ["fault", "trials", "runs lost", "silent", "other failures"]
    print_table(f"Faults, seed {seed}", columns, [*rows, ["all", *sums]])
    failures = [text for tally in tallies for text in tally.failures]
    print(*failures[:20], sep="\n", end="\n" if failures else "")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
