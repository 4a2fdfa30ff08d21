"""Mutations of files that this package reads: each is refused, or everything read is as it was.

python tests/faults/mutations.py 10000 1        # count of each kind of file, seed
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from refinenet.io.sealed_folder import read_checksummed, write_checksummed
from refinenet.labels import LabelSet
from refinenet.models.model_file import ModelCard, load, save
from refinenet.models.network import Architecture, Network
from refinenet.models.tensor_files import digest, read_checkpoint

CARD = ModelCard(
    architecture=Architecture(model_type="lightweight", encoder="test_resnet", num_classes=3),
    label_set=LabelSet(names=("road", "sky", "Straße"), colours=((128, 64, 128), (70, 130, 180), (1, 2, 3))),
    scores={"miou": 0.6625, "split": "val"},
    licence="BSD-3-Clause",
    recipe={"epochs": 3},
    temperature=1.25,
)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Flip a bit, replace a byte, cut, insert, swap two blocks, or double one; half near the start or the end."""
    size, changed = len(content), bytearray(content)
    near = min(size, 20_000)
    place = chance.choice((chance.randrange(size), chance.randrange(near), size - 1 - chance.randrange(near)))
    length = chance.choice((1, 8, 100, 5000))
    kind = chance.choice(("flip", "replace", "cut", "insert", "swap", "double"))
    if kind == "flip":
        changed[place] ^= 1 << chance.randrange(8)
    elif kind == "replace":
        changed[place] = chance.randrange(256)
    elif kind == "cut":
        del changed[place:]
    elif kind == "insert":
        changed[place:place] = chance.randbytes(length)
    elif kind == "swap":
        other = chance.randrange(size)
        first, second = sorted((place, other))
        length = min(length, second - first, size - second)
        changed[first : first + length], changed[second : second + length] = (
            changed[second : second + length],
            changed[first : first + length],
        )
    else:
        changed[place:place] = changed[place : place + length]
    return bytes(changed)


def read_model(path: Path) -> object:
    network, card = load(path)
    return digest(network.state_dict()), card


def read_published(path: Path) -> object:
    return digest(read_checkpoint(path))


def read_run(path: Path) -> object:
    return read_checksummed(path.parent)


def count(path: Path, read: Callable[[Path], object], number: int, seed: int) -> Mapping[str, int]:
    """How many mutations were refused, made no difference, changed something silently, or crashed."""
    content, expected, chance, found = path.read_bytes(), read(path), random.Random(seed), Counter[str]()
    for _ in range(number):
        changed = mutate(content, chance)
        path.write_bytes(changed)
        try:
            found["equal" if read(path) == expected else "SILENT"] += 1
        except ValueError:
            found["refused"] += 1
        except Exception as error:  # noqa: BLE001 - what else is raised is what is looked for
            found[f"CRASH {type(error).__name__}"] += 1
            print(repr(error)[:200], flush=True)
    path.write_bytes(content)
    return found


def run(number: int, seed: int) -> dict[str, Mapping[str, int]]:
    """A table of all kinds of file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder / "model.safetensors", Network(CARD.architecture), CARD, "float16")
        torch.save({"state_dict": {f"layer{k}": torch.randn(50, 20) for k in range(20)}}, folder / "published.pth")
        write_checksummed(folder / "step", 7, {"state.safetensors": random.Random(0).randbytes(20_000)})
        return {
            "model file": count(folder / "model.safetensors", read_model, number, seed),
            "published archive": count(folder / "published.pth", read_published, number, seed),
            "run checkpoint": count(folder / "step" / "state.safetensors", read_run, number, seed),
            "run checkpoint's seal": count(folder / "step" / "meta.json", read_run, number, seed),
        }


if __name__ == "__main__":
    for kind, found in run(int(sys.argv[1]), int(sys.argv[2])).items():
        print(kind, dict(found), flush=True)
