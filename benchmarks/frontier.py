"""Accuracy against time: our networks in all sizes and the peers of `peers.py`, trained and measured alike.

    REFINENET_CAMVID=... python benchmarks/frontier.py [train] [measure] [draw] --output FOLDER
                         [--networks medium FPN ...] [--epochs 30] [--seeds 2] [--size 256 192] [--crop 160 160]

`train` trains each network once for each seed, first all with one seed, then all with the next. All have the same
training images, recipe (optimiser, schedule, augmentation, loss and weight averaging of a recipe of the package),
number of epochs and, but for the sizes that have another encoder, the same ImageNet weights; only the network differs.
Each run is a folder below FOLDER/runs; finished ones are skipped, and a killed one resumes from its last checkpoint.
Images and masks are resized to --size, by default about half of CamVid's 480x360 pixels in multiples of 32, which some
peers need. The score is the mIoU of the last epoch on the validation split, so no epoch is chosen by it.

`measure` translates all networks for OpenVINO and times them at 512x512, batch 1, from a prepared image to its label
map, in float32, bfloat16 and int8; see `frontier_speed.py`. `draw` prints the table of all results, writes it to
FOLDER/frontier.json, and draws accuracy against time to FOLDER/frontier.svg and .png. Without any of these words, all
three are done.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frontier_results import COLUMNS, Entry, Results
from frontier_speed import HINTS, measure_speeds, read_speeds, write_speeds
from peers import CONTENDERS, PUBLISHED, Contender, Start
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.distributed import describe_run, launch
from refinenet.evaluation.metrics import ConfusionMatrix
from refinenet.inference.backends.pytorch import keep_freed_memory
from refinenet.inference.tensors import largest_class, prepare
from refinenet.io.console import print_table
from refinenet.io.images.sample_values import Pixels
from refinenet.labels import LabelMap
from refinenet.models.model_spec import SIZES
from refinenet.training.config import TrainConfig
from refinenet.training.engine.learner import Learner
from refinenet.training.engine.state import restore_state, start_state
from refinenet.training.engine.trainer import Measurement, Trainer, hold
from refinenet.training.loading.loader import Loader
from refinenet.training.loading.sample_cache import cache_samples
from refinenet.training.losses import Objective
from refinenet.training.optimisation import choose_precision
from refinenet.training.records.folder import RunFolder
from refinenet.training.records.recipes import read_recipe

CPU = torch.device("cpu")
STEPS = ("train", "measure", "draw")
PRECISIONS = tuple(HINTS)
RESULT, SPEEDS = "result.json", "speeds.json"
"""Files with the score of a finished run, and with the times of all networks."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all runs have in common."""

    dataset: str
    root: Path | None
    size: tuple[int, int]
    """Width and height of all images."""
    settings: Mapping[str, Any]
    """Fields of `TrainConfig` except for the seed."""
    encoder_weights: str | None
    """See `Start.weights`."""
    published_weights: Path | None
    output: Path

    def run(self, network: str, seed: int) -> Path:
        """Return the folder of a run."""
        name = network.lower().replace("+", "plus").replace(" ", "-")
        return self.output / "runs" / f"{name}-{seed}"

    def conditions(self, network: str) -> dict[str, str]:
        """Return what the score of a network depends on, besides the seed and the code."""
        parts = next((repr(parts) for size, parts in SIZES.items() if size == network), _describe(CONTENDERS[network]))
        images = f"{self.dataset} at {self.size[0]}x{self.size[1]}"
        return {"network": parts, "images": images, **{name: repr(value) for name, value in self.settings.items()}}

    def read_result(self, network: str, seed: int) -> dict[str, Any] | None:
        """Return the result of a run, or None if it is not finished.

        Raises:
            SystemExit: It was trained under other conditions.
        """
        path = self.run(network, seed) / RESULT
        if not path.is_file():
            return None
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        before, now = result.get("conditions", {}), self.conditions(network)
        if changed := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
            raise SystemExit(
                f"{path.parent} was trained with another {', '.join(changed)}: pass the same, or another --output."
            )
        return result

    def open(self, split: str) -> Dataset:
        """Open a split of the dataset, with images and masks of `size`."""
        dataset = open_dataset(self.dataset, self.root)(split)
        return replace(
            dataset,
            read_image=partial(_read_resized, dataset.read_image, self.size, Image.Resampling.BOX),
            read_labels=partial(_read_resized, dataset.read_labels, self.size, Image.Resampling.NEAREST),
        )


def _describe(contender: Contender) -> str:
    """Return the function that creates a network, with its arguments, in the same words in each process."""
    make: Any = contender.make
    given = ""
    if isinstance(make, partial):
        make, given = make.func, f"{make.args}{make.keywords}"
    return f"{getattr(make, '__name__', make)}{given} on {contender.encoder}"


