"""How the loss is put together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from refinenet.settings import find_outside

ClassWeights = Literal["log", "median", "none"]

_NUMBERS = {
    "cross_entropy_weight": (0, 100),
    "label_smoothing": (0, 0.999999),
    "hard_pixels": (1e-6, 1),
    "focal_gamma": (0, 10),
    "dice_weight": (0, 100),
    "lovasz_weight": (0, 100),
    "deep_supervision": (0, 100),
    "teacher_weight": (0, 100),
    "teacher_temperature": (0.01, 100),
}
_OF_CROSS_ENTROPY = ("class_weights", "label_smoothing", "hard_pixels", "focal_gamma")
_OF_TEACHER = ("teacher_weight", "teacher_temperature")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What training minimises: a weighted sum of losses.

    Raises:
        ValueError: a value out of its range, or one that would have no effect; all problems are reported together.
    """

    cross_entropy_weight: float = 1.0
    """Weight of the cross-entropy, the mean over labelled pixels; 0 leaves it out."""
    class_weights: ClassWeights = "none"
    """What pixels of a class count in the cross-entropy: "log" and "median" weigh rare classes up
    (`class_statistics`), "none" weighs all alike."""
    label_smoothing: float = 0.0
    """Share of the target of the cross-entropy that is spread evenly over all classes."""
    hard_pixels: float = 1.0
    """Share of the labelled pixels of each image, those of the largest loss, that the cross-entropy is taken over
    (online hard example mining); at least one pixel."""
    focal_gamma: float = 0.0
    """Each pixel's cross-entropy is multiplied by (1 - probability of its class) to this power (focal loss)."""
    dice_weight: float = 1.0
    """Weight of the Dice loss; 0 leaves it out."""
    lovasz_weight: float = 0.0
    """Weight of the Lovasz-Softmax loss, which stands in for 1 - mIoU; 0 leaves it out."""
    deep_supervision: float = 0.0
    """Weight of the same losses on each of the decoder's stages at strides 32, 16 and 8; 0 leaves them out."""
    teacher: str | None = None
    """A model file of the same classes, whose probabilities are targets too (self-distillation)."""
    teacher_weight: float = 0.5
    """Weight of the divergence from the teacher."""
    teacher_temperature: float = 1.0
    """What the logits of teacher and network are divided by before they are compared; above 1 softens both."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        found = find_outside(self, _NUMBERS)
        if self.class_weights not in get_args(ClassWeights):
            found.append(f"class_weights is one of {', '.join(get_args(ClassWeights))}, not {self.class_weights!r}")
        if self.teacher is not None and (not isinstance(self.teacher, str) or not self.teacher):
            found.append(f"teacher is the path of a model file, or None, not {self.teacher!r}")
        return found or self._contradictions()

    def _contradictions(self) -> list[str]:
        """What is wrong with values that are each in their range."""
        found = []
        distils = self.teacher is not None and self.teacher_weight > 0
        if not (self.cross_entropy_weight or self.dice_weight or self.lovasz_weight or distils):
            found.append(
                "No loss is left: one of cross_entropy_weight, dice_weight, lovasz_weight, or teacher_weight with a "
                "teacher, has to be above 0"
            )
        if not self.cross_entropy_weight:
            found += self._idle(_OF_CROSS_ENTROPY, "cross_entropy_weight is 0")
        if self.teacher is None:
            found += self._idle(_OF_TEACHER, "no teacher is given")
        elif not self.teacher_weight:
            found.append("teacher has no effect because teacher_weight is 0: raise it, or leave teacher out")
        if self.focal_gamma and self.label_smoothing:
            found.append(
                "focal_gamma and label_smoothing undo each other: smoothing punishes confidence, and the focal loss "
                "counts no pixel of which the network is confident. Set one of them to 0"
            )
        return found

    def _idle(self, names: tuple[str, ...], reason: str) -> list[str]:
        defaults = {field.name: field.default for field in fields(LossConfig)}
        return [
            f"{name}={getattr(self, name)!r} has no effect because {reason}: leave it at {defaults[name]!r}"
            for name in names
            if getattr(self, name) != defaults[name]
        ]
