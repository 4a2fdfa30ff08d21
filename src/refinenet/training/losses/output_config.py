"""Settings of the losses of several outputs. Nothing here needs PyTorch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from refinenet.settings import Settings, is_within

_TERM = re.compile(r"(?:(?P<weight>[0-9.]+)\*)?(?P<loss>[a-z0-9_]+)")


@dataclass(frozen=True, kw_only=True)
class OutputLossConfig(Settings):
    """Losses and weights of the outputs, for networks with several outputs."""

    output_losses: tuple[str, ...] = ()
    """Losses of outputs besides classes, such as "depth=silog+0.5*gradient"; by default "inverse_huber" for depth,
    "cosine" for normals, "huber" for quantities."""
    output_weights: tuple[str, ...] = ()
    """Weights of the losses of outputs, such as "classes=1" or "normals=2"; by default 1 for all."""
    learn_output_weights: bool = False
    """Whether the weights of the outputs are learned during training, by homoscedastic uncertainty (Kendall et al.,
    2018)."""

    def _conflicts(self) -> list[str]:
        conflicts = [
            f"output_losses must be like depth=silog+0.5*gradient, not {text!r}"
            for text in self.output_losses
            if read_terms(text.partition("=")[2]) is None
        ]
        conflicts += [
            f"output_weights must be like depth=0.5, with a weight from 0 to 100, not {text!r}"
            for text in self.output_weights
            if _read_weight(text) is None
        ]
        if self.learn_output_weights and self.output_weights:
            conflicts.append("output_weights has no effect because learn_output_weights is True: leave it out")
        return [*conflicts, *super()._conflicts()]


def read_terms(text: str) -> list[tuple[float, str]] | None:
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
