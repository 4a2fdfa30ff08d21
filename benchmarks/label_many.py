"""Ranking of many images: memory over time, and what a kill costs.

    python benchmarks/label_many.py --output FOLDER [--images 10000] [--size 64 48] [--kills 2] [--model FILE]

Writes small pictures, runs `refinenet label next` on them, kills it with SIGKILL at equal shares of the images, starts
it again, and prints the largest resident memory of each part of the run, how many images were measured in it, and
whether the list is that of an uninterrupted run (`--whole` makes that one, too). Pictures that are there stay.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from refinenet import RefineNet
from refinenet.io.console import print_table
from refinenet.io.images.codec import write


def draw(folder: Path, images: int, size: tuple[int, int]) -> None:
    """Write pictures of random blocks."""
    random = np.random.default_rng(0)
    for number in range(images):
        path = folder / f"{number:06d}.png"
        blocks = random.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
        if not path.exists():
            write(path, blocks.repeat(8, 0).repeat(8, 1))


def read_memory(process: int) -> int:
    """Return the resident memory of a process in bytes; 0 once it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def count(journal: Path) -> int:
    """Return the number of lines."""
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def run(command: list[str], journal: Path, kill_at: int | None) -> list[str]:
    """Run the command, until it has measured a number of images if one is given; return a row of the table."""
    before, started = count(journal), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples: list[tuple[int, int]] = []
    while process.poll() is None:
        done = count(journal)
        samples.append((done, read_memory(process.pid)))
        if kill_at is not None and done >= kill_at:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            break
        time.sleep(1)
    done = count(journal)
    working = [memory for lines, memory in samples if before + 20 <= lines < done] or [0]
    first, last = working[0] / 2**20, max(working[len(working) // 2 :]) / 2**20
    seconds, memory = time.monotonic() - started, max(memory for _, memory in samples) / 2**20
    end = "killed" if kill_at is not None else f"ended with {process.returncode}"
    return [end, f"{before:,} to {done:,}", f"{seconds:.0f}", f"{first:.0f}", f"{last:.0f}", f"{memory:.0f}"]


def main() -> None:
    """Draw, run, kill, run again, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, nargs=2, default=(64, 48), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--model", help="by default a tiny untrained network")
    parser.add_argument("--whole", action="store_true", help="also run without a kill, and compare the lists")
    arguments = parser.parse_args()
    folder: Path = arguments.output
    draw(folder / "photos", arguments.images, arguments.size)
    model = arguments.model or str(folder / "tiny.safetensors")
    if arguments.model is None:
        RefineNet(encoder="test_resnet", num_classes=5, device="cpu").save(model)
    command = [sys.executable, "-m", "refinenet", "label", "next", str(folder / "photos"), "-m", model]
    command += ["--count", "50", "--format", "png", "--device", "cpu", "-o"]
    rows, target = [], folder / "todo"
    for number in range(1, arguments.kills + 1):
        kill_at = arguments.images * number // (arguments.kills + 1)
        rows.append(run([*command, str(target)], target / "measured.jsonl", kill_at))
    rows.append(run([*command, str(target)], target / "measured.jsonl", None))
    columns = ["part", "images measured", "seconds", "MiB at first", "MiB in its second half", "MiB at most"]
    print_table(f"{arguments.images:,} images", columns, rows)
    if arguments.whole:
        run([*command, str(folder / "whole")], folder / "whole" / "measured.jsonl", None)
        same = (folder / "whole" / "todo.txt").read_bytes() == (target / "todo.txt").read_bytes()
        print("The list is that of an uninterrupted run." if same else "The list DIFFERS from an uninterrupted run.")


if __name__ == "__main__":
    main()
