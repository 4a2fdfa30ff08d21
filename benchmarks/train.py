"""Training speed: images per second of our step and of the network as published, in one run.

    python benchmarks/train.py [--device cpu] [--encoder mobilenetv2_100] [--crop 352 480] [--rounds 10]
                               [--keeping] [--dataset camvid --root FOLDER]

A step is a forward pass, a backward pass and an update of the weights, on a batch that is already on the device.
"Ours" is the step of `refinenet train` at its default settings: channels last, the device's best precision, max pools
in parts. "As published" is the same network with the same initial weights in PyTorch eager, channels first, float32,
one 5x5 max pool, and with the same optimiser and loss. On a CPU, part of the difference is that `refinenet` keeps
freed memory (`inference.backends.pytorch`), which PyTorch alone does not do; --keeping also times the published
network in a process that does.

With a dataset, our step is also timed with its loader: a ratio near 1 means that loading keeps up.

Each candidate runs in a separate process. Each round times all of them once, in turn, so that drifting machine speed
affects all of them equally; the ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice, repeat
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn
from torch.nn import functional

from refinenet.datasets.catalog import open_dataset
from refinenet.distributed import launch
from refinenet.inference.backends.pytorch import keep_freed_memory
from refinenet.io.console import print_table
from refinenet.models.architecture import MODEL_TYPES, Architecture
from refinenet.models.decoder import ChainedResidualPooling
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.engine.learner import Learner
from refinenet.training.loading.loader import Loader, Part
from refinenet.training.losses import Objective
from refinenet.training.optimisation import build_optimiser, choose_precision

OURS, PUBLISHED = "ours", "as published"
KEEPING, WITH_LOADER = "as published, keeping freed memory", "ours, with the loader"
NUM_CLASSES, IGNORE_INDEX = 11, 255


def make_published(network: Network) -> Network:
    """Copy the network with 5x5 pools, channels first in memory."""
    published = copy.deepcopy(network)
    chains = [module for module in published.modules() if isinstance(module, ChainedResidualPooling)]
    for chain in chains:
        chain.register_module("pool", nn.MaxPool2d(5, stride=1, padding=2))
    return published.to(memory_format=torch.contiguous_format)


def make_batch(size: int, crop: tuple[int, int], device: torch.device) -> Part:
    """Draw a batch of noise; a tenth of its pixels have no class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(NUM_CLASSES, (size, *crop), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = IGNORE_INDEX
    images = torch.rand((size, 3, *crop), generator=generator)
    return Part(images=images.to(device), labels=labels.to(device), names=("noise",) * size)


def make_our_step(network: Network, config: TrainConfig, device: torch.device) -> Callable[[Part], float]:
    """The step of `refinenet train`."""
    engine = launch(device, choose_precision(config.precision, device))
    learner = Learner(network, config, engine, Objective(config=config, ignore_index=IGNORE_INDEX))
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
    """Largest difference between the float32 logits of two networks."""
    with torch.no_grad():
        first, second = (network.eval()(images) for network in (one, other))
    return f"{(first - second).abs().max().item():.1e} (the largest logit is {second.abs().max().item():.2g})"


def make_network(arguments: argparse.Namespace) -> Network:
    """Create our network with fixed weights."""
    torch.manual_seed(0)
    architecture = Architecture(model_type=arguments.model_type, encoder=arguments.encoder, num_classes=NUM_CLASSES)
    return Network(architecture).to(arguments.device).to(memory_format=torch.channels_last)


def load(arguments: argparse.Namespace, config: TrainConfig) -> Iterator[Part]:
    """Yield batches of a dataset endlessly; classes that the network does not have are void."""
    dataset = open_dataset(arguments.dataset, arguments.root)("train")
    with Loader(dataset, config, torch.device(arguments.device)) as loader:
        for epoch in count():
            for (part,) in loader.epoch(epoch):
                yield replace(part, labels=part.labels.where(part.labels < NUM_CLASSES, IGNORE_INDEX))


def make_candidate(name: str, arguments: argparse.Namespace) -> Callable[[], int]:
    """The function to be timed; it takes some steps and returns the number of images."""
    device, crop = torch.device(arguments.device), (arguments.crop[0], arguments.crop[1])
    config = TrainConfig(crop_size=crop, batch_size=arguments.batch, workers=arguments.workers)
    if name != PUBLISHED:
        keep_freed_memory()
    parts: Iterator[Part] = repeat(make_batch(arguments.batch, crop, device))
    if name == WITH_LOADER:
        parts = load(arguments, config)
        next(parts)  # Loading processes start before the network allocates memory, as in training.
    network, is_ours = make_network(arguments), name in (OURS, WITH_LOADER)
    step = make_our_step(network, config, device) if is_ours else make_published_step(make_published(network), config)

    def take_steps() -> int:
        images = 0
        for part in islice(parts, arguments.steps):
            step(part)
            images += len(part.images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return images

    return take_steps


def time_when_asked(name: str, arguments: argparse.Namespace, connection: Connection) -> None:
    """Run one candidate: while True is received, take steps and send back images per second."""
    take_steps = make_candidate(name, arguments)
    while connection.recv():
        started = time.perf_counter()
        images = take_steps()
        connection.send(images / (time.perf_counter() - started))


def time_rounds(names: list[str], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second of each candidate in each round, after a warm-up round."""
    processes = multiprocessing.get_context("spawn")
    connections: dict[str, Connection] = {}
    for name in names:
        connections[name], other = processes.Pipe()
        processes.Process(target=time_when_asked, args=(name, arguments, other)).start()
        other.close()
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(arguments.rounds + 1):
        for name, connection in connections.items():
            connection.send(True)
            speed = connection.recv()
            if number:
                speeds[name].append(speed)
    for connection in connections.values():
        connection.send(False)
    return speeds


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model-type", choices=MODEL_TYPES, default="lightweight")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--crop", type=int, nargs=2, default=(352, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1, help="steps of each candidate in a round")
    parser.add_argument("--keeping", action="store_true")
    parser.add_argument("--dataset")
    parser.add_argument("--root")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Time, compare, print."""
    arguments = parse_arguments()
    device = torch.device(arguments.device)
    optional = {KEEPING: arguments.keeping, WITH_LOADER: arguments.dataset is not None}
    names = [OURS, PUBLISHED, *(name for name, wanted in optional.items() if wanted)]
    network = make_network(arguments)
    images = make_batch(1, (arguments.crop[0], arguments.crop[1]), device).images
    difference = compare_logits(network, make_published(network), images)
    speeds = time_rounds(names, arguments)
    print_speeds(speeds, arguments, choose_precision("auto", device))
    print(f"Before training, the largest difference between both networks' float32 logits is {difference}.")


def print_speeds(speeds: dict[str, list[float]], arguments: argparse.Namespace, precision: str) -> None:
    """Print a table of all candidates."""

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
