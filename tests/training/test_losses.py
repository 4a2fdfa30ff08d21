"""Losses, against sums worked out by hand, definitions written out again, and other libraries."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_jaccard_index
from torchvision.ops import sigmoid_focal_loss

from refinenet.training.losses import LossConfig, Objective
from refinenet.training.losses.config import TEACHER_WEIGHT
from refinenet.training.losses.config import WEIGHTS as WEIGHT_NAMES
from refinenet.training.losses.objective import TERMS, cross_entropy, dice

VOID = 255
CERTAIN = 1e4
"""A logit above zeros that makes a probability of exactly 1."""
WEIGHTS = torch.tensor([0.3, 3.0, 1.0, 7.0, 2.0])
PLAIN: dict[str, Any] = {"class_weights": "none", "dice_weight": 0}
"""Cross-entropy alone, whatever the defaults are."""
ALONE: dict[str, Any] = {**PLAIN, "cross_entropy_weight": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "focal": {"focal_gamma": 2},
    "half focal": {"focal_gamma": 0.5},
    "hard pixels": {"hard_pixels": 0.3},
    "hard, smoothed": {"hard_pixels": 0.7, "label_smoothing": 0.1},
    "dice": {**ALONE, "dice_weight": 1},
    "lovasz": {**ALONE, "lovasz_weight": 1},
    "teacher": {**ALONE, "teacher": "model.safetensors", "teacher_weight": 1, "teacher_temperature": 3},
    "all": {"hard_pixels": 0.5, "dice_weight": 0.3, "lovasz_weight": 2, "teacher": "model.safetensors"},
}
all_settings = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
weighted_or_not = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])


def draw(seed: int, images: int = 3, void: int = VOID) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels (the more void the later the image, class 3 nowhere) and a teacher's logits, all float32."""
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, images, 5, 6, 7, generator=generator)
    labels = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (images, 6, 7), generator=generator)]
    shares = torch.linspace(0, 0.9, images)[:, None, None]
    labels[torch.rand(labels.shape, generator=generator) < shares] = void
    return logits.requires_grad_(), labels, teacher


def objective_of(settings: dict[str, Any], weights: Tensor | None = None, void: int = VOID) -> Objective:
    """The objective with these settings; otherwise plain cross-entropy."""
    return Objective(config=LossConfig(**{**PLAIN, **settings}), ignore_index=void, class_weights=weights)


def loss_of(
    logits: Tensor,
    labels: Tensor,
    settings: dict[str, Any],
    weights: Tensor | None = None,
    teacher: Tensor | None = None,
    void: int = VOID,
) -> Tensor:
    """The loss of a batch in one part."""
    objective = objective_of(settings, weights, void)
    return objective.loss([logits], labels, objective.count(labels), teacher)


def pixels_of_two_classes(*surprises: float) -> Tensor:
    """Logits `(1, 2, 1, W)` with these cross-entropies for class 0."""
    odds = [math.log(math.expm1(surprise)) for surprise in surprises]
    return torch.tensor([[0.0] * len(odds), odds]).reshape(1, 2, 1, -1)


# Cross-entropy


def test_two_pixels_by_hand() -> None:
    """Logits (0, ln 3): shares 1/4 and 3/4. The void pixel, however wrong, does not count."""
    logits = torch.tensor([[0.0, 0.0, 50.0], [math.log(3), math.log(3), -50.0]]).reshape(1, 2, 1, 3)
    labels = torch.tensor([[[0, 1, VOID]]])
    plain = (math.log(4) + math.log(4 / 3)) / 2
    assert cross_entropy(logits, labels, None, VOID).item() == pytest.approx(plain, rel=1e-6)
    weighted = (5 * math.log(4) + 1 * math.log(4 / 3)) / (5 + 1)
    assert cross_entropy(logits, labels, torch.tensor([5.0, 1.0]), VOID).item() == pytest.approx(weighted, rel=1e-6)
    focal = ((3 / 4) ** 2 * math.log(4) + (1 / 4) ** 2 * math.log(4 / 3)) / 2
    assert loss_of(logits, labels, {"focal_gamma": 2}).item() == pytest.approx(focal, rel=1e-6)


