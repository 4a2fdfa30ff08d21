"""Training batches: the same however many processes load and train, and wherever a training was resumed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from refinenet.datasets.catalog import Dataset
from refinenet.io.images.codec import decode
from refinenet.io.images.mask_files import read_mask
from refinenet.labels import LabelSet
from refinenet.training.config import TrainConfig
from refinenet.training.loading.loader import Loader, batch_size
from refinenet.training.loading.worker_pool import WorkerPool

Pixels = npt.NDArray[np.uint8]
Seen = tuple[Tensor, Tensor, tuple[str, ...]]
"""Images, labels and names of a part or of a batch."""

CPU = torch.device("cpu")
RARE = (3, 4)
PLAIN: dict[str, Any] = {"crop_size": (12, 16), "scale": (1.0, 1.0), "colour_jitter": 0.0, "batch_size": 4, "seed": 5}
FULL: dict[str, Any] = {
    "crop_size": (12, 16),
    "batch_size": 4,
    "seed": 5,
    "rotation": 30.0,
    "class_crops": 0.5,
    "hue": 0.1,
    "gamma": 0.5,
    "blur": 0.5,
    "cutout": 0.5,
    "paste_classes": 0.5,
    "cut_mix": 0.5,
    "paste_rare": 0.5,
}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the test needs signals")


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Waiting for a process that has ended would take forever."""

    def stop(*_: object) -> None:
        raise TimeoutError("a test of the loader hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def read_numbered(channels: tuple[int, ...], item: str) -> Pixels:
    """The item's number everywhere; its label map has five classes."""
    if channels:
        return np.full((12, 16, 3), int(item), np.uint8)
    return np.random.default_rng(int(item)).integers(0, 5, (12, 16), dtype=np.uint8)


def numbered(count: int) -> Dataset:
    """Images whose grey is their number."""
    return Dataset(
        name="numbered",
        split="train",
        label_set=LabelSet.numbered(5),
        items=[str(number) for number in range(count)],
        read_image=partial(read_numbered, (3,)),
        read_labels=partial(read_numbered, ()),
    )


def textured(count: int) -> Dataset:
    """Images of different sizes, in which all pixels differ."""

    def read_image(item: str) -> Pixels:
        random = np.random.default_rng(int(item))
        return random.integers(0, 256, (14 + int(item), 20, 3), dtype=np.uint8)

    def read_labels(item: str) -> Pixels:
        blocks = np.random.default_rng(int(item)).integers(0, 5, (5 + int(item) // 4, 5), dtype=np.uint8)
        return np.kron(blocks, np.ones((4, 4), np.uint8))[: 14 + int(item)]

    return replace(numbered(count), read_image=read_image, read_labels=read_labels)


def load(
    dataset: Dataset,
    epochs: Sequence[int] = (0,),
    first_step: int = 0,
    rank: int = 0,
    processes: int = 1,
    **settings: Any,
) -> list[list[Seen]]:
    """For each step its parts."""
    config = TrainConfig(**{"workers": 0, **settings})
    with Loader(dataset, config, CPU, rank, processes, RARE) as loader:
        return [
            [(part.images, part.labels, part.names) for part in parts]
            for epoch in epochs
            for parts in loader.epoch(epoch, first_step)
        ]


def joined(steps: list[list[Seen]]) -> list[Seen]:
    """For each step its whole batch."""
    return [
        (torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), sum((p[2] for p in parts), ()))
        for parts in steps
    ]


def assert_equal(ours: list[tuple[Tensor, Tensor, Any]], theirs: list[tuple[Tensor, Tensor, Any]]) -> None:
    assert len(ours) == len(theirs) > 0
    for (images, labels, names), (other_images, other_labels, other_names) in zip(ours, theirs, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)
        assert names == other_names


def numbers(steps: list[list[Seen]]) -> list[int]:
    """Return which images of `numbered` were loaded, by their pixels."""
    found = [int(image) for images, _, _ in joined(steps) for image in (images[:, 0, 0, 0] * 255).round()]
    assert found == [int(name) for _, _, names in joined(steps) for name in names]
    return found


def test_batches_hold_images_labels_and_names(tmp_path: Path) -> None:
    (part,) = load(numbered(8), **PLAIN, flip=False)[0]
    images, labels, names = part
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == (
        (4, 3, 12, 16), torch.float32, (4, 12, 16), torch.int64,
    )  # fmt: skip
    for image, ids, name in zip(images, labels, names, strict=True):
        assert set((image * 255).round().flatten().tolist()) == {int(name)}
        assert torch.equal(ids, torch.from_numpy(read_numbered((), name)).long())
    for number in range(4):
        Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(tmp_path / f"{number}.png")
    files = replace(numbered(4), image_file=lambda item: tmp_path / f"{item}.png")
    assert set(load(files, **PLAIN)[0][0][2]) == {str(tmp_path / f"{number}.png") for number in range(4)}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_each_image_once_and_drops_what_is_left_over(workers: int) -> None:
    first, second = (numbers(load(numbered(23), [epoch], **PLAIN, workers=workers)) for epoch in (0, 1))
    assert len(first) == len(set(first)) == len(second) == len(set(second)) == 20
    assert first != second
    assert set(first) != set(second)
    assert set(first) | set(second) <= set(range(23))
    assert sorted(numbers(load(numbered(20), **PLAIN, workers=workers))) == list(range(20))
    assert first != numbers(load(numbered(23), **{**PLAIN, "seed": 6}))


def test_all_images_are_dropped_now_and_then() -> None:
    last = {
        number for epoch in range(40) for number in set(range(9)) - set(numbers(load(numbered(9), [epoch], **PLAIN)))
    }
    assert last == set(range(9))


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 1},
        {"workers": 2},
        {"workers": 3, "accumulation": 4},
        {"accumulation": 2},
        {"augment_on": "device"},
        {"augment_on": "device", "workers": 2, "accumulation": 2},
    ],
)
def test_pixels_do_not_depend_on_who_loads_and_in_which_parts(settings: dict[str, Any]) -> None:
    parts = load(textured(13), (0, 1), **FULL, **settings)
    assert {len(step) for step in parts} == {settings.get("accumulation", 1)}
    assert {len(part[0]) for step in parts for part in step} == {4 // settings.get("accumulation", 1)}
    assert_equal(joined(parts), joined(load(textured(13), (0, 1), **FULL)))


@pytest.mark.parametrize("augment_on", ["workers", "device"])
def test_training_processes_share_the_batch_that_one_would_have(augment_on: str) -> None:
    shared: dict[str, Any] = {**FULL, "augment_on": augment_on, "accumulation": 2}
    ranks = [load(textured(13), (3,), rank=rank, processes=2, **shared) for rank in (0, 1)]
    together = [
        [
            (torch.cat([ours[0], theirs[0]]), torch.cat([ours[1], theirs[1]]), ours[2] + theirs[2])
            for ours, theirs in zip(*parts, strict=True)
        ]
        for parts in zip(*ranks, strict=True)
    ]
    alone = load(textured(13), (3,), **shared)
    for ours, expected in zip(together, alone, strict=True):
        assert_equal(ours, expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first_step", [1, 2])
def test_an_epoch_taken_up_goes_on_as_it_would_have(workers: int, first_step: int) -> None:
    whole = load(textured(13), (2,), **FULL)
    assert_equal(joined(load(textured(13), (2,), first_step, **FULL, workers=workers)), joined(whole[first_step:]))
    assert load(textured(13), (2,), 3, **FULL, workers=workers) == []


def test_skipped_steps_are_not_read(tmp_path: Path) -> None:
    def read_image(item: str) -> Pixels:
        (tmp_path / item).touch()
        return read_numbered((3,), item)

    seen = numbers(load(replace(numbered(20), read_image=read_image), first_step=3, **PLAIN))
    assert {int(path.name) for path in tmp_path.iterdir()} == set(seen)
    assert len(seen) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_the_random_numbers_of_the_training_are_neither_used_nor_taken(workers: int) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state()
    first = joined(load(textured(8), **FULL, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)
    following = np.random.rand()
    np.random.seed(1)
    assert np.random.rand() == following
    torch.manual_seed(2)
    assert_equal(joined(load(textured(8), **FULL, workers=workers)), first)


def test_images_vary_from_epoch_to_epoch_and_from_image_to_image() -> None:
    dataset = replace(textured(8), items=["3"] * 8)
    batches = [images for images, _, _ in joined(load(dataset, (0, 1), **{**FULL, "paste_rare": 0.0, "cut_mix": 0.0}))]
    images = [image for batch in batches for image in batch]
    assert not any(torch.equal(image, other) for k, image in enumerate(images) for other in images[:k])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_early_does_not_disturb_the_next(workers: int) -> None:
    config = TrainConfig(**FULL, workers=workers)
    with Loader(textured(13), config, CPU, rare=RARE) as loader:
        pids = loader.worker_pids
        assert len(pids) == workers
        for _ in range(3):
            next(loader.epoch(0))
        unfinished = loader.epoch(1)
        next(unfinished)
        parts = [[(part.images, part.labels, part.names) for part in parts] for parts in loader.epoch(2)]
        assert loader.worker_pids == pids
    assert_equal(joined(parts), joined(load(textured(13), (2,), **FULL)))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_batches_must_be_shared_evenly() -> None:
    config = TrainConfig(batch_size=12, accumulation=2)
    assert [batch_size(numbered(30), config, processes) for processes in (1, 2, 3, 6)] == [12] * 4
    assert [batch_size(numbered(11), config, processes) for processes in (1, 2, 3)] == [10, 8, 6]
    with pytest.raises(ValueError, match=r"batch_size=12 .* 4 training processes .*accumulation=2.* a multiple of 8"):
        Loader(numbered(30), config, CPU, 0, 4)
    with pytest.raises(ValueError, match=r"numbered train has 3 images, too few for 2 .* at least 4"):
        Loader(numbered(3), config, CPU, 0, 2)
    with pytest.raises(ValueError, match=r"paste_rare=1\.0 .*no class is that rare"):
        Loader(numbered(30), replace(config, paste_rare=1.0), CPU)


@pytest.mark.parametrize("on", ["workers", "device"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_cannot_be_used_is_named(workers: int, on: str, tmp_path: Path) -> None:
    for number in range(8):
        Image.fromarray(np.zeros((12, 16), np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:60])
    (tmp_path / "6.png").unlink()
    dataset = replace(
        numbered(8),
        read_image=lambda item: decode(tmp_path / f"{item}.png"),
        read_labels=lambda item: read_mask(tmp_path / f"{item}.png"),
    )
    settings: dict[str, Any] = {**PLAIN, "workers": workers, "augment_on": on}
    for bad, kind in (("5", ValueError), ("6", FileNotFoundError)):
        broken = replace(dataset, items=[*"0123", bad, *"7014"])
        with pytest.raises(kind, match=rf"{bad}\.png"):
            load(broken, (0, 1, 2), **settings)
    assert len(load(replace(dataset, items=[*"01234777"]), **settings)) == 2


@pytest.mark.parametrize("moment", ["before", "between", "waiting", "reading"])
@pytest.mark.parametrize("on", ["workers", "device"])
def test_a_killed_loading_process_ends_the_epoch_at_once_and_by_name(moment: str, on: str, tmp_path: Path) -> None:
    """A process is killed before the epoch, between two batches, after its last task, or while reading."""
    read = itertools.count(1)  # each loading process goes on with a copy of its own

    def read_slowly(item: str) -> Pixels:
        if moment == "reading" and next(read) > 8:  # two tasks of four images are given ahead
            (tmp_path / str(os.getpid())).touch()
            time.sleep(90)
            (tmp_path / "awake").touch()
        return read_numbered((3,), item)

    dataset = replace(numbered(64), read_image=read_slowly)
    config = TrainConfig.from_dict({**PLAIN, "workers": 2, "augment_on": on})
    with Loader(dataset, config, CPU) as loader:
        batches = loader.epoch(0)
        victim = loader.worker_pids[1]
        if moment != "before":
            next(batches)
        if moment == "waiting":
            time.sleep(0.5)
        if moment == "reading":
            next(batches)
            next(batches)
            while not (tmp_path / str(victim)).exists():
                time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match=rf"process {victim} was ended by SIGKILL\. .*out of memory"):
            list(batches)
        assert not (tmp_path / "awake").exists()  # no other process was waited for
        with pytest.raises(ChildProcessError, match=rf"{victim} was ended by SIGKILL"):
            next(loader.epoch(1))
        pids = loader.worker_pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(ValueError, match="have been ended"):
        next(loader.epoch(1))


def test_a_process_that_is_killed_while_another_one_is_waited_for_ends_the_epoch() -> None:
    def read_slowly(item: str) -> Pixels:
        time.sleep(60)
        return read_numbered((3,), item)

    with Loader(replace(numbered(64), read_image=read_slowly), TrainConfig(**PLAIN, workers=2), CPU) as loader:
        started = time.monotonic()
        killer = threading.Timer(1, os.kill, [loader.worker_pids[1], signal.SIGKILL])
        killer.start()
        with pytest.raises(ChildProcessError, match=rf"process {loader.worker_pids[1]} was ended by SIGKILL"):
            next(loader.epoch(0))
        assert time.monotonic() - started < 30


def test_a_loading_process_that_fails_by_itself_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(item: str) -> Pixels:
        raise TypeError("what nobody thought of")

    with pytest.raises(ChildProcessError, match=r"loading process \d+ ended with exit code 1\. Its output above"):
        load(replace(numbered(8), read_image=fail), **PLAIN, workers=2)
    assert "what nobody thought of" in capfd.readouterr().err


def test_the_signals_that_reach_the_whole_group_do_not_end_loading_processes() -> None:
    with Loader(numbered(40), TrainConfig(**PLAIN, workers=2), CPU) as loader:
        batches = loader.epoch(0)
        next(batches)
        for pid in loader.worker_pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        assert len(list(batches)) == 9


def test_signals_that_arrive_while_loading_processes_start_do_not_end_them() -> None:
    for _ in range(20):
        with WorkerPool[str, int](len, 2, int) as processes:
            for pid in processes.pids:
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)
            assert list(processes.map(["a", "bc", "", "d"])) == [1, 2, 0, 1]


SCRIPT = """
import sys, time
import numpy as np, torch
from refinenet.datasets.catalog import Dataset
from refinenet.labels import LabelSet
from refinenet.training.loading.loader import Loader
from refinenet.training.config import TrainConfig
dataset = Dataset(
    name="black", split="train", label_set=LabelSet.numbered(5), items=["0", "1"] * 9,
    read_image=lambda _: np.zeros((16, 16, 3), np.uint8), read_labels=lambda _: np.zeros((16, 16), np.uint8),
)
loader = Loader(dataset, TrainConfig(batch_size=2, crop_size=(16, 16), workers=2), torch.device("cpu"))
batches = loader.epoch(0)
next(batches)
print(*loader.worker_pids, flush=True)
time.sleep(float(sys.argv[1]))
"""


def start_script(seconds: float) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
@pytest.mark.parametrize("is_killed", [False, True])
def test_loading_processes_do_not_outlive_the_training(is_killed: bool) -> None:
    """Neither one that ends without closing the loader, which would not end itself either, nor one that is killed."""
    process, pids = start_script(60 if is_killed else 0)
    assert len(pids) == 2
    if is_killed:
        process.kill()
    assert process.wait(60) == (-signal.SIGKILL if is_killed else 0)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
