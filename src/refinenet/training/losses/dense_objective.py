"""Training objective of a network with several outputs: the losses of each, with a weight.

Losses are counted where there is truth: an image without labels, or without depth, adds nothing to that loss.

Shape letters: N images, C channels of all outputs together, D channels of all targets together, H height, W width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refinenet.outputs import CLASS_KIND, OutputSpec
from refinenet.settings import Settings, is_within
from refinenet.training.losses.objective import Objective
from refinenet.training.losses.targets import TargetLossConfig, target_count, target_loss

_CLASS_COUNTS, _TARGET_COUNTS = 3, 3
"""Lengths of `Objective.count` and `target_count`."""
_TERM = re.compile(r"(?:(?P<weight>[0-9.]+)\*)?(?P<loss>[a-z0-9_]+)")


@dataclass(frozen=True, kw_only=True)
class OutputLossConfig(Settings):
    """Losses and weights of the outputs of a network with several."""

    output_losses: tuple[str, ...] = ()
    """Losses of outputs besides classes, such as "depth=silog+0.5*gradient"; by default the first of each kind in
    `losses.targets.TARGET_LOSSES`: "inverse_huber" for depth, "cosine" for normals, "huber" for quantities."""
    output_weights: tuple[str, ...] = ()
    """Weights of the losses of outputs, such as "classes=1" or "normals=2"; by default 1 for all."""

    def _conflicts(self) -> list[str]:
        conflicts = [
            f"output_losses must be like depth=silog+0.5*gradient, not {text!r}"
            for text in self.output_losses
            if _read_terms(text.partition("=")[2]) is None
        ]
        conflicts += [
            f"output_weights must be like depth=0.5, with a weight from 0 to 100, not {text!r}"
            for text in self.output_weights
            if _read_weight(text) is None
        ]
        return [*conflicts, *super()._conflicts()]


def _read_terms(text: str) -> list[tuple[float, str]] | None:
    """Return the weighted losses in "silog+0.5*gradient"; None if it is not of this form."""
    matches = [_TERM.fullmatch(part.strip()) for part in text.split("+")]
    terms = [(float(match["weight"] or 1), match["loss"]) for match in matches if match is not None and _is_fine(match)]
    return terms if len(terms) == len(matches) else None


def _is_fine(match: re.Match[str]) -> bool:
    return match["weight"] is None or (match["weight"].count(".") < 2 and match["weight"] != ".")


def _read_weight(text: str) -> float | None:
    name, _, value = text.partition("=")
    try:
        weight = float(value)
    except ValueError:
        return None
    return weight if name and is_within(weight, 0, 100) else None


def choose_losses(config: OutputLossConfig, outputs: Sequence[OutputSpec]) -> dict[str, TargetLossConfig]:
    """Return the losses of each output besides classes, by its name.

    Raises:
        ValueError: A setting names an output or a loss that there is not.
    """
    _refuse_unknown("output_losses", config.output_losses, [s.name for s in outputs if s.kind != CLASS_KIND])
    _refuse_unknown("output_weights", config.output_weights, [spec.name for spec in outputs])
    asked = {text.partition("=")[0].strip(): _read_terms(text.partition("=")[2]) or [] for text in config.output_losses}
    chosen = {}
    for spec in outputs:
        if spec.kind != CLASS_KIND:
            terms = asked.get(spec.name, [])
            names, weights = tuple(name for _, name in terms), tuple(weight for weight, _ in terms)
            chosen[spec.name] = TargetLossConfig(kind=spec.kind, losses=names, weights=weights)
            if chosen[spec.name].has_log_scale:
                raise ValueError(f"The losses of {spec.name} need a predicted scale, which heads do not have so far.")
    return chosen


def _refuse_unknown(setting: str, texts: Sequence[str], known: Sequence[str]) -> None:
    unknown = [text for text in texts if text.partition("=")[0].strip() not in known]
    if unknown:
        raise ValueError(
            f"{setting} has {unknown[0]!r}, but the network's outputs are {', '.join(known) or 'classes'}."
        )


class DenseObjective:
    """Loss of a network with several outputs.

    Args:
        classes: Loss of the classes.
        outputs: Outputs of the network, in the order of its maps.
        num_classes: Number of classes.
        config: Losses and weights.
        deviations: `(D',)` float32 of each output with standardised values, by name: deviations in the training data.

    Raises:
        ValueError: As `choose_losses`.
    """

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
        self._channels = [spec.count_channels(num_classes) for spec in outputs]
        self._losses = choose_losses(config, outputs)
        asked = (text.partition("=") for text in config.output_weights)  # checked by `OutputLossConfig`
        self._weights = {spec.name: 1.0 for spec in outputs} | {name.strip(): float(value) for name, _, value in asked}

    def count(self, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the divisors of the sums of the losses: `Objective.count`, then `target_count` of each target.

        Args:
            labels: `(N, H, W)` int64 ids.
            targets: `(N, D, H, W)` float32, NaN where there is no truth.

        Returns:
            `(3 + 3 T,)` float64 for T targets; the counts of a batch are the sum over its parts.
        """
        assert targets is not None
        return torch.cat([self._classes.count(labels), *map(target_count, self._split(targets))])

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
        terms = []
        for spec in self._outputs:
            if spec.kind == CLASS_KIND:
                logits = [maps[spec.name], *stages[1:]]
                loss = self._classes.loss(logits, labels, counts[:_CLASS_COUNTS], teacher_logits)
                terms.append(self._weights[spec.name] * loss)
        for index, (spec, target) in enumerate(zip(self._targets, self._split(targets), strict=True)):
            first = _CLASS_COUNTS + _TARGET_COUNTS * index
            counted = counts[first : first + _TARGET_COUNTS]
            deviations = self._deviations.get(spec.name)
            loss = target_loss(maps[spec.name], target, self._losses[spec.name], counted, deviations)
            terms.append(self._weights[spec.name] * loss)
        return torch.stack(terms).sum()

    def _split(self, targets: Tensor) -> Sequence[Tensor]:
        return torch.split(targets, [spec.count_channels(0) for spec in self._targets], dim=1)
