"""The cache of decoded samples: decoded once, then read from memory, removed at the end."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from model_parts import SMALL_DECODER

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset
from refinenet.labels import LabelSet
from refinenet.outputs import read_outputs
from refinenet.training.loading import sample_cache
from refinenet.training.loading.sample_cache import cache_samples


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
    before = set(Path("/dev/shm").glob("*"))
    with cache_samples(counted(log), kind, tmp_path / "cache" / "train") as dataset:
        for _ in range(3):
            assert [int(sample.labels[0, 0]) for sample in dataset] == [3, 5, 7]
            assert [sample.image.tolist() for sample in dataset] == [np.full((4, 6, 3), k).tolist() for k in (3, 5, 7)]
        assert sorted(log.read_text().split()) == sorted(["3", "5", "7"] * 2)
    assert not (tmp_path / "cache" / "train").exists()
    assert kind == "disk" or not {p for p in Path("/dev/shm").glob("refinenet-cache-*") if p not in before}


def test_targets_are_read_once_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    quantity = read_outputs("soil=regression[height:m]")[0]
    targets = {"soil": lambda item: read_and_count(log, (5,), item).transpose(2, 0, 1)[:1].astype(np.float32)}
    dataset = replace(counted(log), target_specs=(quantity,), target_readers=targets, chosen_targets=("soil",))
    with cache_samples(dataset, "disk", tmp_path / "cache") as cached:
        for _ in range(3):
            assert [float(sample.targets["soil"][0, 0, 0]) for sample in cached] == [3, 5, 7]
    assert sorted(log.read_text().split()) == sorted(["3", "5", "7"] * 3)


def test_what_lay_in_the_folder_before_is_not_taken_for_the_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    np.save(folder / "0-labels.npy", np.zeros((4, 6), np.uint8))
    with cache_samples(counted(tmp_path / "log"), "disk", folder) as dataset:
        assert int(dataset.labels(0)[0, 0]) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
def test_what_a_killed_process_left_in_memory_is_removed_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    left = Path(tempfile.mkdtemp(prefix="refinenet-cache-", dir="/dev/shm"))
    (left / "0-image.npy").write_bytes(b"1234")
    with cache_samples(counted(tmp_path / "log"), "memory", tmp_path / "one") as first:
        assert not left.exists()
        assert int(first.labels(0)[0, 0]) == 3
        with cache_samples(counted(tmp_path / "log"), "memory", tmp_path / "two"):
            assert int(first.labels(0)[0, 0]) == 3
    assert (tmp_path / "log").read_text().split() == ["3"]


@pytest.mark.parametrize(("room", "reads"), [(0, 6), (10**18, 3)])
def test_without_room_samples_are_read_each_time_and_it_is_said(
    room: int, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sample_cache, "KEPT_FREE", 10**18 - room)
    with cache_samples(counted(tmp_path / "log"), "disk", tmp_path / "cache") as dataset:
        for _ in range(2):
            assert [int(dataset.labels(k)[0, 0]) for k in range(3)] == [3, 5, 7]
    assert len((tmp_path / "log").read_text().split()) == reads
    assert ("was too small" in capsys.readouterr().err) == (room == 0)


needs_shared_memory = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")


@needs_shared_memory
def test_too_little_memory_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have 64 MB by default: nothing would be cached, without a message."""
    monkeypatch.setattr(sample_cache, "KEPT_FREE", 10**18)
    with (
        pytest.raises(ValueError, match=r"cache='disk', or give a container more with --shm-size"),
        cache_samples(counted(tmp_path / "log"), "memory", tmp_path / "x"),
    ):
        pass


def train(folder: Path, settings: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The losses of a run and the names of what it leaves."""
    torch.manual_seed(1)
    RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu").train(
        "streets:2:48x32",
        output=folder,
        progress=False,
        check=False,
        epochs=2,
        batch_size=2,
        crop_size=(32, 32),
        loggers=(),
        **{"workers": 1, **settings},
    )
    losses = [line.split(",")[1] for line in (folder / "log.csv").read_text().splitlines()]
    return losses, sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], tuple[list[str], list[str]]]:
    """Trains with the same settings and no cache, once for all that differ in the cache alone."""
    known: dict[str, tuple[list[str], list[str]]] = {}

    def find(settings: dict[str, Any]) -> tuple[list[str], list[str]]:
        chosen = {**settings, "cache": "none"}
        if str(chosen) not in known:
            known[str(chosen)] = train(tmp_path_factory.mktemp("without"), chosen)
        return known[str(chosen)]

    return find


@pytest.mark.parametrize(
    "settings",
    [
        {"cache": "disk"},
        pytest.param({"cache": "memory"}, marks=needs_shared_memory),
        {"cache": "disk", "augment_on": "device"},
        {"cache": "disk", "workers": 0},
    ],
)
def test_training_ends_alike_with_a_cache_and_without(
    settings: dict[str, Any],
    without: Callable[[dict[str, Any]], tuple[list[str], list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample_cache, "KEPT_FREE", 0)  # containers have little
    losses, left = train(tmp_path, settings)
    assert (losses, left) == without(settings)
    whole = ["best.safetensors", "checkpoints", "curves.png", "last.safetensors", "log.csv", "recipe.toml", "run.json"]
    assert left == [*whole, "samples"]
