"""Metrics of dense targets, against values worked out by hand, other libraries and the formulas written again."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress
from torchmetrics.functional.regression import (
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_log_error,
    r2_score,
)

from refinenet.evaluation.metrics import (
    TARGET_METRICS,
    DepthAccumulator,
    DepthMetrics,
    DepthProtocol,
    NormalAccumulator,
    NormalMetrics,
    RegressionAccumulator,
    RegressionMetrics,
    TargetAccumulator,
)
from refinenet.evaluation.metrics.depth import ALIGNMENT_RULES, CROP_RULES, find_window
from refinenet.evaluation.metrics.exact_sums import ExactSums
from refinenet.outputs import CLASS_KIND, KINDS, read_outputs

Floats = npt.NDArray[np.float32]
Image = tuple[Floats, Floats]
NAN = np.nan
OUTPUTS = {spec.kind: spec for spec in read_outputs("depth:0:80,normals,regression[height:m,wetness:%]")}
seeds = st.integers(0, 2**32 - 1)
every_kind = pytest.mark.parametrize("kind", TARGET_METRICS)


def draw(seed: int, kind: str, images: int = 4, size: tuple[int, int] = (7, 9)) -> list[Image]:
    """Predictions and targets with more and more missing values from image to image; of the last one, all miss."""
    random = np.random.default_rng(seed)
    channels = {"depth": 1, "normals": 3, "regression": 2}[kind]
    truth = random.normal(0, 1, (images, channels, *size))
    predicted = truth + random.normal(0, 0.5, truth.shape)
    if kind == "depth":
        truth, predicted = np.exp(2 * truth), np.exp(2 * predicted)
    truth[
        np.broadcast_to(random.random((images, 1, *size)) < np.linspace(0, 1, images).reshape(-1, 1, 1, 1), truth.shape)
    ] = NAN
    if kind == "regression":
        truth[:, 1] = 300 + 10 * truth[:, 1]
        predicted[:, 1] = 300 + 10 * predicted[:, 1]
        truth[random.random(truth.shape) < 0.1] = NAN
    return list(zip(predicted.astype(np.float32), truth.astype(np.float32), strict=True))


def measure(accumulator: TargetAccumulator, images: list[Image]) -> TargetAccumulator:
    for predicted, truth in images:
        accumulator.add(predicted, truth)
    return accumulator


def depths_of(images: list[Image], **protocol: Any) -> DepthMetrics:
    accumulator = DepthAccumulator(DepthProtocol(**protocol))
    measure(accumulator, images)
    return accumulator.result()


def normals_of(images: list[Image]) -> NormalMetrics:
    accumulator = NormalAccumulator()
    measure(accumulator, images)
    return accumulator.result()


def row(*values: float) -> Floats:
    """Values of one channel in a row of pixels, `(1, 1, W)`."""
    return np.array(values, np.float32).reshape(1, 1, -1)


def vectors(*values: tuple[float, float, float]) -> Floats:
    """Vectors in a row of pixels, `(3, 1, W)`."""
    return np.array(values, np.float32).T.reshape(3, 1, -1)


# Depth


def test_depths_by_hand() -> None:
    """Truths 1 and 2 with predictions 2 and 2, and in a second image 4 with 2: log errors ln 2, 0 and -ln 2."""
    scores = depths_of([(row(2, 2, 7), row(1, 2, NAN)), (row(2, 7), row(4, NAN))])
    assert (scores.pixels, scores.images) == (3, 2)
    two = math.log(2)
    assert asdict(scores.pooled) == pytest.approx(
        {
            "rmse": math.sqrt((1 + 0 + 4) / 3),
            "rmse_log": math.sqrt(2 * two**2 / 3),
            "abs_rel": (1 + 0 + 0.5) / 3,
            "sq_rel": (1 + 0 + 1) / 3,
            "log10": 2 * math.log10(2) / 3,
            "silog": 100 * math.sqrt(2 * two**2 / 3),
            "mae": (1 + 0 + 2) / 3,
            "delta_1": 1 / 3,
            "delta_2": 1 / 3,
            "delta_3": 1 / 3,
        }
    )
    assert asdict(scores.image_mean) == pytest.approx(
        {
            "rmse": (math.sqrt(1 / 2) + 2) / 2,
            "rmse_log": (math.sqrt(two**2 / 2) + two) / 2,
            "abs_rel": (0.5 + 0.5) / 2,
            "sq_rel": (0.5 + 1) / 2,
            "log10": (math.log10(2) / 2 + math.log10(2)) / 2,
            "silog": 100 * (math.sqrt(two**2 / 2 - two**2 / 4) + 0) / 2,
            "mae": (0.5 + 2) / 2,
            "delta_1": (0.5 + 0) / 2,
            "delta_2": (0.5 + 0) / 2,
            "delta_3": (0.5 + 0) / 2,
        },
        abs=1e-6,
    )


def test_deltas_by_hand() -> None:
    """Ratios 1.25, 1.5, 1.6, 2 and 1 / 1.2: a ratio of exactly 1.25 is not below it."""
    scores = depths_of([(row(1.25, 1.5, 1.6, 2, 5), row(1, 1, 1, 1, 6))]).pooled
    assert (scores.delta_1, scores.delta_2, scores.delta_3) == (1 / 5, 3 / 5, 4 / 5)


def test_a_wrong_scale_alone_has_no_scale_invariant_error() -> None:
    """Rounding of the sums must not make its square negative."""
    for seed in range(20):
        truth = np.random.default_rng(seed).uniform(1, 9, (1, 5, 7)).astype(np.float32)
        assert depths_of([(2 * truth, truth)]).pooled.silog == pytest.approx(0, abs=1e-5)


def apply_crop(crop: str, truth: Floats) -> npt.NDArray[np.bool_]:
    """The crops as in the evaluation of KITTI and NYU by others."""
    height, width = truth.shape
    shares = {
        "kitti_garg": [0.40810811 * height, 0.99189189 * height, 0.03594771 * width, 0.96405229 * width],
        "kitti_eigen": [0.3324324 * height, 0.91351351 * height, 0.0359477 * width, 0.96405229 * width],
        "none": [0, height, 0, width],
    }
    top, bottom, left, right = np.array(shares[crop]).astype(np.int32)
    mask = np.zeros(truth.shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def errors_of(p: npt.NDArray[np.float64], t: npt.NDArray[np.float64]) -> list[float]:
    """The metrics of depths `(n,)`, by PyTorch, SciPy and NumPy."""
    a, b = torch.from_numpy(p), torch.from_numpy(t)
    d = np.log(p) - np.log(t)
    ratio = np.maximum(p / t, t / p)
    return [
        float(mean_squared_error(a, b, squared=False)),
        math.sqrt(float(mean_squared_log_error(a - 1, b - 1))),  # theirs are logarithms of 1 + x
        float(mean_absolute_percentage_error(a, b)),
        float(np.mean((p - t) ** 2 / t)),
        float(np.mean(np.abs(np.log10(p / t)))),
        float(100 * np.std(d)),
        float(mean_absolute_error(a, b)),
        *(float(np.mean(ratio < 1.25**k)) for k in (1, 2, 3)),
    ]


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.sampled_from(["none", "kitti_eigen", "kitti_garg"]),
    st.sampled_from(["none", "median", "affine"]),
    st.integers(1, 30),
    st.integers(1, 40),
)
def test_depths_are_those_of_other_programs(seed: int, crop: str, alignment: str, height: int, width: int) -> None:
    images, low, high = draw(seed, "depth", size=(height, width)), 0.1, 20.0
    chosen = []
    for (predicted,), (truth,) in images:
        counts = (truth > low) & (truth < high) & apply_crop(crop, truth)
        p, t = predicted[counts].astype(np.float64), truth[counts].astype(np.float64)
        if not t.size:
            continue
        if alignment == "median":
            p = p * np.median(t) / np.median(p)
        if alignment == "affine":
            fit = linregress(p, t) if t.size > 1 else None
            p = p * fit.slope + fit.intercept if fit else t
        chosen.append((p.clip(low, high), t))
    scores = depths_of(images, range=(low, high), crop=crop, alignment=alignment)
    assert (scores.images, scores.pixels) == (len(chosen), sum(t.size for _, t in chosen))
    if not chosen:
        assert set(asdict(scores.pooled).values()) == set(asdict(scores.image_mean).values()) == {None}
        return
    pooled = errors_of(*(np.concatenate(side) for side in zip(*chosen, strict=True)))
    means = np.mean([errors_of(p, t) for p, t in chosen], axis=0).tolist()
    assert list(asdict(scores.pooled).values()) == pytest.approx(pooled, rel=1e-6, abs=1e-5)
    assert list(asdict(scores.image_mean).values()) == pytest.approx(means, rel=1e-6, abs=1e-5)


def test_the_crop_of_nyu_is_for_its_size_only() -> None:
    window = find_window("nyu_eigen", (480, 640))
    expected = np.zeros((480, 640), bool)
    expected[45:471, 41:601] = True
    assert np.array_equal(window, expected)
    with pytest.raises(ValueError, match="480 x 640"):
        depths_of([(np.ones((1, 240, 320), np.float32),) * 2], crop="nyu_eigen")


def test_alignments_by_hand() -> None:
    """Half of the truth, and minus twice the truth plus 30: aligned, both are perfect."""
    truth = row(2, 4, 6, 8, 60)
    half = (truth / 2).astype(np.float32)
    turned = (30 - 2 * truth).astype(np.float32)
    for predicted, alignment in ((half, "median"), (turned, "affine"), (half, "affine")):
        assert depths_of([(predicted, truth)], alignment=alignment).pooled.rmse == pytest.approx(0, abs=1e-6)
    assert depths_of([(half, truth)]).pooled.abs_rel == pytest.approx(0.5)


@pytest.mark.parametrize("value", [-3.0, 0.0, 5.0])
def test_alignments_of_equal_predictions_are_finite(value: float) -> None:
    truth = row(2, 4, 6)
    equal = depths_of([(np.full_like(truth, value), truth)], alignment="affine")
    assert equal.pooled.mae == pytest.approx(4 / 3)  # all are the mean, 4
    median = depths_of([(np.full_like(truth, value), truth)], alignment="median", range=(1, 10)).pooled.mae
    assert median == pytest.approx(4 / 3 if value > 0 else (1 + 3 + 5) / 3)


def test_the_range_is_strict_and_predictions_are_clipped_to_it() -> None:
    """Of truths 1, 2, 10 and infinity, only 2 lies between 1 and 10; its prediction of 50 becomes 10."""
    scores = depths_of([(row(3, 50, 3, 3), row(1, 2, 10, np.inf))], range=(1, 10))
    assert (scores.pixels, scores.pooled.mae) == (1, 8)


def test_the_alignment_is_always_stated() -> None:
    for alignment in ALIGNMENT_RULES:
        for crop in CROP_RULES:
            protocol = DepthProtocol(range=(0.5, 80), crop=crop, alignment=alignment)
            text = DepthAccumulator(protocol).result().protocol
            assert "alignment" in text
            assert ALIGNMENT_RULES[alignment] in text
            assert CROP_RULES[crop] in text
            assert "above 0.5 m and below 80 m" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"range": (0, 80)}, "0 < low < high"),
        ({"range": (5, 5)}, "0 < low < high"),
        ({"range": (1, math.inf)}, "0 < low < high"),
        ({"crop": "eigen"}, "kitti_eigen.*not 'eigen'"),
        ({"alignment": "mean"}, "none, median, affine, not 'mean'"),
    ],
)
def test_wrong_protocols_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DepthProtocol(**values)


# Normals


def test_angles_by_hand() -> None:
    """0, 10, 25, 90 and 180 degrees, of vectors of several lengths."""
    ten, more = math.radians(10), math.radians(25)
    tilted = (math.sin(ten), 0, -math.cos(ten)), (0, 3 * math.sin(more), -3 * math.cos(more))
    predicted = vectors((0, 0, -2), *tilted, (1, 0, 0), (0, 0, 5), (1, 1, 1))
    truth = vectors(*[(0, 0, -1)] * 5, (0, NAN, 1))
    scores = normals_of([(predicted, truth)])
    assert scores.pixels == 5
    assert scores.mean == pytest.approx((0 + 10 + 25 + 90 + 180) / 5)
    assert scores.rmse == pytest.approx(math.sqrt((100 + 625 + 8100 + 32400) / 5))
    assert scores.median == pytest.approx(25, abs=0.0051)
    assert (scores.within_11_25, scores.within_22_5, scores.within_30) == (2 / 5, 2 / 5, 3 / 5)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(1e-4, 3), st.integers(1, 12), st.integers(1, 12))
def test_angles_are_those_of_other_formulas(seed: int, spread: float, height: int, width: int) -> None:
    """By Kahan's formula, 2 atan(|p - t| / |p + t|) of unit vectors, and by the arccosine where it is accurate."""
    random = np.random.default_rng(seed)
    images = [
        (np.nan_to_num(truth + spread * random.normal(0, 1, truth.shape), nan=1).astype(np.float32), truth)
        for _, truth in draw(seed, "normals", size=(height, width))
    ]
    angles = []
    for predicted, truth in images:
        known = ~np.isnan(truth).any(0)
        p, t = (one[:, known].astype(np.float64) for one in (predicted, truth))
        p, t = p / np.linalg.norm(p, axis=0), t / np.linalg.norm(t, axis=0)
        exact = np.degrees(2 * np.arctan2(np.linalg.norm(p - t, axis=0), np.linalg.norm(p + t, axis=0)))
        assert np.allclose(exact, np.degrees(np.arccos((p * t).sum(0).clip(-1, 1))), atol=1e-4)
        angles.append(exact)
    found, expected = normals_of(images), np.concatenate(angles)
    assert found.pixels == expected.size
    assert found.mean == pytest.approx(expected.mean(), rel=1e-9)
    assert found.rmse == pytest.approx(np.sqrt((expected**2).mean()), rel=1e-9)
    assert found.median == pytest.approx(np.median(expected), abs=0.005 + 1e-9)
    shares = (found.within_11_25, found.within_22_5, found.within_30)
    assert shares == tuple(float(np.mean(expected < limit)) for limit in (11.25, 22.5, 30))


