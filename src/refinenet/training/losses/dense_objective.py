"""Training objective of a network with several outputs: the losses of each, with a weight.

Losses are counted where there is ground truth: an image without labels, or without depth, adds nothing to that loss.

Shape letters: N images, C channels of all outputs together, D channels of all targets together, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from refinenet.models.finishing import finish
from refinenet.outputs import CLASS_KIND, LIKELIHOODS, OutputSpec, class_output
from refinenet.training.losses.objective import Objective
from refinenet.training.losses.output_config import OutputLossConfig, read_terms
from refinenet.training.losses.targets import TargetLossConfig, target_count, target_loss
from refinenet.training.losses.task_weights import TaskWeights

_IMAGE_COUNTS, _CLASS_COUNTS, _TARGET_COUNTS = 1, 3, 3
"""Lengths of the parts of `DenseObjective.count`: the number of images, `Objective.count`, and `target_count`."""


def choose_losses(config: OutputLossConfig, outputs: Sequence[OutputSpec]) -> dict[str, TargetLossConfig]:
    """Return the losses of each output besides classes, by its name.

    Raises:
        ValueError: A setting names an output or a loss that there is not.
    """
    _refuse_unknown("output_losses", config.output_losses, [s.name for s in outputs if s.kind != CLASS_KIND])
    _refuse_unknown("output_weights", config.output_weights, [spec.name for spec in outputs])
    asked = {text.partition("=")[0].strip(): read_terms(text.partition("=")[2]) or [] for text in config.output_losses}
    chosen = {}
    for spec in outputs:
        if spec.kind != CLASS_KIND:
            terms = asked.get(spec.name, [])
            names, weights = tuple(name for _, name in terms), tuple(weight for weight, _ in terms)
            if not names and spec.likelihood is not None:
                names = (spec.likelihood,)
            chosen[spec.name] = TargetLossConfig(kind=spec.kind, losses=names, weights=weights)
            _check_likelihood(spec, names)
    if config.learn_output_weights and any(spec.likelihood is not None for spec in outputs):
        raise ValueError("learn_output_weights is not for outputs with a likelihood, which weight themselves.")
    return chosen


def _check_likelihood(spec: OutputSpec, losses: Sequence[str]) -> None:
    """Check that the losses of an output have the likelihood that its head was made for, and no other."""
    used = [name for name in losses if name in LIKELIHOODS]
    if used == ([] if spec.likelihood is None else [spec.likelihood]):
        return
    if spec.likelihood is None:
        raise ValueError(
            f"The loss {used[0]} needs a head that also predicts the scale of errors: create a network with the output "
            f"{replace(spec, likelihood=used[0]).to_text()}."
        )
    raise ValueError(
        f"The losses of {spec.name} must include the likelihood of its head, {spec.likelihood}, and no other, "
        f"unlike {'+'.join(losses)}."
    )


def _refuse_unknown(setting: str, texts: Sequence[str], known: Sequence[str]) -> None:
    unknown = [text for text in texts if text.partition("=")[0].strip() not in known]
    if unknown:
        raise ValueError(
            f"{setting} has {unknown[0]!r}, but the network's outputs are {', '.join(known) or 'classes'}."
        )


class DenseObjective:
    """Loss of a network with several outputs, or with others than classes.

    Args:
        classes: Loss of the classes; unused without an output of classes.
        outputs: Outputs of the network, in the order of its maps.
        num_classes: Number of classes.
        config: Losses and weights.
        deviations: `(D',)` float32 of each output with standardised values, by name: deviations in the training data.

    Raises:
        ValueError: As `choose_losses`.
    """

    task_weights: TaskWeights | None
    """Weights of the outputs that are to be learnt with the network; None if they are given."""

    def __init__(
        self,
        classes: Objective,
        outputs: Sequence[OutputSpec],
        num_classes: int,
        config: OutputLossConfig,
        deviations: Mapping[str, Tensor],
    ) -> None:
        self._classes, self._outputs, self._deviations = classes, tuple(outputs), deviations
        self._targets = [spec for spec in outputs if spec.kind != CLASS_KIND]
        self._channels = [spec.count_maps(num_classes) for spec in outputs]
        self._losses = choose_losses(config, outputs)
        asked = (text.partition("=") for text in config.output_weights)  # checked by `OutputLossConfig`
        self._weights = {spec.name: 1.0 for spec in outputs} | {name.strip(): float(value) for name, _, value in asked}
        is_learnt = config.learn_output_weights
        self.task_weights = TaskWeights({spec.name: spec.kind for spec in outputs}) if is_learnt else None

    def count(self, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the divisors of the sums of the losses.

        Args:
            labels: `(N, H, W)` int64 ids.
            targets: `(N, D, H, W)` float32, NaN where there is no truth.

        Returns:
            `(4 + 3 T,)` float64 for T targets: N, `Objective.count`, then `target_count` of each target. The counts of
            a batch are the sum over its parts.
        """
        assert targets is not None
        images = torch.tensor([len(labels)], dtype=torch.float64, device=labels.device)
        return torch.cat([images, self._classes.count(labels), *map(target_count, self._split(targets))])

    def loss(
        self,
        stages: Sequence[Tensor],
        labels: Tensor,
        counts: Tensor,
        teacher_logits: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Return a part's share of the loss of its batch.

        Args:
            stages: The maps of all outputs, `(N, C, H, W)`; after them logits of `DeepSupervision`.
            labels: `(N, H, W)` int64 ids.
            counts: `count` of the whole batch, the sum over its parts.
            teacher_logits: As for `Objective.loss`.
            targets: `(N, D, H, W)` float32, NaN where there is no truth.

        Returns:
            A scalar float32.
        """
        assert targets is not None
        maps = dict(zip((s.name for s in self._outputs), torch.split(stages[0], self._channels, dim=1), strict=True))
        true = dict(zip((spec.name for spec in self._targets), self._split(targets), strict=True))
        counted = self._split_counts(counts)
        losses = {}
        for spec in self._outputs:
            if spec.kind == CLASS_KIND:
                logits = [maps[spec.name], *stages[1:]]
                losses[spec.name] = self._classes.loss(logits, labels, counted[spec.name], teacher_logits)
            else:
                settings, deviations = self._losses[spec.name], self._deviations.get(spec.name)
                losses[spec.name] = target_loss(
                    maps[spec.name], true[spec.name], settings, counted[spec.name], deviations
                )
        if self.task_weights is None:
            return torch.stack([self._weights[name] * loss for name, loss in losses.items()]).sum()
        known = {name: loss for name, loss in losses.items() if counted[name].any()}
        return self.task_weights.combine(known, share=len(labels) / float(counts[0]))

    def _split_counts(self, counts: Tensor) -> dict[str, Tensor]:
        """Return the divisors of each output by its name."""
        sizes = [_IMAGE_COUNTS, _CLASS_COUNTS, *(_TARGET_COUNTS for _ in self._targets)]
        _, of_classes, *of_targets = torch.split(counts, sizes)
        split = dict(zip((spec.name for spec in self._targets), of_targets, strict=True))
        return split | {spec.name: of_classes for spec in self._outputs if spec.kind == CLASS_KIND}

    def lacks_truth(self, labels: Tensor, targets: Tensor) -> bool:
        """Return whether an image has no ground truth at all for an output; arguments as for `count`."""
        lacking = [_lacks(target.isnan()) for target in self._split(targets)]
        if class_output(self._outputs) is not None:
            lacking.append(_lacks(labels == self._classes.ignore_index))
        return bool(torch.stack(lacking).any())

    def fill_missing(
        self,
        teacher_maps: Mapping[str, Tensor],
        teacher_outputs: Sequence[OutputSpec],
        labels: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the ground truth with a teacher's predictions for each output that an image has no truth of at all.

        Args:
            teacher_maps: Maps of the teacher's outputs by name, `(N, D, H, W)` each.
            teacher_outputs: Specifications of these outputs; it has all of the network.
            labels: `(N, H, W)` int64 ids.
            targets: `(N, D, H, W)` float32, NaN where there is no truth.

        Returns:
            Labels and targets.
        """
        filled, taught = [], {spec.name: spec for spec in teacher_outputs}
        for spec, target in zip(self._targets, self._split(targets), strict=True):
            is_missing = _lacks(target.isnan())[:, None, None, None]
            # The teacher's specification: one of the two may predict the scale of its errors besides.
            predicted = finish(teacher_maps[spec.name].float(), taught[spec.name])
            filled.append(torch.where(is_missing, predicted, target))
        classes = class_output(self._outputs)
        if classes is not None:
            is_missing = _lacks(labels == self._classes.ignore_index)[:, None, None]
            labels = torch.where(is_missing, teacher_maps[classes.name].argmax(1), labels)
        return labels, torch.cat(filled, 1)

    def _split(self, targets: Tensor) -> Sequence[Tensor]:
        return torch.split(targets, [spec.count_channels(0) for spec in self._targets], dim=1)


def _lacks(is_missing: Tensor) -> Tensor:
    """Return for each image, `(N,)`, whether all of its values are missing."""
    return is_missing.flatten(1).all(1)
