"""Loading throughput: our loader, torchvision's reference transforms, and the rate at which the network trains.

    python benchmarks/data.py [--dataset camvid --root FOLDER] [--images 1000] [--rounds 5] [--workers 2]

By default the images are drawn streets of 480x360 pixels, saved as PNG files and read repeatedly. Each round times
every candidate once, in turn, so that drifting machine speed affects all of them equally; the ratios are medians over
rounds.

"Bare decoding" only opens image and mask with Pillow and converts them to arrays, in as many processes. The
network is the light-weight MobileNetV2 at the default training settings (crop 320x320, batch 8): demand is the rate
of training steps (forward, backward, update) when batches are available at no cost.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.datasets.street_scenes import draw_street
from refinenet.io.console import print_table
from refinenet.io.images.codec import write
from refinenet.io.processes.parallel import map_parallel
from refinenet.training.config import TrainConfig
from refinenet.training.loading.loader import Loader
from refinenet.training.loading.sample_cache import cache_samples
from refinenet.training.losses.objective import cross_entropy
from refinenet.training.optimisation import build_optimiser

CPU = torch.device("cpu")
OURS, BARE, DEMAND = "our loader", "bare decoding", "training demand"


class ReferenceDataset(TorchDataset[tuple[Tensor, Tensor]]):
    """The same files through torchvision's reference transforms for segmentation, on tensors."""

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        self.dataset = dataset
        low, high = config.scale
        jitter = config.colour_jitter
        shorter = min(dataset[0].labels.shape)
        self.transform = v2.Compose(
            [
                v2.RandomResize(round(low * shorter), round(high * shorter), antialias=True),
                v2.RandomCrop(config.crop_size, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255}),
                v2.RandomHorizontalFlip(0.5),
                v2.ColorJitter(jitter, jitter, jitter),
                v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        item = self.dataset.items[index]
        image = v2.functional.pil_to_tensor(Image.open(str(self.dataset.image_file(item))).convert("RGB"))
        mask = v2.functional.pil_to_tensor(Image.open(self.dataset.locate(item)))[0]
        varied: tuple[Tensor, Tensor] = self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return varied


def decode_files(paths: tuple[str, str]) -> int:
    """Decode with Pillow and NumPy alone; return the number of pixels, which is small to send back."""
    pixels = np.asarray(Image.open(paths[0]).convert("RGB"))
    ids = np.asarray(Image.open(paths[1]))
    return int(pixels.shape[0] * ids.shape[1])


def decode_all(files: list[tuple[str, str]], workers: int) -> int:
    """Decode all files in processes."""
    return sum(1 for _ in map_parallel(decode_files, files, workers=workers))


def count(batches: Iterator[tuple[Tensor, Tensor]]) -> int:
    """Iterate over batches and count their images."""
    return sum(len(images) for images, _ in batches)


def make_step(network: RefineNet, config: TrainConfig) -> Callable[[Tensor, Tensor], None]:
    """One step of training."""
    model = network.network.train().to(memory_format=torch.channels_last)
    optimiser = build_optimiser(model, config)

    def step(images: Tensor, labels: Tensor) -> None:
        loss = cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), labels, None, 255)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()

    return step


def train(step: Callable[[Tensor, Tensor], None], batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> int:
    """Train on a number of batches and return the number of images."""
    images = 0
    for batch in itertools.islice(batches, steps):
        step(*batch)
        images += len(batch[0])
    return images


def take(loader: Loader, epochs: Iterator[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of the loader's next epoch."""
    for (part,) in loader.epoch(next(epochs)):
        yield part.images, part.labels


def make_candidates(
    dataset: Dataset, config: TrainConfig, ours: Loader, cached: Loader, steps: int
) -> dict[str, Callable[[], int]]:
    """Functions to be timed; each processes some images and returns their number."""
    epochs = itertools.count()
    files = [(str(dataset.image_file(item)), dataset.locate(item)) for item in dataset.items]
    reference: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        ReferenceDataset(dataset, config), batch_size=ours.batch_size, shuffle=True, drop_last=True,
        num_workers=config.workers,
    )  # fmt: skip
    network = RefineNet(encoder="mobilenetv2_100", num_classes=len(dataset.label_set), device="cpu")
    step = make_step(network, config)
    ready = next(take(ours, epochs))
    return {
        BARE: partial(decode_all, files, config.workers),
        OURS: lambda: count(take(ours, epochs)),
        "our loader, images cached in memory": lambda: count(take(cached, epochs)),
        "torchvision's reference transforms": lambda: count(iter(reference)),
        DEMAND: lambda: train(step, iter([ready] * steps), steps),
        "training, loader and network": lambda: train(step, take(ours, epochs), 4 * steps),
    }


def save_streets(folder: Path, images: int) -> Dataset:
    """Save drawn streets of 480x360 pixels as PNG files and open them as a folder dataset."""
    label_set = open_dataset("streets")("train").label_set
    for number in range(images):
        picture, labels = draw_street(number, 360, 480)
        write(folder / "train" / "images" / f"{number}.png", picture)
        write(folder / "train" / "masks" / f"{number}.png", labels, palette=label_set.colours)
    names = ", ".join(label_set.names)
    (folder / "classes.yaml").write_text(f"names: [{names}]\n", encoding="utf-8")
    return open_dataset(folder)("train")


def time_rounds(candidates: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Images per second of each candidate in each round, after a warm-up round."""
    speeds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, work in candidates.items():
            started = time.perf_counter()
            images = work()
            if number:
                speeds[name].append(images / (time.perf_counter() - started))
    return speeds


def main() -> None:
    """Time, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset")
    parser.add_argument("--root")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    config = TrainConfig(workers=arguments.workers)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if arguments.dataset is None:
            dataset = save_streets(folder, 100)
        else:
            dataset = open_dataset(arguments.dataset, arguments.root)("train")
        dataset = replace(dataset, items=list(islice(cycle(dataset.items), arguments.images)))
        cached = stack.enter_context(cache_samples(dataset, "memory", folder / "benchmark"))
        # Loading processes start before the network allocates memory, as in training.
        ours, from_memory = (stack.enter_context(Loader(each, config, CPU)) for each in (dataset, cached))
        candidates = make_candidates(dataset, config, ours, from_memory, arguments.steps)
        speeds = time_rounds(candidates, arguments.rounds)

    def ratio(name: str, other: str) -> str:
        return f"{statistics.median(a / b for a, b in zip(speeds[name], speeds[other], strict=True)):.2f}x"

    rows = [[name, f"{statistics.median(speeds[name]):.1f}", ratio(name, DEMAND), ratio(name, BARE)] for name in speeds]
    title = (
        f"{dataset.name}, {len(dataset)} images, {config.workers} loading processes, {torch.get_num_threads()} threads"
    )
    print_table(title, ["", "images/s (median)", "multiple of demand", "against bare decoding"], rows)


if __name__ == "__main__":
    main()
