"""The searches for learning rate and batch size, on functions with known results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from refinenet.training.engine.auto_settings import find_batch_size, find_learning_rate
from refinenet.training.engine.learner import is_out_of_memory


def falling_loss(rate: float) -> float:
    """From 2.5 down to 0.5, fastest at a rate of 1e-3 (a logistic curve over its logarithm), and up from 0.05."""
    fall = 0.5 + 2 / (1 + math.exp((math.log10(rate) + 3) / 0.3))
    return fall + max(0.0, rate / 0.05 - 1) ** 2


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    search = find_learning_rate(falling_loss)
    assert 0.85e-3 < search.suggestion < 1.18e-3
    assert search.suggestion in search.rates


def test_the_suggestion_holds_under_noise() -> None:
    for seed in range(20):
        noise = iter(np.random.default_rng(seed).normal(1, 0.08, size=100).tolist())

        def step(rate: float, noise: Iterator[float] = noise) -> float:
            return falling_loss(rate) * next(noise)

        search = find_learning_rate(step)
        assert 0.3e-3 < search.suggestion < 3e-3


def test_a_fall_after_the_loss_has_risen_again_does_not_count() -> None:
    """The loss falls slowly around 1e-4; a bump beyond its least value, from which it falls faster, is chance."""

    def step(rate: float) -> float:
        slow_fall = 0.5 + 2 / (1 + math.exp((math.log10(rate) + 4) / 0.6))
        return slow_fall if rate < 0.01 else 2.0 if rate < 0.1 else 1.0

    search = find_learning_rate(step)
    assert len(search.rates) == 100
    assert 0.8e-4 < search.suggestion < 1.25e-4


def test_rates_rise_by_the_same_factor_from_lowest_to_highest() -> None:
    tried: list[float] = []

    def step(rate: float) -> float:
        tried.append(rate)
        return 2.0 - len(tried) / 100

    search = find_learning_rate(step, lowest=1e-4, highest=1e-2, steps=21)
    assert tried == pytest.approx([10 ** (-4 + 0.1 * step) for step in range(21)])
    assert search.rates == tuple(tried)
    assert len(search.losses) == len(search.smoothed) == 21


def test_the_search_stops_when_the_loss_explodes() -> None:
    """The loss is multiplied by 1.5 from step to step from 0.03 on; it must not get far beyond four times its best."""
    tried: list[float] = []

    def step(rate: float) -> float:
        tried.append(rate)
        return falling_loss(rate) if rate < 0.03 else 0.5 * 1.5 ** sum(one >= 0.03 for one in tried)

    search = find_learning_rate(step)
    assert search.rates == tuple(tried)
    assert len(tried) < 95
    assert search.losses[-1] < 0.5 * 4 * 1.5**8
    assert search.smoothed[-1] > 4 * min(search.smoothed) > search.smoothed[-2]
    assert 0.8e-3 < search.suggestion < 1.2e-3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_search_stops_before_a_loss_that_is_not_finite(bad: float) -> None:
    search = find_learning_rate(lambda rate: falling_loss(rate) if rate < 0.02 else bad)
    assert max(search.rates) < 0.02
    assert all(map(math.isfinite, search.losses))
    assert 0.85e-3 < search.suggestion < 1.18e-3


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda rate: 1.0, "did not fall in 100 steps: it was 1 at first and 1 at best"),
        (lambda rate: 1 + rate, "did not fall"),
        (lambda rate: 1 - 0.01 * rate, "did not fall in 100 steps: it was 1 at first and 0.99"),
        (lambda rate: math.nan, "did not fall in 0 steps: it is not finite"),
        (lambda rate: 0.0, "did not fall in 100 steps"),
    ],
)
def test_a_loss_that_never_falls_is_an_error(step: Callable[[float], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_learning_rate(step)


@pytest.mark.parametrize(
    ("lowest", "highest", "steps"), [(0, 1, 100), (1e-2, 1e-2, 100), (1e-5, math.inf, 100), (1e-5, 1, 9)]
)
def test_a_range_that_is_none_is_refused(lowest: float, highest: float, steps: int) -> None:
    with pytest.raises(ValueError, match="10 or more steps between rates 0 < lowest < highest"):
        find_learning_rate(falling_loss, lowest=lowest, highest=highest, steps=steps)


def test_the_suggestion_trains_a_regression() -> None:
    """Gradient descent on a quadratic whose largest curvature is 10 diverges from a rate of 0.2 on."""
    curvatures = torch.tensor([10.0, 3.0, 1.0])
    weights = torch.ones(3)

    def step(rate: float) -> float:
        loss = float((curvatures * weights.square()).sum() / 2)
        weights.sub_(rate * curvatures * weights)
        return loss

    suggestion = find_learning_rate(step, highest=10.0).suggestion
    assert 1e-3 < suggestion < 0.2
    weights.fill_(1.0)
    losses = [step(suggestion) for _ in range(200)]
    assert losses[-1] < 0.25 * losses[0]


@pytest.mark.parametrize("multiple_of", [1, 2, 6])
def test_the_batch_size_is_the_largest_that_fits_but_for_a_tenth(multiple_of: int) -> None:
    for limit in range(multiple_of, 200):
        tried: list[int] = []

        def fits(size: int, limit: int = limit, tried: list[int] = tried) -> bool:
            tried.append(size)
            return size <= limit

        found = find_batch_size(fits, most=1000, multiple_of=multiple_of)
        largest = limit // multiple_of * multiple_of
        assert found % multiple_of == 0
        assert found == max(multiple_of, math.floor(0.9 * largest / multiple_of + 1e-9) * multiple_of)
        assert largest in tried
        assert len(tried) <= 2 + 2 * math.log2(1000)


@pytest.mark.parametrize(("most", "multiple_of", "expected"), [(1, 1, 1), (7, 1, 7), (64, 1, 64), (65, 4, 64)])
def test_the_most_that_makes_sense_needs_no_margin(most: int, multiple_of: int, expected: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return True

    assert find_batch_size(fits, most, multiple_of) == expected
    assert max(tried) == expected


def test_the_margin_holds_when_only_the_most_does_not_fit() -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size < 50

    assert find_batch_size(fits, most=50) == 44
    assert max(tried) == 50


def test_a_batch_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="Not even a batch of 4 images fits into memory"):
        find_batch_size(lambda size: False, most=100, multiple_of=4)
    with pytest.raises(ValueError, match="no batch size from 4 to 3 that is a multiple of 4"):
        find_batch_size(lambda size: True, most=3, multiple_of=4)


def test_full_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(full.value)
    with pytest.raises(MemoryError) as full_in_numpy:
        np.empty(1 << 60, dtype=np.uint8)
    assert is_out_of_memory(full_in_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    with pytest.raises(RuntimeError) as other:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(other.value)
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))
