"""Training batches, loaded and augmented in worker processes.

Every draw depends only on seed, epoch and position in the epoch. A sample's pixels therefore depend neither on the
number of processes that load or train, nor on the step at which a run was resumed.

Shape letters: n images of a part of a batch, H and W height and width of an image, h and w of the crop, D channels of
all targets together.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice, tee
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import torch
from numpy.random import Generator, SeedSequence, default_rng
from torch import Tensor

from refinenet.datasets.catalog import Dataset
from refinenet.io.images.sample_values import ImageWarning
from refinenet.training.augmentation.geometry import MEAN_COLOUR, Pair
from refinenet.training.augmentation.mixing import Partner
from refinenet.training.augmentation.pipeline import Augmentation, to_tensors
from refinenet.training.config import TrainConfig
from refinenet.training.loading.worker_pool import WorkerPool

Task = TypeVar("Task")
Read = TypeVar("Read")

_ORDER, _SAMPLE = 0, 1
"""Last number of a seed, by its purpose: the order of an epoch and its first sample must not share a generator."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images that a process computes on at once: a batch, or a part of one."""

    images: Tensor
    """`(n, 3, h, w)` float32 in [0, 1], or as many bands as the network takes."""
    labels: Tensor
    """`(n, h, w)` int64."""
    names: tuple[str, ...]
    """Files of the images, or their names in the dataset."""
    targets: Tensor | None = None
    """`(n, D, h, w)` float32: targets of all further outputs, NaN where there is no ground truth; None without any."""


class SampleKey(NamedTuple):
    """A sample, and the seed of its draws."""

    seed: int
    epoch: int
    position: int
    """Position of the sample in the epoch's order."""
    sample: int
    """Index of the sample in the dataset."""

    def generator(self) -> Generator:
        """Return the generator of all draws for the sample."""
        # SeedSequence hashes all four numbers, so that neighbouring positions and seeds give unrelated draws.
        return default_rng(SeedSequence([self.seed, self.epoch, self.position, _SAMPLE]))


class Share(NamedTuple):
    """Share of a training process in each batch."""

    rank: int = 0
    """Number of the process, from 0."""
    processes: int = 1
    """Number of processes that train together."""


class LoadingConfig(Protocol):
    """Settings of loading, part of those of a training."""

    @property
    def seed(self) -> int:
        """Seed of the order and the draws."""

    @property
    def accumulation(self) -> int:
        """Parts of a batch."""

    @property
    def workers(self) -> int:
        """Loading processes."""


class _Loaded(NamedTuple, Generic[Read]):
    """Result of a task in a loading process."""

    result: Read | ValueError | OSError
    warnings: tuple[Warning, ...]


class _Recorder(Generic[Task, Read]):
    """A reader whose errors and warnings are returned with its result.

    A raised error would end a loading process. A warning would be shown by each of them again; the training process,
    which sees those of all, shows it once. Where it loads itself, its warnings need no detour.
    """

    def __init__(self, read: Callable[[Task], Read], *, is_worker: bool) -> None:
        self._read, self._is_worker = read, is_worker

    def __call__(self, task: Task) -> _Loaded[Read]:
        if not self._is_worker:
            return _Loaded(self._attempt(task), ())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ImageWarning)
            result = self._attempt(task)
        return _Loaded(result, tuple(each.message for each in caught if isinstance(each.message, Warning)))

    def _attempt(self, task: Task) -> Read | ValueError | OSError:
        try:
            return self._read(task)
        except (ValueError, OSError) as error:
            return error


