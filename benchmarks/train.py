"""Images per second in training: our step beside the same network as it was published; in one run.

    python benchmarks/train.py [--device cpu] [--encoder mobilenetv2_100] [--crop 352 480] [--rounds 10]
                               [--dataset camvid --root FOLDER]

A step goes forwards, backwards and updates the weights, on a batch that lies ready on the device. "Ours" is the step of
`refinenet train` at its default settings: channels last, the device's best precision, max pools in parts. "As
published" is the same network with the same first weights in PyTorch eager, channels first, float32, one 5x5 max pool,
and with the same optimiser and loss. Both run in a process that keeps freed memory (`refinenet.memory`), which is ours
and helps both.

With a dataset ours is also timed with its loader: a ratio to ours of nearly 1 says that loading keeps up.

Each round times every candidate once, in turn, so that a machine whose speed drifts slows all of them alike; the ratios
are medians over rounds.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional

from refinenet.datasets import Dataset, open_dataset
from refinenet.decoder import ChainedResidualPooling
from refinenet.distributed import launch
from refinenet.learner import Learner
from refinenet.loader import Loader, Part
from refinenet.memory import keep_freed_memory
from refinenet.network import MODEL_TYPES, Architecture, Network
from refinenet.optimisation import build_optimiser, choose_precision
from refinenet.terminal import print_table
from refinenet.train_config import TrainConfig

OURS, PUBLISHED, WITH_LOADER = "ours", "as published", "ours, with the loader"
NUM_CLASSES, IGNORE_INDEX = 11, 255


def make_published(network: Network) -> Network:
    """A copy of the network with 5x5 pools, channels first in memory."""
    published = copy.deepcopy(network)
    chains = [module for module in published.modules() if isinstance(module, ChainedResidualPooling)]
    for chain in chains:
        chain.register_module("pool", nn.MaxPool2d(5, stride=1, padding=2))
    return published.to(memory_format=torch.contiguous_format)


def make_batch(size: int, crop: tuple[int, int], device: torch.device) -> Part:
    """A batch of noise, a tenth of its pixels without a class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(NUM_CLASSES, (size, *crop), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = IGNORE_INDEX
    images = torch.rand((size, 3, *crop), generator=generator)
    return Part(images=images.to(device), labels=labels.to(device), names=("noise",) * size)


def make_our_step(network: Network, config: TrainConfig, device: torch.device) -> Callable[[Part], float]:
    """The step of `refinenet train`."""
    engine = launch(device, choose_precision(config.precision, device))
    learner = Learner(network, config, engine, ignore_index=IGNORE_INDEX)
    number = count()
    return lambda part: learner.step([part], 1.0, next(number))


def make_published_step(network: Network, config: TrainConfig) -> Callable[[Part], float]:
    """The step of a plain training loop."""
    optimiser = build_optimiser(network.train(), config)

    def step(part: Part) -> float:
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(part.images), part.labels, ignore_index=IGNORE_INDEX)
        torch.autograd.backward(loss)
        optimiser.step()
        return loss.item()

    return step


def compare_logits(one: Network, other: Network, images: Tensor) -> str:
    """How far two networks' float32 logits lie apart."""
    with torch.no_grad():
        first, second = (network.eval()(images) for network in (one, other))
    return f"{(first - second).abs().max().item():.1e} (the largest logit is {second.abs().max().item():.2g})"


def take_steps(step: Callable[[Part], float], parts: Iterator[Part], steps: int) -> int:
    """Take so many steps; returns the number of images."""
    images = 0
    for _, part in zip(range(steps), parts, strict=False):
        step(part)
        images += len(part.images)
    return images


def load(loader: Loader) -> Iterator[Part]:
    """Batches without end, epoch after epoch."""
    for epoch in count():
        for (part,) in loader.epoch(epoch):
            yield part


def time_rounds(candidates: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Images per second of each candidate in each round, after one round that does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, work in candidates.items():
            started = time.perf_counter()
            images = work()
            if number:
                speeds[name].append(images / (time.perf_counter() - started))
    return speeds


def parse_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model-type", choices=MODEL_TYPES, default="lightweight")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--crop", type=int, nargs=2, default=(352, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1, help="steps of each candidate in a round")
    parser.add_argument("--dataset")
    parser.add_argument("--root")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Time, compare, print."""
    arguments = parse_arguments()
    device, steps = torch.device(arguments.device), arguments.steps
    crop = (arguments.crop[0], arguments.crop[1])
    config = TrainConfig(crop_size=crop, batch_size=arguments.batch, workers=arguments.workers)
    dataset: Dataset | None = open_dataset(arguments.dataset, arguments.root)("train") if arguments.dataset else None
    keep_freed_memory()
    with ExitStack() as stack:
        # Its processes start before the network takes memory, as they do in training.
        loader = stack.enter_context(Loader(dataset, config, device)) if dataset is not None else None
        torch.manual_seed(0)
        num_classes = len(dataset.label_set) if dataset is not None else NUM_CLASSES
        ours = Network(
            Architecture(model_type=arguments.model_type, encoder=arguments.encoder, num_classes=num_classes)
        ).to(device)
        published = make_published(ours)
        batch = make_batch(arguments.batch, crop, device)
        difference = compare_logits(ours.to(memory_format=torch.channels_last), published, batch.images[:1])
        our_step, published_step = make_our_step(ours, config, device), make_published_step(published, config)
        candidates = {
            OURS: lambda: take_steps(our_step, iter([batch] * steps), steps),
            PUBLISHED: lambda: take_steps(published_step, iter([batch] * steps), steps),
        }
        if loader is not None:
            loaded = load(loader)
            candidates[WITH_LOADER] = lambda: take_steps(our_step, loaded, steps)
        speeds = time_rounds(candidates, arguments.rounds)
    print_speeds(speeds, arguments, choose_precision(config.precision, device))
    print(f"Before training, the largest difference between both networks' float32 logits is {difference}.")


def print_speeds(speeds: dict[str, list[float]], arguments: argparse.Namespace, precision: str) -> None:
    """A table of all candidates."""

    def ratio(name: str, other: str) -> str:
        return f"{statistics.median(a / b for a, b in zip(speeds[name], speeds[other], strict=True)):.2f}x"

    rows = [
        [name, f"{statistics.median(values):.2f}", f"{max(values):.2f}", ratio(name, PUBLISHED), ratio(name, OURS)]
        for name, values in speeds.items()
    ]
    height, width = arguments.crop
    where = f"{torch.get_num_threads()} CPU threads" if arguments.device == "cpu" else arguments.device
    title = (
        f"{arguments.model_type} {arguments.encoder}, crop {height}x{width}, batch {arguments.batch}, {where}; ours in "
        f"{precision}"
    )
    columns = ["", "images/s (median)", "images/s (best)", "against as published", "against ours"]
    print_table(title, columns, rows)


if __name__ == "__main__":
    main()
