"""Error rates of `refinenet eval --compare`: how often it reports significance with and without a true difference.

    python benchmarks/significance.py [--simulations 2000] [--images 30 100 500]
        [--differences 0 0.002 0.01] [--population 20000] [--draws 999]

Two models have segmented a population of simulated images, from which each simulation draws a sample. The 11 classes
occur in 95 % to 6 % of the images and have very different sizes; the difficulty of an image, and of a class in it, is
shared by both models up to random variation. In the population, the true difference in mIoU is exactly the requested
one, in three ways: both models are alike; the second is better at the two rarest classes and worse at the others; it
is better at every other class and worse at the rest. Type I errors should be 5 %.

In addition to `compare_counts` (bootstrap-t), the table shows the plain percentile bootstrap, and the results for pixel
accuracy and a rare class's IoU: errors where the models are alike, true differences in the other two ways.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import Differences, compare_counts
from refinenet.evaluation.metrics.confusion import ious, mean
from refinenet.evaluation.metrics.significance import interval, resample

Counts = npt.NDArray[np.int64]
Shift = npt.NDArray[np.float64]

PRESENCE = np.array([0.95, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.35, 0.2, 0.1, 0.06])
SIZE = np.array([3, 3, 2, 1, 1, 0.5, 0.3, 0.2, 0.2, 0.1, 0.1])
DIFFICULTY = np.array([-3.5, -3, -2.8, -2, -1.5, -1, -0.8, -0.5, -0.3, 0, 0.3])
CLASSES = len(SIZE)
PIXELS = 480 * 360
_RARE, _ODD = np.arange(CLASSES) >= CLASSES - 2, np.arange(CLASSES) % 2 == 1
WAYS: dict[str, Callable[[float], Shift]] = {
    "alike": lambda shift: np.full(CLASSES, shift),
    "rare classes against the others": lambda shift: np.where(_RARE, -0.4, shift),
    "every other class against the rest": lambda shift: np.where(_ODD, shift, 0.5),
}
"""Maps a calibrated parameter to the advantage of the second model in each class, in logits."""


class Population:
    """Simulated images and the predictions of two models for them.

    Args:
        images: Number of images.
        own: Standard deviation, in logits, of the difficulty for one model only, per image and class.
        seed: Seed of the random draws.
    """

    def __init__(self, images: int, own: float = 0.3, seed: int = 1) -> None:
        random = np.random.default_rng(seed)
        present = random.random((images, CLASSES)) < PRESENCE
        present[~present.any(1), 0] = True
        area = SIZE * np.exp(random.normal(0, 1, (images, CLASSES))) * present
        self._truth = np.floor(PIXELS * area / area.sum(1, keepdims=True))[:, None]
        shared = DIFFICULTY + random.normal(0, 0.8, (images, 1)) + random.normal(0, 0.8, (images, CLASSES))
        alone = random.normal(0, own, (images, 2, 1)) + random.normal(0, own, (images, 2, CLASSES))
        self._logits = shared[:, None] + alone
        taste = random.normal(0, 1, (images, 1, CLASSES)) + random.normal(0, own, (images, 2, CLASSES))
        share = np.exp(taste) * (present + 0.01)[:, None] * np.sqrt(SIZE)
        self._share = share / share.sum(-1, keepdims=True)

    def segment(self, way: Callable[[float], Shift], difference: float) -> Counts:
        """Pixel counts `(N, 2, 3, K)` of both models, whose mIoU over all images differs by exactly `difference`."""
        low, high = -3.0, 3.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if self._gain(way(middle)) > difference else (middle, high)
        return self._segment(way(low))

    def _gain(self, shift: Shift) -> float:
        first, second = mean(ious(self._segment(shift).sum(0)))
        return float(second - first)

    def _segment(self, shift: Shift) -> Counts:
        logits = self._logits - np.stack([np.zeros(CLASSES), shift])
        hits = np.floor(self._truth / (1 + np.exp(logits)))
        missed = self._truth - hits
        found = hits + np.floor(missed.sum(-1, keepdims=True) * self._share)
        return np.stack([hits, np.broadcast_to(self._truth, hits.shape), found], axis=2).astype(np.int64)


def simulate(
    population: Counts, images: int, simulations: int, draws: int, seed: int = 2
) -> list[tuple[Counts, Differences]]:
    """Sample counts `(N, 2, 3, K)` from a population and compare the two models."""
    random = np.random.default_rng(seed)
    taken = (population[random.integers(0, len(population), images)] for _ in range(simulations))
    return [(counts, compare_counts(counts[:, 0], counts[:, 1], draws)) for counts in taken]


def percentile_says(counts: Counts, draws: int) -> bool:
    """Whether the plain percentile interval of the difference in mIoU excludes 0."""
    found = interval(resample(counts, lambda sums: mean(ious(sums))[:, 1] - mean(ious(sums))[:, 0], draws))
    return found is not None and not found[0] <= 0 <= found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--images", type=int, nargs="+", default=[30, 100, 500])
    parser.add_argument("--differences", type=float, nargs="+", default=[0.0, 0.002, 0.01])
    parser.add_argument("--population", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=999)
    options = parser.parse_args()
    people = Population(options.population)
    columns = "bootstrap-t   percentile   t: pixel accuracy   t: rarest but one   t: any class, Holm"
    print(f"{'way':36} true points  images   {columns}")
    for way, shift in WAYS.items():
        for difference in options.differences:
            counts = people.segment(shift, difference)
            for images in options.images:
                found = simulate(counts, images, options.simulations, options.draws)
                says = [
                    [one.summary[0].is_significant for _, one in found],
                    [percentile_says(taken, options.draws) for taken, _ in found],
                    [one.summary[1].is_significant for _, one in found],
                    [one.classes[-2].is_significant for _, one in found],
                    [any(p is not None and p <= 0.05 for p in one.p_corrected) for _, one in found],
                ]
                shares = "".join(f"{100 * np.mean(said):12.1f} %" for said in says)
                print(f"{way:36} {100 * difference:11.1f} {images:7}{shares}", flush=True)


if __name__ == "__main__":
    main()
