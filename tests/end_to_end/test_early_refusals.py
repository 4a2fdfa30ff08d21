"""What names, folders and headers of files show is refused at once: before PyTorch is imported, which takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CommandLine
from PIL import Image
from small_runs import SETTINGS, new_network, write_pictures

from refinenet import RefineNet

CALL = """
import sys
from refinenet.cli import main
try:
    main()
finally:
    print("torch" in sys.modules)
"""


def refuse(folder: Path, *arguments: str) -> str:
    """Run a command that fails in a folder, and return its message; PyTorch must not have been imported."""
    command = [sys.executable, "-c", CALL, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "False\n", done.stderr
    (line,) = done.stderr.splitlines()
    return line.removeprefix("Error: ")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, a run that has started in it, a model, and an image with its results."""
    folder = tmp_path_factory.mktemp("place")
    write_pictures(folder / "mine")
    write_pictures(folder / "gaps")
    for number, path in enumerate(sorted((folder / "gaps" / "images" / "train").iterdir())):
        if number < 3:
            path.unlink()
    r = new_network()
    r.train(folder / "mine", output=folder / "run", check=False, progress=False, stop_after=1, **SETTINGS)
    r.save(folder / "small.safetensors")
    (folder / "images").mkdir()
    for name in ("a.png", "images/a.png", "images/b.png"):
        Image.new("RGB", (40, 40), (90, 120, 60)).save(folder / name)
    r.deploy_files(folder / "images", folder / "out", progress=False)
    (folder / "a_labels.png").write_bytes(b"theirs")
    return folder


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train -d mine -o run", "run already holds a run. Continue it with --resume run, or choose another folder."),
        ("train -d mine -o a.png", "a.png is a file, but a run needs a folder. Pass another --output."),
        ("train -d none", "There is no dataset 'none'"),
        ("train -d mine --root there", "root='there' has no effect"),
        ("train -d mine --set epoch=3", "Unknown training settings: epoch. Did you mean epochs?"),
        ("train -d mine --epochs 0", "epochs must be a whole number of at least 1, not 0."),
        (
            "train -d mine --epochs 0 --set flip=False --set patience=None",
            "epochs must be a whole number of at least 1, not 0.",
        ),
        (
            "train -d mine -m none.safetensors",
            "no model file none.safetensors. Bundled models: camvid, camvid_256, streets.",
        ),
        (
            "label errors mine --folds 2 --set epochs=0 --set crop_sze=[40,40]",
            "Unknown training settings: crop_sze. Did you mean crop_size?",
        ),
        ("label errors mine --folds 2 --set patience=never", "patience must be a whole number of at least 1 or None"),
        (
            "export out.wrong -m small.safetensors",
            "Networks are exported as .onnx (ONNX), .xml (OpenVINO), .pt2 (PyTor",
        ),
        ("export images -m small.safetensors", "not as 'images'. Choose one of these suffixes."),
        ("export a.png/b.onnx -m small.safetensors", "a.png is a file, not a folder."),
        ("export a.onnx -m small.safetensors -d mine --precision int8", "Int8 is supported for OpenVINO (.xml) only"),
        ("export a.onnx -m small.safetensors --shape 1x3x40x40", "leave out the shape, which is for .engine."),
        ("train --resume none", "none holds no training run"),
        ("train --continue none -d mine", "none holds no training run"),
        ("eval -d none -m small.safetensors", "There is no dataset 'none'"),
        ("eval -d mine --split test -m small.safetensors", "mine has no split 'test': it has train, val"),
        ("eval -d mine -m none.safetensors", "There is no model file none.safetensors."),
        ("calibrate -d none -m small.safetensors -o new.safetensors", "There is no dataset 'none'"),
        ("deploy a.png -m none.safetensors", "There is no model file none.safetensors."),
        ("deploy a.png -m small.safetensors", "a_labels.png already exists. Replace it with --overwrite, or choose"),
        (
            "deploy images -m small.safetensors --kind overlay --hide tow",
            "The model has no class 'tow' to show or hide.",
        ),
        ("deploy a.png -m small.safetensors -o - --kind overlay --show tow", "Did you mean two? Its classes are one, "),
        ("deploy images -m small.safetensors --kind depth", "depth"),
        ("deploy images -m small.safetensors --legend", "legend"),
        (
            "deploy images -m camvid -o out",
            "The results in out were made with another model, for 3 classes (one, two, three) instead of 11 classes "
            "(Sky, Building, Pole, Road and 7 more). Choose another folder, or replace the results there with "
            "--overwrite.",
        ),
    ],
)
def test_refusals_come_before_pytorch(place: Path, line: str, words: str) -> None:
    assert words in refuse(place, *line.split())


def test_missing_files_are_counted_before_pytorch(place: Path) -> None:
    """The message is the one of `data check`, in lines; with --no-check it comes when the data are opened."""
    command = [sys.executable, "-c", CALL, "train", "-d", "gaps", "-o", "new"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (1, "False\n"), done.stderr
    assert "Error: gaps cannot be trained on as it is." in done.stderr
    assert "Masks without an image [mask-without-image]: 3 (masks/train/" in done.stderr
    assert "`refinenet data check gaps --fix OUT` writes a repaired copy." in done.stderr
    assert not (place / "new").exists()


def test_lists_of_settings_need_no_pytorch(place: Path) -> None:
    for command in ("train", "pretrain"):
        done = subprocess.run(
            [sys.executable, "-c", CALL, command, "--show-settings", "--json"],
            cwd=place,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "80"},
        )
        assert done.stdout.endswith("]\nFalse\n")


def test_another_model_of_the_same_classes_is_told_from_one_of_others(call_refinenet: CommandLine, place: Path) -> None:
    other = RefineNet(model=place / "small.safetensors", device="cpu")
    with torch.no_grad():
        next(other.network.parameters()).mul_(2)
    other.save(place / "other.safetensors")
    done = call_refinenet("deploy", place / "images", "-m", place / "other.safetensors", "-o", place / "out")
    assert "were made with another model for the same classes. Choose another folder" in done.stderr
    assert "overwrite=True" not in done.stderr