class BatchLoader(ABC, Generic[Task, Read]):
    """Batches of one of the processes that train together, whatever their samples are. Use it in a `with` block.

    The loading processes are forked in the constructor: call it before this process takes much memory.

    Args:
        read: Reads the samples of a task, in a loading process.
        describe: From a task to the names of its files.
        config: Settings of loading.
        samples: Number of training samples.
        batch_size: Images per step over all training processes.
        share: This process's share.
    """

    def __init__(
        self,
        read: Callable[[Task], Read],
        describe: Callable[[Task], str],
        config: LoadingConfig,
        samples: int,
        batch_size: int,
        share: Share,
    ) -> None:
        self._seed, self._accumulation, self._samples = config.seed, config.accumulation, samples
        self._share = share
        self.batch_size = batch_size
        """Images per step over all training processes."""
        self.steps_per_epoch = samples // batch_size
        """Whole batches in an epoch; the rest of its order is dropped."""
        recorder = _Recorder(read, is_worker=config.workers > 0)
        self._pool = WorkerPool(recorder, config.workers, partial(torch.set_num_threads, 1), describe)

    @abstractmethod
    def _task(self, keys: list[SampleKey]) -> Task:
        """Return the task of loading these training samples."""

    @abstractmethod
    def _finish(self, task: Task, read: Read) -> Part:
        """Put together a part on the device."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the loading processes."""
        self._pool.close()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the loading processes."""
        return self._pool.pids

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Part]]:
        """Yield this process's share of the batches of an epoch.

        Args:
            epoch: Number of the epoch, from 0; order and augmentation follow from it and the seed.
            first_step: First step to load.

        Yields:
            For each optimiser step its parts, `accumulation` of them, in order. The parts of all ranks together are
            the batch that one process alone would get.

        Raises:
            ValueError: An image or mask cannot be used; the file is named.
            OSError: A file cannot be read; or, as ChildProcessError, a loading process was killed; or, as TimeoutError,
                one hangs.
        """
        parts = self._load(self._tasks(epoch, first_step))
        while step := list(islice(parts, self._accumulation)):
            yield step

    def _tasks(self, epoch: int, first_step: int) -> Iterator[Task]:
        order = draw_order(self._seed, epoch, self._samples)
        steps = range(first_step, self.steps_per_epoch)
        for positions in share_parts(steps, self.batch_size, self._accumulation, self._share):
            yield self._task([SampleKey(self._seed, epoch, position, order[position]) for position in positions])

    def _load(self, tasks: Iterator[Task]) -> Iterator[Part]:
        tasks, submitted = tee(tasks)
        for task, loaded in zip(tasks, self._pool.map(submitted), strict=True):
            for warning in loaded.warnings:
                warnings.warn(warning, stacklevel=2)
            if isinstance(loaded.result, ValueError | OSError):
                raise loaded.result
            yield self._finish(task, loaded.result)


def draw_order(seed: int, epoch: int, samples: int) -> list[int]:
    """Return the order of the samples in an epoch, counted from 0."""
    order: list[int] = default_rng(SeedSequence([seed, epoch, 0, _ORDER])).permutation(samples).tolist()
    return order


def share_parts(steps: range, batch_size: int, accumulation: int, share: Share) -> Iterator[range]:
    """Yield, for each part of the batches of some steps, the positions in the epoch's order of this process's samples.

    The processes share each part, not each batch: together they then have the same images in a part as one process
    alone, and synchronised batch norms the same statistics.
    """
    part = batch_size // accumulation
    size = part // share.processes
    for start in range(steps.start * batch_size, steps.stop * batch_size, part):
        yield range(start + share.rank * size, start + (share.rank + 1) * size)


class _Varied(NamedTuple):
    """Augmented samples of a part, except for their colours."""

    images: Tensor
    """`(n, 3, h, w)` uint8, or bands `(n, B, h, w)` float32."""
    labels: Tensor
    """`(n, h, w)` uint8 or int32."""
    colours: Tensor
    """`(n, 6)` float32: drawn changes of the colours (`colour.ColourChange`)."""
    targets: Tensor | None
    """`(n, D, h, w)` float32."""


class _Raw(NamedTuple):
    """Samples as they were read, each followed by its partners; in few tensors, since each takes a file descriptor."""

    pixels: Tensor
    ids: Tensor
    sizes: tuple[tuple[int, int], ...]
    """Heights and widths."""
    targets: Tensor | None

    @classmethod
    def pack(cls, pairs: Sequence[Pair]) -> _Raw:
        return cls(
            torch.cat([pair.image.permute(1, 2, 0).flatten() for pair in pairs]),
            torch.cat([pair.labels.flatten() for pair in pairs]),
            tuple((pair.labels.shape[0], pair.labels.shape[1]) for pair in pairs),
            _join([None if pair.targets is None else pair.targets.flatten() for pair in pairs], torch.cat),
        )

    def unpack(self, device: torch.device) -> Iterator[Pair]:
        lengths = [height * width for height, width in self.sizes]
        bands = len(self.pixels) // sum(lengths)
        pixels = torch.split(_move(self.pixels, device), [bands * length for length in lengths])
        ids = torch.split(_move(self.ids, device), lengths)
        targets: Sequence[Tensor | None] = [None] * len(lengths)
        if self.targets is not None:
            depth = len(self.targets) // sum(lengths)
            targets = torch.split(_move(self.targets, device), [depth * length for length in lengths])
        for flat, labels, size, values in zip(pixels, ids, self.sizes, targets, strict=True):
            shaped = None if values is None else values.view(-1, *size)
            yield Pair(flat.view(*size, bands).permute(2, 0, 1), labels.view(size), shaped)


def _join(tensors: Sequence[Tensor | None], how: Callable[[list[Tensor]], Tensor]) -> Tensor | None:
    """Join the targets of samples, all of which have some or none has."""
    given = [tensor for tensor in tensors if tensor is not None]
    return how(given) if given else None


class _Reader:
    """Reads and augments samples, each with its own generator; every loading process has a copy."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, *, raw: bool) -> None:
        self._dataset, self._augmentation, self._raw = dataset, augmentation, raw

    def __call__(self, keys: Sequence[SampleKey]) -> _Varied | _Raw:
        """Read the samples of a part, and augment them unless the device does."""
        if self._raw:
            return _Raw.pack([pair for key in keys for pair in self._read(key, self._begin(key)[1])])
        return self.vary(keys)

    def vary(self, keys: Sequence[SampleKey], read: Iterator[Pair] | None = None) -> _Varied:
        """Augment samples with their partners, which are read here unless they were `read` before."""
        pairs, colours = [], []
        for key in keys:
            random, partners = self._begin(key)
            pair, *others = self._read(key, partners) if read is None else islice(read, 1 + len(partners))
            kinds = [partner.kind for partner in partners]
            pairs.append(self._augmentation.vary(pair, list(zip(kinds, others, strict=True)), random))
            colours.append(self._augmentation.draw_colour(random))
        return _Varied(
            torch.stack([pair.image for pair in pairs]),
            torch.stack([pair.labels for pair in pairs]),
            torch.tensor(colours),
            _join([pair.targets for pair in pairs], torch.stack),
        )

    def _begin(self, key: SampleKey) -> tuple[Generator, list[Partner]]:
        random = key.generator()
        return random, self._augmentation.draw_partners(random, key.sample, len(self._dataset))

    def samples(self, key: SampleKey) -> list[int]:
        """Return the indices of the samples that are read for a key."""
        return _with_partners(key, self._begin(key)[1])

    def _read(self, key: SampleKey, partners: Sequence[Partner]) -> list[Pair]:
        samples = (self._dataset[number] for number in _with_partners(key, partners))
        return [to_tensors(sample.image, sample.labels, [*sample.targets.values()]) for sample in samples]


