"""What a training prints while it runs, where standard error is no terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_runs import SETTINGS, new_network, write_pictures

from refinenet.io import console

SOON = {**SETTINGS, "epochs": 4}


def test_an_epoch_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "FIRST_LINE", 0.0)
    monkeypatch.setattr(console, "LATER_LINES", 0.0)
    new_network().train(write_pictures(tmp_path / "mine", train=16), output=tmp_path / "run", check=False, **SOON)
    lines = capsys.readouterr().err.splitlines()
    assert any(re.fullmatch(r"Epoch 1/4: 4 of 16 images, loss [0-9.]+, [0-9.]+ images/s", line) for line in lines)
    second = r"Epoch 2/4, best mIoU [0-9.]+: 12 of 16 images, loss [0-9.]+, [0-9.]+ images/s; [0-9]+ s left"
    assert any(re.fullmatch(second, line) for line in lines)
    assert any(re.fullmatch(r"Evaluating on mine val: 1 of 2 images", line) for line in lines)


def test_the_first_epoch_of_a_resumed_run_says_how_much_time_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    new_network().train(write_pictures(tmp_path / "mine"), output=run, check=False, stop_after=3, **SOON)
    capsys.readouterr()
    new_network().train(resume=run)
    (second,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch 2/4"))
    assert re.search(r"; [0-9]+ s left \(training [0-9]+ s, validation [0-9]+ s\)$", second), second
