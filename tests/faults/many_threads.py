"""Predict from many threads, a forked pool and a spawned pool, and compare each label map with the sequential one.

Run: python tests/faults/many_threads.py [backend or exported file ...] [--threads 8] [--images 500] [--workers 2]

Each thread segments all images, beginning with another one; each pool all of them once. Network and images are small.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet import RefineNet

SIZES = ((40, 56), (64, 48), (33, 90))
EXPORTS = ("small.xml", "small.onnx")


def memory() -> float:
    """Resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def draw(number: int) -> npt.NDArray[np.uint8]:
    """Draw an image of random blocks, `(H, W, 3)` uint8, of one of three sizes."""
    height, width = SIZES[number % len(SIZES)]
    blocks = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)[:height, :width]


def hash_labels(model: RefineNet, number: int) -> str:
    """Hash of the label map of an image."""
    return hashlib.sha256(model.segment(draw(number)).labels.tobytes()).hexdigest()


_MODEL: list[RefineNet] = []
"""The model of a process of a pool."""


def keep_model(model: RefineNet) -> None:
    """Keep the model in a process of a pool."""
    _MODEL[:] = [model]


def hash_in_pool(number: int) -> str:
    """As `hash_labels`, with the model that the process was given."""
    return hash_labels(_MODEL[0], number)


def segment_in_threads(model: RefineNet, threads: int, images: int) -> list[str]:
    """Let each thread segment all images; their hashes, thread by thread in the order of the images."""

    def work(thread: int) -> list[str]:
        found = [""] * images
        for step in range(images):
            number = (thread * images // threads + step) % images
            found[number] = hash_labels(model, number)
        return found

    with ThreadPoolExecutor(threads) as pool:
        return [each for found in pool.map(work, range(threads)) for each in found]


def segment_in_pool(model: RefineNet, start: str, workers: int, images: int) -> list[str]:
    """Let a pool of processes segment all images: forked ones inherit the model, spawned ones unpickle it."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context(start), keep_model, (model,)) as pool:
        return list(pool.map(hash_in_pool, range(images), chunksize=10))


def compare(model: RefineNet, threads: int, images: int, workers: int) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each way to predict, its hashes and those of the sequence; the threads begin before all others."""
    together = segment_in_threads(model, threads, images)
    alone = [hash_labels(model, number) for number in range(images)]
    yield f"{threads} threads x {images}", together, alone * threads
    yield f"forked pool of {workers}", segment_in_pool(model, "fork", workers, images), alone
    yield f"spawned pool of {workers}", segment_in_pool(model, "spawn", workers, images), alone
    yield "sequence once more", [hash_labels(model, number) for number in range(images)], alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["auto", "pytorch", "openvino", "onnxruntime", "compiled", *EXPORTS])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    all_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.safetensors"
        made = RefineNet(encoder="test_resnet", num_classes=4, device="cpu", seed=1)
        made.save(small)
        for what in arguments.what:
            if what in EXPORTS:
                made.export(Path(folder) / what, sizes=((40, 56),), progress=False)
                r = RefineNet(model=Path(folder) / what)
            else:
                r = RefineNet(model=what) if Path(what).suffix else RefineNet(model=small, device="cpu", backend=what)
            for way, found, expected in compare(r, arguments.threads, arguments.images, arguments.workers):
                wrong = sum(one != other for one, other in zip(found, expected, strict=True))
                all_wrong += wrong
                line = (
                    f"{len(found)} label maps ({len(set(expected))} different ones), {wrong} wrong, {memory():.0f} MiB"
                )
                print(f"{time.strftime('%H:%M:%S')} {what}, {way}: {line}", flush=True)
    sys.exit(1 if all_wrong else 0)


if __name__ == "__main__":
    main()