def test_limits_and_the_median_of_an_even_number_by_hand() -> None:
    """The middle two of six angles are 22.4 and 22.6 degrees."""
    angles = [math.radians(angle) for angle in (11.2, 11.3, 22.4, 22.6, 29.9, 30.1)]
    predicted = vectors(*[(math.sin(angle), 0, math.cos(angle)) for angle in angles])
    scores = normals_of([(predicted, vectors(*[(0, 0, 1)] * 6))])
    assert (scores.within_11_25, scores.within_22_5, scores.within_30) == (1 / 6, 3 / 6, 5 / 6)
    assert scores.median == pytest.approx(22.5, abs=0.0051)


def test_small_angles_keep_their_digits() -> None:
    """The cosine of a microradian is 1 - 5e-13."""
    scores = normals_of([(vectors((1e-6, 0, 1)), vectors((0, 0, 1)))])
    assert scores.mean == pytest.approx(math.degrees(1e-6), rel=1e-6)


def test_predictions_without_a_direction_are_90_degrees_off() -> None:
    assert normals_of([(vectors((0, 0, 0)), vectors((0, 0, 1)))]).mean == 90
    tiny, huge = vectors((0, 1e-38, 1e-38)), vectors((0, 0, 1e38))
    assert normals_of([(tiny, huge)]).mean == pytest.approx(45)
    with pytest.raises(ValueError, match="longer than 0"):
        normals_of([(vectors((0, 0, 1)), vectors((0, 0, 0)))])


