"""Order of suspects: how likely the label of each is wrong, from how sure the model is and how it errs elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refinenet.labelling.suspects import Suspect

HALF_WIDTH = 1.5
"""Width of a suspect, in outlines, at which its score is half of that of a wide one."""
USUAL = 0.01
"""Share of the images with suspects of one label and prediction, above which the confusion counts as the model's."""


@dataclass(frozen=True, kw_only=True)
class ScoredSuspect:
    """A suspect among those of all images."""

    image: int
    """Index of the image."""
    suspect: Suspect
    score: float
    """In [0, 1]; larger where the label is more likely wrong."""


def score_suspects(found: Mapping[int, Sequence[Suspect]], images: int) -> list[ScoredSuspect]:
    """Score the suspects of all images, the most likely label errors first.

    The score is the product of three numbers in [0, 1]: the doubt; w / (w + `HALF_WIDTH`) for a width of w; and
    1 / (1 + f / `USUAL`), where f is the share of images with suspects of the same label and prediction. What the model
    takes for something else again and again is its own weakness more often than an error of the labels (compare the
    class thresholds of confident learning, Northcutt et al., JAIR 2021).

    Args:
        found: Suspects by the index of their image.
        images: Number of images that were judged.
    """
    pairs = Counter(pair for suspects in found.values() for pair in {(s.label, s.prediction) for s in suspects})
    scored = []
    for image, suspects in found.items():
        for suspect in suspects:
            others = (pairs[suspect.label, suspect.prediction] - 1) / max(1, images)
            width = suspect.width / (suspect.width + HALF_WIDTH)
            score = min(1.0, suspect.doubt) * width / (1 + others / USUAL)
            scored.append(ScoredSuspect(image=image, suspect=suspect, score=score))
    return sorted(scored, key=lambda each: (-each.score, each.image, each.suspect.number))
