"""Losses of training.

A batch may be computed in parts, in several processes or one after the other: `count` returns, from the labels alone,
the divisors of the sums, which add up over the parts; `training_loss` returns a part's share, and the shares add up to
the loss of the whole batch. `targets` does the same for outputs other than classes, `task_weights` weights several.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from refinenet.training.losses.config import ClassWeights, LossConfig
from refinenet.training.losses.cross_entropy import counted_mass, cross_entropy_total
from refinenet.training.losses.distillation import soft_target_total
from refinenet.training.losses.overlap import dice_total, lovasz_total
from refinenet.training.losses.targets import TARGET_LOSSES, TargetLossConfig, target_count, target_loss
from refinenet.training.losses.task_weights import TaskWeights

__all__ = [
    "TARGET_LOSSES",
    "ClassWeights",
    "LossConfig",
    "TargetLossConfig",
    "TaskWeights",
    "count",
    "cross_entropy",
    "dice",
    "supervised_loss",
    "target_count",
    "target_loss",
    "training_loss",
]


def count(labels: Tensor, class_weights: Tensor | None, config: LossConfig, ignore_index: int) -> Tensor:
    """Return the divisors of the sums of a loss.

    Args:
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        class_weights: `(K,)`, or None for equal weights.
        config: Settings of the loss.
        ignore_index: Id of pixels that do not count.

    Returns:
        `(3,)` float64 on the labels' device: the weight of the pixels that count in the cross-entropy, the number of
        labelled pixels, the number of images with labelled pixels. The counts of a batch are the sum over its parts.
    """
    pixels = (labels != ignore_index).flatten(1).sum(1)
    mass = counted_mass(labels, class_weights, ignore_index, config.hard_pixels)
    return torch.stack([mass.sum(), pixels.sum().double(), (pixels > 0).sum().double()])


def training_loss(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None,
    config: LossConfig,
    ignore_index: int,
    counts: Tensor,
    teacher_logits: Tensor | None = None,
) -> Tensor:
    """Return a part's share of the loss of its batch.

    Args:
        logits: `(N, K, H, W)` of the part; converted to float32 if of lower precision.
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        class_weights: `(K,)`, or None for equal weights.
        config: Settings of the loss.
        ignore_index: Id of pixels that do not count.
        counts: `count` of the whole batch, the sum over its parts.
        teacher_logits: `(N, K, H, W)`, needed if the configuration names a teacher.

    Returns:
        A scalar float32 (float64 for float64 logits); 0 with zero gradients if no pixel has a class.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Counts of 0 become 1: without labels the sums are 0, and 0 / 1 has zero gradients where 0 / 0 has nan.
    mass, pixels, images = counts.where(counts > 0, 1).to(logits.dtype).unbind()
    terms = []
    if config.cross_entropy_weight:
        total = cross_entropy_total(
            logits,
            labels,
            class_weights,
            ignore_index,
            label_smoothing=config.label_smoothing,
            focal_gamma=config.focal_gamma,
            hard_pixels=config.hard_pixels,
        )
        terms.append(config.cross_entropy_weight * total / mass)
    if config.dice_weight or config.lovasz_weight:
        probabilities = logits.softmax(1)
        if config.dice_weight:
            terms.append(config.dice_weight * dice_total(probabilities, labels, ignore_index) / images)
        if config.lovasz_weight:
            terms.append(config.lovasz_weight * lovasz_total(probabilities, labels, ignore_index) / images)
    if config.teacher is not None:
        assert teacher_logits is not None
        total = soft_target_total(logits, teacher_logits, labels, ignore_index, config.teacher_temperature)
        terms.append(config.teacher_weight * total / pixels)
    return torch.stack(terms).sum()


def supervised_loss(
    stages: Sequence[Tensor],
    labels: Tensor,
    class_weights: Tensor | None,
    config: LossConfig,
    ignore_index: int,
    counts: Tensor,
    teacher_logits: Tensor | None = None,
) -> Tensor:
    """As `training_loss`, for several logits: the first with weight 1, the others with `config.deep_supervision`.

    Args:
        stages: Output of `DeepSupervision`, `(N, K, H, W)` each, or the network's logits alone.
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        class_weights: `(K,)`, or None for equal weights.
        config: Settings of the loss.
        ignore_index: Id of pixels that do not count.
        counts: `count` of the whole batch.
        teacher_logits: `(N, K, H, W)`, soft targets of all stages.

    Returns:
        A scalar float32.
    """
    finest, *coarser = (
        training_loss(logits, labels, class_weights, config, ignore_index, counts, teacher_logits) for logits in stages
    )
    return finest + config.deep_supervision * torch.stack(coarser).sum() if coarser else finest


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, ignore_index: int) -> Tensor:
    """Return the mean cross-entropy over labelled pixels, weighted by class; a scalar, 0 without labelled pixels."""
    config = LossConfig(dice_weight=0)
    return training_loss(logits, labels, weights, config, ignore_index, count(labels, weights, config, ignore_index))


def dice(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return the mean Dice loss of the images with labelled pixels; a scalar in [0, 1], 0 if there are none."""
    config = LossConfig(cross_entropy_weight=0, dice_weight=1)
    return training_loss(logits, labels, None, config, ignore_index, count(labels, None, config, ignore_index))
