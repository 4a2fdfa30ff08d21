"""Training in float16: gradients that the scaler made too large cost a step, those that are wrong end the training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from small_runs import new_network
from torch import Tensor

from refinenet.distributed import launch
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.engine.learner import Learner
from refinenet.training.loading.loader import Part
from refinenet.training.losses import Objective

CPU = torch.device("cpu")


@pytest.fixture
def learner() -> Learner[Network]:
    config = TrainConfig(crop_size=(16, 16), batch_size=2, ema_decay=0.9, learning_rate=1e-3)
    objective = Objective(config=config, ignore_index=255)
    return Learner(new_network().network, config, launch(CPU, "float16"), objective)


@pytest.fixture
def part() -> Part:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=generator)
    labels = torch.randint(3, (2, 16, 16), generator=generator)
    return Part(images=images, labels=labels, names=("a", "b"))


def everything(learner: Learner[Network]) -> dict[str, Tensor]:
    return {
        f"{kind} {name}": tensor.clone()
        for kind, network in (("weights", learner.network), ("average", learner.measured))
        for name, tensor in network.state_dict().items()
    }


@contextmanager
def infinite_gradients(learner: Learner[Network]) -> Iterator[None]:
    weight = learner.network.classifier.weight
    # PyTorch annotates this method of a parameter not at all.
    handle = weight.register_hook(lambda gradient: torch.full_like(gradient, math.inf))  # type: ignore[no-untyped-call]
    yield
    handle.remove()


def test_a_step_with_too_large_gradients_is_left_out_and_the_scale_halved(
    learner: Learner[Network], part: Part
) -> None:
    scaler = learner.engine.scaler
    assert scaler is not None
    learner.step([part], 1.0, 0)
    before, scale = everything(learner), scaler.get_scale()
    with infinite_gradients(learner):
        assert math.isfinite(learner.step([part], 1.0, 1))
    after = everything(learner)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert scaler.get_scale() == scale / 2
    for number in range(2, 16):  # the first scale may well be too large
        learner.step([part], 1.0, number)
    assert not torch.equal(learner.network.classifier.weight, before["weights classifier.weight"])


def test_gradients_that_no_scale_makes_finite_are_told(learner: Learner[Network], part: Part) -> None:
    """A scale of 2**16 is below 1 after 17 halvings."""
    with infinite_gradients(learner):
        losses = [learner.step([part], 1.0, number) for number in range(18)]
    assert [math.isfinite(loss) for loss in losses] == [True] * 16 + [False] * 2
