"""Predict from many threads with mixed sizes and compare each label map with the sequential one.

Run: python tests/faults/many_threads.py [backend or exported file ...] [--threads 16] [--calls 2000]
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from refinenet import RefineNet

SIZES = ((40, 56), (64, 48), (33, 90))


def memory() -> float:
    """Resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure(r: RefineNet, threads: int, calls: int) -> tuple[int, int, float, float]:
    """Errors, wrong label maps, and memory after a tenth of the calls and after all."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*SIZES[k % 3], 3), np.uint8) for k in range(12)]
    alone = [r.segment(image).labels for image in images]
    errors, wrong = [0] * threads, [0] * threads

    def work(place: int, count: int) -> None:
        for call in range(count):
            k = (place + 5 * call) % len(images)
            try:
                wrong[place] += not np.array_equal(r.segment(images[k]).labels, alone[k])
            except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
                errors[place] += 1
                print(type(error).__name__, error)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads), [calls // 10] * threads))
        early = memory()
        list(pool.map(work, range(threads), [calls - calls // 10] * threads))
    return sum(errors), sum(wrong), early, memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["auto", "pytorch", "openvino", "onnxruntime", "compiled"])
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--calls", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.safetensors"
        RefineNet(encoder="test_resnet", num_classes=4, device="cpu", seed=1).save(small)
        for what in arguments.what:
            if Path(what).suffix in (".onnx", ".xml"):
                r = RefineNet(model=what)
            else:
                r = RefineNet(model=small, device="cpu", backend=what)
            errors, wrong, early, late = measure(r, arguments.threads, arguments.calls)
            total = arguments.threads * arguments.calls
            print(f"{what}: {total} calls, {errors} errors, {wrong} wrong, {early:.0f} -> {late:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
