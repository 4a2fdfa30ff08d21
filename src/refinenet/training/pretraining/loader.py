"""Batches of classified images: read and varied in processes of their own; draws follow from seed, epoch and position.

Shape letters: n images of a part of a batch, s side of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, tee
from types import TracebackType
from typing import NamedTuple

import torch
from numpy.random import SeedSequence, default_rng
from torch import Tensor
from torchvision.transforms import v2

from refinenet.training.augmentation.colour import ColourChange, draw_colour, vary_colour
from refinenet.training.loading.loader import Part, draw_order, share_parts
from refinenet.training.loading.worker_pool import WorkerPool
from refinenet.training.pretraining.config import PretrainConfig
from refinenet.training.pretraining.image_folder import ImageFolder, LabelledImage

CENTRE = 0.875
"""Share of the shorter side of a validation image that its crop shows, as is the custom with ImageNet."""
_SAMPLE = 1
"""What a generator is for."""


class _Task(NamedTuple):
    """Images to be read by a loading process."""

    images: tuple[LabelledImage, ...]
    seeds: tuple[tuple[int, ...], ...]
    """What the draws for each of them follow from; none where nothing is varied."""


class _Crops(NamedTuple):
    """What has become of them."""

    images: Tensor
    """`(n, 3, s, s)` uint8."""
    colours: Tensor
    """`(n, 6)` float32: how the colours are to change (`ColourChange`)."""


class _Reader:
    """Reads images and cuts out what the network will see; loading processes have a copy of it."""

    def __init__(self, config: PretrainConfig) -> None:
        size = config.crop_size
        self._size, self._colour = size, config.colour
        crop = v2.RandomResizedCrop(size, scale=config.crop_area, ratio=config.crop_shape, antialias=True)
        self._vary = v2.Compose([crop, v2.RandomHorizontalFlip(0.5 if config.flip else 0.0)])
        self._centre = v2.Compose([v2.Resize(round(size / CENTRE), antialias=True), v2.CenterCrop(size)])

    def __call__(self, task: _Task) -> _Crops | ValueError | OSError:
        """Read a task's images; what is wrong with one is handed over as it is."""
        crops = torch.empty(len(task.images), 3, self._size, self._size, dtype=torch.uint8)
        colours = [ColourChange()] * len(task.images)
        try:
            for number, image in enumerate(task.images):
                pixels = torch.from_numpy(image.read()).permute(2, 0, 1)
                if task.seeds:
                    crops[number], colours[number] = self._draw(pixels, task.seeds[number])
                else:
                    crops[number] = self._centre(pixels)
        except (ValueError, OSError) as error:
            return error
        return _Crops(crops, torch.tensor(colours).view(-1, len(ColourChange._fields)))

    def _draw(self, pixels: Tensor, seed: Sequence[int]) -> tuple[Tensor, ColourChange]:
        random = default_rng(SeedSequence(seed))
        with torch.random.fork_rng(devices=[]):  # torchvision draws from PyTorch's generator
            torch.default_generator.manual_seed(int(random.integers(2**63)))
            return self._vary(pixels), draw_colour(self._colour, random)


class ImageLoader:
    """The batches of one of the processes that train together. Use it in a `with` block.

    Args:
        folder: The images.
        config: How to read and vary them.
        device: Where the batches go.
        rank: Which training process this is, from 0.
        processes: How many train together.

    Raises:
        ValueError: batches cannot be shared evenly between processes and parts.
    """

    def __init__(
        self, folder: ImageFolder, config: PretrainConfig, device: torch.device, rank: int = 0, processes: int = 1
    ) -> None:
        self._folder, self._config, self._device = folder, config, device
        self._rank, self._processes = rank, processes
        self.batch_size = _batch_size(len(folder.train), config, processes)
        """Images of a step over all training processes."""
        self.steps_per_epoch = len(folder.train) // self.batch_size
        """Whole batches in an epoch; what is left over of its order is dropped."""
        begin = partial(torch.set_num_threads, 1)
        self._loading = WorkerPool(_Reader(config), config.workers, begin, _name_files)

    def __enter__(self) -> ImageLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loading.close()

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Part]]:
        """What this training process learns from in an epoch, varied.

        Args:
            epoch: From 0; order and variation follow from it and the seed.
            first_step: Steps before it are not loaded.

        Yields:
            For each optimiser step its parts, with labels `(n, 1, 1)`. The parts of all processes together are the
            batch that one alone would get.

        Raises:
            ValueError: an image cannot be used; it is named.
            OSError: a file cannot be read; or, as ChildProcessError or TimeoutError, a loading process was
                killed or hangs.
        """
        parts = self._load(self._train_tasks(epoch, first_step))
        while step := list(islice(parts, self._config.accumulation)):
            yield step

    def validation(self) -> Iterator[Part]:
        """This process's share of the validation images, the middle of each; as many parts in each process.

        Raises:
            ValueError, OSError: as `epoch`.
        """
        return self._load(self._val_tasks())

    def _train_tasks(self, epoch: int, first_step: int) -> Iterator[_Task]:
        seed, images = self._config.seed, self._folder.train
        order, steps = draw_order(seed, epoch, len(images)), range(first_step, self.steps_per_epoch)
        for share in share_parts(steps, self.batch_size, self._config.accumulation, self._rank, self._processes):
            yield _Task(
                tuple(images[order[position]] for position in share),
                tuple((seed, epoch, position, _SAMPLE) for position in share),
            )

    def _val_tasks(self) -> Iterator[_Task]:
        own = self._folder.val[self._rank :: self._processes]
        size = max(1, self.batch_size // self._processes // self._config.accumulation)
        for part in range(math.ceil(len(self._folder.val) / self._processes / size)):
            yield _Task(own[part * size : (part + 1) * size], ())

    def _load(self, tasks: Iterator[_Task]) -> Iterator[Part]:
        tasks, handed_out = tee(tasks)
        for task, read in zip(tasks, self._loading.map(handed_out), strict=True):
            if not isinstance(read, _Crops):
                raise read
            pixels = read.images.to(self._device, non_blocking=True)
            images = vary_colour(pixels, read.colours) if task.seeds else pixels.float() / 255
            labels = torch.tensor([image.label for image in task.images], device=self._device)
            names = tuple(str(image.file) for image in task.images)
            yield Part(images=images, labels=labels.view(-1, 1, 1), names=names)


def _name_files(task: _Task) -> str:
    return ", ".join(str(image.file) for image in task.images)


def _batch_size(images: int, config: PretrainConfig, processes: int) -> int:
    shares = processes * config.accumulation
    if config.batch_size % shares or images < shares:
        raise ValueError(
            f"batch_size={config.batch_size} of {images} training images cannot be shared evenly between {processes} "
            f"processes with accumulation={config.accumulation} parts each: it must be a multiple of {shares}, and "
            "there must be as many images."
        )
    return min(config.batch_size, images // shares * shares)