@weighted_or_not
@pytest.mark.parametrize("smoothing", [0, 0.1, 0.9])
@pytest.mark.parametrize("void", [VOID, 65535, -100, 3])
def test_cross_entropy_is_pytorch_s_mean(smoothing: float, weights: Tensor | None, void: int) -> None:
    logits, labels, _ = draw(1, void=void)
    ours = loss_of(logits, labels, {"label_smoothing": smoothing}, weights, void=void)
    theirs = functional.cross_entropy(logits, labels, weights, ignore_index=void, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs, logits)[0])
    assert gradient[(labels == void)[:, None].expand_as(gradient)].abs().max() == 0


@pytest.mark.parametrize("gamma", [0.3, 1, 2, 5])
def test_focal_loss_of_two_classes_is_torchvision_s(gamma: float) -> None:
    scores, truth = 4 * torch.randn(2, 6, 7), torch.randint(0, 2, (2, 6, 7))
    theirs = sigmoid_focal_loss(scores, truth.float(), alpha=-1, gamma=gamma, reduction="none")
    logits = torch.stack([torch.zeros_like(scores), scores], 1)
    torch.testing.assert_close(loss_of(logits, truth, {"focal_gamma": gamma}), theirs.mean())
    weighted = (theirs * torch.tensor([2.0, 3.0])[truth]).sum() / (2 + truth).sum()
    torch.testing.assert_close(loss_of(logits, truth, {"focal_gamma": gamma}, torch.tensor([2.0, 3.0])), weighted)


