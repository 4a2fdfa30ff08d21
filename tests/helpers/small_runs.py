"""Trainings that take seconds: on small pictures in files, of a small network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model_parts import SMALL_DECODER
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from refinenet import RefineNet
from refinenet.labels import LabelSet
from refinenet.training.records.checkpoints import Checkpoints
from refinenet.training.run import TrainResult

CLASSES = 3
SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "crop_size": [32, 32],
    "precision": "float32",
    "loggers": [],
    "ema_decay": 0.9,
    "workers": 0,
}
"""Two epochs of two steps, by default."""


def write_pictures(root: Path, train: int = 8, val: int = 2, label: int | None = None) -> Path:
    """Write a dataset folder of 40x40 images; `label`, if given, fills all masks."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name in ("images", "masks"):
            (root / name / split).mkdir(parents=True)
        for number in range(count):
            classes = random.integers(0, CLASSES, (5, 5), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            image = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{number}.png")
            mask = classes if label is None else np.full_like(classes, label)
            Image.fromarray(mask).save(root / "masks" / split / f"{number}.png")
    (root / "classes.yaml").write_text("names: [one, two, three]\n")
    return root


def new_network(num_classes: int = CLASSES) -> RefineNet:
    """Return a new network, the same each time and on the command line; `train` changes it in place."""
    return RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu", num_classes=num_classes)


def settled_network(label_set: LabelSet | None = None) -> RefineNet:
    """Return a network whose batch norms have seen images, so that they may be frozen; of these classes, if given."""
    r = new_network(CLASSES if label_set is None else len(label_set))
    if label_set is not None:
        r.label_set = label_set
    norms = [module for module in r.network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        r.network.train()(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    r.network.eval()
    return r


def train(dataset: Any, output: Path, r: RefineNet | None = None, **more: Any) -> TrainResult:
    stop_after = more.pop("stop_after", None)
    settings: dict[str, Any] = {**SETTINGS, **more}
    r = r or new_network()
    return r.train(dataset, output=output, stop_after=stop_after, progress=False, check=False, **settings)


def resume(output: Path) -> TrainResult:
    return RefineNet(encoder="test_resnet", device="cpu").train(resume=output, progress=False)


def command(dataset: Path, output: Path, **more: Any) -> list[str]:
    """Return the command line of the same training."""
    settings = [f"{key}={value}".replace("'", '"') for key, value in {**SETTINGS, **more}.items()]
    words = ["train", "--dataset", str(dataset), "--output", str(output), "--encoder", "test_resnet", "--no-check"]
    words += ["--decoder", json.dumps(SMALL_DECODER)]
    return [sys.executable, "-m", "refinenet", *words, *(word for each in settings for word in ("--set", each))]


def state(output: Path, step: int | None = None) -> dict[str, torch.Tensor]:
    """Return the training state in a step's checkpoint, by default the newest."""
    step = Checkpoints(output / "checkpoints").steps()[-1] if step is None else step
    folder = max((output / "checkpoints").glob(f"step-{step:06d}*"))
    found = {
        f"{kind} {name}": tensor
        for kind in ("weights", "average")
        for name, tensor in load_file(folder / f"{kind}.safetensors").items()
    }
    learning = torch.load(folder / "learning.pt", weights_only=True)
    for number, values in learning["optimiser"]["state"].items():
        found |= {f"optimiser {number} {name}": value for name, value in values.items()}
    return found | {f"random {rank}": value for rank, value in enumerate(learning["random"])}


def different(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors that differ in any bit."""
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]
