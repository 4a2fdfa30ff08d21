"""Labels that teach: how many images reach 95 % of the fully labelled mIoU, chosen by `label next` or at random.

    REFINENET_CAMVID=... python benchmarks/active_labels.py [run] [draw] --output FOLDER
                         [--counts 8 16 24 36 54 80] [--steps 40] [--seeds 3] [--size 240 180] [--crop 112 144]

The labels of CamVid's training images are hidden. Each arm starts with the same few images, drawn at random; then, in
turn, the light-weight network of size `small` goes on learning from all images that have labels (the same number of
steps for any number of images), its mIoU is measured on the validation split, and further images get their labels:
those that `labelling` chooses with the network that has just been trained, or others drawn at random. The reference has
all labels, and as many steps. Everything is at half resolution, from ImageNet weights of the installed package.

`run` works seed by seed, arm by arm; finished rounds are kept in FOLDER, and a killed run goes on with the next one.
`draw` prints the table and draws FOLDER/active_labels.svg and .png. Without any of these words, both are done.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frontier import CPU, _read_resized, measure_accuracy
from PIL import Image

from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.distributed import launch
from refinenet.io.console import print_table
from refinenet.io.files import write_atomically
from refinenet.labelling.ranking_choice import Labelled, Pool, choose
from refinenet.labelling.ranking_measures import Gauge
from refinenet.models.factory import ModelSpec, choose_device
from refinenet.models.model_file import ModelCard, load, save
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.engine.learner import Learner
from refinenet.training.loading.loader import Loader
from refinenet.training.losses import Objective

STEPS = ("run", "draw")
ARMS = ("ours", "random")
EVERY = 3
"""Every third image of the validation split is measured; neighbouring frames look alike."""
SHARE = 0.95


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all arms have in common."""

    root: Path | None
    size: tuple[int, int]
    crop: tuple[int, int]
    counts: tuple[int, ...]
    """Numbers of labelled images of the rounds."""
    steps: int
    """Steps of training in a round."""
    batch: int
    ranked_side: int
    """Longer side of images while they are ranked, in pixels."""
    output: Path

    def open(self, split: str) -> Dataset:
        """Open a split at the size of the plan."""
        dataset = open_dataset("camvid", self.root)(split)
        return replace(
            dataset,
            read_image=partial(_read_resized, dataset.read_image, self.size, Image.Resampling.BOX),
            read_labels=partial(_read_resized, dataset.read_labels, self.size, Image.Resampling.NEAREST),
        )

    def folder(self, arm: str, seed: int) -> Path:
        """Return the folder of an arm."""
        return self.output / f"{arm}-{seed}"

    def read(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """Return the finished rounds of an arm."""
        path = self.folder(arm, seed) / "rounds.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else []


def read_all(dataset: Dataset) -> Dataset:
    """Return a dataset with its images and label maps in memory."""
    samples = {sample.name: (sample.image, sample.labels) for sample in dataset}
    return replace(
        dataset, read_image=lambda item: samples[item][0].copy(), read_labels=lambda item: samples[item][1].copy()
    )


def start(classes: int, seed: int, card_of: Dataset) -> tuple[Network, ModelCard]:
    """Return a new network with the encoder's ImageNet weights."""
    spec = ModelSpec(size="small", num_classes=classes, encoder_weights="imagenet", seed=seed)
    network, card = spec.open(choose_device("cpu"), lambda: torch.zeros(1, 3, 64, 64))
    return network, replace(card, label_set=card_of.label_set)


def train(plan: Plan, network: Network, train_set: Dataset, seed: int, steps: int) -> Network:
    """Train a network on some images, at a constant learning rate, and return the mean of its weights."""
    config = TrainConfig.from_dict(
        {
            "epochs": 10_000,
            "batch_size": plan.batch,
            "crop_size": list(plan.crop),
            "workers": 0,
            "learning_rate": 0.002,
            "encoder_learning_rate": 0.0005,
            "schedule": "constant",
            "warm_up": 0.0,
            "ema_decay": 0.9,
            "class_weights": "none",
            "seed": seed,
            "loggers": [],
            "precision": "float32",
        }
    )
    torch.manual_seed(seed)
    objective = Objective(config=config, ignore_index=train_set.label_set.ignore_index)
    learner = Learner(network, config, launch(CPU, "float32"), objective)
    with Loader(train_set, config, CPU) as loader:
        batches = chain.from_iterable(loader.epoch(epoch) for epoch in count())
        for number, parts in zip(range(steps), batches, strict=False):
            learner.step(parts, 1.0, number)
    return learner.measured.eval()


def rank(plan: Plan, network: Network, card: ModelCard, data: Dataset, labelled: list[int], wanted: int) -> list[int]:
    """Choose images that have no labels yet by the package's own measures."""
    gauge = Gauge(network, card, plan.ranked_side)
    hidden = [index for index in range(len(data)) if index not in set(labelled)]
    pool = Pool.of([gauge.measure(data.read_image(data.items[index]))[0] for index in hidden])
    classes = range(len(card.label_set))
    shares = [[float((data.labels(index) == k).mean()) for k in classes] for index in labelled]
    features = [gauge.describe(data.read_image(data.items[index])) for index in labelled]
    known = Labelled(shares=np.array(shares, np.float32), features=np.stack(features))
    return [hidden[each.index] for each in choose(pool, wanted, known)]


def run_arm(plan: Plan, arm: str, seed: int, data: Dataset, val_set: Dataset) -> None:
    """Do the rounds of an arm that are missing. The arm "all" has all labels from the start."""
    folder, rounds = plan.folder(arm, seed), plan.read(arm, seed)
    order = np.random.default_rng(seed).permutation(len(data)).tolist()
    for number, wanted in enumerate(plan.counts):
        if number < len(rounds):
            continue
        if number:
            network, card = load(folder / "model.safetensors")
            labelled = list(rounds[-1]["labelled"])
        else:
            network, card = start(len(data.label_set), seed, data)
            labelled = []
        if arm == "all":
            labelled = order
        elif arm == "random" or not number:
            labelled = order[:wanted]
        else:
            labelled += rank(plan, network, card, data, labelled, wanted - len(labelled))
        shown = replace(data, items=[data.items[index] for index in labelled])
        trained = train(plan, network, shown, 1000 * seed + number, plan.steps)
        found = measure_accuracy(trained.logits, val_set)
        rounds.append({"labelled": labelled, "miou": found["miou"], "class_iou": found["class_iou"]})
        save(folder / "model.safetensors", trained, replace(card, architecture=trained.architecture), "float32")
        write_atomically(folder / "rounds.json", json.dumps(rounds).encode())
        print(f"{arm} {seed}: {len(labelled)} images, mIoU {100 * found['miou']:.1f} %", flush=True)


def needed(counts: Sequence[int], mious: Sequence[float], goal: float) -> float | None:
    """Return the number of images that reach a goal, between two rounds by linear interpolation; None if none does."""
    for number, miou in enumerate(mious):
        if miou >= goal:
            if number == 0:
                return float(counts[0])
            low, high = mious[number - 1], miou
            return counts[number - 1] + (goal - low) / (high - low) * (counts[number] - counts[number - 1])
    return None


def draw(plan: Plan, seeds: int) -> None:
    """Print the table of all finished rounds, and draw the curves."""
    whole = [rounds[-1]["miou"] for seed in range(seeds) if len(rounds := plan.read("all", seed)) == len(plan.counts)]
    goal = SHARE * statistics.fmean(whole) if whole else None
    curves = {arm: [[each["miou"] for each in plan.read(arm, seed)] for seed in range(seeds)] for arm in ARMS}
    rows = []
    for number, images in enumerate(plan.counts):
        row = [str(images)]
        for arm in ARMS:
            found = [curve[number] for curve in curves[arm] if len(curve) > number]
            spread = f" ({100 * min(found):.1f} to {100 * max(found):.1f})" if len(found) > 1 else ""
            row.append(f"{100 * statistics.fmean(found):.1f}{spread}" if found else "")
        rows.append(row)
    print_table("mIoU % on the validation split, mean over seeds", ["images", *ARMS], rows)
    if goal is not None:
        print_table(
            f"Images until {100 * SHARE:.0f} % of the fully labelled mIoU, {100 * statistics.fmean(whole):.1f} %",
            ["seed", *ARMS],
            [
                [str(seed), *(_say(needed(plan.counts, curves[arm][seed], goal)) for arm in ARMS)]
                for seed in range(seeds)
            ],
        )
    _print_spread(plan, seeds)
    _draw_curves(plan, curves, goal, statistics.fmean(whole) if whole else None)


def _say(images: float | None) -> str:
    return "not reached" if images is None else f"{images:.0f}"


def _print_spread(plan: Plan, seeds: int) -> None:
    """Print how many of the chosen images each sequence has, by the prefix of the file names."""
    items = open_dataset("camvid", plan.root)("train").items
    of_all = Counter(item.partition("_")[0] for item in items)
    rows = [["all images", *(str(of_all[name]) for name in sorted(of_all))]]
    for arm in ARMS:
        for seed in range(seeds):
            for each in plan.read(arm, seed)[1:]:
                found = Counter(items[index].partition("_")[0] for index in each["labelled"])
                name = f"{arm}, seed {seed}, {len(each['labelled'])}"
                rows.append([name, *(str(found[key]) for key in sorted(of_all))])
    print_table("Sequences of the labelled images", ["", *sorted(of_all)], rows)


def _draw_curves(plan: Plan, curves: dict[str, list[list[float]]], goal: float | None, whole: float | None) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    labels = {"ours": "chosen by label next", "random": "chosen at random"}
    for arm, colour in (("ours", "tab:blue"), ("random", "tab:gray")):
        found = [curve for curve in curves[arm] if curve]
        if not found:
            continue
        length = min(map(len, found))
        values = 100 * np.array([curve[:length] for curve in found])
        axes.plot(plan.counts[:length], values.mean(0), "o-", color=colour, label=labels[arm])
        axes.fill_between(plan.counts[:length], values.min(0), values.max(0), color=colour, alpha=0.2)
    if whole is not None and goal is not None:
        axes.axhline(100 * whole, color="black", linewidth=1, label="all labels")
        axes.axhline(100 * goal, color="black", linewidth=1, linestyle="--", label="95 % of that")
    axes.set_xlabel("labelled images")
    axes.set_ylabel("mIoU on the validation split, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    for suffix in ("svg", "png"):
        figure.savefig(plan.output / f"active_labels.{suffix}", dpi=150)


def main() -> None:
    """Run the arms, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="STEP", help=f"some of {', '.join(STEPS)}; by default all")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=(8, 16, 24, 36, 54, 80))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--ranked-side", type=int, default=160, help="longer side of images while they are ranked")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 180), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--crop", type=int, nargs=2, default=(112, 144), metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()
    if not set(arguments.words) <= set(STEPS):
        parser.error(f"the steps are {', '.join(STEPS)}, not {' '.join(arguments.words)}")
    plan = Plan(
        root=arguments.root,
        size=tuple(arguments.size),
        crop=tuple(arguments.crop),
        counts=tuple(arguments.counts),
        steps=arguments.steps,
        batch=arguments.batch,
        ranked_side=arguments.ranked_side,
        output=arguments.output,
    )
    words = arguments.words or STEPS
    if "run" in words:
        data, val_set = read_all(plan.open("train")), plan.open("val")
        val_set = read_all(replace(val_set, items=val_set.items[::EVERY]))
        for seed in range(arguments.seeds):
            for arm in (*ARMS, "all"):
                run_arm(plan, arm, seed, data, val_set)
    if "draw" in words:
        draw(plan, arguments.seeds)


if __name__ == "__main__":
    main()
