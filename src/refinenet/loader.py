"""Training batches: read and varied in worker processes, in an order that seed and epoch decide.

Shape letters: N batch, H and W height and width of an image, h and w of the crop.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from refinenet.datasets import Dataset
from refinenet.train_config import TrainConfig
from refinenet.transforms import Augmentation, to_tensors

Pair = tuple[Tensor, Tensor]


def batch_size(dataset: Dataset, config: TrainConfig) -> int:
    """Images in a batch: as configured, or all that there are."""
    return min(config.batch_size, len(dataset))


def load_batches(dataset: Dataset, config: TrainConfig, epoch: int, device: torch.device) -> Iterator[Pair]:
    """One pass over a dataset in whole batches, shuffled and augmented; what is left over at the end is dropped.

    Yields:
        Images `(N, 3, h, w)` float32 in [0, 1] and labels `(N, h, w)` int64, on `device`.

    Raises:
        ValueError: an image or mask cannot be used; the file is named.
        OSError: a file cannot be read.
    """
    augmentation = Augmentation(config, dataset.label_set.ignore_index)
    on_device = config.augment_on == "device"
    loader: DataLoader[Pair | list[Pair] | _BadSample] = DataLoader(
        _ReadSamples(dataset, None if on_device else augmentation),
        batch_size=batch_size(dataset, config),
        shuffle=True,
        drop_last=True,
        collate_fn=_gather if on_device else _gather_and_stack,
        num_workers=config.workers,
        multiprocessing_context="fork" if config.workers and sys.platform == "linux" else None,
        generator=torch.Generator().manual_seed(config.seed + epoch),
    )
    for batch in loader:
        if isinstance(batch, _BadSample):
            raise batch.error
        if isinstance(batch, list):
            batch = _stack([augmentation.vary_place(*_move(pair, device)) for pair in batch])
        with _one_thread():
            images, labels = augmentation.paste_classes(*_move(batch, device))
            prepared = augmentation.vary_colour(images), labels.long()
        yield prepared


@dataclass(frozen=True)
class _BadSample:
    """Why a sample could not be read, handed from a worker process as it is."""

    error: ValueError | OSError


class _ReadSamples(TorchDataset[Pair | _BadSample]):
    """Reads in the worker processes, and varies there unless the device does."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation | None) -> None:
        self.dataset = dataset
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Pair | _BadSample:
        try:
            sample = self.dataset[index]
        except (ValueError, OSError) as error:
            return _BadSample(error)
        pair = to_tensors(sample.image, sample.labels)
        return pair if self.augmentation is None else self.augmentation.vary_place(*pair)


@contextmanager
def _one_thread() -> Iterator[None]:
    """On a CPU the processes that load have the other cores: several threads would wait for each other, not work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _move(pair: Pair, device: torch.device) -> Pair:
    return pair[0].to(device), pair[1].to(device)


def _gather(samples: list[Pair | _BadSample]) -> list[Pair] | _BadSample:
    pairs: list[Pair] = []
    for sample in samples:
        if isinstance(sample, _BadSample):
            return sample
        pairs.append(sample)
    return pairs


def _gather_and_stack(samples: list[Pair | _BadSample]) -> Pair | _BadSample:
    gathered = _gather(samples)
    return gathered if isinstance(gathered, _BadSample) else _stack(gathered)


def _stack(pairs: list[Pair]) -> Pair:
    return torch.stack([image for image, _ in pairs]), torch.stack([labels for _, labels in pairs])