# Regression


def test_quantities_by_hand() -> None:
    """Height: truths 1, 3 and 5 with errors 1, 0 and -2. Wetness: one truth, with an error of 4."""
    accumulator = RegressionAccumulator(("height", "wetness"), ("m", "%"))
    accumulator.add(np.concatenate([row(2, 3), row(9, 9)]), np.concatenate([row(1, 3), row(5, NAN)]))
    accumulator.add(np.concatenate([row(3), row(9)]), np.concatenate([row(5), row(NAN)]))
    height, wetness = accumulator.result().quantities
    assert (height.name, height.unit, height.pixels) == ("height", "m", 3)
    assert (height.mae, height.bias, height.rmse) == pytest.approx((1, -1 / 3, math.sqrt(5 / 3)))
    assert height.r2 == pytest.approx(1 - 5 / 8)
    assert (wetness.pixels, wetness.mae, wetness.bias, wetness.rmse, wetness.r2) == (1, 4, 4, 4, None)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 12), st.integers(2, 12))
def test_quantities_are_those_of_torchmetrics(seed: int, height: int, width: int) -> None:
    images = draw(seed, "regression", size=(height, width))
    accumulator = RegressionAccumulator(("height", "wetness"))
    measure(accumulator, images)
    for channel, found in enumerate(accumulator.result().quantities):
        pairs = [(p[channel].astype(np.float64), t[channel].astype(np.float64)) for p, t in images]
        p = torch.from_numpy(np.concatenate([p[~np.isnan(t)] for p, t in pairs]))
        t = torch.from_numpy(np.concatenate([t[~np.isnan(t)] for _, t in pairs]))
        assert found.pixels == len(t)
        if not len(t):
            assert (found.mae, found.rmse, found.bias, found.r2) == (None,) * 4
            continue
        assert found.mae == pytest.approx(float(mean_absolute_error(p, t)))
        assert found.rmse == pytest.approx(float(mean_squared_error(p, t, squared=False)))
        assert found.bias == pytest.approx(float((p - t).mean()), abs=1e-9)
        assert found.r2 == (pytest.approx(float(r2_score(p, t)), rel=1e-6) if len(t) > 1 else None)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_r2_is_undefined_if_the_truth_does_not_vary(value: float) -> None:
    accumulator = RegressionAccumulator(("height",))
    for _ in range(3):
        accumulator.add(np.zeros((1, 30, 30), np.float32), np.full((1, 30, 30), value, np.float32))
    assert accumulator.result().quantities[0].r2 is None


