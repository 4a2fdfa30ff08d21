"""Errors of depths, under a protocol: which pixels count, and how predictions are aligned with the truth.

The metrics are those of Eigen, Puhrsch, Fergus, Depth Map Prediction from a Single Image, NIPS 2014, with the mean
absolute log10 error of Saxena et al., Make3D, PAMI 2009, and the SILog of the KITTI depth benchmark (Uhrig et al.,
Sparsity Invariant CNNs, 3DV 2017). Papers average them over pixels or over images, which differ: both are reported.

Shape letters: H height, W width, n pixels that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.exact_sums import ExactSums
from refinenet.evaluation.metrics.target_accumulator import Integers, TargetAccumulator, Values, check_image, show
from refinenet.outputs import DEFAULT_RANGE, OutputSpec
from refinenet.settings import is_within

Floats = npt.NDArray[np.float64]
Crop = Literal["none", "kitti_eigen", "kitti_garg", "nyu_eigen"]
Alignment = Literal["none", "median", "affine"]

LEAST_DEPTH = 1e-3
"""Lower limit of the default range in metres, as in the usual evaluations of KITTI and NYU."""
RATIO = 1.25
"""Ratio of a prediction to the truth, or of the truth to a prediction, below which a pixel is within delta 1."""

_KITTI_SHARES: dict[str, tuple[float, float, float, float]] = {
    "kitti_eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "kitti_garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
}
"""Share of the height at the top and bottom and of the width at the left and right of each crop."""
_NYU_SIZE, _NYU_WINDOW = (480, 640), (slice(45, 471), slice(41, 601))

CROP_RULES: dict[Crop, str] = {
    "none": "whole images",
    "kitti_eigen": (
        "the crop of Eigen et al., NIPS 2014, for KITTI: rows from 33.24324 % to 91.351351 % of the height, columns "
        "from 3.59477 % to 96.405229 % of the width, as in the evaluation of Godard et al., CVPR 2017"
    ),
    "kitti_garg": (
        "the crop of Garg et al., ECCV 2016, for KITTI: rows from 40.810811 % to 99.189189 % of the height, columns "
        "from 3.594771 % to 96.405229 % of the width"
    ),
    "nyu_eigen": (
        "the crop of Eigen et al., NIPS 2014, for NYU Depth: rows 45 to 470 and columns 41 to 600 of 480 x 640 pixels"
    ),
}
ALIGNMENT_RULES: dict[Alignment, str] = {
    "none": "no alignment: predictions as they are, in metres",
    "median": (
        "alignment with the truth: predictions of each image times the ratio of the medians of truth and prediction "
        "(Zhou et al., CVPR 2017)"
    ),
    "affine": (
        "alignment with the truth: a scale and a shift of the depths of each image by least squares (as Ke et al., "
        "Marigold, CVPR 2024)"
    ),
}


@dataclass(frozen=True, kw_only=True)
class DepthProtocol:
    """Protocol of an evaluation of depths.

    Raises:
        ValueError: A value is not allowed.
    """

    range: tuple[float, float] = (LEAST_DEPTH, DEFAULT_RANGE[1])
    """Pixels count whose true depth lies strictly between these, in metres; predictions are clipped to them."""
    crop: Crop = "none"
    """Part of an image that counts, a key of `CROP_RULES`."""
    alignment: Alignment = "none"
    """Alignment of predictions with the truth, before they are clipped, a key of `ALIGNMENT_RULES`."""

    def __post_init__(self) -> None:
        low, high = self.range
        if not (is_within(low, 0, np.inf) and is_within(high, 0, np.inf) and 0 < low < high):
            raise ValueError(f"The range of depths must be two numbers of metres, 0 < low < high, not {self.range!r}.")
        for name, value, kinds in (("crop", self.crop, Crop), ("alignment", self.alignment, Alignment)):
            if value not in get_args(kinds):
                raise ValueError(f"The {name} of depths must be one of {', '.join(get_args(kinds))}, not {value!r}.")

    def describe(self) -> str:
        """Return the protocol in words, for results."""
        low, high = self.range
        return (
            f"pixels with a true depth above {low:g} m and below {high:g} m; {CROP_RULES[self.crop]}; "
            f"{ALIGNMENT_RULES[self.alignment]}; predictions clipped to the range"
        )

    def select(self, predicted: Values, target: Values) -> tuple[Floats, Floats]:
        """Return the depths of the pixels of an image that count.

        Args:
            predicted: `(H, W)` float32, in metres.
            target: `(H, W)` float32, in metres, NaN where there is no truth.

        Returns:
            `(n,)` float64 each: predictions, aligned and within the range, and true depths.

        Raises:
            ValueError: The crop is for images of another size.
        """
        low, high = self.range
        counts = (target > low) & (target < high) & find_window(self.crop, target.shape)
        chosen, truth = predicted[counts].astype(np.float64), target[counts].astype(np.float64)
        if truth.size:
            chosen = _ALIGNMENTS[self.alignment](chosen, truth)
        return chosen.clip(low, high), truth


def find_window(crop: Crop, size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return which pixels of an image lie in a crop.

    Args:
        crop: A key of `CROP_RULES`.
        size: Height and width of the image.

    Raises:
        ValueError: The crop is for images of another size.
    """
    if crop == "none":
        return np.ones(size, bool)
    window = np.zeros(size, bool)
    if crop == "nyu_eigen":
        if size != _NYU_SIZE:
            raise ValueError(f"The crop nyu_eigen is for images of 480 x 640 pixels, not {size[0]} x {size[1]}.")
        window[_NYU_WINDOW] = True
        return window
    top, bottom, left, right = _KITTI_SHARES[crop]
    height, width = size
    window[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return window


def _align_medians(predicted: Floats, truth: Floats) -> Floats:
    # A median of 0 or below has no ratio to the truth: predictions above 0 then become the largest depth.
    median = max(float(np.median(predicted)), float(np.finfo(np.float32).tiny))
    return predicted * (np.median(truth) / median)


def _align_affinely(predicted: Floats, truth: Floats) -> Floats:
    """Return the line through the predictions that fits the truth best; for equal predictions, the mean truth."""
    deviations = predicted - predicted.mean()
    square = deviations @ deviations
    scale = deviations @ truth / square if square > 0 else 0.0
    aligned: Floats = scale * deviations + truth.mean()
    return aligned


_ALIGNMENTS: dict[Alignment, Callable[[Floats, Floats], Floats]] = {
    "none": lambda predicted, truth: predicted,  # noqa: ARG005 - the same parameters for all alignments
    "median": _align_medians,
    "affine": _align_affinely,
}


@dataclass(frozen=True, kw_only=True)
class DepthScores:
    """Errors of depths, at least 0; None if no pixel counts. `DepthAccumulator.rules` has the formulas."""

    rmse: float | None
    """In metres."""
    rmse_log: float | None
    abs_rel: float | None
    sq_rel: float | None
    """In metres."""
    log10: float | None
    silog: float | None
    mae: float | None
    """In metres."""
    delta_1: float | None
    """Share of pixels in [0, 1], as the next two."""
    delta_2: float | None
    delta_3: float | None


@dataclass(frozen=True, kw_only=True)
class DepthMetrics:
    """Errors of depths over all images."""

    protocol: str
    """Protocol in words, with the alignment."""
    pixels: int
    """Number of pixels that count."""
    images: int
    """Number of images with such pixels."""
    pooled: DepthScores
    """Errors over the pixels of all images together."""
    image_mean: DepthScores
    """Means, over the images with pixels that count, of the errors of each image."""


_IN_METRES = ("rmse", "sq_rel", "mae")
_SCORES = len(DepthScores.__dataclass_fields__)
_NO_SCORES = DepthScores(**dict.fromkeys(DepthScores.__dataclass_fields__))


class DepthAccumulator(TargetAccumulator):
    """Errors of depths.

    Args:
        protocol: Which pixels count, and how predictions are aligned.
    """

    rules: ClassVar[Mapping[str, str]] = {
        "rmse": "root of the mean of (p - t)^2, for predicted depths p and true depths t in metres",
        "rmse_log": "root of the mean of d^2, with d = ln p - ln t",
        "abs_rel": "mean of |p - t| / t",
        "sq_rel": "mean of (p - t)^2 / t, as in Eigen et al., 2014 (KITTI's server divides by t^2)",
        "log10": "mean of |log10 p - log10 t|",
        "silog": "100 times the root of mean(d^2) - mean(d)^2, as on KITTI's server",
        "mae": "mean of |p - t|",
        "delta_1, delta_2, delta_3": f"share of pixels with max(p / t, t / p) below {RATIO}, {RATIO}^2 and {RATIO}^3",
        "pooled": "over the pixels of all images together",
        "image_mean": "mean over images with pixels that count of the metric of each image",
        "null": "undefined: there was nothing to measure",
    }

    def __init__(self, protocol: DepthProtocol | None = None) -> None:
        self.protocol = protocol or DepthProtocol()
        self._sums, self._image_sums = ExactSums(7), ExactSums(_SCORES)
        self._hits: Integers = np.zeros(3, np.int64)
        self._counts: Integers = np.zeros(2, np.int64)
        """Pixels and images."""

    @classmethod
    def for_output(cls, spec: OutputSpec) -> Self:
        """Return an accumulator over the range of a depth, but from `LEAST_DEPTH`; no crop and no alignment."""
        low, high = spec.range or DEFAULT_RANGE
        return cls(DepthProtocol(range=(max(low, LEAST_DEPTH), high)))

    def add(self, predicted: Values, target: Values) -> None:
        """Add the errors of one image.

        Args:
            predicted: `(1, H, W)` float32, in metres, finite.
            target: `(1, H, W)` float32, in metres, NaN where there is no truth.

        Raises:
            ValueError: The shapes differ or are not `(1, H, W)`, a prediction is not finite, or the crop of the
                protocol is for images of another size.
        """
        check_image(predicted, target, channels=1)
        chosen, truth = self.protocol.select(predicted[0], target[0])
        if not truth.size:
            return
        sums, hits = _sum_errors(chosen, truth)
        self._sums.add(sums)
        self._hits += hits
        self._image_sums.add(astuple(_compute_scores(truth.size, sums, hits)))
        self._counts += (truth.size, 1)

    def arrays(self) -> tuple[Integers, ...]:
        """Return all sums, int64 arrays that may be changed in place; those of several processes are to be added."""
        return self._sums.digits, self._image_sums.digits, self._hits, self._counts

    def summary(self) -> Mapping[str, float | None]:
        """Return the errors over the pixels of all images that logs have."""
        pooled = self.result().pooled
        return {"rmse": pooled.rmse, "abs_rel": pooled.abs_rel, "delta_1": pooled.delta_1}

    def summary_units(self) -> Mapping[str, str]:
        """Return the units of the metrics of `summary` that have one, by name."""
        return {"rmse": "m"}

    def score(self) -> float:
        """Return the share of pixels whose depth is right within a quarter (delta_1)."""
        return self.result().pooled.delta_1 or 0.0

    def tables(self) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Yield the table of all errors, pooled and as means over images."""
        result = self.result()
        columns = [asdict(result.pooled), asdict(result.image_mean)]
        rows = [
            [name, *(show(column[name]) for column in columns), "m" if name in _IN_METRES else ""]
            for name in columns[0]
        ]
        yield f"{result.protocol}", ["", "all pixels", "mean of images", "unit"], rows

    def result(self) -> DepthMetrics:
        """Compute the metrics of all images added so far."""
        pixels, images = map(int, self._counts)
        means = [total / images for total in self._image_sums.totals().tolist()] if images else []
        return DepthMetrics(
            protocol=self.protocol.describe(),
            pixels=pixels,
            images=images,
            pooled=_compute_scores(pixels, self._sums.totals(), self._hits) if pixels else _NO_SCORES,
            image_mean=_name_scores(means) if images else _NO_SCORES,
        )


def _sum_errors(predicted: Floats, truth: Floats) -> tuple[Floats, Integers]:
    """Return seven sums over `(n,)` depths, in the order of `_compute_scores`, and the pixels within each delta."""
    errors, logs = predicted - truth, np.log(predicted) - np.log(truth)
    sizes, squares = np.abs(errors), errors**2
    parts = (squares, logs**2, sizes / truth, squares / truth, np.abs(logs) / np.log(10), logs, sizes)
    ratios = np.maximum(predicted / truth, truth / predicted)
    hits = [np.count_nonzero(ratios < RATIO**power) for power in (1, 2, 3)]
    return np.array([part.sum() for part in parts]), np.array(hits, np.int64)


def _compute_scores(pixels: int, sums: Floats, hits: Integers) -> DepthScores:
    squared, squared_log, relative, squared_relative, log10, log, absolute = sums / pixels
    # Rounding may make the variance of equal log errors negative.
    silog = 100 * np.sqrt(max(squared_log - log**2, 0))
    scores = (np.sqrt(squared), np.sqrt(squared_log), relative, squared_relative, log10, silog, absolute)
    return _name_scores([*scores, *(hits / pixels)])


def _name_scores(values: list[float]) -> DepthScores:
    """Return ten values, in the order of the fields of `DepthScores`, by name."""
    return DepthScores(**dict(zip(DepthScores.__dataclass_fields__, map(float, values), strict=True)))
