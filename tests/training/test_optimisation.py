"""The optimiser's groups and first steps, worked out by hand, and the choice of a precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from refinenet.training.optimisation import build_optimiser, choose_precision
from refinenet.training.optimiser_config import OptimiserConfig


class SmallNetwork(nn.Module):
    """An encoder of two layers and a head; all weights are 2, all offsets 1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
        self.head = nn.Conv2d(1, 1, 1)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 2.0 if parameter.ndim > 1 else 1.0)


class WithSecondHead(nn.Module):
    """A network in another, as for losses on further outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SmallNetwork()
        self.encoder_head = nn.Conv2d(1, 1, 1)
        nn.init.constant_(self.encoder_head.weight, 2.0)


def after_steps(module: nn.Module, optimiser: torch.optim.Optimizer, steps: int = 1) -> dict[str, float]:
    """The parameters after steps whose gradients are all 1."""
    for _ in range(steps):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
        optimiser.step()
    return {name: parameter.item() for name, parameter in module.named_parameters()}


def test_encoder_and_rest_kernels_and_others_move_as_worked_out_by_hand() -> None:
    """SGD: w - rate (1 + decay w), where decay is 0.5 for the kernels and 0 for all else."""
    network = SmallNetwork()
    config = OptimiserConfig(optimiser="sgd", learning_rate=0.1, encoder_learning_rate=0.01, weight_decay=0.5)
    assert after_steps(network, build_optimiser(network, config)) == pytest.approx(
        {
            "encoder.0.weight": 2 - 0.01 * 2,
            "encoder.0.bias": 1 - 0.01,
            "encoder.1.weight": 1 - 0.01,
            "encoder.1.bias": 1 - 0.01,
            "head.weight": 2 - 0.1 * 2,
            "head.bias": 1 - 0.1,
        }
    )


def test_sgd_has_the_momentum_that_is_asked_for() -> None:
    """By hand: the second step of gradient 1 goes 1 + 0.6 as far as the first."""
    network = SmallNetwork()
    config = OptimiserConfig(optimiser="sgd", learning_rate=0.1, momentum=0.6, weight_decay=0.0)
    moved = after_steps(network, build_optimiser(network, config), steps=2)
    assert moved["head.bias"] == pytest.approx(1 - 0.1 - 0.16)


def test_adamw_moves_by_the_rate_and_decays_kernels_only() -> None:
    """By hand: the first step of Adam is one rate long; decay takes rate * decay * w off a kernel besides."""
    network = SmallNetwork()
    config = OptimiserConfig(learning_rate=0.1, weight_decay=0.5)
    moved = after_steps(network, build_optimiser(network, config))
    assert moved["head.bias"] == pytest.approx(0.9)
    assert moved["encoder.0.weight"] == pytest.approx(2 - 0.1 * 0.5 * 2 - 0.1)


def test_the_encoder_of_a_wrapped_network_is_named_by_the_caller() -> None:
    module = WithSecondHead()
    config = OptimiserConfig(optimiser="sgd", learning_rate=0.1, encoder_learning_rate=0.01, weight_decay=0.0)
    moved = after_steps(module, build_optimiser(module, config, encoder=module.network.encoder))
    assert moved["network.encoder.0.weight"] == pytest.approx(1.99)
    assert moved["network.head.weight"] == pytest.approx(1.9)
    assert moved["encoder_head.weight"] == pytest.approx(1.9)


def test_each_weight_is_in_one_group_with_its_highest_rate_and_frozen_ones_in_none() -> None:
    network = SmallNetwork()
    network.encoder.requires_grad_(False)
    optimiser = build_optimiser(network, OptimiserConfig(learning_rate=0.1))
    held = [id(parameter) for group in optimiser.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in network.head.parameters())
    assert {group["highest_rate"] for group in optimiser.param_groups} == {0.1}
    optimiser.load_state_dict(optimiser.state_dict())
    assert after_steps(network, optimiser)["encoder.0.weight"] == 2.0


def test_a_learning_rate_that_is_still_to_be_found_is_refused() -> None:
    with pytest.raises(ValueError, match="must be replaced by a number before an optimiser is built"):
        build_optimiser(SmallNetwork(), OptimiserConfig(learning_rate="auto"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimiser": "adam"}, "optimiser must be one of adamw, sgd, not 'adam'"),
        ({"learning_rate": 0}, 'learning_rate must be a number from 1e-12 to 100 or "auto", not 0'),
        ({"learning_rate": None}, "learning_rate must be a number"),
        (
            {"encoder_learning_rate": "auto"},
            "encoder_learning_rate must be a number from 1e-12 to 100 or None, not 'auto'",
        ),
        ({"encoder_learning_rate": 0.1, "learning_rate": "auto"}, "encoder_learning_rate must be left out"),
        ({"weight_decay": -1}, "weight_decay must be a number"),
        ({"optimiser": "sgd", "momentum": 1}, "momentum must be a number"),
        ({"momentum": 0.5}, 'momentum is for optimiser="sgd"'),
        ({"gradient_clipping": -1}, "gradient_clipping must be a number"),
        ({"ema_decay": 1}, "ema_decay must be a number"),
        ({"precision": "float64"}, "precision must be one of auto, float32, bfloat16, float16, not 'float64'"),
        ({"precision": "bf16", "ema_decay": "0.9"}, "ema_decay must be .*; precision must be one of"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimiserConfig(**settings)


def test_a_precision_that_is_named_is_taken() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_precision("float32", cpu) == "float32"
    assert choose_precision("bfloat16", cpu) == "bfloat16"
    assert choose_precision("float16", gpu) == "float16"


def test_float16_is_refused_on_a_cpu() -> None:
    with pytest.raises(ValueError, match='"float16" needs a GPU; on a CPU use "auto"'):
        choose_precision("float16", torch.device("cpu"))


def test_auto_is_one_that_the_device_computes_in() -> None:
    assert choose_precision("auto", torch.device("cpu")) in ("float32", "bfloat16")
    assert choose_precision("auto", torch.device("meta")) == "float32"
