"""Labels that teach: how many images reach 95 % of the fully labelled mIoU, chosen by `label next` or at random.

    REFINENET_CAMVID=... python benchmarks/active_labels.py [run] [draw] --output FOLDER
                         [--counts 8 16 24 36 54 80] [--steps 200] [--seeds 0 1 2] [--size 240 180]

The labels of CamVid's training images are hidden, and every fourth image is held out for measurements. Each arm
starts with the same few images, drawn at random; then, in turn, a new light-weight network of size `small` is trained
on all images that have labels (the same number of steps for any number of images), its mIoU is measured on the held-
out images and on the validation split, which shows only one of the three sequences, and further images get their
labels: those that `labelling` chooses with the network that has just been trained, or others drawn at random. The
reference has all labels, and as many steps. Everything is at half resolution. The encoder keeps the ImageNet weights
of the installed package, so that it has to look at each image only once: what a single slow core can train within
minutes.

`run` works seed by seed, arm by arm; finished rounds are kept in FOLDER, and a killed run goes on with the next one.
`draw` prints the tables, and writes FOLDER/active_labels.json, .svg and .png. Without any of these words, both are
done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from active_results import ARMS, ActiveResults, Curves
from frontier import CPU, _read_resized, measure_accuracy
from PIL import Image
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn import functional

from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.inference.tensors import prepare
from refinenet.io.console import print_table
from refinenet.io.files import write_atomically
from refinenet.labelling.ranking.choice import Labelled, Pool, choose
from refinenet.labelling.ranking.measures import Gauge
from refinenet.models.factory import open_network
from refinenet.models.files.model_card import ModelCard
from refinenet.models.files.model_file import load, save
from refinenet.models.inference_graph import fuse
from refinenet.models.model_spec import ModelSpec
from refinenet.models.network import Network

STEPS = ("run", "draw")
EVERY = 3
"""Every third image of the validation split is measured; neighbouring frames look alike."""
HELD_OUT = 4
"""Every fourth training image is held out: these come from all sequences, as those that get labels do."""
TITLES = {"held_out": "held-out images of all sequences", "val": "validation split"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all arms have in common."""

    root: Path | None
    size: tuple[int, int]
    counts: tuple[int, ...]
    """Numbers of labelled images of the rounds."""
    steps: int
    """Steps of training in a round."""
    batch: int
    rate: float
    """Highest learning rate."""
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


def pool_of(items: Sequence[str]) -> list[str]:
    """Return the training images that may get labels."""
    return [item for number, item in enumerate(items) if number % HELD_OUT]


def read_all(dataset: Dataset) -> Dataset:
    """Return a dataset with its images and label maps in memory."""
    samples = {sample.name: (sample.image, sample.labels) for sample in dataset}
    return replace(
        dataset, read_image=lambda item: samples[item][0].copy(), read_labels=lambda item: samples[item][1].copy()
    )


class FrozenEncoder:
    """Features of the encoder, which is not trained: each image is encoded once, whoever looks at it.

    Args:
        network: The network with the encoder.
    """

    def __init__(self, network: Network) -> None:
        self._encode = fuse(network).to(memory_format=torch.channels_last).encode
        self._known: dict[bytes, list[list[Tensor]]] = {}

    def __call__(self, images: Tensor) -> list[list[Tensor]]:
        """Return what `Network.encode` returns for an image `(1, 3, H, W)`."""
        key = hashlib.sha256(images.contiguous().numpy().tobytes()).digest()
        if key not in self._known:
            with torch.inference_mode():
                self._known[key] = [[maps.half() for maps in group] for group in self._encode(images)]
        return [[maps.float() for maps in group] for group in self._known[key]]


def start(seed: int, data: Dataset) -> tuple[Network, ModelCard]:
    """Return a new network with the encoder's ImageNet weights."""
    spec = ModelSpec(size="small", num_classes=len(data.label_set), encoder_weights="imagenet", seed=seed)
    network, card = open_network(spec, CPU, lambda: torch.zeros(1, 3, 64, 64))
    return network, replace(card, label_set=data.label_set)


