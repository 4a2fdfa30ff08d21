"""Inference speed: our network in every backend and precision, the plain network, and peers, in one run.

    python benchmarks/deploy.py [--encoder mobilenetv2_100] [--size 512] [--rounds 12] [--no-peers] [--no-memory]

"Plain" is the published network with the same weights: PyTorch eager, channels first, one 5x5 max pool. Peers are
networks from PyPI with the same kind of encoder and random weights, as they are normally run (PyTorch eager, channels
first), and translated for OpenVINO, their best export; peers whose package is not installed are skipped (`pip
install segmentation-models-pytorch transformers`).

Each round times every candidate once, in turn, so that drifting machine speed affects all of them equally; the ratios
are medians over rounds. Memory is the peak of a process that does nothing else, including PyTorch itself. The floor is
the network's multiply-adds at the speed of large float32 matrix products on the same cores.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.backends import open_backend
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.inference.segmenter import prepare
from refinenet.inference.upsampling import largest_class
from refinenet.io.arrays import Array
from refinenet.io.console import print_table
from refinenet.models.decoder import ChainedResidualPooling
from refinenet.models.network import Network

NUM_CLASSES = 21
PLAIN = "plain network"
OURS: dict[str, tuple[BackendName, InferencePrecision]] = {
    "ours, PyTorch": ("pytorch", "float32"),
    "ours, PyTorch compiled": ("compiled", "float32"),
    "ours, ONNX Runtime": ("onnxruntime", "float32"),
    "ours, OpenVINO": ("openvino", "float32"),
    "ours, OpenVINO bfloat16": ("openvino", "bfloat16"),
}
SMP = {"Unet": "mobilenet_v2", "FPN": "mobilenet_v2", "DeepLabV3Plus": "mobilenet_v2"}

Candidate = Callable[[], Tensor]


def make_plain(network: Network) -> nn.Module:
    """Copy the network with 5x5 pools, channels first in memory."""
    plain = copy.deepcopy(network)
    chains = [module for module in plain.modules() if isinstance(module, ChainedResidualPooling)]
    for chain in chains:
        chain.register_module("pool", nn.MaxPool2d(5, stride=1, padding=2))
    return plain.to(memory_format=torch.contiguous_format).eval()


def make_network(encoder: str) -> Network:
    layers = {"resnet50": 50, "resnet101": 101, "resnet152": 152}.get(encoder)
    named: dict[str, Any] = {"encoder": encoder} if layers is None else {"num_layers": layers}
    return RefineNet(model_type="lightweight", num_classes=NUM_CLASSES, device="cpu", **named).network


def find_labels(backend: Callable[[Array], Array], image: Array) -> Array:
    """Labels `(1, H, W)` of a prepared image, computed as in `Segmenter`."""
    return largest_class(backend(image)[0], (image.shape[2], image.shape[3]))[None]


class Peer(nn.Module):
    """A peer network with upsampling and argmax."""

    def __init__(self, network: nn.Module, find_logits: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.network, self.find_logits = network.eval(), find_logits

    def forward(self, images: Tensor) -> Tensor:
        """Images `(1, 3, H, W)` to labels `(1, H, W)`."""
        logits = self.find_logits(self.network(images))
        if logits.shape[-2:] != images.shape[-2:]:
            logits = functional.interpolate(logits, images.shape[-2:], mode="bilinear")
        return logits.argmax(1)


def make_peers() -> dict[str, Callable[[], Peer]]:
    """Factories of the peers whose package is installed."""

    def make_lraspp() -> Peer:
        made = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=NUM_CLASSES
        )
        return Peer(made, lambda out: out["out"])

    def make_smp(name: str, encoder: str) -> Peer:
        package = importlib.import_module("segmentation_models_pytorch")
        return Peer(getattr(package, name)(encoder, encoder_weights=None, classes=NUM_CLASSES), lambda out: out)

    def make_segformer() -> Peer:
        package = importlib.import_module("transformers")
        config = package.SegformerConfig(num_labels=NUM_CLASSES)
        return Peer(package.SegformerForSemanticSegmentation(config), lambda out: out.logits)

    peers: dict[str, Callable[[], Peer]] = {"torchvision LRASPP MobileNetV3": make_lraspp}
    if importlib.util.find_spec("segmentation_models_pytorch"):
        peers |= {f"SMP {name} {encoder}": partial(make_smp, name, encoder) for name, encoder in SMP.items()}
    if importlib.util.find_spec("transformers"):
        peers["SegFormer-B0"] = make_segformer
    return peers


def translate_peer(peer: Peer, image: Tensor) -> Candidate:
    openvino = importlib.import_module("openvino")
    with torch.no_grad():
        model = openvino.convert_model(torch.export.export(peer, (image,)))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: torch.from_numpy(next(iter(request.infer([image.numpy()]).values())))


def list_makers(encoder: str, image: Tensor, peers: bool) -> dict[str, Callable[[], Candidate]]:
    """Factories of the candidates; a candidate is a function without arguments that returns a label map."""
    contiguous = image.contiguous()

    def make_plain_candidate() -> Candidate:
        plain = make_plain(make_network(encoder))
        return lambda: plain(contiguous).argmax(1)

    def make_ours(name: BackendName, precision: InferencePrecision) -> Candidate:
        return partial(find_labels, open_backend(make_network(encoder), name, precision), image)

    def make_peer(make: Callable[[], Peer]) -> Candidate:
        return partial(make(), contiguous)

    def make_translated(make: Callable[[], Peer]) -> Candidate:
        return translate_peer(make(), contiguous)

    makers: dict[str, Callable[[], Candidate]] = {PLAIN: make_plain_candidate}
    makers |= {title: partial(make_ours, *how) for title, how in OURS.items()}
    for title, make in make_peers().items() if peers else ():
        makers |= {f"{title}, PyTorch": partial(make_peer, make), f"{title}, OpenVINO": partial(make_translated, make)}
    return makers


def time_rounds(candidates: dict[str, Candidate], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, after a warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def find_floor(network: nn.Module, image: Tensor) -> float:
    """Seconds for the network's convolutions at the speed of large matrix products."""
    with FlopCounterMode(display=False) as counter:
        network(image)
    side = 2048
    left, right = torch.rand(side, side), torch.rand(side, side)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return float(counter.get_total_flops()) / (2 * side**3 / min(seconds))


