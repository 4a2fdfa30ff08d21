"""Training batches: read and varied in processes of their own; every draw follows from seed, epoch and position.

A sample's pixels therefore depend neither on the number of processes that load, nor on how many train, nor on where a
training was taken up.

Shape letters: n images of a part of a batch, H and W height and width of an image, h and w of the crop.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice, tee
from types import TracebackType
from typing import NamedTuple

import torch
from numpy.random import Generator, SeedSequence, default_rng
from torch import Tensor

from refinenet.datasets.catalog import Dataset
from refinenet.io.sample_values import ImageWarning
from refinenet.training.augmentation.geometry import Pair
from refinenet.training.augmentation.mixing import Partner
from refinenet.training.augmentation.pipeline import Augmentation, to_tensors
from refinenet.training.config import TrainConfig
from refinenet.training.loading.worker_pool import WorkerPool

_ORDER, _SAMPLE = 0, 1
"""What a generator is for."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The images that a process computes on at once: a batch, or a part of it."""

    images: Tensor
    """`(n, 3, h, w)` float32 in [0, 1]."""
    labels: Tensor
    """`(n, h, w)` int64."""
    names: tuple[str, ...]
    """The images' files, or what the dataset calls them."""


class _Key(NamedTuple):
    """A sample and what its draws follow from."""

    seed: int
    epoch: int
    position: int
    """Where the sample stands in the epoch's order."""
    sample: int
    """Which of the dataset's samples it is."""


@dataclass(frozen=True)
class _BadSample:
    """Why a sample could not be read, handed from a loading process as it is."""

    error: ValueError | OSError


class _Loaded(NamedTuple):
    """What a loading process hands over for a part of a batch."""

    samples: _Varied | _Raw | _BadSample
    warnings: tuple[Warning, ...]
    """Those of reading it: shown by the training process, which sees the warnings of all processes."""


class _Varied(NamedTuple):
    """The samples of a part, but for their colours."""

    images: Tensor
    """`(n, 3, h, w)` uint8."""
    labels: Tensor
    """`(n, h, w)` uint8 or int32."""
    colours: Tensor
    """`(n, 6)` float32: how the colours are to change (`colour.ColourChange`)."""


class _Raw(NamedTuple):
    """Samples as they were read, each followed by its partners, in few tensors: each takes a file of shared memory."""

    pixels: Tensor
    ids: Tensor
    sizes: tuple[tuple[int, int], ...]
    """Heights and widths."""

    @classmethod
    def pack(cls, pairs: Sequence[Pair]) -> _Raw:
        return cls(
            torch.cat([image.permute(1, 2, 0).flatten() for image, _ in pairs]),
            torch.cat([labels.flatten() for _, labels in pairs]),
            tuple((labels.shape[0], labels.shape[1]) for _, labels in pairs),
        )

    def unpack(self, device: torch.device) -> Iterator[Pair]:
        lengths = [height * width for height, width in self.sizes]
        pixels = torch.split(_move(self.pixels, device), [3 * length for length in lengths])
        ids = torch.split(_move(self.ids, device), lengths)
        for flat, labels, size in zip(pixels, ids, self.sizes, strict=True):
            yield flat.view(*size, 3).permute(2, 0, 1), labels.view(size)


class _Reader:
    """Reads and varies samples, each with draws of its own; loading processes have a copy of it."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, *, raw: bool) -> None:
        self._dataset, self._augmentation, self._raw = dataset, augmentation, raw

    def __call__(self, keys: Sequence[_Key]) -> _Loaded:
        """Load the samples of a part's keys, in a loading process."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ImageWarning)
            samples = self._load(keys)
        return _Loaded(samples, tuple(warning.message for warning in caught if isinstance(warning.message, Warning)))

    def _load(self, keys: Sequence[_Key]) -> _Varied | _Raw | _BadSample:
        try:
            if self._raw:
                return _Raw.pack([pair for key in keys for pair in self._read(key, self._begin(key)[1])])
            return self.vary(keys)
        except (ValueError, OSError) as error:
            return _BadSample(error)

    def vary(self, keys: Sequence[_Key], read: Iterator[Pair] | None = None) -> _Varied:
        """Vary samples with their partners, which are read here unless they were `read` before."""
        images, labels, colours = [], [], []
        for key in keys:
            random, partners = self._begin(key)
            pair, *others = self._read(key, partners) if read is None else islice(read, 1 + len(partners))
            kinds = [partner.kind for partner in partners]
            image, ids = self._augmentation.vary(pair, list(zip(kinds, others, strict=True)), random)
            images.append(image)
            labels.append(ids)
            colours.append(self._augmentation.draw_colour(random))
        return _Varied(torch.stack(images), torch.stack(labels), torch.tensor(colours))

    def _begin(self, key: _Key) -> tuple[Generator, list[Partner]]:
        random = default_rng(SeedSequence([key.seed, key.epoch, key.position, _SAMPLE]))
        return random, self._augmentation.draw_partners(random, key.sample, len(self._dataset))

    def samples(self, key: _Key) -> list[int]:
        """Which of the dataset's samples are read for a key."""
        return _with_partners(key, self._begin(key)[1])

    def _read(self, key: _Key, partners: Sequence[Partner]) -> list[Pair]:
        samples = (self._dataset[number] for number in _with_partners(key, partners))
        return [to_tensors(sample.image, sample.labels) for sample in samples]


def _with_partners(key: _Key, partners: Sequence[Partner]) -> list[int]:
    return [key.sample, *(partner.sample for partner in partners)]