def train(plan: Plan, network: Network, encode: FrozenEncoder, train_set: Dataset, seed: int) -> None:
    """Train decoder and classifier on some images, half of them mirrored, and keep the mean of the weights."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    trained = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    optimiser = torch.optim.AdamW(trained, lr=plan.rate, weight_decay=1e-4)
    average = ModelEmaV3(network, decay=0.95, use_warmup=True)
    ignore = train_set.label_set.ignore_index
    network.train().encoder.eval()
    for number in range(plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * min(1.0, 10 * (1 - number / plan.steps))
        optimiser.zero_grad()
        drawn = [train_set[int(index)] for index in random.integers(0, len(train_set), plan.batch)]
        looks = [encode(prepare(sample.image, CPU)) for sample in drawn]
        groups = [[torch.cat(maps) for maps in zip(*same, strict=True)] for same in zip(*looks, strict=True)]
        labels = torch.from_numpy(np.stack([sample.labels for sample in drawn]).astype(np.int64))
        if random.random() < 0.5:
            groups, labels = [[maps.flip(3) for maps in group] for group in groups], labels.flip(2)
        logits = network.predict(network.decoder(groups))
        whole = functional.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
        torch.autograd.backward(functional.cross_entropy(whole, labels, ignore_index=ignore))
        optimiser.step()
        average.update(network, number)
    network.load_state_dict(average.module.state_dict())
    network.eval()


def measure(network: Network, encode: FrozenEncoder, dataset: Dataset) -> dict[str, Any]:
    """Return mIoU, pixel accuracy and the IoU of each class."""
    return measure_accuracy(lambda images: network.predict(network.decoder(encode(images))), dataset)


def rank(
    plan: Plan,
    network: Network,
    card: ModelCard,
    encode: FrozenEncoder,
    data: Dataset,
    labelled: list[int],
    wanted: int,
) -> list[int]:
    """Choose images that have no labels yet by the package's own measures."""
    gauge = Gauge(network, card, plan.ranked_side)
    gauge.network.encode = encode  # type: ignore[method-assign] # the same features, from memory
    known_indices = set(labelled)
    hidden = [index for index in range(len(data)) if index not in known_indices]
    pool = Pool.of([gauge.measure(data.read_image(data.items[index]))[0] for index in hidden])
    classes = range(len(card.label_set))
    shares = [[float((data.labels(index) == k).mean()) for k in classes] for index in labelled]
    features = [gauge.describe(data.read_image(data.items[index])) for index in labelled]
    known = Labelled(shares=np.array(shares, np.float32), features=np.stack(features))
    return [hidden[each.index] for each in choose(pool, wanted, known)]


def run_arm(
    plan: Plan, arm: str, seed: int, data: Dataset, measured: Mapping[str, Dataset], encode: FrozenEncoder
) -> None:
    """Do the rounds of an arm that are missing. The arm "all" has one round, with all labels."""
    folder, rounds = plan.folder(arm, seed), plan.read(arm, seed)
    order = np.random.default_rng(seed).permutation(len(data)).tolist()
    counts = (len(data),) if arm == "all" else plan.counts
    for number, wanted in list(enumerate(counts))[len(rounds) :]:
        labelled = list(rounds[-1]["labelled"]) if number else []
        if arm == "random" or not number:
            labelled = order[:wanted]
        else:
            network, card = load(folder / f"model-{number - 1}.safetensors")
            labelled += rank(plan, network, card, encode, data, labelled, wanted - len(labelled))
        network, card = start(seed, data)
        shown = replace(data, items=[data.items[index] for index in labelled])
        train(plan, network, encode, shown, 1000 * seed + number)
        found = {name: measure(network, encode, dataset) for name, dataset in measured.items()}
        rounds.append({"labelled": labelled, **found})
        # The model of the round before stays until this one is recorded: a killed run begins this round again with it.
        save(folder / f"model-{number}.safetensors", network, card, "float32")
        write_atomically(folder / "rounds.json", json.dumps(rounds).encode())
        (folder / f"model-{number - 1}.safetensors").unlink(missing_ok=True)
        mious = ", ".join(f"{name} {100 * each['miou']:.1f} %" for name, each in found.items())
        print(f"{arm} {seed}: {len(labelled)} images, mIoU: {mious}", flush=True)


