"""Metrics of every kind of target: undefined values, processes, wrong images; and exact sums."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from target_images import NAN, draw, measure

from refinenet.evaluation.metrics import (
    TARGET_METRICS,
    DepthAccumulator,
    DepthProtocol,
    RegressionAccumulator,
    RegressionMetrics,
    TargetAccumulator,
)
from refinenet.evaluation.metrics.exact_sums import ExactSums
from refinenet.outputs import CLASS_KIND, KINDS, read_outputs

OUTPUTS = {spec.kind: spec for spec in read_outputs("depth:0:80,normals,regression[height:m,wetness:%]")}
every_kind = pytest.mark.parametrize("kind", TARGET_METRICS)


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
