"""Ranking of suspects: how likely each label is wrong, given the confidence of the model and its errors elsewhere."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refinenet.labelling.errors.suspects import LEAST_AREA, Suspect

SURE = 0.01
"""Added to 1 - doubt, so that the evidence of the largest doubt stays finite."""
USUAL_STRONG = 0.02
"""Share of images with as strong suspects of the same label and prediction at which a score is halved."""
USUAL = 0.1
"""Share of images with any suspects of the same label and prediction at which a score is halved."""


@dataclass(frozen=True, kw_only=True)
class ScoredSuspect:
    """A suspect among those of all images."""

    image: int
    """Index of the image."""
    suspect: Suspect
    score: float
    """In [0, 1); larger where the label is more likely wrong. It is not a probability."""


def score_suspects(found: Mapping[int, Sequence[Suspect]], images: int) -> list[ScoredSuspect]:
    """Score the suspects of all images, the most likely label errors first.

    The evidence e of a suspect is -log(1 - doubt + `SURE`) times the logarithm of its area, in units of 0.7 times the
    least area. It is divided by 1 + s / `USUAL_STRONG`, where s is the share of images with suspects of the same label
    and prediction and at least as much evidence, and by 1 + f / `USUAL`, where f is the share of images with any of
    these: a confusion that a model repeats in many images is more often its own weakness than an error in the labels
    (compare the thresholds by class of confident learning, Northcutt et al., JAIR 2021). The score is e / (e + 1),
    where e is the result.

    Args:
        found: Suspects by the index of their image.
        images: Number of images that were judged.
    """
    by_pair: dict[tuple[int, int], list[tuple[float, int, Suspect]]] = defaultdict(list)
    for image, suspects in found.items():
        for suspect in suspects:
            by_pair[suspect.label, suspect.prediction].append((_evidence(suspect), image, suspect))
    scored = []
    for pair in by_pair.values():
        pair.sort(key=lambda each: (-each[0], each[1], each[2].number))
        usual = (len({image for _, image, _ in pair}) - 1) / max(1, images)
        stronger: set[int] = set()
        for evidence, image, suspect in pair:
            strong = len(stronger - {image}) / max(1, images)
            left = evidence / (1 + strong / USUAL_STRONG) / (1 + usual / USUAL)
            scored.append(ScoredSuspect(image=image, suspect=suspect, score=left / (1 + left)))
            stronger.add(image)
    return sorted(scored, key=lambda each: (-each.score, each.image, each.suspect.number))


def _evidence(suspect: Suspect) -> float:
    return -math.log(min(1.0, 1 - suspect.doubt + SURE)) * math.log(suspect.share / (0.7 * LEAST_AREA))
