"""The cache of decoded samples: read once, then as quick as memory, gone at the end."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from refinenet import RefineNet
from refinenet.datasets import Dataset
from refinenet.labels import LabelSet
from refinenet.sample_cache import cache_samples


def read_and_count(log: Path, channels: tuple[int, ...], item: str) -> npt.NDArray[np.uint8]:
    with log.open("a") as stream:
        stream.write(f"{item} ")
    return np.full((4, 6, *channels), int(item), np.uint8)


def counted(log: Path) -> Dataset:
    return Dataset(
        name="counted",
        split="train",
        label_set=LabelSet.numbered(9),
        items=["3", "5", "7"],
        read_image=partial(read_and_count, log, (3,)),
        read_labels=partial(read_and_count, log, ()),
    )


@pytest.mark.parametrize("kind", ["disk", pytest.param("memory", marks=pytest.mark.skipif(
    sys.platform != "linux", reason="/dev/shm is Linux's"))])  # fmt: skip
def test_each_file_is_read_once_and_the_folder_is_gone_at_the_end(kind: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with cache_samples(counted(log), kind, tmp_path / "cache" / "train") as dataset:
        for _ in range(3):
            assert [int(sample.labels[0, 0]) for sample in dataset] == [3, 5, 7]
            assert [sample.image.tolist() for sample in dataset] == [np.full((4, 6, 3), k).tolist() for k in (3, 5, 7)]
        assert sorted(log.read_text().split()) == sorted(["3", "5", "7"] * 2)
    assert not (tmp_path / "cache" / "train").exists()
    assert kind == "disk" or not list(Path("/dev/shm").glob(f"refinenet-cache-{os.getpid()}*"))


def test_what_lay_in_the_folder_before_is_not_taken_for_the_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    np.save(folder / "0-labels.npy", np.zeros((4, 6), np.uint8))
    with cache_samples(counted(tmp_path / "log"), "disk", folder) as dataset:
        assert int(dataset.labels(0)[0, 0]) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
def test_what_a_killed_process_left_in_memory_is_removed(tmp_path: Path) -> None:
    left = Path("/dev/shm/refinenet-cache-4194399-train")
    left.mkdir(exist_ok=True)
    with cache_samples(counted(tmp_path / "log"), "memory", tmp_path / "train"):
        assert not left.exists()


@pytest.mark.parametrize("settings", [{"cache": "disk"}, {"augment_on": "device"}, {"cache": "disk", "workers": 0}])
def test_training_ends_alike_with_a_cache_and_without(settings: dict[str, Any], tmp_path: Path) -> None:
    losses = []
    for number, chosen in enumerate([{**settings, "cache": "none"}, settings]):
        folder = tmp_path / str(number)
        torch.manual_seed(1)
        RefineNet(encoder="mobilenetv2_050", device="cpu").train(
            "streets:4:64x48", output=folder, progress=False, epochs=2, batch_size=2, crop_size=(32, 32), **chosen
        )
        losses.append([line.split(",")[1] for line in (folder / "log.csv").read_text().splitlines()])
        assert sorted(path.name for path in folder.iterdir()) == [
            "best.safetensors", "checkpoint.pt", "log.csv", "run.json"
        ]  # fmt: skip
    assert losses[0] == losses[1]