def _read_resized(
    read: Callable[[str], Pixels | LabelMap], size: tuple[int, int], resampling: Image.Resampling, item: str
) -> Any:
    return np.array(Image.fromarray(read(item)).resize(size, resampling))  # a copy: tensors want to be writable


def measure_accuracy(find_logits: Callable[[Tensor], Tensor], dataset: Dataset) -> dict[str, Any]:
    """Return mIoU, pixel accuracy and the IoU of each class.

    Args:
        find_logits: Maps images `(1, 3, H, W)` in [0, 1] to logits `(1, K, h, w)`.
        dataset: Images with ground truth.
    """
    label_set = dataset.label_set
    matrix = ConfusionMatrix(len(label_set), label_set.ignore_index)
    for sample in dataset:
        with torch.inference_mode():
            logits = find_logits(prepare(sample.image, CPU))[0].float()
            labels = largest_class(logits, (sample.image.shape[0], sample.image.shape[1]))
        matrix.add(sample.labels, label_set.cast(labels.numpy()))
    scores = matrix.scores()
    by_class = dict(zip(label_set.names, scores.class_iou, strict=True))
    return {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy, "class_iou": by_class}


class FrontierTask:
    """Measures a network by its mIoU and saves its weights; the `Task` of a `Trainer`."""

    goal = "mIoU"
    printed: tuple[str, ...] = ("loss", "learning_rate", "val_miou", "images_per_second", "seconds")
    columns: tuple[str, ...] = ("epoch", *printed)

    def __init__(
        self, folder: RunFolder, learner: Learner[nn.Module], val_set: Dataset, conditions: dict[str, str]
    ) -> None:
        self.folder, self.learner, self.val_set, self.conditions = folder, learner, val_set, conditions

    def measure(self, after_each: Callable[[], None]) -> Measurement:
        """Segment the validation images; see `Task`."""
        network = self.learner.measured.eval()
        assert callable(network.logits)
        found = measure_accuracy(network.logits, self.val_set)
        after_each()
        return Measurement(score=found["miou"], columns={"val_miou": found["miou"]}, summary=found)

    def save_best(self, epoch: int, measurement: Measurement) -> bool:  # noqa: ARG002 - as all tasks
        """Save nothing: the last epoch counts."""
        return True

    def end_epoch(self, epoch: int, measurement: Measurement | None) -> None:
        """Save the weights, and after the last epoch the score."""
        weights = {name: tensor.contiguous() for name, tensor in self.learner.measured.state_dict().items()}
        self.folder.write(self.folder.last_model.name, save(weights))
        if measurement is not None and epoch == self.learner.config.epochs:
            result = {**measurement.summary, "conditions": self.conditions, **describe_run()}
            self.folder.write(RESULT, json.dumps(result, indent=2).encode())


def train(plan: Plan, network: str, seed: int) -> None:
    """Train a network, or resume its run."""
    keep_freed_memory()
    config = TrainConfig.from_dict({**plan.settings, "seed": seed})
    folder, engine = RunFolder(plan.run(network, seed)), launch(CPU, choose_precision(config.precision, CPU))
    with ExitStack() as stack:
        session = stack.enter_context(hold(folder, config, engine.processes, steps=None, show=True))
        splits = [
            stack.enter_context(cache_samples(plan.open(split), "memory", folder.path)) for split in ("train", "val")
        ]
        train_set, val_set = splits
        loader = stack.enter_context(Loader(train_set, config, CPU))
        start = Start(
            classes=len(train_set.label_set),
            seed=seed,
            weights=plan.encoder_weights,
            published_weights=plan.published_weights,
        )
        module = CONTENDERS[network].make(start)
        torch.manual_seed(seed)  # of dropout
        objective = Objective(config=config, ignore_index=train_set.label_set.ignore_index)
        learner = Learner(module, config, engine, objective)
        if folder.is_started:
            state = restore_state(folder, learner, show=True)
        else:
            state = start_state(folder, learner, {"network": network, "seed": seed, **plan.settings}, show=True)
        task = FrontierTask(folder, learner, val_set, plan.conditions(network))
        Trainer(learner, loader, task, session, state).run()


def train_all(plan: Plan, networks: list[str], seeds: int) -> None:
    """Train all networks with each seed, each run in a process of its own."""
    for seed in range(seeds):
        for network in networks:
            if plan.read_result(network, seed) is not None:
                continue
            print(f"{network}, seed {seed}", flush=True)
            process = multiprocessing.get_context("spawn").Process(target=train, args=(plan, network, seed))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"The run in {plan.run(network, seed)} failed; the same command resumes it.")