def test_focal_loss_of_a_certain_pixel_has_a_finite_gradient() -> None:
    logits = torch.tensor([CERTAIN, 0.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss = loss_of(logits, torch.zeros(1, 1, 1, dtype=torch.int64), {"focal_gamma": 0.3})
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].abs().max() == 0


@pytest.mark.parametrize(("share", "kept"), [(0.4, [5, 4]), (0.1, [5]), (1e-6, [5]), (0.6, [5, 4, 3])])
def test_hard_pixels_are_those_of_the_largest_loss(share: float, kept: list[float]) -> None:
    """Of five labelled pixels with losses 1 to 5; the void one would lose most."""
    logits = pixels_of_two_classes(1, 4, 2, 9, 5, 3)
    labels = torch.tensor([[[0, 0, 0, VOID, 0, 0]]])
    assert loss_of(logits, labels, {"hard_pixels": share}).item() == pytest.approx(sum(kept) / len(kept), rel=1e-5)


def test_hard_pixels_are_sought_in_each_image_and_the_easy_have_no_gradient() -> None:
    logits = torch.cat([pixels_of_two_classes(8, 7, 6, 5), pixels_of_two_classes(1, 4, 2, 3)]).requires_grad_()
    labels = torch.tensor([[[0, 0, 0, 0]], [[0, 0, VOID, VOID]]])
    loss = loss_of(logits, labels, {"hard_pixels": 0.5})
    assert loss.item() == pytest.approx((8 + 7 + 4) / 3, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[:, 0, 0] != 0).tolist() == [[True, True, False, False], [False, True, False, False]]


def test_hard_pixels_of_weighted_classes_stand_for_average_pixels() -> None:
    """Weighted losses 2 x 3, 2 x 1, 1 x 5 of classes 0, 0, 1; the two largest over two pixels of weight 5 / 3."""
    logits = pixels_of_two_classes(3, 1, 5)
    logits[..., 2] *= -1
    logits[:, 1, 0, 2] = -math.log(math.expm1(5))
    loss = loss_of(logits, torch.tensor([[[0, 0, 1]]]), {"hard_pixels": 0.67}, torch.tensor([2.0, 1.0]))
    assert loss.item() == pytest.approx((6 + 5) / (2 * 5 / 3), rel=1e-5)


# Losses of overlap


def as_logits(guess: Tensor) -> Tensor:
    """Logits of probabilities 0 and 1 from ids `(N, H, W)` of five classes."""
    return CERTAIN * functional.one_hot(guess, 5).movedim(-1, 1).float()


@pytest.mark.parametrize(
    ("name", "metric"), [("dice_weight", multiclass_f1_score), ("lovasz_weight", multiclass_jaccard_index)]
)
@pytest.mark.parametrize("seed", range(5))
def test_certain_guesses_lose_what_torchmetrics_finds_missing(name: str, metric: Any, seed: int) -> None:
    logits, labels, _ = draw(seed)
    guess = logits.argmax(1)
    expected = []
    for ours, truth in zip(guess, labels, strict=True):
        scores = metric(ours, truth, num_classes=5, average="none", ignore_index=VOID)
        present = truth[truth != VOID].unique()
        expected.append(1 - scores[present].mean().item())
    assert loss_of(as_logits(guess), labels, {**ALONE, name: 1}).item() == pytest.approx(np.mean(expected), rel=1e-5)


def dice_by_definition(guess: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> float:
    losses = []
    for index in set(truth.tolist()):
        overlap = sum(guess[index, truth == index])
        losses.append(1 - 2 * overlap / (sum(guess[index]) + sum(truth == index)))
    return float(np.mean(losses))


def lovasz_by_definition(guess: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> float:
    """The extension as an integral: the Jaccard losses of the sets of pixels that err by more than t, over all t."""
    losses = []
    for index in set(truth.tolist()):
        belongs = truth == index
        errors = np.abs(belongs - guess[index])
        levels = [0.0, *sorted(errors)]
        loss = 0.0
        for low, high in pairwise(levels):
            wrong = errors > low
            loss += (high - low) * wrong.sum() / max((belongs | wrong).sum(), 1)
        losses.append(loss)
    return float(np.mean(losses))


@pytest.mark.parametrize(
    ("name", "definition"), [("dice_weight", dice_by_definition), ("lovasz_weight", lovasz_by_definition)]
)
@pytest.mark.parametrize("seed", range(5))
def test_losses_of_overlap_follow_their_definitions(name: str, definition: Any, seed: int) -> None:
    logits, labels, _ = draw(seed)
    if seed == 4:
        logits = logits.detach().round()  # many pixels err by as much
    probabilities = logits.detach().double().softmax(1).flatten(2).numpy()
    expected = []
    for guess, truth in zip(probabilities, labels.flatten(1).numpy(), strict=True):
        expected.append(definition(guess[:, truth != VOID], truth[truth != VOID]))
    assert loss_of(logits, labels, {**ALONE, name: 1}).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_overlap_by_hand() -> None:
    """Class 0 on one pixel, probability 3/4, and not on another that claims it with 1/2; a void one claims it all."""
    logits = torch.tensor([[math.log(3), 0, CERTAIN], [0.0, 0, 0]]).reshape(1, 2, 1, 3)
    labels = torch.tensor([[[0, 1, VOID]]])
    # Errors of class 0 are 1/4 where it is, 1/2 where it is not; of class 1 the same the other way around.
    first = 1 / 2 * (1 / 2) + 1 / 4 * (1 - 1 / 2)
    second = 1 / 2 * 1 + 1 / 4 * 0
    loss = loss_of(logits, labels, {**ALONE, "lovasz_weight": 1})
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)
    coefficients = 2 * (3 / 4) / (5 / 4 + 1), 2 * (1 / 2) / (3 / 4 + 1)
    assert dice(logits, labels, VOID).item() == pytest.approx(1 - sum(coefficients) / 2, rel=1e-6)


def test_lovasz_of_a_large_image_keeps_its_digits() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(1, 3, 512, 512, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (1, 512, 512), generator=generator)
    exact = loss_of(logits, labels, {**ALONE, "lovasz_weight": 1})
    single = loss_of(logits.float(), labels, {**ALONE, "lovasz_weight": 1})
    expected = 0.0
    for index, guess in enumerate(logits[0].softmax(0).flatten(1).detach().numpy()):
        belongs = labels.flatten().numpy() == index
        errors = np.abs(belongs - guess)
        order = np.argsort(-errors)
        hits = np.cumsum(belongs[order])
        jaccard = 1 - (hits[-1] - hits) / (hits[-1] + np.arange(1, hits.size + 1) - hits)
        expected += (errors[order] * np.diff(jaccard, prepend=0)).sum() / 3
    assert exact.item() == pytest.approx(expected, rel=1e-12)
    assert single.item() == pytest.approx(expected, rel=1e-6)
    (slopes,), (exact_slopes,) = torch.autograd.grad(single, logits), torch.autograd.grad(exact, logits)
    # Pixels whose errors are the same in float32 may change places.
    assert (slopes - exact_slopes).abs().median() < 1e-6 * exact_slopes.abs().median()


# Soft targets


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_soft_targets_are_the_divergence_from_the_teacher(temperature: float) -> None:
    logits, labels, teacher = draw(3)
    teacher.requires_grad_()
    settings = {**SETTINGS["teacher"], "teacher_temperature": temperature}
    pairs = [Categorical(logits=values.movedim(1, -1) / temperature) for values in (teacher, logits)]
    expected = temperature**2 * kl_divergence(*pairs)[labels != VOID].mean()
    ours = loss_of(logits, labels, settings, teacher=teacher)
    torch.testing.assert_close(ours, expected)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    gradient, to_teacher = torch.autograd.grad(ours, [logits, teacher], allow_unused=True)
    torch.testing.assert_close(gradient, expected_gradient)
    assert to_teacher is None


def test_soft_targets_by_hand() -> None:
    """The teacher's probability is 3/4, the network's 1/2; a network that agrees with the teacher has no loss."""
    teacher = torch.tensor([math.log(3), 0.0]).reshape(1, 2, 1, 1)
    labels = torch.ones(1, 1, 1, dtype=torch.int64)
    settings = {**ALONE, "teacher": "model.safetensors", "teacher_weight": 2}
    expected = 2 * (3 / 4 * math.log((3 / 4) / (1 / 2)) + 1 / 4 * math.log((1 / 4) / (1 / 2)))
    loss = loss_of(torch.zeros(1, 2, 1, 1), labels, settings, teacher=teacher)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert loss_of(teacher + 7, labels, settings, teacher=teacher).item() == pytest.approx(0, abs=1e-6)


# All of them


@all_settings
@weighted_or_not
def test_shares_of_parts_add_up_to_the_loss_of_the_batch(settings: dict[str, Any], weights: Tensor | None) -> None:
    """Parts of one, three and two images, the second part's with much void, the last image's nothing else."""
    logits, labels, teacher = draw(6, images=6)
    labels[-1] = VOID
    objective = objective_of(settings, weights)
    whole = loss_of(logits, labels, settings, weights, teacher)
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    counts = torch.stack([objective.count(labels[part]) for part in parts]).sum(0)
    torch.testing.assert_close(counts, objective.count(labels), rtol=1e-14, atol=0)
    shares = [objective.loss([logits[part]], labels[part], counts, teacher[part]) for part in parts]
    torch.testing.assert_close(torch.stack(shares).sum(), whole, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (whole, *shares)]
    torch.testing.assert_close(sum(gradients[1:]), gradients[0], rtol=1e-5, atol=1e-9)


@all_settings
@weighted_or_not
def test_nothing_but_void_is_zero_with_zero_gradient(settings: dict[str, Any], weights: Tensor | None) -> None:
    logits, labels, teacher = draw(7)
    loss = loss_of(logits, torch.full_like(labels, VOID), settings, weights, teacher)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(logits))


@all_settings
@pytest.mark.parametrize("void", [3, -100, 65535])
def test_the_id_of_void_does_not_matter(settings: dict[str, Any], void: int) -> None:
    """Within the range of the classes or outside of it."""
    logits, labels, teacher = draw(12)
    expected = loss_of(logits, labels, settings, WEIGHTS, teacher)
    renamed = labels.where(labels != VOID, void)
    assert torch.equal(loss_of(logits, renamed, settings, WEIGHTS, teacher, void), expected)


@all_settings
def test_gradients_are_those_of_the_value(settings: dict[str, Any]) -> None:
    logits, labels, teacher = draw(8)
    logits, labels, teacher = logits[:, :, :2, :3].detach().double(), labels[:, :2, :3], teacher[:, :, :2, :3].double()

    def value(logits: Tensor) -> Tensor:
        return loss_of(logits, labels, settings, WEIGHTS.double(), teacher)

    assert torch.autograd.gradcheck(value, logits.requires_grad_())


@all_settings
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_on_in_float32(settings: dict[str, Any], kind: torch.dtype) -> None:
    logits, labels, teacher = draw(9)
    logits, teacher = logits.detach().to(kind), teacher.to(kind)
    loss = loss_of(logits, labels, settings, WEIGHTS, teacher)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of(logits.float(), labels, settings, WEIGHTS, teacher.float()))


