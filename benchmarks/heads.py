"""Three heads on one decoder beside a network of classes alone, on drawn streets whose depth and normals are exact.

python benchmarks/heads.py --epochs 30 --images 80

Trains three light-weight networks alike, from the encoder of the bundled model: one with the outputs classes, depth and
normals; one with classes alone; one with three outputs whose training data lack half of the depth maps. Prints their
metrics on the validation split beside those of constants: the mean (and the median) of the true depths, and the mean
normal of the training data.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset, DatasetSource, open_dataset
from refinenet.evaluation.evaluator import accumulate_targets

Values = npt.NDArray[np.float32]
OUTPUTS = "classes,depth:0.5:300,normals"


def keep_half(read: Callable[[str], Values], chosen: frozenset[str], item: str) -> Values:
    """Read the depth of an image if it is chosen; otherwise it has none."""
    return read(item) if item in chosen else np.full((1, 1, 1), np.nan, np.float32)


def with_half_of_depth(source: str, split: str) -> Dataset:
    """Open streets of which every second training image has no depth."""
    dataset = open_dataset(source)(split)
    if split != "train":
        return dataset
    reader = partial(keep_half, dataset.target_readers["depth"], frozenset(dataset.items[::2]))
    return replace(dataset, target_readers={**dataset.target_readers, "depth": reader})


def measure_constants(source: str) -> dict[str, float | None]:
    """Return the metrics of constant predictions, from the training data, on the validation data."""
    names = ("depth", "normals")
    train, val = (open_dataset(source)(split).with_targets(names) for split in ("train", "val"))
    samples = [sample.targets for sample in train]
    depths = np.concatenate([sample["depth"].ravel() for sample in samples])
    normals = np.concatenate([sample["normals"].reshape(3, -1) for sample in samples], 1)
    mean = np.nanmean(normals, axis=1)
    constants = {"mean": float(np.nanmean(depths)), "median": float(np.nanmedian(depths))}
    truth = [sample.targets for sample in val]
    found: dict[str, float | None] = {}
    for name, value in constants.items():
        accumulators = accumulate_targets(val)
        for targets in truth:
            shape = targets["depth"].shape
            accumulators["depth"].add(np.full(shape, value, np.float32), targets["depth"])
            normal = np.broadcast_to((mean / np.linalg.norm(mean))[:, None, None], (3, *shape[1:]))
            accumulators["normals"].add(normal.astype(np.float32), targets["normals"])
        found |= {f"depth {key} of the {name}": item for key, item in accumulators["depth"].summary().items()}
        found |= {f"normals {key} of the mean": item for key, item in accumulators["normals"].summary().items()}
    return found


def train(outputs: str, source: DatasetSource, folder: Path, arguments: argparse.Namespace) -> dict[str, float | None]:
    """Train a network, and return its metrics on the validation split of streets."""
    network = RefineNet(
        model_type="lightweight",
        encoder="mobilenetv2_100",
        encoder_weights="camvid",
        outputs=outputs,
        device="cpu",
        seed=7,
    )
    result = network.train(
        source,
        output=folder,
        check=False,
        epochs=arguments.epochs,
        batch_size=8,
        crop_size=(96, 128),
        learning_rate=1e-3,
        validate_every=arguments.epochs,
        loggers=(),
        cache="memory",  # drawing a street costs more than a step of training
        seed=7,
    )
    found = RefineNet(model=result.model, device="cpu").eval(arguments.source, progress=False)
    metrics: dict[str, float | None] = {"mIoU": found.scores.miou}
    for name, accumulator in found.targets.items():
        metrics |= {f"{name} {key}": value for key, value in accumulator.summary().items()}
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=300)
    arguments = parser.parse_args()
    arguments.source = f"streets:{arguments.images}:160x120"
    print("constants", measure_constants(arguments.source), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        half = partial(with_half_of_depth, arguments.source)
        print("three outputs", train(OUTPUTS, arguments.source, folder / "three", arguments), flush=True)
        print("classes alone", train("classes", arguments.source, folder / "classes", arguments), flush=True)
        print("half of the depth", train(OUTPUTS, half, folder / "half", arguments), flush=True)


if __name__ == "__main__":
    main()
