"""Certificate of an export: parity with PyTorch, tolerance, mIoU and latency."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from refinenet.datasets import street_scenes
from refinenet.evaluation.results import percent
from refinenet.export.metadata import GraphOutput, Runner
from refinenet.export.parity import ParityReport, ParityTolerance, add_bands, to_images
from refinenet.inference.segmenter import prepare
from refinenet.inference.upsampling import largest_class
from refinenet.io.console import print_table
from refinenet.io.files import write_atomically
from refinenet.io.images.sample_values import Pixels
from refinenet.labels import LabelSet
from refinenet.models.files.model_card import CERTIFICATE_ENDING
from refinenet.models.inference_graph import DeployedNetwork
from refinenet.outputs import has_only_classes

ROUNDS = 5
WARM_UP = 1


@dataclass(frozen=True, kw_only=True)
class Milliseconds:
    """Latency of the steps, as medians over the rounds."""

    pre: float
    """From `(H, W, 3)` uint8 to the network's input."""
    network: float
    """The network; in an exported graph including upsampling and argmax."""
    post: float
    """From its output to a label map; in PyTorch including upsampling and argmax."""
    total: float
    """All three steps: the median of their sums."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latency of one image at a time; network and export are timed in turns."""

    height: int
    width: int
    rounds: int
    before: Milliseconds
    """The network in PyTorch, channels last."""
    after: Milliseconds
    """The exported graph in its own runtime."""


Steps = tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]


def time_both(
    deployed: DeployedNetwork, run: Runner, label_set: LabelSet, sizes: Sequence[tuple[int, int]]
) -> list[Latency]:
    """Time a network in PyTorch and its exported graph on drawn streets."""
    deployed.to(memory_format=torch.channels_last)  # the layout of the images that `prepare` makes
    has_labels_alone = has_only_classes(deployed.network.architecture.outputs)
    before, after = _steps_before(deployed, label_set), _steps_after(run, label_set, has_labels_alone=has_labels_alone)
    found = []
    with torch.inference_mode():
        for height, width in sizes:
            street = add_bands(
                street_scenes.draw_street(7, height, width)[0], len(deployed.network.architecture.band_names)
            )
            # In turns, so that other load on the machine slows both alike.
            rounds = [(_time(before, street), _time(after, street)) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
            first, second = ([pair[which] for pair in rounds] for which in (0, 1))
            found.append(
                Latency(height=height, width=width, rounds=ROUNDS, before=_median(first), after=_median(second))
            )
    return found


def _steps_before(deployed: DeployedNetwork, label_set: LabelSet) -> Steps:
    network = deployed.network

    def finish_labels(pair: tuple[torch.Tensor, torch.Tensor]) -> npt.NDArray[Any]:
        images, logits = pair
        size = images.shape[2], images.shape[3]
        return label_set.cast(largest_class(logits[0], size)[None].numpy())

    def prepared(street: Pixels) -> torch.Tensor:
        return torch.from_numpy(prepare(street))

    if has_only_classes(network.architecture.outputs):
        return prepared, lambda images: (images, network.logits(images)), finish_labels
    return prepared, deployed, lambda results: [result.numpy() for result in results]


def _steps_after(run: Runner, label_set: LabelSet, *, has_labels_alone: bool) -> Steps:
    def finish(results: GraphOutput) -> Any:
        return label_set.cast(results[0]) if has_labels_alone else results

    return lambda street: to_images([street]), run, finish


def _time(steps: Steps, street: Pixels) -> tuple[float, float, float]:
    value: Any = street
    taken = []
    for step in steps:
        start = time.perf_counter()
        value = step(value)
        taken.append(1000 * (time.perf_counter() - start))
    return taken[0], taken[1], taken[2]


def _median(rounds: list[tuple[float, float, float]]) -> Milliseconds:
    pre, network, post = (statistics.median(part) for part in zip(*rounds, strict=True))
    return Milliseconds(pre=pre, network=network, post=post, total=statistics.median(map(sum, rounds)))


CERTIFICATE_VERSION = 1
ENDING = CERTIFICATE_ENDING
"""Suffix after the name of the exported file."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Facts about an exported network."""

    path: Path
    format: str
    precision: str
    """Precision of the arithmetic: "float32" or "int8"."""
    kept_in_float: Sequence[str] = ()
    """Layers of an int8 network that are computed in float, the most sensitive first."""
    model: Mapping[str, Any]
    """Architecture, number of classes and hash of the weights."""
    graph: Mapping[str, Any]
    """Names, types and shapes of inputs and outputs."""
    files: Mapping[str, Mapping[str, Any]]
    """SHA-256 and size of each file, by its path relative to the certificate's folder."""
    bounds: ParityTolerance
    comparison: ParityReport
    latency: Sequence[Latency]
    made: Mapping[str, Any]
    """Date, versions and machine."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values; shares in [0, 1], times in milliseconds."""
        return {
            "version": CERTIFICATE_VERSION,
            "format": self.format,
            "precision": self.precision,
            "kept_in_float": list(self.kept_in_float),
            "files": {name: dict(facts) for name, facts in self.files.items()},
            "model": dict(self.model),
            "graph": dict(self.graph),
            "bounds": self.bounds.to_dict(),
            **self.comparison.to_dict(),
            "latency_ms": [asdict(found) for found in self.latency],
            "made": dict(self.made),
        }

    def save(self) -> Path:
        """Write `to_dict` as a JSON file beside the export."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        return write_atomically(certificate_path(self.path), f"{text}\n".encode())

    def print(self) -> None:
        """Print the main figures as tables."""
        print_table(f"{self.path}: {self.format}, {self.precision}", ["", "PyTorch", "exported"], list(self._rows()))
        rows = [
            [f"{found.height}x{found.width} {name}", *(f"{value:.1f}" for value in astuple(times))]
            for found in self.latency
            for name, times in (("PyTorch", found.before), ("exported", found.after))
        ]
        if rows:
            print_table("Milliseconds per image (medians)", ["", "prepare", "network", "labels", "all"], rows)

    def _rows(self) -> Iterator[list[str]]:
        found, scored = self.comparison, self.comparison.scored
        if found.agreement is not None:
            yield ["same label, % of pixels", "", f"{100 * found.agreement:.4f}"]
            yield ["largest difference in logits", "", f"{found.largest_difference:.2g}"]
            yield ["as a share of their range", "", f"{found.largest_relative_difference:.1g}"]
        for value in found.values:
            yield [f"{value.title}, largest difference", "", f"{value.largest_difference:.2g}"]
            yield [f"{value.name}, % of pixels as in PyTorch", "", f"{100 * value.agreement:.4f}"]
        if scored is not None and scored.miou_before is not None:
            title = f"mIoU % on {scored.dataset} {scored.split}, {scored.images} images"
            yield [title, percent(scored.miou_before), percent(scored.miou_after)]
        for name, (before, after) in ({} if scored is None else scored.rmse).items():
            yield [f"RMSE of {name}", *("-" if value is None else f"{value:.4g}" for value in (before, after))]
        yield ["megabytes", "", f"{sum(facts['bytes'] for facts in self.files.values()) / 1e6:.1f}"]


def certificate_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of an exported file's certificate."""
    return Path(f"{os.fspath(path)}{ENDING}")


def describe_files(contents: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return SHA-256 and size of files, by name."""
    return {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
    }
