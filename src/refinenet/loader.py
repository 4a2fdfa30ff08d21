"""Training batches: loaded and varied in worker processes, in an order that seed and epoch decide.

Shape letters: N batch, h and w height and width of the crop.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from refinenet.datasets import Dataset
from refinenet.train_config import TrainConfig
from refinenet.transforms import Augmentation


def batch_size(dataset: Dataset, config: TrainConfig) -> int:
    """Images in a batch: as configured, or all that there are."""
    return min(config.batch_size, len(dataset))


def load_batches(dataset: Dataset, config: TrainConfig, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over a dataset in whole batches, shuffled and augmented; what is left over at the end is dropped.

    Yields:
        Images `(N, 3, h, w)` float32 in [0, 1] and labels `(N, h, w)` int64.

    Raises:
        ValueError: an image or mask cannot be used; the file is named.
        OSError: a file cannot be read.
    """
    loader: DataLoader[tuple[Tensor, Tensor] | _BadSample] = DataLoader(
        _AugmentedDataset(dataset, Augmentation(config, dataset.label_set.ignore_index)),
        batch_size=batch_size(dataset, config),
        shuffle=True,
        drop_last=True,
        collate_fn=_collate,
        num_workers=config.workers,
        multiprocessing_context="fork" if config.workers and sys.platform == "linux" else None,
        generator=torch.Generator().manual_seed(config.seed + epoch),
    )
    for batch in loader:
        if isinstance(batch, _BadSample):
            raise batch.error
        images, labels = batch
        yield images, labels


@dataclass(frozen=True)
class _BadSample:
    """Why a sample could not be loaded, handed from a worker process as it is."""

    error: ValueError | OSError


class _AugmentedDataset(TorchDataset[tuple[Tensor, Tensor] | _BadSample]):
    """Loads and varies in the worker processes."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation) -> None:
        self.dataset = dataset
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | _BadSample:
        try:
            sample = self.dataset[index]
        except (ValueError, OSError) as error:
            return _BadSample(error)
        return self.augmentation(sample.image, sample.labels)


def _collate(samples: list[Any]) -> Any:
    return next((sample for sample in samples if isinstance(sample, _BadSample)), None) or default_collate(samples)
