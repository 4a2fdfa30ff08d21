"""Losses of dense targets, against values worked out by hand and the papers' formulas written again in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Laplace, Normal
from torch.nn import functional

from refinenet.outputs import CLASS_KIND, KINDS
from refinenet.training.losses.targets import TARGET_LOSSES, TargetLossConfig, target_count, target_loss
from refinenet.training.losses.task_weights import TaskWeights

Floats = npt.NDArray[np.float64]
CHANNELS = {"depth": 1, "normals": 3, "regression": 4}
DEVIATIONS = torch.tensor([0.1, 1.0, 5.0, 300.0])
EVERY = [(kind, name) for kind, losses in TARGET_LOSSES.items() for name in losses]
every_loss = pytest.mark.parametrize(("kind", "name"), EVERY)


def draw(seed: int, kind: str, name: str, images: int = 3, size: tuple[int, int] = (9, 11)) -> tuple[Tensor, Tensor]:
    """A prediction and a target with more and more missing values from image to image; of the last one, all miss."""
    generator = torch.Generator().manual_seed(seed)
    shape = (images, CHANNELS[kind], *size)
    target = torch.randn(shape, generator=generator)
    predicted = target + torch.randn(shape, generator=generator)
    if kind == "depth":
        target, predicted = target.exp(), predicted.exp()
        target, predicted = target.clamp_min(0.02), predicted.clamp_min(0.02)  # where logarithms are plain
    if kind == "normals":
        target = functional.normalize(target, dim=1)
    if TARGET_LOSSES[kind][name].has_log_scale:
        predicted = torch.cat([predicted, torch.randn(shape, generator=generator)], 1)
    missing = torch.rand((images, 1, *size), generator=generator) < torch.linspace(0, 1, images).reshape(-1, 1, 1, 1)
    if kind == "regression":
        missing = missing | (torch.rand(shape, generator=generator) < 0.1)
    return predicted, target.masked_fill(missing, math.nan)


def loss_of(predicted: Tensor, target: Tensor, kind: str, *names: str, **others: Any) -> Tensor:
    """The loss of a batch in one part."""
    return target_loss(predicted, target, TargetLossConfig(kind=kind, losses=names), target_count(target), **others)


def row(*values: float) -> Tensor:
    """Values of one channel in a row of pixels, `(1, 1, 1, W)`."""
    return torch.tensor(values).reshape(1, 1, 1, -1)


def vectors(*values: tuple[float, float, float]) -> Tensor:
    """Vectors in a row of pixels, `(1, 3, 1, W)`."""
    return torch.tensor(values).T.reshape(1, 3, 1, -1)


# By hand

NAN = math.nan


def test_depths_by_hand() -> None:
    """Errors 1, -2 and 10; the limit of the inverse Huber loss is 2, up to which, and at which, it is linear."""
    predicted, target = row(2.0, 1.0, 15.0, 99.0), row(1.0, 3.0, 5.0, NAN)
    assert float(loss_of(predicted, target, "depth", "l1")) == pytest.approx((1 + 2 + 10) / 3)
    assert float(loss_of(predicted, target, "depth", "inverse_huber")) == pytest.approx((1 + 2 + (100 + 4) / 4) / 3)


def test_scale_invariant_loss_by_hand() -> None:
    """Log errors 1 and 3 in the first image, 2 in the second: (5 - 2) and (4 - 2), images weighted alike."""
    predicted = torch.cat([row(math.e, math.e**3), row(math.e**2, 7.0)])
    target = torch.cat([row(1.0, 1.0), row(1.0, NAN)])
    assert float(loss_of(predicted, target, "depth", "silog")) == pytest.approx((3 + 2) / 2)


def test_gradient_matching_by_hand() -> None:
    """Log errors 0, 1, 3 and 3, the fourth without truth. Of all pixels, steps 1 and 2 over 3 pixels; of every second,
    3 over 2 pixels; the coarser two have one pixel.
    """
    predicted = row(1.0, math.e, math.e**3, math.e**3)
    target = row(1.0, 1.0, 1.0, NAN)
    assert float(loss_of(predicted, target, "depth", "gradient")) == pytest.approx(3 / 3 + 3 / 2)
    upright = loss_of(predicted.mT, target.mT, "depth", "gradient")
    assert float(upright) == pytest.approx(3 / 3 + 3 / 2)


def test_normals_by_hand() -> None:
    """60 degrees, twice as long; opposite; no truth although only one channel misses."""
    half = math.sqrt(3) / 2
    predicted = vectors((2 * half, 0, 1), (0, 0, 1), (5, 5, 5))
    target = vectors((0, 0, 1), (0, 0, -1), (0, NAN, 1))
    assert float(loss_of(predicted, target, "normals", "cosine")) == pytest.approx((0.5 + 2) / 2)
    assert float(loss_of(predicted, target, "normals", "l2")) == pytest.approx((4 * half**2 + 4) / 2)


def test_quantities_by_hand() -> None:
    """Errors of half a deviation and of 3 deviations, and a pixel with truth for the second quantity only."""
    target = torch.tensor([[10.0, NAN], [200.0, 100.0]]).reshape(1, 2, 1, 2)
    predicted = target + torch.tensor([[1.0, 0.0], [300.0, 0.0]]).reshape(1, 2, 1, 2)
    predicted = torch.nan_to_num(predicted, 7)
    deviations = torch.tensor([2.0, 100.0])
    errors = {"l1": 0.5 + 3, "l2": 0.25 + 9, "huber": 0.125 + 2.5}
    for name, total in errors.items():
        assert float(loss_of(predicted, target, "regression", name, deviations=deviations)) == pytest.approx(total / 3)


@pytest.mark.parametrize(("name", "factor"), [("l1", 9), ("inverse_huber", 9), ("silog", 1), ("gradient", 1)])
def test_deviations_divide_the_errors_of_depths_in_metres(name: str, factor: float) -> None:
    """Losses of logarithms have no unit."""
    predicted, target = draw(0, "depth", name)
    plain = loss_of(predicted, target, "depth", name)
    scaled = loss_of(predicted, target, "depth", name, deviations=torch.tensor([9.0]))
    assert float(scaled) == pytest.approx(float(plain) / factor, rel=1e-5)


# Formulas written again


def kept(predicted: Tensor, target: Tensor) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    return predicted.double().numpy(), target.double().numpy(), ~np.isnan(target.numpy())


def berhu(predicted: Tensor, target: Tensor) -> float:
    p, t, known = kept(predicted, target)
    errors = np.abs(p[known] - t[known])
    c = errors.max() / 5
    return float(np.mean([e if e <= c else (e * e + c * c) / (2 * c) for e in errors]))


def eigen(predicted: Tensor, target: Tensor) -> float:
    losses = []
    for p, t, known in zip(*kept(predicted, target), strict=True):
        if known.any():
            d = np.log(p[known]) - np.log(t[known])
            losses.append((d**2).sum() / d.size - 0.5 * d.sum() ** 2 / d.size**2)
    return float(np.mean(losses))


def megadepth(predicted: Tensor, target: Tensor) -> float:
    losses = []
    for (p,), (t,), (known,) in zip(*kept(predicted, target), strict=True):
        if not known.any():
            continue
        total = 0.0
        for step in (1, 2, 4, 8):
            rows, columns = range(0, t.shape[0], step), range(0, t.shape[1], step)
            steps = pixels = 0.0
            for y in rows:
                for x in columns:
                    pixels += known[y, x]
                    for below, right in ((y + step, x), (y, x + step)):
                        if below in rows and right in columns and known[y, x] and known[below, right]:
                            steps += abs(np.log(p[y, x] / t[y, x]) - np.log(p[below, right] / t[below, right]))
            total += steps / max(pixels, 1)
        losses.append(total)
    return float(np.mean(losses))


def absolute(predicted: Tensor, target: Tensor) -> float:
    p, t, known = kept(predicted, target)
    return float(np.abs(p[known] - t[known]).mean())


def squared(predicted: Tensor, target: Tensor) -> float:
    p, t, known = kept(predicted, target)
    return float(((p[known] - t[known]) ** 2).mean())


def huber(predicted: Tensor, target: Tensor) -> float:
    known = ~target.isnan()
    return float(functional.huber_loss(predicted[known].double(), target[known].double()))


def cosine(predicted: Tensor, target: Tensor) -> float:
    known = ~target.isnan().any(1)
    return float(1 - functional.cosine_similarity(predicted.double(), target.double(), dim=1)[known].mean())


def distance(predicted: Tensor, target: Tensor) -> float:
    known = ~target.isnan().any(1)
    return float((predicted.double() - target.double()).square().sum(1)[known].mean())


def likelihood(family: type[Laplace | Normal]) -> Callable[[Tensor, Tensor], float]:
    def negative_log(predicted: Tensor, target: Tensor) -> float:
        means, scales = predicted.double().chunk(2, 1)
        known = ~target.isnan()
        return float(-family(means[known], scales[known].exp()).log_prob(target.double()[known]).mean())  # type: ignore[no-untyped-call]

    return negative_log


FORMULAS: dict[tuple[str, str], Callable[[Tensor, Tensor], float]] = {
    ("depth", "inverse_huber"): berhu,
    ("depth", "l1"): absolute,
    ("depth", "silog"): eigen,
    ("depth", "gradient"): megadepth,
    ("depth", "laplace"): likelihood(Laplace),
    ("depth", "gaussian"): likelihood(Normal),
    ("normals", "cosine"): cosine,
    ("normals", "l2"): distance,
    ("regression", "huber"): huber,
    ("regression", "l1"): absolute,
    ("regression", "l2"): squared,
    ("regression", "laplace"): likelihood(Laplace),
    ("regression", "gaussian"): likelihood(Normal),
}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), images=st.integers(2, 4), height=st.integers(1, 12), width=st.integers(1, 12))
@every_loss
def test_each_loss_is_its_formula(kind: str, name: str, seed: int, images: int, height: int, width: int) -> None:
    predicted, target = draw(seed, kind, name, images, (height, width))
    if target.isnan().any(1).all():
        return
    loss = loss_of(predicted, target, kind, name)
    assert float(loss) == pytest.approx(FORMULAS[kind, name](predicted, target), rel=1e-4, abs=1e-5)


def test_every_loss_has_a_formula() -> None:
    assert set(FORMULAS) == set(EVERY)
    assert set(TARGET_LOSSES) == set(KINDS) - {CLASS_KIND}


def test_scales_are_standardised_like_the_errors_they_are_of() -> None:
    predicted, target = draw(4, "regression", "laplace")
    divisors = DEVIATIONS[:, None, None]
    by_hand = torch.cat([predicted[:, :4] / divisors, (predicted[:, 4:].exp() / divisors).log()], 1)
    expected = likelihood(Laplace)(by_hand, target / DEVIATIONS[:, None, None])
    loss = loss_of(predicted, target, "regression", "laplace", deviations=DEVIATIONS)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_losses_are_added_by_weight() -> None:
    """Losses without a log scale leave out its channels."""
    predicted, target = draw(5, "depth", "laplace")
    config = TargetLossConfig(kind="depth", losses=("laplace", "l1", "silog"), weights=(1, 0.5, 3))
    assert config.has_log_scale
    expected = (
        loss_of(predicted, target, "depth", "laplace")
        + 0.5 * loss_of(predicted[:, :1], target, "depth", "l1")
        + 3 * loss_of(predicted[:, :1], target, "depth", "silog")
    )
    loss = target_loss(predicted, target, config, target_count(target))
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


# Parts, missing truth, extreme values


@every_loss
def test_shares_of_parts_add_up_to_the_loss_of_the_batch(kind: str, name: str) -> None:
    if name == "inverse_huber":
        pytest.skip("its limit is that of a part")
    predicted, target = draw(1, kind, name, images=5)
    predicted.requires_grad_()
    config, parts = TargetLossConfig(kind=kind, losses=(name,)), ((0, 1), (1, 4), (4, 5))
    counts = sum((target_count(target[a:b]) for a, b in parts), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(counts, target_count(target))
    deviations = DEVIATIONS[: target.shape[1]]
    whole = target_loss(predicted, target, config, counts, deviations)
    (expected,) = torch.autograd.grad(whole, predicted)
    shares = [target_loss(predicted[a:b], target[a:b], config, counts, deviations) for a, b in parts]
    (gradient,) = torch.autograd.grad(torch.stack(shares).sum(), predicted)
    assert float(torch.stack(shares).sum().detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_parts_with_the_same_largest_error_add_up_for_the_inverse_huber_loss() -> None:
    predicted, target = draw(1, "depth", "inverse_huber", images=2)
    predicted, target = predicted[:1].repeat(2, 1, 1, 1), target[:1].repeat(2, 1, 1, 1)
    config, counts = TargetLossConfig(kind="depth", losses=("inverse_huber",)), target_count(target)
    shares = [target_loss(predicted[k : k + 1], target[k : k + 1], config, counts) for k in range(2)]
    assert float(torch.stack(shares).sum()) == pytest.approx(
        float(target_loss(predicted, target, config, counts)), rel=1e-6
    )


def test_counts_by_hand() -> None:
    """Two images of two pixels and two channels; 3 values in the first, of one complete pixel, 1 in the second."""
    target = torch.tensor([[[1.0, 2.0], [3.0, NAN]], [[NAN, NAN], [4.0, NAN]]]).reshape(2, 2, 1, 2)
    assert target_count(target).tolist() == [4, 1, 1]


@every_loss
def test_gradients_are_finite_and_zero_without_truth(kind: str, name: str) -> None:
    """Even if predictions without truth are not finite, or are zeros, or equal to the truth."""
    predicted, target = draw(2, kind, name)
    missing = target.isnan().any(1, keepdim=True) if kind == "normals" else target.isnan()
    missing = missing.expand_as(target).repeat(1, predicted.shape[1] // target.shape[1], 1, 1)
    predicted[missing] = torch.tensor([0.0, math.inf, NAN, -1.0]).repeat(missing.numel())[: int(missing.sum())]
    predicted[0, : target.shape[1], :2] = 0
    predicted[0, : target.shape[1], 2:4] = target[0, :, 2:4].nan_to_num(0)
    loss = loss_of(predicted.requires_grad_(), target, kind, name)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert missing.any()
    assert not gradient[missing].any()
    assert gradient[~missing].any()


@every_loss
def test_a_batch_without_truth_has_no_loss_and_no_gradients(kind: str, name: str) -> None:
    predicted, target = draw(3, kind, name)
    loss = loss_of(predicted.requires_grad_(), torch.full_like(target, NAN), kind, name)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert float(loss.detach()) == 0
    assert not gradient.any()


@pytest.mark.parametrize("name", TARGET_LOSSES["depth"])
def test_a_perfect_depth_and_depths_below_zero_have_finite_gradients(name: str) -> None:
    """The gradient of a single depth at or below zero points upwards, wherever it is."""
    scales = [torch.zeros(1, 1, 1, 1)] if TARGET_LOSSES["depth"][name].has_log_scale else []
    for value in (-500.0, -1.0, 0.0, 1e-6, 2.0):
        depth = torch.full((1, 1, 1, 1), value, requires_grad=True)
        loss = loss_of(torch.cat([depth, *scales], 1), torch.full((1, 1, 1, 1), 2.0), "depth", name)
        (gradient,) = torch.autograd.grad(loss, depth)
        assert gradient.isfinite().all()
        if name != "gradient":  # a single pixel has no neighbour
            assert (float(gradient) < 0) == (value < 2)


def test_log_scales_out_of_range_are_moved_into_it() -> None:
    target = row(1.0)
    for far, near in ((1e4, 10.0), (-1e4, -10.0)):
        for name in ("laplace", "gaussian"):
            extreme = torch.cat([row(3.0), row(far)], 1).requires_grad_()
            loss = loss_of(extreme, target, "depth", name)
            assert float(loss.detach()) == float(loss_of(torch.cat([row(3.0), row(near)], 1), target, "depth", name))
            assert torch.autograd.grad(loss, extreme)[0].isfinite().all()


@every_loss
def test_low_precision_is_converted_to_float32_first(kind: str, name: str) -> None:
    predicted, target = draw(6, kind, name)
    loss = loss_of(predicted.bfloat16(), target, kind, name)
    assert loss.dtype == torch.float32
    assert float(loss) == float(loss_of(predicted.bfloat16().float(), target, kind, name))
    assert loss_of(predicted.double(), target, kind, name).dtype == torch.float64


@every_loss
def test_gradients_are_those_of_finite_differences(kind: str, name: str) -> None:
    if name == "inverse_huber":
        pytest.skip("its limit is a constant for the gradients only")
    predicted, target = draw(7, kind, name, images=2, size=(3, 4))
    values = predicted.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss_of(values, target, kind, name), values)


def test_the_limit_of_the_inverse_huber_loss_is_a_constant_for_gradients() -> None:
    """Errors 1 and 10, limit 2: slopes 1 and 10 / 2, each for one of two pixels."""
    predicted = row(2.0, 11.0).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(predicted, row(1.0, 1.0), "depth", "inverse_huber"), predicted)
    assert gradient.flatten().tolist() == pytest.approx([0.5, 2.5])


# Settings


def test_the_first_loss_of_a_kind_is_its_default() -> None:
    for kind, losses in TARGET_LOSSES.items():
        assert TargetLossConfig(kind=kind).weighted == ((1.0, next(iter(losses.values()))),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "classes"}, "one of depth, normals, regression"),
        ({"kind": "depth", "losses": ("cosine",)}, "losses of depth are inverse_huber, .*not 'cosine'"),
        ({"kind": "depth", "losses": ("l1", "l1")}, "different"),
        ({"kind": "depth", "losses": ("l1",), "weights": (1.0, 2.0)}, "one for each loss"),
        ({"kind": "depth", "weights": (0.0,)}, "above 0"),
        ({"kind": "depth", "weights": (-1.0,)}, "weights must be"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TargetLossConfig(**values)


# Weights of tasks

TASKS = {"classes": "classes", "depth": "depth", "soil": "regression"}


def test_task_weights_by_hand() -> None:
    """s = 0, ln 2 and ln 4: 3 + 0 / 2, 5 / 4 + ln 2 / 2, 8 / 8 + ln 4 / 2."""
    weights = TaskWeights(TASKS)
    losses = {name: torch.tensor(loss) for name, loss in (("classes", 3.0), ("depth", 5.0), ("soil", 8.0))}
    assert float(weights.combine(losses)) == pytest.approx(3 + 2.5 + 4)
    with torch.no_grad():
        weights.log_variances.copy_(torch.tensor([0, math.log(2), math.log(4)]))
    assert float(weights.combine(losses)) == pytest.approx(3 + 5 / 4 + 1 + (math.log(2) + math.log(4)) / 2, rel=1e-6)


def test_log_variances_are_learnt_as_the_formulas_say() -> None:
    """At the minimum, s = ln(2 L) for classes and ln(L) for numbers."""
    weights = TaskWeights(TASKS)
    losses = {"classes": torch.tensor(0.7), "depth": torch.tensor(5.0), "soil": torch.tensor(0.01)}
    optimiser = torch.optim.LBFGS(weights.parameters(), max_iter=100)

    def step() -> float:
        optimiser.zero_grad()
        total = weights.combine(losses)
        total.backward()  # type: ignore[no-untyped-call]
        return float(total)

    for _ in range(10):
        optimiser.step(step)  # type: ignore[no-untyped-call]
    expected = [math.log(1.4), math.log(5), math.log(0.01)]
    assert weights.log_variances.tolist() == pytest.approx(expected, abs=1e-3)


def test_shares_of_weighted_tasks_add_up() -> None:
    weights = TaskWeights(TASKS)
    with torch.no_grad():
        weights.log_variances.copy_(torch.tensor([0.3, -1, 2]))
    parts = [{name: torch.tensor(value) for name in TASKS} for value in (1.0, 2.0)]
    whole = weights.combine({name: torch.tensor(3.0) for name in TASKS})
    shares = weights.combine(parts[0], share=0.25) + weights.combine(parts[1], share=0.75)
    assert float(shares) == pytest.approx(float(whole), rel=1e-6)


def test_tasks_left_out_learn_nothing() -> None:
    weights = TaskWeights(TASKS)
    (gradient,) = torch.autograd.grad(weights.combine({"depth": torch.tensor(4.0)}), [weights.log_variances])
    assert gradient.tolist() == [0, -1.5, 0]
    (gradient,) = torch.autograd.grad(weights.combine({}), [weights.log_variances])
    assert gradient.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="not height"):
        weights.combine({"height": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="at least one"):
        TaskWeights({})
