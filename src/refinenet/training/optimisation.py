"""Optimiser and precision of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from refinenet.training.optimiser_config import OptimiserConfig, TrainPrecision

if TYPE_CHECKING:
    from refinenet.distributed import Arithmetic


def build_optimiser(
    network: nn.Module, config: OptimiserConfig, *, encoder: nn.Module | None = None
) -> torch.optim.Optimizer:
    """Build an optimiser with separate learning rates for the encoder and the rest, and weight decay on kernels only.

    Each of its groups has a "highest_rate", of which the schedule takes a share at each step. Frozen weights
    (`requires_grad` is False) are left out.

    Args:
        network: Network to train.
        config: Settings of the optimiser.
        encoder: Part of the network that `encoder_learning_rate` is for; by default `network.encoder`.

    Raises:
        ValueError: The learning rate is still "auto".
    """
    if config.learning_rate == "auto":
        raise ValueError('learning_rate="auto" must be replaced by a number before an optimiser is built.')
    encoder = network.get_submodule("encoder") if encoder is None else encoder
    in_encoder = {id(parameter) for parameter in encoder.parameters()}
    rates = {True: config.encoder_learning_rate or config.learning_rate, False: config.learning_rate}
    groups = []
    # Always four groups in this order, even if some are empty: checkpoints hold the optimiser's state by position.
    for is_encoder, is_kernel in ((True, True), (True, False), (False, True), (False, False)):
        parameters = [
            parameter
            for parameter in network.parameters()
            if parameter.requires_grad
            and (id(parameter) in in_encoder) == is_encoder
            and (parameter.ndim > 1) == is_kernel
        ]
        decay = config.weight_decay if is_kernel else 0.0
        rate = rates[is_encoder]
        groups.append({"params": parameters, "lr": rate, "highest_rate": rate, "weight_decay": decay})
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum)
    return torch.optim.AdamW(groups)


def choose_precision(precision: TrainPrecision, device: torch.device) -> Arithmetic:
    """Return the arithmetic of training; "auto" is bfloat16 if the device has instructions for it, else float32.

    Raises:
        ValueError: float16 on a CPU, where its narrow range brings no speed.
    """
    if precision == "float16" and device.type == "cpu":
        raise ValueError('precision="float16" needs a GPU; on a CPU use "auto", "bfloat16" or "float32".')
    if precision != "auto":
        return precision
    return "bfloat16" if _computes_in_bfloat16(device) else "float32"


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # Older releases of PyTorch cannot say; there the CPU is assumed to have none.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
