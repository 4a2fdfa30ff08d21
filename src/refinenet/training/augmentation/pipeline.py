"""The augmentation of a training image from start to end, every draw from its own generator.

Shape letters: N batch, H and W height and width of an image, h and w of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import Generator
from torch import Tensor

from refinenet.io.images.bands import Band
from refinenet.io.images.sample_values import Pixels
from refinenet.labels import LabelMap
from refinenet.outputs import OutputSpec
from refinenet.training.augmentation.colour import draw_colour, vary_bands, vary_colour
from refinenet.training.augmentation.config import AugmentationConfig
from refinenet.training.augmentation.geometry import MEAN_COLOUR, Fill, Pair, draw_pixel, place
from refinenet.training.augmentation.mixing import Mixing, Partner, cut_out, draw_partners, mix
from refinenet.training.augmentation.targets import TargetRules


class Augmentation:
    """Augments images together with their label maps, into training pairs of fixed size.

    For each image call `draw_partners`, then `vary` with the samples that it names, then `draw_colour`, in this order,
    because all draw from one generator; `vary_colour` takes whole batches. All but the draws work on any device.

    Args:
        config: Settings of the augmentation.
        ignore_index: Id of padding and covered parts in the label map.
        rare: Ids of the rare classes, for `paste_rare`.
        targets: Specifications of the targets, in the order of their channels.
        bands: Bands of the images; none for RGB of 8 bits.
        fill: Values of hidden and missing parts.

    Raises:
        ValueError: Rare classes are to be pasted, and there are none.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        ignore_index: int,
        rare: Sequence[int] = (),
        targets: Sequence[OutputSpec] = (),
        bands: Sequence[Band] = (),
        fill: Fill = MEAN_COLOUR,
    ) -> None:
        if config.paste_rare and not rare:
            raise ValueError(
                f"paste_rare={config.paste_rare} pastes classes with less than rare_below={config.rare_below} of the "
                "labelled pixels, but no class is that rare. Raise rare_below, or set paste_rare=0."
            )
        self._config, self._ignore_index, self._rare = config, ignore_index, tuple(rare)
        self._rules, self._bands, self._fill = TargetRules.of(targets), tuple(bands), tuple(fill)

    def draw_partners(self, random: Generator, index: int, samples: int) -> list[Partner]:
        """Draw the samples of which parts are pasted over the sample `index`."""
        return draw_partners(self._config, random, index, samples)

    def vary(self, pair: Pair, others: Sequence[tuple[Mixing, Pair]], random: Generator) -> Pair:
        """Resize, rotate, crop, mirror, mix and cover an image.

        Args:
            pair: The image, `(3, H, W)`.
            others: Those of the partners, with the kind of mixing.
            random: Generator of the draws.

        Returns:
            The crop, `(3, h, w)`.
        """
        varied = self._place(pair, random)
        for kind, other in others:
            over = draw_pixel(other.labels, self._ignore_index, random, self._rare) if kind == "paste_rare" else None
            placed = self._place(other, random, over)
            varied = mix(varied, placed, kind, self._ignore_index, self._rare, random)
        if self._config.cutout and random.random() < self._config.cutout:
            varied = cut_out(varied, self._ignore_index, random, self._fill)
        return varied

    def _place(self, pair: Pair, random: Generator, over: tuple[int, int] | None = None) -> Pair:
        if over is None and self._config.class_crops and random.random() < self._config.class_crops:
            over = draw_pixel(pair.labels, self._ignore_index, random)
        return place(pair, self._config, self._ignore_index, random, over, self._rules, self._fill)

    def draw_colour(self, random: Generator) -> list[float]:
        """Draw the six numbers of a `ColourChange`."""
        return list(draw_colour(self._config, random))

    def vary_colour(self, images: Tensor, changes: Tensor) -> Tensor:
        """Change the colours of `(N, 3, h, w)` uint8 by drawn numbers `(N, 6)`; returns float32 in [0, 1].

        Of images with named bands, `(N, B, h, w)` float32 in [0, 1], only bands of colour change.
        """
        return vary_bands(images, changes, self._bands) if self._bands else vary_colour(images, changes)


def to_tensors(pixels: Pixels, labels: LabelMap, targets: Sequence[npt.NDArray[np.float32]] = ()) -> Pair:
    """Convert pixels `(H, W, B)`, ids `(H, W)` and targets `(D, H, W)` to tensors; 16-bit ids become int32."""
    ids = labels if labels.dtype == np.uint8 else labels.astype(np.int32)
    values = torch.from_numpy(np.concatenate(targets)) if targets else None
    return Pair(torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(ids), values)
