"""Settings that are found by trying them on the network, the data and the device at hand."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch

from refinenet.datasets.catalog import Dataset
from refinenet.distributed import Engine
from refinenet.io.console import print_note
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.engine.batch_size_finder import find_batch_size
from refinenet.training.engine.learner import Learner, is_out_of_memory
from refinenet.training.engine.learning_rate_finder import find_learning_rate
from refinenet.training.loading.loader import Loader, Part
from refinenet.training.losses import LossConfig

CPU_BATCH = 8
"""Images in a batch where memory is not what limits them."""
LARGEST_BATCH = 256
"""Larger batches need other learning rates, and bring no speed."""
TRIAL_STEPS = 100
FEW_BATCHES = 4
"""With fewer in an epoch the trial sees every image so often that it is learned by heart."""


def fill_in(
    network: Network, config: TrainConfig, train_set: Dataset, engine: Engine, *, progress: bool
) -> TrainConfig:
    """Find what is left to be found ("auto"): first the batch size, then the learning rate for it.

    Args:
        network: It is not changed.
        config: How to train.
        train_set: What to learn from.
        engine: What the training uses.
        progress: Whether to say what was found.

    Raises:
        ValueError: several processes train together, or no learning rate can be suggested.
    """
    if "auto" not in (config.batch_size, config.learning_rate):
        return config
    if engine.processes.count > 1:
        raise ValueError("batch_size and learning_rate have to be numbers where several processes train together.")
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
    """Whether a step with so many images, in the parts that are configured, runs in one go.

    Args:
        network: It is not changed.
        config: How to train.
        train_set: What the labels are of.
        engine: What the training uses.
        batch_size: Images of a step.
    """
    device = network.mean.device
    images = torch.zeros(batch_size // config.accumulation, 3, *config.crop_size, device=device)
    part = Part(images=images, labels=images[:, 0].long(), names=("a trial",))
    try:
        learner = _trial(network, replace(config, learning_rate=1e-3), train_set, engine)
        learner.may_split = False
        learner.step([part], 1.0, 0)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return False
        raise
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def _learning_rate(network: Network, config: TrainConfig, train_set: Dataset, engine: Engine, progress: bool) -> float:
    learner = _trial(network, replace(config, learning_rate=1.0), train_set, engine)
    plain = replace(config, paste_rare=0.0, rare_below=TrainConfig.rare_below)
    with Loader(train_set, plain, network.mean.device) as loader:
        if loader.steps_per_epoch < FEW_BATCHES:
            print_note(
                f"Warning: in the {TRIAL_STEPS} steps of learning_rate=auto each of the {len(train_set)} images comes "
                f"up to {TRIAL_STEPS // loader.steps_per_epoch} times: it finds the rate at which these are learned by "
                "heart, which may be too high for a whole training. If loss or validation mIoU get no better, name a "
                "rate, such as learning_rate=0.001.",
                enabled=progress,
            )
        batches = _endless(loader)
        return find_learning_rate(lambda rate: learner.step(next(batches), rate, 0), steps=TRIAL_STEPS).suggestion


def _trial(network: Network, config: TrainConfig, train_set: Dataset, engine: Engine) -> Learner:
    """A learner whose network may be spoilt; a teacher changes neither rate nor, by much, memory."""
    untaught = {name: getattr(LossConfig(), name) for name in ("teacher", "teacher_weight", "teacher_temperature")}
    if not (config.cross_entropy_weight or config.dice_weight or config.lovasz_weight):
        untaught["cross_entropy_weight"] = 1.0
    config = replace(config, compile=False, **untaught)
    return Learner(copy.deepcopy(network), config, engine, ignore_index=train_set.label_set.ignore_index)


def _endless(loader: Loader) -> Iterator[list[Part]]:
    return itertools.chain.from_iterable(map(loader.epoch, itertools.count()))
