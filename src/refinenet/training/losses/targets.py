"""Losses of dense targets: those of each kind of outputs, how they are chosen, and how they add up over a batch.

A batch may be computed in parts, as for the losses of classes: `target_count` returns, from the targets alone, the
divisors of the sums, which add up over the parts; `target_loss` returns a part's share, and the shares add up to the
loss of the whole batch. (Only the limit of the inverse Huber loss is that of a part.)

Shape letters: N images, D channels of a target, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from refinenet.settings import Rule, Settings
from refinenet.training.losses import depth, normals, regression
from refinenet.training.losses.config import Weight
from refinenet.training.losses.errors import TargetLoss

TARGET_LOSSES: dict[str, dict[str, TargetLoss]] = {
    "depth": depth.LOSSES,
    "normals": normals.LOSSES,
    "regression": regression.LOSSES,
}
"""Losses by the kind of an output and their name; the first of a kind is its default."""

_DIVISORS = {"values": 0, "pixels": 1, "images": 2}
"""Position in the result of `target_count` of each divisor."""

KindWithLosses = Annotated[str, Rule(TARGET_LOSSES.__contains__, f"one of {', '.join(TARGET_LOSSES)}")]


@dataclass(frozen=True, kw_only=True)
class TargetLossConfig(Settings):
    """Training objective of an output other than classes: a weighted sum of losses.

    Raises:
        ValueError: A value is not allowed; all problems are reported together.
    """

    _title: ClassVar[str] = "settings of the loss of an output"

    kind: KindWithLosses
    """Kind of the output, with a row in `TARGET_LOSSES`."""
    losses: tuple[str, ...] = ()
    """Names of losses of the kind; if there are none, the default of the kind."""
    weights: tuple[Weight, ...] = ()
    """Weight of each loss; if there are none, 1 for all."""

    def _conflicts(self) -> list[str]:
        known = TARGET_LOSSES[self.kind]
        conflicts = [
            f"losses of {self.kind} are {', '.join(known)}, not {name!r}" for name in self.losses if name not in known
        ]
        if len(set(self.losses)) < len(self.losses):
            conflicts.append(f"losses must be different, not {', '.join(self.losses)}")
        if self.weights and len(self.weights) != len(self._names):
            conflicts.append(f"weights must be one for each loss, not {len(self.weights)} for {', '.join(self._names)}")
        if self.weights and not any(self.weights):
            conflicts.append("one of the weights must be above 0")
        return [*conflicts, *super()._conflicts()]

    @property
    def _names(self) -> tuple[str, ...]:
        return self.losses or (next(iter(TARGET_LOSSES[self.kind])),)

    @property
    def weighted(self) -> tuple[tuple[float, TargetLoss], ...]:
        """The losses, each after its weight."""
        rows = [TARGET_LOSSES[self.kind][name] for name in self._names]
        return tuple(zip(self.weights or [1.0] * len(rows), rows, strict=True))

    @property
    def has_log_scale(self) -> bool:
        """Whether the prediction has a further channel for each of the target: the logarithm of a scale."""
        return any(loss.has_log_scale for _, loss in self.weighted)


def target_count(target: Tensor) -> Tensor:
    """Return the divisors of the sums of losses of a dense target.

    Args:
        target: `(N, D, H, W)` float32, NaN where there is no truth.

    Returns:
        `(3,)` float64 on the target's device: the number of values with truth, of pixels with truth in all channels, of
        images with such pixels. The counts of a batch are the sum over its parts.
    """
    has_truth = ~target.isnan()
    pixels = has_truth.all(1).flatten(1).sum(1)
    return torch.stack([has_truth.sum(), pixels.sum(), (pixels > 0).sum()]).double()


def target_loss(
    predicted: Tensor, target: Tensor, config: TargetLossConfig, counts: Tensor, deviations: Tensor | None = None
) -> Tensor:
    """Return a part's share of the loss of a dense target over its batch.

    Args:
        predicted: `(N, D, H, W)` of the part, in the unit of the target, before it is clipped to a range; converted to
            float32 if of lower precision. `(N, 2 D, H, W)` if `config.has_log_scale`: values, then the logarithms of
            their scales in the same unit.
        target: `(N, D, H, W)` float32, NaN where there is no truth.
        config: Settings of the loss.
        counts: `target_count` of the whole batch, the sum over its parts.
        deviations: `(D,)`, above 0, standard deviations in the training data, by which the errors of losses with
            `is_standardised`, and scales, are divided. None for 1.

    Returns:
        A scalar float32 (float64 for a float64 prediction); 0 with zero gradients if there is no truth.
    """
    predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
    target, channels = target.to(predicted.dtype), target.shape[1]
    assert predicted.shape[1] == channels * (2 if config.has_log_scale else 1)
    # Counts of 0 become 1: without truth the sums are 0, and 0 / 1 has zero gradients where 0 / 0 has nan.
    divisors = counts.where(counts > 0, 1).to(predicted.dtype)
    terms = []
    for weight, loss in config.weighted:
        values, truth = predicted if loss.has_log_scale else predicted[:, :channels], target
        if loss.is_standardised and deviations is not None:
            values, truth = _standardise(values, deviations), _standardise(truth, deviations)
        terms.append(weight * loss.total(values, truth) / divisors[_DIVISORS[loss.divisor]])
    return torch.stack(terms).sum()


def _standardise(values: Tensor, deviations: Tensor) -> Tensor:
    """Divide the first D channels by `(D,)` deviations, and the scales whose logarithms are in any further ones."""
    divisors = deviations.to(values)[:, None, None]
    plain, log_scales = values[:, : len(divisors)], values[:, len(divisors) :]
    return torch.cat([plain / divisors, log_scales - divisors.log()], 1) if log_scales.shape[1] else plain / divisors