def test_half_precision_logits_are_summed_in_float32() -> None:
    """65,536 pixels of loss ln 2: in bfloat16 the sum would stop growing long before."""
    logits = torch.zeros(1, 2, 256, 256, dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.zeros(1, 256, 256, dtype=torch.int64), None, VOID)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)


@all_settings
def test_a_single_class_is_never_missed(settings: dict[str, Any]) -> None:
    logits = torch.randn(2, 1, 3, 4, requires_grad=True)
    labels = torch.zeros(2, 3, 4, dtype=torch.int64)
    labels[0, 0] = VOID
    loss = loss_of(logits, labels, settings, teacher=torch.randn(2, 1, 3, 4))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


def test_each_weight_has_a_loss() -> None:
    assert set(TERMS) == {*WEIGHT_NAMES, TEACHER_WEIGHT}


def test_the_settings_above_have_each_loss_alone_and_all_together() -> None:
    tried = {frozenset(LossConfig(**{**PLAIN, **settings}).loss_weights) for settings in SETTINGS.values()}
    assert tried == {*(frozenset([name]) for name in TERMS), frozenset(TERMS)}


def test_losses_are_added_by_their_weights() -> None:
    logits, labels, teacher = draw(10)
    weights = {"cross_entropy_weight": 0.3, "dice_weight": 2, "lovasz_weight": 5, "teacher_weight": 0.7}
    mixed = loss_of(logits, labels, {**weights, "teacher": "model.safetensors"}, WEIGHTS, teacher)
    alone = [loss_of(logits, labels, SETTINGS["plain"], WEIGHTS), loss_of(logits, labels, SETTINGS["dice"])]
    alone += [loss_of(logits, labels, SETTINGS["lovasz"])]
    alone += [loss_of(logits, labels, {**SETTINGS["teacher"], "teacher_temperature": 1}, teacher=teacher)]
    expected = sum(weight * loss.item() for weight, loss in zip(weights.values(), alone, strict=True))
    assert mixed.item() == pytest.approx(expected, rel=1e-6)


