"""Batches of classified images, loaded and augmented in worker processes, with draws as in `loading.loader`.

Shape letters: n images of a part of a batch, s side of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor
from torchvision.transforms import v2

from refinenet.training.augmentation.colour import ColourChange, draw_colour, vary_colour
from refinenet.training.loading.loader import BatchLoader, Part, SampleKey, Share
from refinenet.training.pretraining.config import PretrainConfig
from refinenet.training.pretraining.image_folder import ImageFolder, LabelledImage

CENTRE = 0.875
"""Share of the shorter side of a validation image in its crop, as usual for ImageNet."""


class _Task(NamedTuple):
    """Images to be loaded together."""

    images: tuple[LabelledImage, ...]
    keys: tuple[SampleKey, ...] = ()
    """Seeds of the draws for each image; empty if the images are not augmented."""


class _Crops(NamedTuple):
    """Crops of a task's images."""

    images: Tensor
    """`(n, 3, s, s)` uint8."""
    colours: Tensor
    """`(n, 6)` float32: drawn changes of the colours (`ColourChange`)."""


class _Reader:
    """Reads images and crops them; every loading process has a copy."""

    def __init__(self, config: PretrainConfig) -> None:
        size = config.crop_size
        self._size, self._colour = size, config.colour
        crop = v2.RandomResizedCrop(size, scale=config.crop_area, ratio=config.crop_shape, antialias=True)
        self._vary = v2.Compose([crop, v2.RandomHorizontalFlip(0.5 if config.flip else 0.0)])
        self._centre = v2.Compose([v2.Resize(round(size / CENTRE), antialias=True), v2.CenterCrop(size)])

    def __call__(self, task: _Task) -> _Crops:
        """Read and crop the images of a task."""
        crops = torch.empty(len(task.images), 3, self._size, self._size, dtype=torch.uint8)
        colours = [ColourChange()] * len(task.images)
        for number, image in enumerate(task.images):
            pixels = torch.from_numpy(image.read()).permute(2, 0, 1)
            if task.keys:
                crops[number], colours[number] = self._draw(pixels, task.keys[number].generator())
            else:
                crops[number] = self._centre(pixels)
        return _Crops(crops, torch.tensor(colours).view(-1, len(ColourChange._fields)))

    def _draw(self, pixels: Tensor, random: Generator) -> tuple[Tensor, ColourChange]:
        with torch.random.fork_rng(devices=[]):  # torchvision draws from PyTorch's generator
            torch.default_generator.manual_seed(int(random.integers(2**63)))
            return self._vary(pixels), draw_colour(self._colour, random)


class ImageLoader(BatchLoader[_Task, _Crops]):
    """Training and validation batches of classified images; see `BatchLoader`. Labels are `(n, 1, 1)`.

    Args:
        folder: Images to load.
        config: Settings of loading and augmentation.
        device: Device of the batches.
        rank: Number of this training process, from 0.
        processes: Number of processes that train together.

    Raises:
        ValueError: Batches cannot be shared evenly between processes and parts.
    """

    def __init__(
        self, folder: ImageFolder, config: PretrainConfig, device: torch.device, rank: int = 0, processes: int = 1
    ) -> None:
        self._folder, self._device = folder, device
        images = len(folder.train)
        size = _batch_size(images, config, processes)
        super().__init__(_Reader(config), _name_files, config, images, size, Share(rank, processes))

    def validation(self) -> Iterator[Part]:
        """Yield the central crops of this process's share of the validation images; as many parts in each process.

        Raises:
            ValueError, OSError: As `epoch`.
        """
        return self._load(self._val_tasks())

    def _val_tasks(self) -> Iterator[_Task]:
        rank, processes = self._share
        images = self._folder.val[rank::processes]
        size = max(1, self.batch_size // processes // self._accumulation)
        for part in range(math.ceil(len(self._folder.val) / processes / size)):
            yield _Task(images[part * size : (part + 1) * size])

    def _task(self, keys: list[SampleKey]) -> _Task:
        return _Task(tuple(self._folder.train[key.sample] for key in keys), tuple(keys))

    def _finish(self, task: _Task, read: _Crops) -> Part:
        pixels = read.images.to(self._device, non_blocking=True)
        images = vary_colour(pixels, read.colours) if task.keys else pixels.float() / 255
        labels = torch.tensor([image.label for image in task.images], device=self._device)
        names = tuple(str(image.file) for image in task.images)
        return Part(images=images, labels=labels.view(-1, 1, 1), names=names)


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
