"""Settings of the loss."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from refinenet.settings import Range, Rule, Settings

ClassWeights = Literal["log", "median", "none"]
Weight = Annotated[float, Range(0, 100)]

TEACHER_WEIGHT = "teacher_weight"
"""Weight that has an effect only with a teacher."""
_CROSS_ENTROPY_SETTINGS = ("class_weights", "label_smoothing", "hard_pixels", "focal_gamma")
TEACHER_SETTINGS = (TEACHER_WEIGHT, "teacher_temperature", "fill_missing")
"""Settings that need a teacher."""


@dataclass(frozen=True, kw_only=True)
class LossConfig(Settings):
    """Training objective: a weighted sum of losses.

    Raises:
        ValueError: A value is out of its range or would have no effect; all problems are reported together.
    """

    cross_entropy_weight: Weight = 1.0
    """Weight of the cross-entropy, the mean over labelled pixels; 0 leaves it out."""
    class_weights: ClassWeights = "none"
    """Weights of classes in the cross-entropy: "none" gives all the same weight; "log" gives more to rare classes, 1 /
    log(1.02 + p) for the share p of a class in the labelled pixels (Paszke et al., 2016); "median" gives them still
    more, the median frequency of all classes over that of the class (Eigen and Fergus, 2015). `refinenet data info`
    shows both."""
    label_smoothing: Annotated[float, Range(0, 0.999999)] = 0.0
    """Share of the target of the cross-entropy that is spread evenly over all classes."""
    hard_pixels: Annotated[float, Range(1e-6, 1)] = 1.0
    """Share of the labelled pixels of each image over which the cross-entropy is computed, those with the largest loss
    (online hard example mining); at least one pixel."""
    focal_gamma: Annotated[float, Range(0, 10)] = 0.0
    """Power of (1 - probability of the pixel's class) by which its cross-entropy is multiplied (focal loss)."""
    dice_weight: Weight = 1.0
    """Weight of the Dice loss; 0 leaves it out."""
    lovasz_weight: Weight = 0.0
    """Weight of the Lovasz-Softmax loss, a surrogate of 1 - mIoU; 0 leaves it out."""
    deep_supervision: Weight = 0.0
    """Weight of the same losses on each of the decoder's stages at strides 32, 16 and 8; 0 leaves them out."""
    teacher: Annotated[str, Rule(bool, "the path of a model file")] | None = None
    """Model file with the same classes, whose probabilities are soft targets (knowledge distillation), and whose
    predictions replace missing ground truth with `fill_missing`."""
    teacher_weight: Weight = 0.5
    """Weight of the divergence from the teacher."""
    teacher_temperature: Annotated[float, Range(0.01, 100)] = 1.0
    """Temperature by which the logits of teacher and network are divided before they are compared; above 1 softens
    both."""
    fill_missing: bool = False
    """Whether the teacher's predictions replace labels, depth or other ground truth that an image lacks; for networks
    with several outputs."""

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of the losses that are enabled, by the names of their fields."""
        names = WEIGHTS if self.teacher is None else (*WEIGHTS, TEACHER_WEIGHT)
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def _conflicts(self) -> list[str]:
        conflicts = []
        if not self.loss_weights:
            conflicts.append(
                f"No loss is enabled: one of {', '.join(WEIGHTS)}, or {TEACHER_WEIGHT} with a teacher, must be above 0"
            )
        if not self.cross_entropy_weight:
            conflicts += self._unused(_CROSS_ENTROPY_SETTINGS, "cross_entropy_weight is 0")
        if self.teacher is None:
            conflicts += self._unused(TEACHER_SETTINGS, "no teacher is given")
        elif not self.teacher_weight and not self.fill_missing:
            conflicts.append("teacher has no effect because teacher_weight is 0: raise it, or leave teacher out")
        if self.focal_gamma and self.label_smoothing:
            conflicts.append(
                "focal_gamma and label_smoothing counteract each other: smoothing penalises confidence, and the "
                "focal loss ignores pixels with high confidence. Set one of them to 0"
            )
        return [*conflicts, *super()._conflicts()]


WEIGHTS = tuple(
    field.name for field in fields(LossConfig) if field.name.endswith("_weight") and field.name != TEACHER_WEIGHT
)
"""Weights of the losses that need the labels alone: every field that ends in `_weight`, except `TEACHER_WEIGHT`."""
