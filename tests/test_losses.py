"""What training minimises, against sums worked out by hand and PyTorch's own weighted mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from refinenet.losses import cross_entropy


def test_two_pixels_by_hand() -> None:
    """Logits (0, ln 3): shares 1/4 and 3/4. The void pixel, however wrong, does not count."""
    logits = torch.tensor([[0.0, 0.0, 50.0], [math.log(3), math.log(3), -50.0]]).reshape(1, 2, 1, 3)
    labels = torch.tensor([[[0, 1, 255]]])
    plain = (math.log(4) + math.log(4 / 3)) / 2
    assert cross_entropy(logits, labels, None, 255).item() == pytest.approx(plain, rel=1e-6)
    weighted = (5 * math.log(4) + 1 * math.log(4 / 3)) / (5 + 1)
    assert cross_entropy(logits, labels, torch.tensor([5.0, 1.0]), 255).item() == pytest.approx(weighted, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_pytorch_s_mean(seed: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (10 * torch.randn(2, 7, 9, 5, generator=generator)).requires_grad_()
    labels = torch.randint(0, 7, (2, 9, 5), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    weights = torch.rand(7, generator=generator) + 0.1 if weighted else None
    ours = cross_entropy(logits, labels, weights, 255)
    theirs = functional.cross_entropy(logits, labels, weights, ignore_index=255)
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs, logits)[0])
    void = (labels == 255)[:, None].expand_as(gradient)
    assert gradient[void].abs().max() == 0


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 3.0])])
def test_nothing_but_void_is_zero_with_zero_gradient(weights: torch.Tensor | None) -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 5), 255), weights, 255)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert gradient.tolist() == torch.zeros(2, 3, 4, 5).tolist()


def test_half_precision_logits_are_summed_in_float32() -> None:
    """65,536 pixels of loss ln 2: in bfloat16 the sum would stop growing long before."""
    logits = torch.zeros(1, 2, 256, 256, dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.zeros(1, 256, 256, dtype=torch.int64), None, 255)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
