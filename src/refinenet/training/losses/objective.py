"""Training objective: the weighted sum of the losses that are enabled.

A batch may be computed in parts, in several processes or one after the other: `Objective.count` returns, from the
labels alone, the divisors of the sums, which add up over the parts; `Objective.loss` returns a part's share, and the
shares add up to the loss of the whole batch.

A loss is a row of `TERMS`, a field of `LossConfig` for its weight, and a function that returns a sum over a part.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import torch
from torch import Tensor

from refinenet.training.losses.config import LossConfig
from refinenet.training.losses.cross_entropy import counted_mass, cross_entropy_total
from refinenet.training.losses.distillation import soft_target_total
from refinenet.training.losses.overlap import dice_total, lovasz_total


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """Loss of a training: its settings, and what they need to know about the classes."""

    config: LossConfig
    ignore_index: int
    """Id of pixels that do not count."""
    class_weights: Tensor | None = None
    """`(K,)`, or None for equal weights."""

    def count(self, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the divisors of the sums of the losses.

        Args:
            labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
            targets: None; see `DenseObjective`.

        Returns:
            `(3,)` float64 on the labels' device, in the order of `Divisor`. The counts of a batch are the sum over its
            parts.
        """
        assert targets is None
        pixels = (labels != self.ignore_index).flatten(1).sum(1)
        mass = counted_mass(labels, self.class_weights, self.ignore_index, self.config.hard_pixels)
        return torch.stack([mass.sum(), pixels.sum().double(), (pixels > 0).sum().double()])

    def loss(
        self,
        stages: Sequence[Tensor],
        labels: Tensor,
        counts: Tensor,
        teacher_logits: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Return a part's share of the loss of its batch.

        The first logits have weight 1, the others that of `deep_supervision`.

        Args:
            stages: Output of `DeepSupervision`, or the network's logits alone: `(N, K, H, W)` each, converted to
                float32 if of lower precision.
            labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
            counts: `count` of the whole batch, the sum over its parts.
            teacher_logits: `(N, K, H, W)`, soft targets of all stages; needed if the configuration names a teacher.
            targets: None; see `DenseObjective`.

        Returns:
            A scalar float32 (float64 for float64 logits); 0 with zero gradients if no pixel has a class.
        """
        assert targets is None
        finest, *coarser = (self._share(logits, labels, counts, teacher_logits) for logits in stages)
        return finest + self.config.deep_supervision * torch.stack(coarser).sum() if coarser else finest

    def _share(self, logits: Tensor, labels: Tensor, counts: Tensor, teacher_logits: Tensor | None) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # Counts of 0 become 1: without labels the sums are 0, and 0 / 1 has zero gradients where 0 / 0 has nan.
        divisors = counts.where(counts > 0, 1).to(logits.dtype)
        part = _Part(objective=self, logits=logits, labels=labels, teacher_logits=teacher_logits)
        weights = self.config.loss_weights
        terms = [
            weights[name] * term.total(part) / divisors[term.divisor] for name, term in TERMS.items() if name in weights
        ]
        return torch.stack(terms).sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """Predictions and labels of a part of a batch."""

    objective: Objective
    logits: Tensor
    """`(N, K, H, W)` float32 or float64."""
    labels: Tensor
    """`(N, H, W)` int64 ids below K, or the ignore index."""
    teacher_logits: Tensor | None

    @cached_property
    def probabilities(self) -> Tensor:
        """`(N, K, H, W)` in [0, 1]; computed once for all losses."""
        return self.logits.softmax(1)

    @property
    def truth(self) -> tuple[Tensor, int]:
        """Labels and the id that does not count."""
        return self.labels, self.objective.ignore_index


class Divisor(IntEnum):
    """What the sum of a loss is divided by: a position in `Objective.count`."""

    MASS = 0
    """Weight of the pixels that count in the cross-entropy."""
    PIXELS = 1
    """Number of labelled pixels."""
    IMAGES = 2
    """Number of images with labelled pixels."""


@dataclass(frozen=True)
class Term:
    """A loss as a term of the objective."""

    total: Callable[[_Part], Tensor]
    """Returns the sum over a part of a batch, a scalar."""
    divisor: Divisor


def _cross_entropy(part: _Part) -> Tensor:
    config = part.objective.config
    return cross_entropy_total(
        part.logits,
        part.labels,
        part.objective.class_weights,
        part.objective.ignore_index,
        label_smoothing=config.label_smoothing,
        focal_gamma=config.focal_gamma,
        hard_pixels=config.hard_pixels,
    )


def _soft_targets(part: _Part) -> Tensor:
    assert part.teacher_logits is not None
    temperature = part.objective.config.teacher_temperature
    return soft_target_total(part.logits, part.teacher_logits, *part.truth, temperature)


TERMS: Mapping[str, Term] = {
    "cross_entropy_weight": Term(_cross_entropy, Divisor.MASS),
    "dice_weight": Term(lambda part: dice_total(part.probabilities, *part.truth), Divisor.IMAGES),
    "lovasz_weight": Term(lambda part: lovasz_total(part.probabilities, *part.truth), Divisor.IMAGES),
    "teacher_weight": Term(_soft_targets, Divisor.PIXELS),
}
"""Losses by the names of their weights in `LossConfig`."""


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, ignore_index: int) -> Tensor:
    """Return the mean cross-entropy over labelled pixels, weighted by class; a scalar, 0 without labelled pixels."""
    objective = Objective(config=LossConfig(dice_weight=0), ignore_index=ignore_index, class_weights=weights)
    return objective.loss([logits], labels, objective.count(labels))


def dice(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return the mean Dice loss of the images with labelled pixels; a scalar in [0, 1], 0 if there are none."""
    config = LossConfig(cross_entropy_weight=0, dice_weight=1)
    objective = Objective(config=config, ignore_index=ignore_index)
    return objective.loss([logits], labels, objective.count(labels))
