"""Optimiser, precision and learning rate schedule of training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import nn

from refinenet.settings import Range, Rule, Settings

if TYPE_CHECKING:
    from refinenet.distributed import Arithmetic


Optimiser = Literal["adamw", "sgd"]
TrainPrecision = Literal["auto", "float32", "bfloat16", "float16"]
LearningRate = Annotated[float, Range(1e-12, 100)]


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(Settings):
    """Settings of the optimiser.

    Raises:
        ValueError: A value is out of its range, or settings do not go together; all problems are reported together.
    """

    optimiser: Optimiser = "adamw"
    """"adamw", or "sgd" with momentum as in the papers."""
    learning_rate: LearningRate | Literal["auto"] = 1e-3
    """Highest learning rate of decoder and classifier; "auto" finds one before the first epoch
    (`auto_settings.find_learning_rate`)."""
    encoder_learning_rate: LearningRate | None = None
    """Highest learning rate of the encoder; by default that of the decoder."""
    weight_decay: Annotated[float, Range(0, 100)] = 1e-4
    """Weight decay of kernels; biases and batch norms have none."""
    momentum: Annotated[float, Range(0, below=1)] = 0.9
    """Momentum of "sgd"."""
    gradient_clipping: Annotated[float, Range(0, 1e9)] = 0.0
    """Largest norm of all gradients together, to which larger ones are scaled down; 0 for no clipping."""
    ema_decay: Annotated[float, Range(0, below=1)] = 0.99
    """Decay per step of the exponential moving average of the weights that is measured and saved, such as 0.995; 0
    measures and saves the weights themselves."""
    precision: TrainPrecision = "auto"
    """Precision of the network's arithmetic; "auto" is bfloat16 where the device supports it, else float32. "float16"
    is for GPUs without bfloat16."""

    def _conflicts(self) -> list[str]:
        conflicts = []
        if self.optimiser == "adamw" and self.momentum != OptimiserConfig.momentum:
            conflicts.append('momentum is for optimiser="sgd"; with "adamw" leave it out')
        if self.learning_rate == "auto" and self.encoder_learning_rate is not None:
            conflicts.append(
                'encoder_learning_rate must be left out with learning_rate="auto", which finds one rate for both'
            )
        return [*conflicts, *super()._conflicts()]


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


Schedule = Literal["polynomial", "cosine", "steps", "constant"]


def _are_rising(epochs: tuple[float, ...]) -> bool:
    return all(earlier < later for earlier, later in pairwise((0, *epochs)))


_ONLY_WITH: dict[str, tuple[Schedule, ...]] = {
    "polynomial_power": ("polynomial",),
    "lowest_rate": ("polynomial", "cosine"),
    "step_epochs": ("steps",),
    "step_factor": ("steps",),
}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Settings):
    """Settings of the learning rate schedule.

    Raises:
        ValueError: A value is out of its range, or the chosen schedule does not use it; all problems are reported
            together.
    """

    schedule: Schedule = "polynomial"
    """Schedule after warm-up: "polynomial" or "cosine" decay, a drop at each of `step_epochs` ("steps"), or
    "constant"."""
    warm_up: Annotated[float, Range(0, 0.99)] = 0.02
    """Share of all steps in which the learning rates rise from zero."""
    polynomial_power: Annotated[float, Range(0, 100)] = 0.9
    """Power of a polynomial schedule: the rate falls as (1 - share of steps done after warm-up) to this power."""
    lowest_rate: Annotated[float, Range(0, 1)] = 0.0
    """Share of its highest value that a polynomial or cosine rate falls to."""
    step_epochs: Annotated[tuple[float, ...], Rule(_are_rising, "numbers above 0, each larger than the last")] = ()
    """Numbers of epochs, counted from the start of the run, after which the rates are multiplied by `step_factor`;
    fractions are allowed."""
    step_factor: Annotated[float, Range(1e-12, 1)] = 0.1
    """Factor of the rates at each of `step_epochs`."""

    def _conflicts(self) -> list[str]:
        conflicts = []
        if self.schedule == "steps" and self.step_epochs == ():
            conflicts.append('schedule="steps" needs step_epochs, such as (30, 60)')
        for name, schedules in _ONLY_WITH.items():
            if getattr(self, name) != getattr(ScheduleConfig, name) and self.schedule not in schedules:
                supported = " or ".join(f'schedule="{schedule}"' for schedule in schedules)
                conflicts.append(f'{name} is for {supported}; with "{self.schedule}" leave it out')
        return [*conflicts, *super()._conflicts()]


def rate_factor(step: int, steps: int, steps_per_epoch: int, config: ScheduleConfig) -> float:
    """Return the learning rate of a step as a share, in [0, 1], of its highest value.

    Polynomial decay is that of DeepLab (Chen et al., 2017), cosine that of SGDR without restarts (Loshchilov and
    Hutter, 2017); both reach `lowest_rate` at the end of the last step.

    Args:
        step: Step of the optimiser, counted from 0 over the whole run.
        steps: Number of steps of the run, at least 1.
        steps_per_epoch: Number of steps of an epoch.
        config: Settings of the schedule.

    Raises:
        ValueError: The run has no such step.
    """
    if not 0 <= step < steps:
        raise ValueError(f"A run of {steps} steps has the steps 0 to {steps - 1}, not {step}.")
    warm_up_steps = config.warm_up * steps
    if step < warm_up_steps:
        # Shifted by one step, so that the first one already learns and the rate is whole right after the warm-up.
        warmth, done = (step + 1) / (warm_up_steps + 1), 0.0
    else:
        warmth, done = 1.0, (step - warm_up_steps) / (steps - warm_up_steps)
    return warmth * _decay(done, step / steps_per_epoch, config)


def _decay(done: float, epochs: float, config: ScheduleConfig) -> float:
    """Return the remaining share of the rate after a share `done` of the steps past warm-up, or a number of epochs."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "steps":
        return float(config.step_factor ** sum(epochs >= epoch for epoch in config.step_epochs))
    is_cosine = config.schedule == "cosine"
    left = (1 + math.cos(math.pi * done)) / 2 if is_cosine else (1 - done) ** config.polynomial_power
    return config.lowest_rate + (1 - config.lowest_rate) * left
