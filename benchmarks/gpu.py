"""GPU inference: images per second at the best batch size, and milliseconds for one image; ours and the plain network.

    python benchmarks/gpu.py [--encoder resnet50] [--size 512] [--rounds 20]

"Plain" is the published network with the same weights: PyTorch eager, channels first, float32, one 5x5 max pool. Ours
are `PyTorchBackend` in each of its precisions, and the same in float16 compiled with CUDA graphs. All go from prepared
images on the GPU to label maps. Batch sizes double until memory is exhausted; the best one is reported. The floor is
the network's multiply-adds at the speed of large float16 matrix products on the same GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from deploy import make_network, make_plain
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.upsampling import resize
from refinenet.io.console import print_table
from refinenet.models.inference_graph import fuse
from refinenet.models.network import Network

PLAIN = "plain network"
LARGEST_BATCH = 256

Labels = Callable[[Tensor], Tensor]


def make_candidates(network: Network) -> dict[str, Labels]:
    """Functions to be timed, from images to label maps."""

    def ours(precision: str) -> Labels:
        backend = PyTorchBackend(network, precision)
        return lambda images: resize(backend(images), images.shape[-2:]).argmax(1)

    plain = make_plain(network)
    half = fuse(network).half().to(memory_format=torch.channels_last)
    compiled = torch.compile(lambda images: half(images.half()).argmax(1), mode="reduce-overhead")
    return {
        PLAIN: lambda images: plain(images).argmax(1),
        "ours, float32": ours("float32"),
        "ours, bfloat16": ours("bfloat16"),
        "ours, float16": ours("float16"),
        "ours, float16, compiled with CUDA graphs": compiled,
    }


def time_once(run: Labels, images: Tensor) -> float:
    """Milliseconds between two synchronisations of the GPU."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    run(images)
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started)


def time_rounds(candidates: dict[str, Labels], images: Tensor, rounds: int) -> dict[str, float]:
    """Median milliseconds of each candidate for which the images fit into memory; each is timed once per round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 3):
        for name in list(times):
            try:
                found = time_once(candidates[name], images)
            except torch.cuda.OutOfMemoryError:
                del times[name]
                torch.cuda.empty_cache()
                continue
            if number >= 3:
                times[name].append(found)
    return {name: statistics.median(values) for name, values in times.items()}


def find_floor(network: Network, image: Tensor) -> float:
    """Milliseconds for the network's multiply-adds on one image at the speed of large float16 matrix products."""
    with FlopCounterMode(display=False) as counter:
        network(image)
    side = 8192
    left, right = (torch.randn(side, side, device=image.device, dtype=torch.float16) for _ in range(2))
    milliseconds = min(time_once(lambda factor: factor @ right, left) for _ in range(10))
    return float(counter.get_total_flops()) / (2 * side**3 / milliseconds)


def main() -> None:
    """Time, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("There is no NVIDIA GPU here, or this PyTorch was built without CUDA.")
    device = torch.device("cuda")
    network = make_network(arguments.encoder).to(device)
    candidates = make_candidates(network)
    latency: dict[str, float] = {}
    rate: dict[str, tuple[float, int]] = {}
    batch = 1
    with torch.inference_mode():
        floor = find_floor(network, torch.rand(1, 3, arguments.size, arguments.size, device=device))
        reference = candidates[PLAIN](torch.rand(1, 3, arguments.size, arguments.size, device=device))
        assert reference.shape == (1, arguments.size, arguments.size)
        while batch <= LARGEST_BATCH:
            images = torch.rand(batch, 3, arguments.size, arguments.size, device=device)
            found = time_rounds(candidates, images, arguments.rounds)
            if not found:
                break
            for name, milliseconds in found.items():
                if batch == 1:
                    latency[name] = milliseconds
                rate[name] = max(rate.get(name, (0.0, 0)), (1000 * batch / milliseconds, batch))
            batch *= 2
    rows = [
        [
            name,
            f"{latency[name]:.2f}",
            f"{latency[PLAIN] / latency[name]:.2f}x",
            f"{rate[name][0]:.0f}",
            str(rate[name][1]),
            f"{rate[name][0] / rate[PLAIN][0]:.2f}x",
            f"{1000 / rate[name][0] / floor:.1f}",
        ]
        for name in candidates
    ]
    title = (
        f"light-weight {arguments.encoder}, {arguments.size}x{arguments.size}, {torch.cuda.get_device_name()}; floor "
        f"{floor:.3f} ms an image (float16)"
    )
    columns = ["", "ms, batch 1", "against plain", "images/s", "at batch", "against plain", "times the floor"]
    print_table(title, columns, rows)


if __name__ == "__main__":
    main()