def _with_partners(key: SampleKey, partners: Sequence[Partner]) -> list[int]:
    return [key.sample, *(partner.sample for partner in partners)]


def batch_size(dataset: Dataset, config: TrainConfig, processes: int = 1) -> int:
    """Return the images per step over all training processes: as configured, or fewer if the dataset is smaller.

    Raises:
        ValueError: They cannot be shared evenly between processes and parts.
    """
    shares = processes * config.accumulation
    if config.batch_size == "auto":
        raise ValueError('batch_size="auto" must be replaced by a number before images are loaded.')
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


class Loader(BatchLoader[list[SampleKey], _Varied | _Raw]):
    """Training batches of a segmentation dataset; see `BatchLoader`.

    Args:
        dataset: Dataset to load.
        config: Settings of loading and augmentation.
        device: Device of the batches.
        rank: Number of this training process, from 0.
        processes: Number of processes that train together.
        rare: Ids of the rare classes, for `paste_rare` (`mixing.rare_classes`).
        means: Means of the bands, for hidden and missing parts; only of a dataset with bands.

    Raises:
        ValueError: Batches cannot be shared evenly, or there is no rare class to paste.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
        rare: Sequence[int] = (),
        means: Sequence[float] = (),
    ) -> None:
        self._dataset, self._device = dataset, device
        fill = means if dataset.bands else MEAN_COLOUR
        self._augmentation = Augmentation(
            config, dataset.label_set.ignore_index, rare, dataset.chosen_specs, dataset.bands, fill
        )
        self._reader = _Reader(dataset, self._augmentation, raw=config.augment_on == "device")
        size = batch_size(dataset, config, processes)
        super().__init__(self._reader, self._describe, config, len(dataset), size, Share(rank, processes))

    def _task(self, keys: list[SampleKey]) -> list[SampleKey]:
        return keys

    def _finish(self, task: list[SampleKey], read: _Varied | _Raw) -> Part:
        if isinstance(read, _Raw):
            read = self._reader.vary(task, read.unpack(self._device))
        with _one_thread() if self._device.type == "cpu" else nullcontext():
            images = self._augmentation.vary_colour(_move(read.images, self._device), read.colours)
            labels = _move(read.labels, self._device).long()
        targets = None if read.targets is None else _move(read.targets, self._device)
        names = tuple(self._name(key.sample) for key in task)
        return Part(images=images, labels=labels, names=names, targets=targets)

    def _describe(self, keys: Sequence[SampleKey]) -> str:
        """Name all files that a loading process reads for a part."""
        numbers = dict.fromkeys(number for key in keys for number in self._reader.samples(key))
        return ", ".join(map(self._name, numbers))

    def _name(self, index: int) -> str:
        item = self._dataset.items[index]
        return str(self._dataset.image_file(item) or item)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: the loading processes use the other cores, and more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _move(values: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    # From pinned memory the copy overlaps with computation.
    return values.pin_memory().to(device, non_blocking=True)