def test_coarser_stages_count_by_their_weight() -> None:
    logits, labels, _ = draw(11)
    objective = objective_of({"deep_supervision": 0.4, "dice_weight": 1})
    stages = [logits, logits / 2, -logits]
    counts = objective.count(labels)
    first, second, third = (objective.loss([stage], labels, counts).item() for stage in stages)
    loss = objective.loss(stages, labels, counts)
    assert loss.item() == pytest.approx(first + 0.4 * (second + third), rel=1e-6)
    assert loss_of(logits, labels, {"dice_weight": 1}).item() == first


def test_counts_by_hand() -> None:
    """Two images with 3 and 1 labelled pixels, one without; half of 3 pixels are 2, half of 1 is 1."""
    labels = torch.full((3, 2, 2), VOID)
    labels[0, 0], labels[0, 1, 0], labels[1, 0, 0] = 0, 1, 3
    assert objective_of({}).count(labels).tolist() == [4, 4, 2]
    assert objective_of({}, WEIGHTS).count(labels).tolist() == pytest.approx([0.3 + 0.3 + 3 + 7, 4, 2], rel=1e-7)
    assert objective_of({"hard_pixels": 0.5}).count(labels).tolist() == [3, 4, 2]
    assert objective_of({"hard_pixels": 0.5}, WEIGHTS).count(labels).tolist() == pytest.approx([3.6 * 2 / 3 + 7, 4, 2])
