"""Settings "auto": the image size, batch size and learning rate that suit the network, the data and the device."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.dataset import spread
from refinenet.distributed import Engine
from refinenet.io.console import print_note
from refinenet.io.images.image_files import find_size
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.models.files.model_card import ModelCard
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.engine.learner import Learner, is_out_of_memory
from refinenet.training.loading.loader import Loader, Part
from refinenet.training.losses import LossConfig, Objective
from refinenet.training.losses.config import TEACHER_SETTINGS, WEIGHTS

MARGIN = 0.1
"""Share taken off the largest batch that fits: other steps need a little more memory than the trial, and allocators
fragment."""


def find_batch_size(fits: Callable[[int], bool], most: int, multiple_of: int = 1) -> int:
    """Find the largest batch that fits, less a margin, by doubling and then bisection.

    If `most` fits it is returned, since memory is not the limit; else `MARGIN` is taken off the largest batch that
    fits, but never below `multiple_of`.

    Args:
        fits: Whether a training step with this number of images runs without filling the memory (see
            `is_out_of_memory`); batches smaller than one that fits are assumed to fit. On a CPU it has to compare with
            the free memory, because Linux grants more than it has and kills the process that uses it.
        most: Largest useful batch, such as all training images.
        multiple_of: Divisor of the batch.

    Returns:
        A multiple of `multiple_of`, at most `most`.

    Raises:
        ValueError: No batch is allowed, or not even the smallest fits.
    """
    if multiple_of < 1 or most < multiple_of:
        raise ValueError(f"There is no batch size from {multiple_of} to {most} that is a multiple of {multiple_of}.")
    units = most // multiple_of
    if not fits(multiple_of):
        raise ValueError(
            f"Not even a batch of {multiple_of} images fits into memory. "
            "Use a smaller crop_size or network, or close other programs that use the memory."
        )
    fitting = 1
    while fitting < units and fits(min(2 * fitting, units) * multiple_of):
        fitting = min(2 * fitting, units)
    if fitting == units:
        return units * multiple_of
    failing = min(2 * fitting, units)
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        if fits(middle * multiple_of):
            fitting = middle
        else:
            failing = middle
    return max(1, int(fitting * (1 - MARGIN))) * multiple_of


EXPLOSION = 4.0
"""The search ends when the smoothed loss is this many times its minimum."""
LEAST_FALL = 0.05
"""Least fall of the smoothed loss, as a share of its first value, for a rate to be suggested."""
SMOOTHING = 0.04
"""Standard deviation of the smoothing, as a share of the number of steps."""


@dataclass(frozen=True, kw_only=True)
class LearningRateSearch:
    """Result of a learning rate range test; all tuples have the same length."""

    rates: tuple[float, ...]
    """Learning rates, a geometric sequence."""
    losses: tuple[float, ...]
    """Loss of each step."""
    smoothed: tuple[float, ...]
    """Losses smoothed by a symmetric Gaussian window, which, unlike a running mean, does not lag behind the rates."""
    suggestion: float
    """Rate at which the loss falls fastest."""


def find_learning_rate(
    step: Callable[[float], float], *, lowest: float = 1e-7, highest: float = 1.0, steps: int = 100
) -> LearningRateSearch:
    """Try learning rates from `lowest` to `highest` on a network in training, and suggest one.

    Source: Smith, Cyclical Learning Rates for Training Neural Networks, 2017 (the range test). The network is worse
    afterwards: use a copy.

    Args:
        step: Does a training step at a learning rate and returns the loss before it.
        lowest: First rate, so low that the loss hardly changes.
        highest: Last rate.
        steps: Number of rates to try, at least 10.

    Raises:
        ValueError: The range is invalid, or the loss never fell, so that no rate can be suggested.
    """
    if not 0 < lowest < highest < math.inf or steps < 10:
        raise ValueError(
            f"The search needs 10 or more steps between rates 0 < lowest < highest, not {steps} steps from {lowest} "
            f"to {highest}."
        )
    rates = np.geomspace(lowest, highest, steps).tolist()
    width = max(1.0, SMOOTHING * steps)
    losses: list[float] = []
    for rate in rates:
        loss = step(rate)
        if not math.isfinite(loss):
            break
        losses.append(loss)
        if _has_exploded(_smooth(losses, width)):
            break
    smoothed = _smooth(losses, width)
    return LearningRateSearch(
        rates=tuple(rates[: len(losses)]),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        suggestion=_steepest_descent(rates[: len(losses)], smoothed),
    )


def _smooth(losses: Sequence[float], width: float) -> list[float]:
    """Smooth losses by a Gaussian with this standard deviation in steps."""
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / width) ** 2)
    smoothed: list[float] = (weights @ np.asarray(losses, dtype=np.float64) / weights.sum(axis=1)).tolist()
    return smoothed


def _has_exploded(smoothed: Sequence[float]) -> bool:
    best = min(smoothed)
    # `EXPLOSION * best`, but for a best below 0, which that would lie below.
    return smoothed[-1] > best + (EXPLOSION - 1) * abs(best)


def _steepest_descent(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """Return the rate at which the loss falls fastest before its minimum, per step and so per logarithm of the rate."""
    bottom = int(np.argmin(smoothed)) if smoothed else 0
    if bottom == 0 or smoothed[0] - smoothed[bottom] < LEAST_FALL * abs(smoothed[0]):
        observation = (
            f"it was {smoothed[0]:.4g} at first and {smoothed[bottom]:.4g} at best" if smoothed else "it is not finite"
        )
        raise ValueError(
            f"No learning rate can be suggested, because the loss did not fall in {len(smoothed)} steps: "
            f"{observation}. Set learning_rate to a number, or check that the labels fit the images."
        )
    return rates[int(np.argmin(np.gradient(smoothed)[: bottom + 1]))]


CPU_BATCH = 8
"""Images in a batch on a CPU, where memory is not the limit."""
LARGEST_BATCH = 256
"""Largest batch that is tried: larger ones need other learning rates, and bring no speed."""
TRIAL_STEPS = 100
FEW_BATCHES = 4
"""Batches in an epoch below which the trial sees every image so often that the network memorises it."""


LARGE_PHOTOGRAPH = 2048
"""Median of the longer sides, in pixels, above which photographs are reduced."""
REDUCED_SIDE = 1024
"""Longer side of reduced photographs, in pixels: a usual crop of 320 then shows a third of the width instead of a
thirteenth, and an image of 12 megapixels is validated in a fifteenth of the time."""
_LOOKED_AT = 32
_LARGE_FILE = 100_000
"""Bytes; photographs of more than `LARGE_PHOTOGRAPH` pixels have more."""


def choose_longest_side(card: ModelCard, train_set: Dataset, *, progress: bool) -> int | Literal["none"]:
    """Return what `TrainConfig.longest_side` becomes if it is "auto".

    Args:
        card: Card of the network to train.
        train_set: Training data.
        progress: Whether to report a choice.
    """
    if card.longest_side is not None:
        return card.longest_side
    sides = list(_read_sides(train_set))
    if not sides or np.median(sides) <= LARGE_PHOTOGRAPH:
        return "none"
    print_note(
        f"longest_side=auto: the photographs are reduced to {REDUCED_SIDE} pixels on their longer side (of up to "
        f"{max(sides)}), here and wherever the model is used. --set longest_side=none keeps their size.",
        enabled=progress,
    )
    return REDUCED_SIDE


def _read_sides(train_set: Dataset) -> Iterator[int]:
    """Yield the longer sides of some images, none for images that are not photographs: bands, drawn ones and TIFF.

    Small files are no large photographs and are not opened, so that one that cannot be read is left to the loading
    processes, which report it; so are damaged ones.
    """
    for index in spread(len(train_set), _LOOKED_AT) if len(train_set) and not train_set.bands else ():
        path = train_set.image_file(train_set.items[index])
        if path is None or path.suffix.lower() in TIFF_SUFFIXES:
            return
        with suppress(OSError, ValueError):
            yield max(find_size(path.read_bytes(), str(path))) if path.stat().st_size >= _LARGE_FILE else 0


def fill_in(
    network: Network, config: TrainConfig, train_set: Dataset, engine: Engine, *, progress: bool
) -> TrainConfig:
    """Replace settings that are "auto": first the batch size, then the learning rate for it.

    Args:
        network: Network to train; it is not changed.
        config: Settings of the training.
        train_set: Training data.
        engine: Engine of the training.
        progress: Whether to report the values found.

    Raises:
        ValueError: Several processes train together, or no learning rate can be suggested.
    """
    if "auto" not in (config.batch_size, config.learning_rate):
        return config
    if engine.processes.count > 1:
        raise ValueError("batch_size and learning_rate must be numbers if several processes train together.")
    if config.batch_size == "auto":
        config = replace(config, batch_size=_batch_size(network, config, train_set, engine))
        print_note(f"batch_size=auto: {config.batch_size} images.", enabled=progress)
    if config.learning_rate == "auto":
        config = replace(config, learning_rate=_learning_rate(network, config, train_set, engine, progress))
        print_note(f"learning_rate=auto: {config.learning_rate:.2g}.", enabled=progress)
    return config


def _batch_size(network: Network, config: TrainConfig, train_set: Dataset, engine: Engine) -> int:
    device = network.mean.device
    most = max(1, min(LARGEST_BATCH, len(train_set) // config.accumulation)) * config.accumulation
    if device.type == "cpu":
        return max(1, min(CPU_BATCH, len(train_set)) // config.accumulation) * config.accumulation
    return find_batch_size(
        lambda size: fits_into_memory(network, config, train_set, engine, size), most, config.accumulation
    )


def fits_into_memory(
    network: Network, config: TrainConfig, train_set: Dataset, engine: Engine, batch_size: int
) -> bool:
    """Whether a training step with this number of images fits into memory without being split.

    Args:
        network: Network to train; it is not changed.
        config: Settings of the training.
        train_set: Training data, for its label set.
        engine: Engine of the training.
        batch_size: Images per step.
    """
    device = network.mean.device
    bands = len(network.architecture.band_names)
    images = torch.zeros(batch_size // config.accumulation, bands, *config.crop_size, device=device)
    part = Part(images=images, labels=images[:, 0].long(), names=("a trial",))
    try:
        learner = _trial(network, replace(config, learning_rate=1e-3), train_set, engine)
        learner.may_split = False  # in halves it might fit, and the size would be accepted
        learner.step([part], 1.0, 0)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return False
        raise
    finally:
        if device.type == "cuda":  # what PyTorch keeps of a trial in its pools would be missing in the next
            torch.cuda.empty_cache()
    return True


def _learning_rate(network: Network, config: TrainConfig, train_set: Dataset, engine: Engine, progress: bool) -> float:
    # A step takes its rate as a share of the configured one: of 1.0 the share is the rate itself.
    learner = _trial(network, replace(config, learning_rate=1.0), train_set, engine)
    # Nothing is pasted: the classes are not counted yet, so that it is not known which are rare.
    plain = replace(config, paste_rare=0.0, rare_below=TrainConfig.rare_below)
    means = network.mean.flatten().tolist()
    with Loader(train_set, plain, network.mean.device, means=means) as loader:
        if loader.steps_per_epoch < FEW_BATCHES:
            print_note(
                f"Warning: the {TRIAL_STEPS} steps of learning_rate=auto use each of the {len(train_set)} images up to "
                f"{TRIAL_STEPS // loader.steps_per_epoch} times and find the rate at which these are memorised, which "
                "may be too high for the whole run. If loss or validation mIoU do not improve, set a rate, such as "
                "learning_rate=0.001.",
                enabled=progress,
            )
        batches = _endless(loader)
        return find_learning_rate(lambda rate: learner.step(next(batches), rate, 0), steps=TRIAL_STEPS).suggestion


def _trial(network: Network, config: TrainConfig, train_set: Dataset, engine: Engine) -> Learner[Network]:
    """Return a learner with a copy of the network and no teacher, which hardly changes rate and memory."""
    overrides = {name: getattr(LossConfig(), name) for name in ("teacher", *TEACHER_SETTINGS)}
    if not any(getattr(config, name) for name in WEIGHTS):
        overrides["cross_entropy_weight"] = 1.0
    config = replace(config, compile=False, **overrides)
    objective = Objective(config=config, ignore_index=train_set.label_set.ignore_index)
    return Learner(copy.deepcopy(network), config, engine, objective)


def _endless(loader: Loader) -> Iterator[list[Part]]:
    return itertools.chain.from_iterable(map(loader.epoch, itertools.count()))
