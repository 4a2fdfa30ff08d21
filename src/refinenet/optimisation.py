"""How a network's weights move in training: learning rates over time, the optimiser, its precision."""

from __future__ import annotations

from typing import Any

import torch

from refinenet.network import Network
from refinenet.train_config import Precision, TrainConfig


def schedule(step: int, steps: int, config: TrainConfig) -> float:
    """The share of its highest value that a learning rate has in a step, counted from 0: warm-up, then polynomial."""
    warm_up_steps = config.warm_up * steps
    if step < warm_up_steps:
        return (step + 1) / (warm_up_steps + 1)
    return float((1 - (step - warm_up_steps) / (steps - warm_up_steps)) ** config.polynomial_power)


def build_optimiser(network: Network, config: TrainConfig) -> torch.optim.Optimizer:
    """An optimiser with rates of their own for the encoder and the rest, and no weight decay but on kernels."""
    rates = {True: config.encoder_learning_rate or config.learning_rate, False: config.learning_rate}
    groups = []
    for is_encoder, is_kernel in ((True, True), (True, False), (False, True), (False, False)):
        parameters = [
            parameter
            for name, parameter in network.named_parameters()
            if name.startswith("encoder.") == is_encoder and (parameter.ndim > 1) == is_kernel
        ]
        decay = config.weight_decay if is_kernel else 0.0
        rate = rates[is_encoder]
        groups.append({"params": parameters, "lr": rate, "highest_rate": rate, "weight_decay": decay})
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    return torch.optim.AdamW(groups)


def choose_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether training computes in bfloat16; "auto" does where the device has instructions for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Older releases of PyTorch cannot say; there the CPU is taken to have none.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