def test_r2_of_values_far_from_zero_and_of_very_large_and_small_ones() -> None:
    random = np.random.default_rng(0)
    for offset, scale in ((300, 0.1), (0, 1e-12), (0, 1e18)):
        truth = (offset + scale * random.normal(0, 1, (1, 20, 20))).astype(np.float32)
        predicted = (truth + 0.5 * scale * random.normal(0, 1, truth.shape)).astype(np.float32)
        accumulator = RegressionAccumulator(("height",))
        accumulator.add(predicted, truth)
        p, t = predicted.astype(np.float64), truth.astype(np.float64)
        expected = 1 - ((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum()
        assert accumulator.result().quantities[0].r2 == pytest.approx(expected, rel=1e-5)


def test_quantities_need_names_and_units() -> None:
    for names, units in (((), ()), (("height",), ("m", "%"))):
        with pytest.raises(ValueError, match="each with a unit"):
            RegressionAccumulator(names, units)


# All kinds


def test_every_kind_has_metrics() -> None:
    assert set(TARGET_METRICS) == set(KINDS) - {CLASS_KIND}


@every_kind
def test_accumulators_are_built_from_outputs(kind: str) -> None:
    accumulator = TARGET_METRICS[kind].for_output(OUTPUTS[kind])
    assert accumulator.rules
    if isinstance(accumulator, DepthAccumulator):
        assert accumulator.protocol == DepthProtocol(range=(0.001, 80))
    if isinstance(accumulator, RegressionAccumulator):
        assert (accumulator.names, accumulator.units) == (("height", "wetness"), ("m", "%"))


@every_kind
@pytest.mark.parametrize("images", [[], [3]], ids=["no image", "no truth"])
def test_undefined_values_are_none(kind: str, images: list[int]) -> None:
    accumulator = TARGET_METRICS[kind].for_output(OUTPUTS[kind])
    drawn = draw(0, kind)
    measure(accumulator, [drawn[position] for position in images])
    result = accumulator.result()
    parts = result.quantities if isinstance(result, RegressionMetrics) else (result,)
    for part in parts:
        values = asdict(part)
        flat = [v for value in values.values() for v in (value.values() if isinstance(value, dict) else [value])]
        assert {value for value in flat if not isinstance(value, str)} == {None, 0}


@every_kind
def test_processes_and_the_order_of_images_change_nothing(kind: str) -> None:
    """Not even the last digit. Images of very different sizes and errors make sums of floats differ."""
    random = np.random.default_rng(1)
    images = [
        (predicted * np.float32(factor), truth)
        for seed, factor in enumerate((1, 1e-3, 37.7, 1e3, 0.1, 1.1))
        for predicted, truth in draw(seed, kind, size=(int(random.integers(1, 40)), 5))
    ]
    build: Callable[[], TargetAccumulator] = lambda: TARGET_METRICS[kind].for_output(OUTPUTS[kind])  # noqa: E731
    alone = measure(build(), images).result()
    assert measure(build(), images[::-1]).result() == alone
    parts = [measure(build(), images[rank::3]) for rank in range(3)]
    arrays = [part.arrays() for part in parts]
    totals = iter([np.sum(group, axis=0) for group in zip(*arrays, strict=True)])
    parts[1].add_up(lambda sums: next(totals))
    assert parts[1].result() == alone
    assert all(sums.dtype == np.int64 for sums in parts[1].arrays())


@every_kind
def test_wrong_images_are_named(kind: str) -> None:
    accumulator = TARGET_METRICS[kind].for_output(OUTPUTS[kind])
    predicted, truth = draw(0, kind)[0]
    for one, other in ((predicted, truth[:, 1:]), (predicted[0], truth[0]), (np.tile(predicted, (9, 1, 1)),) * 2):
        with pytest.raises(ValueError, match="must have one shape"):
            accumulator.add(one, other)
    broken = predicted.copy()
    broken[0, 0, 0] = NAN
    with pytest.raises(ValueError, match="finite"):
        accumulator.add(broken, truth)
    if kind != "depth":  # infinite depths are out of range
        with pytest.raises(ValueError, match="finite"):
            accumulator.add(predicted, np.where(np.isnan(truth), truth, np.float32(np.inf)))


@every_kind
def test_results_are_frozen(kind: str) -> None:
    result = measure(TARGET_METRICS[kind].for_output(OUTPUTS[kind]), draw(0, kind)).result()
    with pytest.raises(FrozenInstanceError):
        result.pixels = 3


def test_metrics_do_not_import_pytorch() -> None:
    code = "import sys, refinenet.evaluation.metrics.targets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Exact sums

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e80, max_value=1e80)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite.filter(lambda value: value == 0 or abs(value) > 1e-80), max_size=30))
def test_sums_are_exact(values: list[float]) -> None:
    sums = ExactSums(2)
    for value in values:
        sums.add((value, -value))
    expected = sum(map(Fraction, values), Fraction(0))
    assert sums.fractions() == [expected, -expected]
    assert sums.totals().tolist() == [math.fsum(values), -math.fsum(values)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**288])
def test_what_cannot_be_added_is_named(value: float) -> None:
    with pytest.raises(ValueError, match="finite and below"):
        ExactSums(1).add([value])
