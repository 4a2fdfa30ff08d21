"""A training that was stopped continues bit for bit as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_parts import SMALL_DECODER
from small_runs import state

from refinenet import RefineNet

STEPS = 6
"""Of the training below: three epochs of two steps."""


def train(output: Path, **more: Any) -> RefineNet:
    r = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu")
    settings: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 4,
        "crop_size": (32, 32),
        "ema_decay": 0.9,
        "accumulation": 2,
        "warm_up": 0.4,
    }
    settings |= {"precision": "float32", "loggers": (), "workers": 0, **more}
    r.train(dataset="streets:8:48x32", output=output, progress=False, check=False, **settings)
    return r


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


def assert_equal(folder: Path, whole: Path) -> None:
    ours, expected = state(folder, STEPS), state(whole, STEPS)
    assert ours.keys() == expected.keys()
    assert [name for name in ours if not torch.equal(ours[name], expected[name])] == []
    assert (folder / "best.safetensors").exists()
    assert [line.split(",")[:5] for line in (folder / "log.csv").read_text().splitlines()] == [
        line.split(",")[:5] for line in (whole / "log.csv").read_text().splitlines()
    ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_run_that_was_stopped_ends_bit_for_bit_where_it_would_have(
    steps: int, workers: int, whole: Path, tmp_path: Path
) -> None:
    train(tmp_path, stop_after=steps, workers=workers)
    assert not (tmp_path / "checkpoints" / f"step-{STEPS:06d}").exists()
    resumed = RefineNet(encoder="test_resnet", device="cpu").train(resume=tmp_path, progress=False)
    assert (resumed.is_over, resumed.epochs) == (True, 3)
    assert_equal(tmp_path, whole)


def test_a_broken_checkpoint_is_put_aside_and_the_one_before_taken(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, stop_after=3)
    weights = tmp_path / "checkpoints" / "step-000003" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    capsys.readouterr()
    RefineNet(encoder="test_resnet", device="cpu").train(resume=tmp_path, progress=False)
    assert "step-000003 is broken" in capsys.readouterr().err
    assert_equal(tmp_path, whole)


def test_a_run_without_a_good_checkpoint_is_not_begun_anew(tmp_path: Path) -> None:
    train(tmp_path, stop_after=1)
    for checkpoint in (tmp_path / "checkpoints").glob("step-*"):
        (checkpoint / "meta.json").unlink()
    with pytest.raises(ValueError, match="no valid checkpoint"):
        RefineNet(encoder="test_resnet", device="cpu").train(resume=tmp_path, progress=False)
