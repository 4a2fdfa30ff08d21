"""Speed of the networks of `frontier.py`: each translated for OpenVINO, in float32, bfloat16 and int8, timed in turns.

Milliseconds are those from a prepared image to its label map: the network, and the package's own upsampling and argmax,
which is the same for all. Ours are translated as `RefineNet` does it, peers by `openvino.convert_model` from
`torch.export`, with a fixed size of the image, which is in their favour. Int8 is NNCF's with its default settings, on
drawn streets: it is for speed alone. Bfloat16 is timed where the processor computes in it. Each round times all
candidates once, so that other load on the machine affects all alike.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from refinenet.datasets.street_scenes import draw_street
from refinenet.export.quantisation.int8 import require_nncf
from refinenet.inference.backends.graph import compile_openvino, computes_in_bfloat16, read_openvino, require_openvino
from refinenet.inference.backends.openvino import translate
from refinenet.inference.tensors import largest_class, prepare
from refinenet.io.console import print_note
from refinenet.models.inference_graph import fuse
from refinenet.models.network import Network

CALIBRATION_IMAGES = 8
HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""Arithmetic of OpenVINO by precision; in int8 that of the layers that are not quantised."""

FindLogits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A network's size and speed."""

    parameters: int
    multiply_adds: int
    """Of an image of the timed size."""
    milliseconds: dict[str, float]
    """Median over the rounds, by precision."""
    ratios: dict[str, float]
    """Median over the rounds of the time of the published network in float32 over this one's, by precision."""


class Logits(nn.Module):
    """A network up to its logits at their own stride."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits."""
        assert callable(self.network.logits)
        found: Tensor = self.network.logits(images)
        return found


def translate_for_openvino(network: nn.Module, size: tuple[int, int]) -> Any:
    """Translate a network to an `openvino.Model` from images to logits; peers for images of `size` (height, width)."""
    openvino = require_openvino()
    if isinstance(network, Network):
        return read_openvino(openvino, translate(fuse(network)))
    example = (torch.rand(1, 3, *size),)
    with torch.no_grad():
        return openvino.convert_model(torch.export.export(Logits(network).eval(), example))


def compile_model(model: Any, precision: str) -> FindLogits:
    """Compile a model for the CPU; returns a function from images to logits."""
    settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    request = compile_openvino(model, **settings).create_infer_request()
    return lambda images: torch.from_numpy(next(iter(request.infer([images.numpy()]).values())))


def quantise_model(model: Any, images: Iterable[Tensor]) -> Any:
    """Quantise a model to int8 on calibration images `(1, 3, H, W)`."""
    nncf, calibration = require_nncf(), [np.ascontiguousarray(image.numpy()) for image in images]
    mixed = nncf.QuantizationPreset.MIXED
    return nncf.quantize(model.clone(), nncf.Dataset(calibration), preset=mixed, subset_size=len(calibration))


def list_precisions(*, with_int8: bool) -> list[str]:
    """Return the precisions to time on this processor."""
    return ["float32", *(["bfloat16"] if computes_in_bfloat16() else []), *(["int8"] if with_int8 else [])]


def count(network: nn.Module, size: int) -> tuple[int, int]:
    """Count parameters, and multiply-adds up to the logits for an image of `size` by `size` pixels."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Logits(network.eval())(torch.rand(1, 3, size, size))
    return sum(values.numel() for values in network.parameters()), counter.get_total_flops() // 2


def time_rounds(
    candidates: dict[tuple[str, str], FindLogits], size: int, rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Return the milliseconds of each candidate in each round, after a warm-up round."""
    image = prepare(draw_street(0, size, size)[0], torch.device("cpu"))
    image = image.contiguous()  # as OpenVINO takes it
    found: dict[tuple[str, str], list[float]] = {key: [] for key in candidates}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for key, find_logits in candidates.items():
                started = time.perf_counter()
                largest_class(find_logits(image)[0], (size, size))
                if number:
                    found[key].append(1000 * (time.perf_counter() - started))
    return found


def summarise(
    times: dict[tuple[str, str], list[float]], network: str, reference: tuple[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the medians of a network's times, and of their ratios to a reference, by precision."""
    own = {precision: values for (name, precision), values in times.items() if name == network}
    ratios = {
        precision: statistics.median(first / second for first, second in zip(times[reference], values, strict=True))
        for precision, values in own.items()
    }
    return {precision: statistics.median(values) for precision, values in own.items()}, ratios


def measure_speeds(
    makers: Mapping[str, Callable[[], nn.Module]], reference: str, *, size: int, rounds: int, with_int8: bool
) -> dict[str, Speed]:
    """Translate networks and time them in turns.

    Args:
        makers: Functions that create the networks, by name.
        reference: Name of the network whose time in float32 is the unit of the ratios.
        size: Sides of the image.
        rounds: Number of rounds.
        with_int8: Whether to quantise and time them in int8, too.
    """
    seeds = range(CALIBRATION_IMAGES if with_int8 else 0)
    streets = [prepare(draw_street(seed, size, size)[0], torch.device("cpu")) for seed in seeds]
    candidates: dict[tuple[str, str], FindLogits] = {}
    sizes = {}
    for name, make in makers.items():
        network = make().eval()
        sizes[name] = count(network, size)
        model = translate_for_openvino(network, (size, size))
        for precision in list_precisions(with_int8=with_int8):
            chosen = quantise_model(model, streets) if precision == "int8" else model
            candidates[name, precision] = compile_model(chosen, precision)
        print_note(f"Translated {name}.")
    times = time_rounds(candidates, size, rounds)
    found = {}
    for name, (parameters, multiply_adds) in sizes.items():
        milliseconds, ratios = summarise(times, name, (reference, "float32"))
        found[name] = Speed(
            parameters=parameters, multiply_adds=multiply_adds, milliseconds=milliseconds, ratios=ratios
        )
    return found


def write_speeds(speeds: dict[str, Speed], conditions: str, path: Path) -> None:
    """Write what `read_speeds` reads."""
    values = {"conditions": conditions, "speeds": {name: asdict(speed) for name, speed in speeds.items()}}
    path.write_text(json.dumps(values, indent=2), "utf-8")


def read_speeds(path: Path) -> tuple[str, dict[str, Speed]]:
    """Read the conditions of measured speeds, and the speeds by network; empty if they were not measured."""
    if not path.is_file():
        return "", {}
    found = json.loads(path.read_text("utf-8"))
    return found["conditions"], {name: Speed(**values) for name, values in found["speeds"].items()}
