"""Cost of evaluation metrics: time relative to the network, and memory over the number of images.

    python benchmarks/evaluate.py [--model camvid] [--size 480x360] [--images 48] [--many 10000]

The first table evaluates the model on drawn streets. The second evaluates a small network on `--many` small images,
drawn in memory, and shows the resident memory after each tenth of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from refinenet import LabelSet, RefineNet
from refinenet.datasets.dataset import Dataset
from refinenet.io.console import print_table
from refinenet.labels import LabelMap

SMALL = (48, 64)
"""Height and width of the small images."""


def resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def measure_time(model: str, size: str, images: int) -> None:
    """Print the time of each part of an evaluation."""
    network = RefineNet(model=model)
    network.eval(f"streets:2:{size}", progress=False)
    parts = network.eval(f"streets:{images}:{size}", progress=False).parts
    total = parts.load + parts.network + parts.metrics
    rows = [
        [name, f"{1000 * seconds / images:.1f}", f"{100 * seconds / total:.1f}"]
        for name, seconds in (("load", parts.load), ("network", parts.network), ("metrics", parts.metrics))
    ]
    print_table(f"{model}, {images} images of {size}", ["", "ms per image", "% of the time"], rows)


def measure_memory(images: int) -> None:
    """Print the resident memory over the number of images."""
    label_set, held = LabelSet.numbered(11), []
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*SMALL, 3), np.uint8)

    def read_labels(item: str) -> LabelMap:
        if int(item) % (images // 10) == images // 10 - 1:
            held.append((int(item) + 1, resident()))
        return random.integers(0, 11, SMALL, np.uint8)

    dataset = Dataset(
        name="many",
        split="val",
        label_set=label_set,
        items=[str(number) for number in range(images)],
        read_image=lambda _: pixels,
        read_labels=read_labels,
    )
    RefineNet(encoder="mobilenetv2_050", num_classes=11).eval(lambda _: dataset, progress=False)
    print_table("Memory as images come", ["images", "MiB"], [[f"{n:,}", f"{mib:.0f}"] for n, mib in held])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="camvid")
    parser.add_argument("--size", default="480x360")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--many", type=int, default=10_000, help="0 leaves the second table out")
    arguments = parser.parse_args()
    measure_time(arguments.model, arguments.size, arguments.images)
    if arguments.many:
        measure_memory(arguments.many)


if __name__ == "__main__":
    main()
