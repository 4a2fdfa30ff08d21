"""Milliseconds from a prepared image to its label map: our default path, the plain network, a peer; in one run.

    python benchmarks/deploy.py [--encoder mobilenetv2_100] [--size 512] [--rounds 10]

"Plain" is the same network with the same weights as it was published: PyTorch eager, channels first, one 5x5 max pool.
Each round times every candidate once, in turn, so that a machine whose speed drifts slows all of them alike; the ratios
are medians over rounds.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from refinenet import RefineNet
from refinenet.backends.pytorch import PyTorchBackend
from refinenet.decoder import ChainedResidualPooling
from refinenet.network import Network
from refinenet.street_scene import draw_street
from refinenet.terminal import print_table
from refinenet.transforms import prepare

NUM_CLASSES = 21


def make_plain(network: Network) -> nn.Module:
    """A copy of the network with 5x5 pools, channels first in memory."""
    plain = copy.deepcopy(network)
    chains = [module for module in plain.modules() if isinstance(module, ChainedResidualPooling)]
    for chain in chains:
        chain.register_module("pool", nn.MaxPool2d(5, stride=1, padding=2))
    return plain.to(memory_format=torch.contiguous_format).eval()


def make_candidates(encoder: str, image: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is timed: functions from nothing to a label map."""
    network = RefineNet(model_type="lightweight", encoder=encoder, num_classes=NUM_CLASSES, device="cpu").network
    plain, backend = make_plain(network), PyTorchBackend(network)
    peer = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES
    ).eval()
    contiguous = image.contiguous()

    def run_peer() -> Tensor:
        logits: Tensor = peer(contiguous)["out"]
        return logits.argmax(1)

    return {
        "ours (default)": lambda: backend(image).argmax(1),
        "the plain network": lambda: plain(contiguous).argmax(1),
        "torchvision LRASPP MobileNetV3": run_peer,
    }


def time_rounds(candidates: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Time, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    image = prepare(draw_street(0, arguments.size, arguments.size)[0], torch.device("cpu"))
    with torch.inference_mode():
        candidates = make_candidates(arguments.encoder, image)
        seconds = time_rounds(candidates, arguments.rounds)
        ours, plain = candidates["ours (default)"](), candidates["the plain network"]()
    reference = seconds["the plain network"]
    rows = [
        [
            name,
            f"{1000 * statistics.median(values):.0f}",
            f"{statistics.median(p / v for p, v in zip(reference, values, strict=True)):.2f}x",
        ]
        for name, values in seconds.items()
    ]
    title = (
        f"light-weight {arguments.encoder}, {arguments.size}x{arguments.size}, batch 1, float32, "
        f"{torch.get_num_threads()} CPU threads: network + upsampling + argmax"
    )
    print_table(title, ["", "ms (median)", "speed against plain"], rows)
    print(f"Label maps of ours and plain agree on {100 * (ours == plain).float().mean().item():.3f} % of the pixels.")


if __name__ == "__main__":
    main()