def collect(plan: Plan, seeds: Sequence[int]) -> ActiveResults:
    """Return all finished rounds."""
    measures = []
    for name, title in TITLES.items():
        arms = {
            arm: [[each[name]["miou"] for each in plan.read(arm, seed)] for seed in seeds] for arm in (*ARMS, "all")
        }
        whole = [curve[0] for curve in arms.pop("all") if curve]
        measures.append(Curves(title=title, arms=arms, whole=whole))
    width, height = plan.size
    trained = f"camvid at {width}x{height}, {plan.steps} steps of {plan.batch} images, size small, encoder not trained"
    return ActiveResults(trained=trained, counts=plan.counts, seeds=tuple(seeds), measures=tuple(measures))


def draw(plan: Plan, seeds: Sequence[int]) -> None:
    """Print the tables of all finished rounds, and draw the curves."""
    results = collect(plan, seeds)
    results.print()
    _print_spread(plan, seeds)
    results.write(plan.output / "active_labels.json")
    for suffix in ("svg", "png"):
        results.draw(plan.output / f"active_labels.{suffix}")


def _print_spread(plan: Plan, seeds: Sequence[int]) -> None:
    """Print how many of the chosen images each sequence has, by the prefix of the file names."""
    items = pool_of(open_dataset("camvid", plan.root)("train").items)
    of_all = Counter(item.partition("_")[0] for item in items)
    rows = [["all images", *(str(of_all[name]) for name in sorted(of_all))]]
    for arm in ARMS:
        for seed in seeds:
            for each in plan.read(arm, seed)[1:]:
                found = Counter(items[index].partition("_")[0] for index in each["labelled"])
                name = f"{arm}, seed {seed}, {len(each['labelled'])}"
                rows.append([name, *(str(found[key]) for key in sorted(of_all))])
    print_table("Sequences of the labelled images", ["", *sorted(of_all)], rows)


def main() -> None:
    """Run the arms, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="STEP", help=f"some of {', '.join(STEPS)}; by default all")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--counts", type=int, nargs="+", default=(8, 16, 24, 36, 54, 80))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.002, help="highest learning rate")
    parser.add_argument("--ranked-side", type=int, default=160, help="longer side of images while they are ranked")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 180), metavar=("WIDTH", "HEIGHT"))
    arguments = parser.parse_args()
    if not set(arguments.words) <= set(STEPS):
        parser.error(f"the steps are {', '.join(STEPS)}, not {' '.join(arguments.words)}")
    plan = Plan(
        root=arguments.root,
        size=tuple(arguments.size),
        counts=tuple(arguments.counts),
        steps=arguments.steps,
        batch=arguments.batch,
        rate=arguments.rate,
        ranked_side=arguments.ranked_side,
        output=arguments.output,
    )
    words = arguments.words or STEPS
    if "run" in words:
        whole, val_set = read_all(plan.open("train")), plan.open("val")
        data = replace(whole, items=pool_of(whole.items))
        measured = {
            "held_out": replace(whole, items=whole.items[::HELD_OUT]),
            "val": read_all(replace(val_set, items=val_set.items[::EVERY])),
        }
        # The encoder has the same weights for all seeds, so that each image is encoded once for all of them.
        encode = FrozenEncoder(start(arguments.seeds[0], data)[0])
        for seed in arguments.seeds:
            for arm in (*ARMS, "all"):
                run_arm(plan, arm, seed, data, measured, encode)
    if "draw" in words:
        draw(plan, arguments.seeds)


if __name__ == "__main__":
    main()
