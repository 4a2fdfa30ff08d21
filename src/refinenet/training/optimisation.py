"""How a network's weights move in training: the optimiser and the precision that it works in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from refinenet.settings import find_outside, is_number, is_within

if TYPE_CHECKING:
    from refinenet.distributed import Arithmetic


Optimiser = Literal["adamw", "sgd"]
TrainPrecision = Literal["auto", "float32", "bfloat16", "float16"]

_RANGES = {
    "learning_rate": (1e-12, 100),
    "encoder_learning_rate": (1e-12, 100),
    "weight_decay": (0, 100),
    "momentum": (0, 1 - 1e-9),
    "gradient_clipping": (0, 1e9),
    "ema_decay": (0, 1 - 1e-9),
}
_INSTEAD_OF_NUMBERS = {"learning_rate": "auto", "encoder_learning_rate": None}
_CHOICES = {"optimiser": Optimiser, "precision": TrainPrecision}


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """How the weights move.

    Raises:
        ValueError: a value out of its range, or values that do not go together.
    """

    optimiser: Optimiser = "adamw"
    """"adamw", or "sgd" with momentum as in the papers."""
    learning_rate: float | Literal["auto"] = 1e-3
    """Of decoder and classifier, at its highest; "auto" finds one before the first epoch (`learning_rate_finder`)."""
    encoder_learning_rate: float | None = None
    """Of the encoder, at its highest; the same as `learning_rate` where it is not given."""
    weight_decay: float = 1e-4
    """Of kernels; biases and batch norms have none."""
    momentum: float = 0.9
    """Of "sgd"."""
    gradient_clipping: float = 0.0
    """Largest norm of all gradients together, to which longer ones are shortened; 0 for none."""
    ema_decay: float = 0.99
    """What is measured and kept is an exponential moving average of the weights over the steps with this decay, such as
    0.995; 0 for the weights themselves."""
    precision: TrainPrecision = "auto"
    """Of the network's arithmetic; "auto" is bfloat16 where the device computes in it, else float32. "float16" is for
    GPUs without bfloat16."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        found = []
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name in _INSTEAD_OF_NUMBERS and value == _INSTEAD_OF_NUMBERS[name]:
                continue
            if not is_within(value, low, high):
                other = ' or "auto"' if name == "learning_rate" else ""
                found.append(f"{name} is a number from {low} to {high}{other}, not {value!r}")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                found.append(f"{name} is one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        if self.optimiser == "adamw" and self.momentum != OptimiserConfig.momentum:
            found.append('momentum is for optimiser="sgd"; with "adamw" leave it out')
        if self.learning_rate == "auto" and self.encoder_learning_rate is not None:
            found.append('encoder_learning_rate is left out where learning_rate is "auto", which finds one for both')
        return found


def build_optimiser(
    network: nn.Module, config: OptimiserConfig, *, encoder: nn.Module | None = None
) -> torch.optim.Optimizer:
    """An optimiser with rates of their own for the encoder and the rest, and no weight decay but on kernels.

    Each of its groups keeps in "highest_rate" what a schedule takes a share of. Weights that are frozen
    (`requires_grad` is False) are left out.

    Args:
        network: What is trained.
        config: How.
        encoder: The part of it that `encoder_learning_rate` is for; `network.encoder` where it is not given.

    Raises:
        ValueError: the learning rate is still to be found ("auto").
    """
    if config.learning_rate == "auto":
        raise ValueError('learning_rate="auto" is found before an optimiser is built; name a number.')
    encoder = network.get_submodule("encoder") if encoder is None else encoder
    in_encoder = {id(parameter) for parameter in encoder.parameters()}
    rates = {True: config.encoder_learning_rate or config.learning_rate, False: config.learning_rate}
    groups = []
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
    """What training computes in; "auto" is bfloat16 where the device has instructions for it, else float32.

    Raises:
        ValueError: float16 on a CPU, which has no arithmetic in it that is worth its narrow range.
    """
    if precision == "float16" and device.type == "cpu":
        raise ValueError('precision="float16" needs a GPU; on a CPU take "auto", "bfloat16" or "float32".')
    if precision != "auto":
        return precision
    return "bfloat16" if _computes_in_bfloat16(device) else "float32"


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # Older releases of PyTorch cannot say; there the CPU is taken to have none.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


Schedule = Literal["polynomial", "cosine", "steps", "constant"]

_SCHEDULE_RANGES = {
    "warm_up": (0, 0.99),
    "polynomial_power": (0, 100),
    "lowest_rate": (0, 1),
    "step_factor": (1e-12, 1),
}
_ONLY_WITH: dict[str, tuple[Schedule, ...]] = {
    "polynomial_power": ("polynomial",),
    "lowest_rate": ("polynomial", "cosine"),
    "step_epochs": ("steps",),
    "step_factor": ("steps",),
}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rates move over a run.

    Raises:
        ValueError: a value out of its range, or one that the chosen schedule has no use for.
    """

    schedule: Schedule = "polynomial"
    """After warm-up: "polynomial" or "cosine" decline, a drop at each of `step_epochs` ("steps"), or "constant"."""
    warm_up: float = 0.02
    """Share of all steps in which the learning rates rise from zero."""
    polynomial_power: float = 0.9
    """A polynomial rate falls as (1 - share of steps done after warm-up) to this power."""
    lowest_rate: float = 0.0
    """Share of its highest value that a polynomial or cosine rate falls to."""
    step_epochs: tuple[float, ...] = ()
    """Each time that so many epochs are done, counted from the run's beginning, the rates are multiplied by
    `step_factor`; fractions are allowed."""
    step_factor: float = 0.1
    """What the rates are multiplied by at `step_epochs`."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        found = []
        if self.schedule not in get_args(Schedule):
            found.append(f"schedule is one of {', '.join(get_args(Schedule))}, not {self.schedule!r}")
        found += find_outside(self, _SCHEDULE_RANGES)
        if not _are_rising(self.step_epochs):
            found.append(f"step_epochs are numbers above 0, each larger than the last, not {self.step_epochs!r}")
        return [*found, *self._useless_settings()]

    def _useless_settings(self) -> list[str]:
        found = []
        if self.schedule == "steps" and self.step_epochs == ():
            found.append('schedule="steps" needs step_epochs, such as (30, 60)')
        for name, schedules in _ONLY_WITH.items():
            is_set = getattr(self, name) != getattr(ScheduleConfig, name)
            if is_set and self.schedule in get_args(Schedule) and self.schedule not in schedules:
                meant = " or ".join(f'schedule="{schedule}"' for schedule in schedules)
                found.append(f'{name} is for {meant}; with "{self.schedule}" leave it out')
        return found


def _are_rising(epochs: object) -> bool:
    if not isinstance(epochs, tuple) or not all(is_number(epoch) for epoch in epochs):
        return False
    return all(earlier < later for earlier, later in pairwise((0, *epochs)))


def rate_factor(step: int, steps: int, steps_per_epoch: int, config: ScheduleConfig) -> float:
    """The share of its highest value, in [0, 1], that a learning rate has in a step.

    Polynomial decline is that of DeepLab (Chen et al., 2017), cosine that of SGDR without restarts (Loshchilov and
    Hutter, 2017); both reach `lowest_rate` at the end of the last step.

    Args:
        step: Counted from 0 over the whole run; a step of the optimiser, whatever gradients it gathers.
        steps: How many the run has, from 1 up.
        steps_per_epoch: How many an epoch has.
        config: How the rates move.

    Raises:
        ValueError: the run has no such step.
    """
    if not 0 <= step < steps:
        raise ValueError(f"A run of {steps} steps has the steps 0 to {steps - 1}, not {step}.")
    warm_up_steps = config.warm_up * steps
    if step < warm_up_steps:
        risen, done = (step + 1) / (warm_up_steps + 1), 0.0
    else:
        risen, done = 1.0, (step - warm_up_steps) / (steps - warm_up_steps)
    return risen * _decline(done, step / steps_per_epoch, config)


def _decline(done: float, epochs: float, config: ScheduleConfig) -> float:
    """What is left of the rate after a share `done` of the steps that follow warm-up, and after so many epochs."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "steps":
        return float(config.step_factor ** sum(epochs >= epoch for epoch in config.step_epochs))
    is_cosine = config.schedule == "cosine"
    left = (1 + math.cos(math.pi * done)) / 2 if is_cosine else (1 - done) ** config.polynomial_power
    return config.lowest_rate + (1 - config.lowest_rate) * left
