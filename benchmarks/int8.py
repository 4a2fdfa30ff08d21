"""Speed of the bundled model in float32, bfloat16 and int8 beside the published network, in one run.

    python benchmarks/int8.py [--size 512] [--rounds 12]

"Plain" is the light-weight network as published (the bundled `camvid_256`), run as published: PyTorch eager, channels
first, 5x5 pools. The bundled model is run as `RefineNet(model="camvid", precision=...)` runs it: in int8 by the record
in its file, without any image. Accuracies are those of the record. A round times all candidates once, so that other
load on the machine affects all alike.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from deploy import make_plain, time_rounds

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.backends.base import InferencePrecision
from refinenet.inference.backends.graph import computes_in_bfloat16
from refinenet.inference.segmenter import prepare
from refinenet.io.arrays import Array
from refinenet.io.console import print_table
from refinenet.models.network import Network

PLAIN = "the plain published network"


def open_ours(precision: InferencePrecision, pixels: Array) -> Callable[[], Array]:
    """Return a function from the image to its labels `(H, W)`."""
    model = RefineNet(model="camvid", device="cpu", backend="openvino", precision=precision)
    return lambda: model.predict(pixels).labels


def open_plain(network: Network, pixels: Array) -> Callable[[], Array]:
    """Return the same for the network as published."""
    plain, image = make_plain(network), torch.from_numpy(prepare(pixels, "cpu")).contiguous()

    def run() -> Array:
        with torch.inference_mode():
            return plain(image).argmax(1)[0].numpy()

    return run


def main() -> None:
    """Time, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    pixels = draw_street(0, arguments.size, arguments.size)[0]
    published = RefineNet(model="camvid_256", device="cpu", backend="pytorch").network
    precisions: list[InferencePrecision] = ["float32", "int8"]
    if computes_in_bfloat16():
        precisions.append("bfloat16")
    candidates = {PLAIN: open_plain(published, pixels)} | {each: open_ours(each, pixels) for each in precisions}
    labels = {name: run() for name, run in candidates.items()}
    seconds = time_rounds(candidates, arguments.rounds)
    rows = []
    for name, values in seconds.items():
        ratio = statistics.median(p / v for p, v in zip(seconds[PLAIN], values, strict=True))
        same = "" if name == PLAIN else f"{100 * np.mean(labels[name] == labels['float32']):.2f}"
        rows.append([name, f"{1000 * statistics.median(values):.1f}", f"{ratio:.1f}x", same])
    side, threads = arguments.size, torch.get_num_threads()
    title = f"{side}x{side}, from pixels to labels, {threads} CPU threads"
    print_table(title, ["", "ms (median)", "speed against plain", "same labels as in float32, %"], rows)
    record = RefineNet(model="camvid", device="cpu").card.int8
    assert record is not None
    print(f"mIoU on CamVid val, on which it was trained: {record.scores}")


if __name__ == "__main__":
    main()