def measure(plan: Plan, networks: list[str], arguments: argparse.Namespace) -> None:
    """Time all networks, and write what `draw` reads."""
    start = Start(classes=len(open_dataset(plan.dataset, plan.root)("val").label_set), weights=None)
    names = list(dict.fromkeys([*networks, PUBLISHED]))
    makers = {name: partial(CONTENDERS[name].make, start) for name in names}
    speeds = measure_speeds(
        makers, PUBLISHED, size=arguments.timed_size, rounds=arguments.rounds, with_int8=not arguments.no_int8
    )
    side, threads = arguments.timed_size, torch.get_num_threads()
    write_speeds(speeds, f"{side}x{side}, OpenVINO, {threads} CPU threads", plan.output / SPEEDS)


def read_accuracy(plan: Plan, network: str, seeds: int) -> list[float]:
    """Return the mIoU of each finished run of a network."""
    results = [plan.read_result(network, seed) for seed in range(seeds)]
    return [float(result["miou"]) for result in results if result is not None]


def collect(plan: Plan, networks: list[str], seeds: int) -> Results:
    """Return all results that were measured."""
    (timed, speeds), settings, entries = read_speeds(plan.output / SPEEDS), plan.settings, []
    for name in networks:
        contender, speed = CONTENDERS[name], speeds.get(name)
        entries.append(
            Entry(
                name=name,
                encoder=contender.encoder,
                is_ours=contender.is_ours,
                is_size=name in SIZES,
                mious=tuple(read_accuracy(plan, name, seeds)),
                parameters=None if speed is None else speed.parameters,
                multiply_adds=None if speed is None else speed.multiply_adds,
                milliseconds=None if speed is None else speed.milliseconds,
                ratio=None if speed is None else speed.ratios["float32"],
            )
        )
    crop = settings["crop_size"]
    trained = (
        f"{plan.dataset} at {plan.size[0]}x{plan.size[1]}, {settings['epochs']} epochs of crops of {crop[1]}x{crop[0]}"
    )
    return Results(trained=trained, timed=timed, entries=tuple(entries))


def draw(plan: Plan, networks: list[str], seeds: int) -> None:
    """Print the table, write all results to one file, and draw accuracy against time."""
    results = collect(plan, networks, seeds)
    heading = [*COLUMNS, *(f"{precision}, ms" for precision in PRECISIONS), "speed against published"]
    print_table(f"{results.trained}; {results.timed}", heading, results.tabulate(PRECISIONS))
    results.write(plan.output / "frontier.json")
    for suffix in ("svg", "png"):
        results.draw(plan.output / f"frontier.{suffix}")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"some of {', '.join(STEPS)}; by default all")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--networks", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--published-weights", type=Path, help="ImageNet weights of the published network's encoder")
    parser.add_argument("--random", action="store_true", help="start all encoders but that from random weights")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--recipe", default="camvid")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--crop", type=int, nargs=2, default=(160, 160), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="processes that load images")
    parser.add_argument("--ema-decay", type=float, default=0.98)
    parser.add_argument("--timed-size", type=int, default=512, help="sides of the timed image")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-int8", action="store_true")
    arguments = parser.parse_args()
    if not set(arguments.steps) <= set(STEPS):  # argparse cannot check a list with a default
        parser.error(f"the steps are {', '.join(STEPS)}, not {' '.join(arguments.steps)}")
    arguments.steps = arguments.steps or list(STEPS)
    return arguments


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Return the common settings: those of the recipe, with the options' in their place."""
    changed = {
        "epochs": arguments.epochs,
        "validate_every": arguments.epochs,
        "crop_size": tuple(arguments.crop),
        "batch_size": arguments.batch,
        "workers": arguments.workers,
        "ema_decay": arguments.ema_decay,
        "loggers": (),
    }
    return Plan(
        dataset=arguments.dataset,
        root=arguments.root,
        size=tuple(arguments.size),
        settings={**read_recipe(arguments.recipe).train, **changed},
        encoder_weights=None if arguments.random else "imagenet",
        published_weights=arguments.published_weights,
        output=arguments.output,
    )


def main() -> None:
    """Train, measure, draw."""
    arguments = parse_arguments()
    plan, networks = make_plan(arguments), arguments.networks or list(CONTENDERS)
    plan.output.mkdir(parents=True, exist_ok=True)
    if "train" in arguments.steps:
        train_all(plan, networks, arguments.seeds)
    if "measure" in arguments.steps:
        measure(plan, networks, arguments)
    if "draw" in arguments.steps:
        draw(plan, networks, arguments.seeds)


if __name__ == "__main__":
    main()
