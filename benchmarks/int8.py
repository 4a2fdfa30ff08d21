"""What int8 costs and gives: mIoU before and after, and milliseconds from a prepared image to its labels, in one run.

    REFINENET_CAMVID=... python benchmarks/int8.py [--calibration 60] [--every 1] [--size 512] [--rounds 12]

The bundled model is quantised on images of CamVid's training split and measured on its validation split. "Plain" and
the rounds are those of `deploy.py`; all candidates have the same weights.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import torch
from deploy import make_plain, time_rounds
from torch import Tensor

from refinenet import RefineNet
from refinenet.datasets import Sample, open_dataset
from refinenet.network import Network
from refinenet.quantisation import MAX_DROP, Quantised, as_input, measure_on, quantise
from refinenet.street_scene import draw_street
from refinenet.terminal import print_table

Image = npt.NDArray[np.float32]


def translate(network: Network) -> Any:
    """The network as an `openvino.Model` in float, for any size."""
    free = torch.export.Dim.DYNAMIC
    shapes = {"images": {0: free, 2: free, 3: free}}
    return openvino.convert_model(
        torch.export.export(network.eval(), (torch.zeros(2, 3, 65, 97),), dynamic_shapes=shapes)
    )


def make_runner(model: Any, hint: str) -> Callable[[Image], Tensor]:
    """From an image `(1, 3, H, W)` to its labels."""
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(image: Image) -> Tensor:
        answer = request.infer([image], share_inputs=True, share_outputs=True)
        return torch.from_numpy(next(iter(answer.values()))).argmax(1)

    return run


def print_speed(network: Network, candidates: dict[str, tuple[Any, str]], size: int, rounds: int) -> None:
    """Time all candidates in turn and print their medians."""
    image = as_input(draw_street(0, size, size)[0])
    plain, tensor = make_plain(network), torch.from_numpy(image)
    runners = {name: make_runner(model, hint) for name, (model, hint) in candidates.items()}
    timed: dict[str, Callable[[], Tensor]] = {"the plain network": lambda: plain(tensor).argmax(1)}
    timed |= {name: partial(run, image) for name, run in runners.items()}
    with torch.inference_mode():
        seconds = time_rounds(timed, rounds)
    reference = seconds["the plain network"]
    rows = []
    for name, values in seconds.items():
        ratio = statistics.median(p / v for p, v in zip(reference, values, strict=True))
        rows.append([name, f"{1000 * statistics.median(values):.1f}", f"{ratio:.1f}x"])
    title = f"{size}x{size}, batch 1: network + upsampling + argmax, {torch.get_num_threads()} CPU threads for PyTorch"
    print_table(title, ["", "ms (median)", "speed against plain"], rows)


def print_quality(model: Any, found: Quantised, samples: list[Sample]) -> None:
    """Print mIoU, agreement and what stayed in float."""
    before, after = make_runner(model, "f32"), make_runner(found.model, "f32")
    images = (as_input(sample.image) for sample in samples)
    agreement = statistics.mean((before(image) == after(image)).float().mean().item() for image in images)
    print(f"mIoU on {len(samples)} images: {100 * found.miou_before:.2f} % in float32,", end=" ")
    print(f"{100 * found.miou_after:.2f} % in int8; the labels agree on {100 * agreement:.2f} % of the pixels.")
    print("Kept in float: " + ("; ".join(found.kept) or "nothing") + ".")


def main() -> None:
    """Quantise, measure, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=int, default=60, help="images of the training split")
    parser.add_argument("--every", type=int, default=1, help="measure on each so many-th image of the val split")
    parser.add_argument("--max-drop", type=float, default=MAX_DROP)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    splits = open_dataset("camvid")
    train, val = splits("train"), splits("val")
    chosen = np.linspace(0, len(train) - 1, arguments.calibration).astype(int)
    samples = [val[index] for index in range(0, len(val), arguments.every)]
    network = RefineNet(model="camvid", device="cpu").network
    model = translate(network)
    images = (as_input(train[index].image) for index in chosen.tolist())
    found = quantise(model, images, measure_on(samples, val.label_set), max_drop=arguments.max_drop)
    print_quality(model, found, samples)
    candidates = {"float32": (model, "f32"), "bfloat16": (model, "bf16"), "int8": (found.model, "f32")}
    print_speed(network, candidates, arguments.size, arguments.rounds)


if __name__ == "__main__":
    main()
