"""Whether the server should join images into batches: the network alone, in batches of 1, 2, 4 and 8.

    python benchmarks/serve_batches.py [--model camvid] [--rounds 5]

Each round times every batch once, in turn, on the same number of images, so that drifting machine speed affects all of
them equally; gains are medians over rounds of the time for single images divided by that in batches. Processor time
counts all threads, and depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from refinenet import RefineNet
from refinenet.io.console import print_table

BATCHES = (1, 2, 4, 8)
SIZES = ((360, 480), (512, 512))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="camvid")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    backend = RefineNet(model=arguments.model)._segmenter.backend
    rows = []
    for height, width in SIZES:
        images = {count: torch.rand(count, height, width, 3).permute(0, 3, 1, 2) for count in BATCHES}
        for batch in images.values():
            backend(batch)
        wall: dict[int, list[float]] = {count: [] for count in BATCHES}
        work: dict[int, list[float]] = {count: [] for count in BATCHES}
        for _ in range(arguments.rounds):
            for count, batch in images.items():
                used, started = time.process_time(), time.perf_counter()
                for _ in range(max(BATCHES) // count):
                    backend(batch)
                wall[count].append((time.perf_counter() - started) / max(BATCHES))
                work[count].append((time.process_time() - used) / max(BATCHES))
        for count in BATCHES:
            gains = [
                statistics.median(single / joined for single, joined in zip(times[1], times[count], strict=True))
                for times in (wall, work)
            ]
            middle = [f"{1000 * statistics.median(times[count]):.0f}" for times in (wall, work)]
            rows.append([f"{width}x{height}, batch of {count}", *middle, *(f"{gain:.2f}" for gain in gains)])
    print_table("An image", ["", "ms", "processor ms", "gain", "gain of processor"], rows)


if __name__ == "__main__":
    main()
