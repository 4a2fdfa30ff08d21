"""A training on a disk that is full while an epoch is measured and its best model, log and curves are written.

    full_disk_training.py FOLDER EPOCH     where users may have namespaces of their own; see `small_disk`

The network answers "road" everywhere and does not learn; which mIoU it has follows from the labels, epoch by epoch.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset
from refinenet.labels import LabelSet

ROWS = (4, 12, 8)
"""Of 16 rows of the labels, how many are road in each epoch: the mIoU of two classes is a 32nd of it."""
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-12,
    "precision": "float32",
    "workers": 0,
    "loggers": [],
}
_NEW_MOUNTS, _NEW_USER = 0x0002_0000, 0x1000_0000
"""Flags of Linux's `unshare`; `os.unshare` comes with Python 3.12."""


class Disk:
    """A small disk that another file can fill, and the dataset whose reading says when."""

    def __init__(self, folder: Path, full_in: int) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "none", folder], check=True)
        self.run, self._filler = folder / "run", folder / "filler"
        self._epoch, self._measures, self._full_in = 0, False, full_in
        self.kept: dict[str, object] = {}

    def split(self, name: str) -> Dataset:
        return Dataset(
            name="rows",
            split=name,
            label_set=LabelSet.numbered(2),
            items=["0", "1"] if name == "train" else ["0"],
            read_image=self._train_image if name == "train" else self._val_image,
            read_labels=lambda _: self._labels(),
        )

    def _train_image(self, _item: str) -> npt.NDArray[np.uint8]:
        if self._filler.exists():
            best = self.run / "best.safetensors"
            self.kept = describe(best) if best.exists() else {}
            self._filler.unlink()
        self._measures = False
        return np.zeros((16, 16, 3), np.uint8)

    def _val_image(self, _item: str) -> npt.NDArray[np.uint8]:
        if not self._measures:
            self._epoch, self._measures = self._epoch + 1, True
            if self._epoch == self._full_in:
                self._fill()
        return np.zeros((16, 16, 3), np.uint8)

    def _labels(self) -> npt.NDArray[np.uint8]:
        return (np.arange(16, dtype=np.uint8)[:, None].repeat(16, 1) >= ROWS[max(0, self._epoch - 1)]).astype(np.uint8)

    def _fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 20)):
                    pass
            except OSError:
                os.fsync(file.fileno())


def describe(model: Path) -> dict[str, object]:
    """What a model, which can be read, says of itself."""
    card = RefineNet(model=model, device="cpu").card
    return {"epoch": card.recipe["epoch"], "miou": card.scores["miou"]}


def enter_namespace() -> None:
    """Let this process mount disks that only it sees, as `unshare --user --map-root-user --mount` does."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER | _NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "No namespace may be made here.")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def main() -> None:
    """Train, and print what was kept as JSON."""
    enter_namespace()
    disk = Disk(Path(sys.argv[1]), int(sys.argv[2]))
    r = RefineNet(encoder="test_resnet", device="cpu", num_classes=2)
    with torch.no_grad():
        for name, weights in r.network.classifier.named_parameters():
            weights.copy_(torch.tensor([1.0, 0.0]) if name == "bias" else torch.zeros_like(weights))
    settings = {**SETTINGS, "epochs": len(ROWS), "batch_size": 2, "crop_size": [16, 16]}
    result = r.train(disk.split, output=disk.run, progress=False, check=False, **settings)
    told = {"kept while the disk is full": disk.kept, "kept at the end": describe(result.model)}
    print(json.dumps({**told, "best mIoU": result.best_miou}))


if __name__ == "__main__":
    main()