def measure_memory(arguments: argparse.Namespace, name: str) -> str:
    """Megabytes used by a separate process that runs one candidate."""
    command = [sys.executable, __file__, "--encoder", arguments.encoder, "--size", str(arguments.size), "--only", name]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return found.stdout.split()[-1]


def run_alone(run: Candidate) -> None:
    for _ in range(3):
        run()
    status = Path("/proc/self/status").read_text()  # unlike getrusage, this peak does not include the parent's
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)


def main() -> None:
    """Time, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    image = prepare(draw_street(0, arguments.size, arguments.size)[0], torch.device("cpu"))
    with torch.inference_mode():
        if arguments.only:
            run_alone(list_makers(arguments.encoder, image, peers=True)[arguments.only]())
            return
        makers = list_makers(arguments.encoder, image, not arguments.no_peers)
        candidates = {name: make() for name, make in makers.items()}
        seconds = time_rounds(candidates, arguments.rounds)
        floor = find_floor(make_network(arguments.encoder), image)
        reference = candidates[PLAIN]()
        agreement = {
            name: f"{100 * (run() == reference).float().mean().item():.2f}"
            for name, run in candidates.items()
            if name.startswith(("ours", PLAIN))
        }
    rows = []
    for name, values in seconds.items():
        middle = statistics.median(values)
        faster = statistics.median(p / v for p, v in zip(seconds[PLAIN], values, strict=True))
        is_ours = name in agreement
        rows.append(
            [
                name,
                f"{1000 * middle:.1f}",
                f"{1 / middle:.1f}",
                f"{faster:.2f}x",
                agreement.get(name, ""),
                f"{middle / floor:.1f}" if is_ours else "",
                "" if arguments.no_memory else measure_memory(arguments, name),
            ]
        )
    title = (
        f"light-weight {arguments.encoder}, {arguments.size}x{arguments.size}, batch 1, {torch.get_num_threads()} CPU "
        f"threads: network + upsampling + argmax; floor {1000 * floor:.0f} ms (float32)"
    )
    columns = ["", "ms", "images/s", "against plain", "same labels %", "times the floor", "MB"]
    print_table(title, columns, rows)


if __name__ == "__main__":
    main()
