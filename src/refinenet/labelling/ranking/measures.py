"""Measures of how much a label of an image would help a model: doubt, disagreement, predicted classes, features.

Shape letters: H height, W width, h and w those of logits, K classes, B bands, C channels of the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from refinenet.inference import prepare
from refinenet.io.images.sample_values import Pixels
from refinenet.io.images.shrinking import find_factor, shrink_image
from refinenet.models import ModelCard, Network, fuse, split_maps
from refinenet.outputs import class_output

LONGEST_SIDE = 1024
"""Length, in pixels, to which the longer side of larger images is reduced; that is enough for ranking images."""
SCALE = 0.7
"""Scale of the second look at an image."""
FEATURES = 64
"""Numbers that describe what an image shows."""
_SEED = 20_261_130


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Measures of an image."""

    doubt: float
    """Mean entropy of the calibrated class probabilities away from outlines, as a share of the largest, in [0, 1]."""
    outlines: float
    """Mean of 1 - margin along the outlines of predicted objects, in [0, 1]; the margin is the difference between the
    largest two probabilities. 0 without outlines."""
    disagreement: float
    """Mean divergence (Jensen and Shannon) of the probabilities of the image, mirrored and reduced, as a share of the
    largest, in [0, 1]."""
    shares: tuple[float, ...]
    """Share of each class in the predicted probabilities."""
    features: npt.NDArray[np.float16]
    """`(FEATURES,)`: the mean of the encoder's last features, projected at random."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values for `from_dict`."""
        return {
            "doubt": round(self.doubt, 5),
            "outlines": round(self.outlines, 5),
            "disagreement": round(self.disagreement, 5),
            "shares": [float(f"{share:.3g}") for share in self.shares],
            "features": self.features.tobytes().hex(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measures:
        """Return the measures of an entry of a journal."""
        return cls(
            doubt=values["doubt"],
            outlines=values["outlines"],
            disagreement=values["disagreement"],
            shares=tuple(values["shares"]),
            features=np.frombuffer(bytes.fromhex(values["features"]), np.float16),
        )


@dataclass(frozen=True, kw_only=True)
class DoubtMaps:
    """Maps of an image at the size of the network's logits."""

    labels: npt.NDArray[np.int64]
    """`(h, w)`: the class of the largest mean probability."""
    entropy: npt.NDArray[np.float32]
    """`(h, w)` in [0, 1]: entropy of the mean probabilities."""


class Gauge:
    """Measures images with a network, which it runs three times for each: as it is, mirrored, and reduced.

    Args:
        network: The network; it is not changed.
        card: Its card.
        longest_side: Length, in pixels, to which the longer side of larger images is reduced.

    Raises:
        ValueError: The network predicts no classes.
    """

    def __init__(self, network: Network, card: ModelCard, longest_side: int = LONGEST_SIDE) -> None:
        if class_output(network.architecture.outputs) is None:
            raise ValueError("Images are ranked by the classes that a model predicts, but this one predicts none.")
        self.card, self.device = card, network.mean.device
        self.longest_side = min(longest_side, card.longest_side or longest_side)
        self.network = fuse(network).to(memory_format=torch.channels_last)
        """What looks at images."""
        self._projection: Tensor | None = None

    @torch.inference_mode()
    def measure(self, pixels: Pixels) -> tuple[Measures, DoubtMaps]:
        """Measure an image, `(H, W, 3)` uint8 RGB, or `(H, W, B)` float32 of a network with bands."""
        images = self._prepare(pixels)
        first, features = self._look(images)
        mirrored = self._look(images.flip(3))[0].flip(2)
        reduced = self._look(_resize(images, [max(32, round(SCALE * side)) for side in images.shape[2:]]))[0]
        looks = torch.stack([first, mirrored, _resize(reduced[None], first.shape[1:])[0]])
        mean = looks.mean(0)
        largest = math.log(max(2, len(mean)))
        entropy = _entropy(mean) / largest
        divergence = (entropy - _entropy(looks, dim=1).mean(0) / largest).clamp(min=0)
        best = mean.topk(min(2, len(mean)), dim=0).values
        edge = _near_outlines(mean.argmax(0))
        margins = 1 - (best[0] - best[-1])
        measures = Measures(
            doubt=_mean(entropy, ~edge),
            outlines=_mean(margins, edge),
            disagreement=float(divergence.mean()),
            shares=tuple(mean.mean((1, 2)).tolist()),
            features=self._project(features),
        )
        return measures, DoubtMaps(labels=mean.argmax(0).cpu().numpy(), entropy=entropy.float().cpu().numpy())

    @torch.inference_mode()
    def describe(self, pixels: Pixels) -> npt.NDArray[np.float16]:
        """Return the features of an image alone, `(FEATURES,)`."""
        return self._project(self.network.encode(self._prepare(pixels))[-1][0].mean((2, 3))[0])

    def _prepare(self, pixels: Pixels) -> Tensor:
        reduced = shrink_image(pixels, find_factor(pixels.shape, self.longest_side))
        return torch.from_numpy(prepare(reduced)).to(self.device)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities `(K, h, w)` of an image `(1, B, H, W)`, and the mean of its features `(C,)`."""
        groups = self.network.encode(images)
        maps = self.network.predict(self.network.decoder(groups))
        outputs = self.network.architecture.outputs
        spec = class_output(outputs)
        assert spec is not None
        logits = split_maps(maps, outputs, len(self.card.label_set))[spec.name][0].float()
        return (logits / self.card.temperature).softmax(0), groups[-1][0].mean((2, 3))[0]

    def _project(self, features: Tensor) -> npt.NDArray[np.float16]:
        if self._projection is None:
            # Distances are kept well enough by random directions (Johnson and Lindenstrauss), alike in every run.
            random = np.random.default_rng(_SEED).standard_normal((FEATURES, len(features)))
            self._projection = torch.from_numpy((random / math.sqrt(FEATURES)).astype(np.float32)).to(features.device)
        projected: npt.NDArray[np.float16] = (self._projection @ features.float()).cpu().numpy().astype(np.float16)
        return projected


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(maps, tuple(size), mode="bilinear", antialias=maps.shape[-1] > size[-1])


def _entropy(shares: Tensor, dim: int = 0) -> Tensor:
    return -(shares * shares.clamp(min=1e-9).log()).sum(dim)


def _near_outlines(labels: Tensor) -> Tensor:
    """Return `(h, w)` bool: pixels beside one of another class."""
    edge = torch.zeros_like(labels, dtype=torch.bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _mean(values: Tensor, where: Tensor) -> float:
    return float(values[where].mean()) if where.any() else 0.0
