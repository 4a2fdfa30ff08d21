"""Int8: accuracy and speed of the bundled model before and after quantisation, in one run.

    REFINENET_CAMVID=... python benchmarks/int8.py [--dataset camvid] [--max-drop 0.005] [--size 512] [--rounds 12]

The model is quantised on images of the dataset's training split and measured on its validation split by
`RefineNet.export`; the certificate records mIoU before and after, and the layers that stay in floating point. "Plain"
and the rounds are those of `deploy.py`; all candidates have the same weights, and the exported file is run as
`RefineNet(model=...)` does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from deploy import find_labels, make_plain, time_rounds
from torch import Tensor

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.export.certificate import Certificate
from refinenet.export.defaults import MAX_DROP
from refinenet.export.loading.loader import open_exported
from refinenet.inference.backends import open_backend
from refinenet.inference.backends.base import InferencePrecision
from refinenet.inference.backends.graph import ExportedModel, computes_in_bfloat16
from refinenet.inference.segmenter import prepare
from refinenet.io.console import print_table
from refinenet.models.network import Network

PLAIN = "the plain network"


def print_quality(certificate: Certificate) -> None:
    """Print mIoU, agreement and the layers that stayed in floating point."""
    found = certificate.comparison
    assert found.scored is not None
    before, after = found.scored.miou_before, found.scored.miou_after
    assert before is not None
    assert after is not None
    print(f"mIoU on {found.scored.images} images: {100 * before:.2f} % in float32, {100 * after:.2f} % in int8.")
    print("Kept in float: " + ("; ".join(certificate.kept_in_float) or "nothing") + ".")


def time_all(network: RefineNet, exported: Path, size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, from a prepared image to its labels."""
    image = prepare(draw_street(0, size, size)[0], torch.device("cpu"))
    plain, contiguous = make_plain(network.network), image.contiguous()

    def ours(model: Network | ExportedModel, precision: InferencePrecision) -> Callable[[], Tensor]:
        return partial(find_labels, open_backend(model, "openvino", precision), image)

    int8, _ = open_exported(exported, "openvino")

    candidates: dict[str, Callable[[], Tensor]] = {
        PLAIN: lambda: plain(contiguous).argmax(1),
        "OpenVINO float32": ours(network.network, "float32"),
        "OpenVINO int8": ours(int8, "float32"),
    }
    if computes_in_bfloat16():
        candidates["OpenVINO bfloat16"] = ours(network.network, "bfloat16")
        candidates["OpenVINO int8, the rest in bfloat16"] = ours(int8, "bfloat16")
    with torch.inference_mode():
        reference = candidates[PLAIN]()
        for name, run in candidates.items():
            print(f"{name}: {100 * (run() == reference).float().mean().item():.2f} % of the pixels as plain")
        return time_rounds(candidates, rounds)


def print_speed(seconds: dict[str, list[float]], title: str) -> None:
    """Print medians, and medians of the ratios to the plain network."""
    rows = []
    for name, values in seconds.items():
        ratio = statistics.median(p / v for p, v in zip(seconds[PLAIN], values, strict=True))
        rows.append([name, f"{1000 * statistics.median(values):.1f}", f"{ratio:.1f}x"])
    print_table(title, ["", "ms (median)", "speed against plain"], rows)


def main() -> None:
    """Export, measure, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument("--max-drop", type=float, default=MAX_DROP)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    network = RefineNet(model="camvid", device="cpu", backend="openvino")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        certificate = network.export(
            path, dataset=arguments.dataset, precision="int8", max_drop=arguments.max_drop, progress=False
        )
        print_quality(certificate)
        seconds = time_all(network, path, arguments.size, arguments.rounds)
    size, threads = arguments.size, torch.get_num_threads()
    print_speed(seconds, f"{size}x{size}, batch 1: network + upsampling + argmax, {threads} CPU threads")


if __name__ == "__main__":
    main()
