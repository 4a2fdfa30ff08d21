"""A loading process that hangs is named after a while, and given up after a longer one."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from held_files import held, is_there
from small_runs import CLASSES, train, write_pictures

from refinenet.datasets.catalog import open_dataset
from refinenet.io.images.codec import decode
from refinenet.io.images.image_files import RGB
from refinenet.training.config import TrainConfig
from refinenet.training.loading import worker_pool
from refinenet.training.loading.loader import Loader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are held by a lease")


def test_a_file_that_cannot_be_read_for_long_ends_the_training_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker_pool, "WARN_AFTER", 1.0)
    monkeypatch.setattr(worker_pool, "GIVE_UP_AFTER", 2.0)
    pictures = write_pictures(tmp_path / "pictures")
    with held(pictures / "images" / "train" / "5.png") as somebody_waits:
        with pytest.raises(TimeoutError, match=r"^The loading process \d+ has been busy for 2 s with .*/5\.png") as end:
            train(pictures, tmp_path / "run", workers=2)
        assert somebody_waits()
    pid = str(end.value).split()[3]
    told = capfd.readouterr().err
    assert told.count("Warning: the loading process") == 1
    assert f"process {pid} has been busy for 1 s with " in told
    assert f"If it hangs, end it (kill -9 {pid}) and continue with --resume." in told
    assert not is_there(int(pid))


def test_a_process_that_goes_on_after_the_warning_is_forgiven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "WARN_AFTER", 0.5)
    errors = tmp_path / "errors"
    dataset = open_dataset(write_pictures(tmp_path / "pictures"))("train")

    def read_after_the_warning(item: str) -> RGB:
        deadline = time.monotonic() + 60
        while "kill -9" not in errors.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        return decode(dataset.image_file(item) or "")

    config = TrainConfig(batch_size=4, crop_size=(32, 32), workers=1, paste_rare=0.5, class_crops=0.0)
    with errors.open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        slow = replace(dataset, read_image=read_after_the_warning)
        with Loader(slow, config, torch.device("cpu"), rare=range(CLASSES)) as loader:
            (part,) = next(loader.epoch(0))
    told = errors.read_text()
    assert told.count("Warning") == 1
    assert set(part.names) < set(re.findall(r"[^ ]+\.png", told))  # rare classes are pasted from others