def batch_size(dataset: Dataset, config: TrainConfig, processes: int = 1) -> int:
    """Images of a step over all training processes: as configured, or as many as there are that can be shared evenly.

    Raises:
        ValueError: they cannot be shared evenly between processes and parts.
    """
    shares = processes * config.accumulation
    if config.batch_size == "auto":
        raise ValueError("batch_size is still to be found (see tuning); name a number.")
    if config.batch_size % shares:
        raise ValueError(
            f"batch_size={config.batch_size} images cannot be shared evenly between {processes} training processes "
            f"with accumulation={config.accumulation} parts each: it must be a multiple of {shares}."
        )
    size = min(config.batch_size, len(dataset) // shares * shares)
    if not size:
        raise ValueError(
            f"{dataset.name} {dataset.split} has {len(dataset)} images, too few for {processes} training processes "
            f"with accumulation={config.accumulation} parts each, which need at least {shares}."
        )
    return size


def draw_order(seed: int, epoch: int, samples: int) -> list[int]:
    """The order in which an epoch, counted from 0, goes through the samples."""
    order: list[int] = default_rng(SeedSequence([seed, epoch, 0, _ORDER])).permutation(samples).tolist()
    return order


def share_parts(steps: range, batch_size: int, accumulation: int, rank: int, processes: int) -> Iterator[range]:
    """For each part of the batches of some steps, where in the order the samples stand that are this process's.

    Each part is shared between the processes, so that together they see in it what one alone would: batch norms that
    are synchronised then have the same statistics.
    """
    part = batch_size // accumulation
    size = part // processes
    for start in range(steps.start * batch_size, steps.stop * batch_size, part):
        yield range(start + rank * size, start + (rank + 1) * size)


class Loader:
    """The training batches of one of the processes that train together. Use it in a `with` block.

    Its loading processes start here, as copies of this one: before the training has taken memory, at best.

    Args:
        dataset: What to read.
        config: How to read and vary it.
        device: Where the batches go.
        rank: Which training process this is, from 0.
        processes: How many train together.
        rare: The ids of the rare classes, for `paste_rare` (`mixing.rare_classes`).

    Raises:
        ValueError: batches cannot be shared evenly, or there is no rare class to paste.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
        rare: Sequence[int] = (),
    ) -> None:
        self._dataset, self._config, self._device = dataset, config, device
        self._rank, self._processes = rank, processes
        self.batch_size = batch_size(dataset, config, processes)
        """Images of a step over all training processes."""
        self.steps_per_epoch = len(dataset) // self.batch_size
        """Whole batches in an epoch; what is left over of its order is dropped."""
        self._augmentation = Augmentation(config, dataset.label_set.ignore_index, rare)
        self._reader = _Reader(dataset, self._augmentation, raw=config.augment_on == "device")
        self._loading = WorkerPool(self._reader, config.workers, partial(torch.set_num_threads, 1), self._describe)

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the loading processes."""
        self._loading.close()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The process ids of the loading processes."""
        return self._loading.pids

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Part]]:
        """What this training process computes on in an epoch.

        Args:
            epoch: From 0; order and variation follow from it and the seed.
            first_step: Steps before it are not loaded.

        Yields:
            For each optimiser step its parts, `accumulation` of them, in order. The parts of all ranks together are
            the batch that one process alone would get.

        Raises:
            ValueError: an image or mask cannot be used; the file is named.
            OSError: a file cannot be read; or, as ChildProcessError, a loading process was killed; or, as TimeoutError,
                one hangs.
        """
        keys, tasks = tee(self._tasks(epoch, first_step))
        parts = map(self._finish, keys, self._loading.map(tasks))
        while step := list(islice(parts, self._config.accumulation)):
            yield step

    def _tasks(self, epoch: int, first_step: int) -> Iterator[list[_Key]]:
        seed, order = self._config.seed, draw_order(self._config.seed, epoch, len(self._dataset))
        steps = range(first_step, self.steps_per_epoch)
        for share in share_parts(steps, self.batch_size, self._config.accumulation, self._rank, self._processes):
            yield [_Key(seed, epoch, position, order[position]) for position in share]

    def _finish(self, keys: Sequence[_Key], loaded: _Loaded) -> Part:
        for warning in loaded.warnings:
            warnings.warn(warning, stacklevel=2)
        read = loaded.samples
        if isinstance(read, _BadSample):
            raise read.error
        if isinstance(read, _Raw):
            read = self._reader.vary(keys, read.unpack(self._device))
        with _one_thread() if self._device.type == "cpu" else nullcontext():
            images = self._augmentation.vary_colour(_move(read.images, self._device), read.colours)
            labels = _move(read.labels, self._device).long()
        return Part(images=images, labels=labels, names=tuple(self._name(key.sample) for key in keys))

    def _describe(self, keys: Sequence[_Key]) -> str:
        """All that a loading process reads for the keys of a part."""
        numbers = dict.fromkeys(number for key in keys for number in self._reader.samples(key))
        return ", ".join(map(self._name, numbers))

    def _name(self, index: int) -> str:
        item = self._dataset.items[index]
        return str(self._dataset.image_file(item) or item)


@contextmanager
def _one_thread() -> Iterator[None]:
    """On a CPU the processes that load have the other cores: several threads would wait for each other, not work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _move(values: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    # From pinned memory it travels while the device computes.
    return values.pin_memory().to(device, non_blocking=True)
