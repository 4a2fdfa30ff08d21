"""The README's examples, run as they stand; only paths are replaced by places that exist here."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import matlab_miniatures
import numpy as np
import png_miniatures
import pytest
from conftest import CommandLine
from PIL import Image
from video_samples import moving_street, write_video

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
QUICK = ", epochs=1, crop_size=[48, 48], batch_size=2, workers=0, loggers=[]"
QUICK_OPTIONS = " --epochs 1 --batch-size 2 --set crop_size=[48,48] --set workers=0 --set loggers=[]"
SMALL_NETWORK = " --encoder test_resnet"
LARGE_NETWORK = " --model-type lightweight --num-layers 50"
NAMES_A_NETWORK = ("--model", "--encoder", "lightweight_nyu")
"""Commands of a training without these get a small network instead of the default one of 99 million parameters."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def users_files(tmp_path: Path, drawn_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's readers have: images, a saved model, masks and predictions, an old checkpoint."""
    assert drawn_folder == tmp_path / "mine"
    shutil.copytree(drawn_folder / "masks", tmp_path / "their_masks")
    (tmp_path / "my" / "images").mkdir(parents=True)
    (tmp_path / "path" / "to").mkdir(parents=True)
    picture = Image.fromarray(draw_street(5, 60, 80)[0])
    picture.save(tmp_path / "my" / "image.jpg")
    write_video(tmp_path / "my" / "video.mp4", moving_street(3))
    picture.save(tmp_path / "my" / "images" / "one.jpg")
    RefineNet(model="camvid", device="cpu").save(tmp_path / "path" / "to" / "my_model")
    monkeypatch.chdir(tmp_path)
    for name in ("REFINENET_NYU", "REFINENET_COCO"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write_published_data(folder: Path) -> None:
    """Miniatures of the datasets that the README's commands name, and its stages."""
    matlab_miniatures.write_voc_aug(folder / "data" / "voc")
    matlab_miniatures.write_voc_test(folder / "data" / "voc")
    matlab_miniatures.write_sbd(folder / "data" / "sbd")
    png_miniatures.write_coco(folder / "data" / "coco")
    plan = with_local_paths(blocks("yaml")[0], folder)
    (folder / "stages.yaml").write_text(re.sub(r"epochs: \d+", "epochs: 1", plan), "utf-8")


def with_local_paths(text: str, folder: Path) -> str:
    return re.sub(r"(?<=[\"' ])/(my|path|old|data)/", rf"{folder}/\1/", text)


def test_the_contract_of_nine_lines_stands_in_the_readme() -> None:
    assert [line.split("#")[0].strip() for line in blocks("python")[0].splitlines() if line] == [
        "from refinenet import RefineNet",
        "r = RefineNet()",
        'r = RefineNet(model_type="lightweight", num_layers=50)',
        'r = RefineNet(model_type="lightweight", model="/path/to/my_model")',
        'r = RefineNet(model="camvid")',
        'r.train(dataset="nyu", learning_rate=0.0005)',
        "segmentation_image = r.deploy(image=my_image)",
        'r.deploy(image_file="/my/image.jpg", output_file="/my/segmentation/image.jpg")',
        'r.eval(dataset="coco", output_file="/my/results.json")',
    ]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples_run(users_files: Path, number: int) -> None:
    """Statement by statement; those that need data which are not here say what to download and where to put it."""
    text = with_local_paths(blocks("python")[number], users_files)
    names: dict[str, Any] = {"my_image": draw_street(1, 40, 60)[0]}
    for statement in ast.parse(text).body:
        line = ast.unparse(statement)
        if "'nyu'" in line or "'coco'" in line:
            with pytest.raises(FileNotFoundError, match=r"(?s)Download.*http.*root="):
                exec(line, names)
        else:
            exec(line.replace(", epochs=40", QUICK), names)
    if "segmentation_image" in names:
        assert names["segmentation_image"].shape == (40, 60, 3)
        assert names["segmentation_image"].dtype == np.uint8
        assert Image.open(users_files / "my" / "segmentation" / "image.jpg").size == (80, 60)


def test_console_examples_run(users_files: Path, call_refinenet: CommandLine) -> None:
    """All `refinenet` commands, in the order of the page; old checkpoints are tested by test_convert.py."""
    write_published_data(users_files)
    (users_files / "old").mkdir()
    RefineNet(encoder="test_resnet", device="cpu").save(users_files / "old" / "rf_lw50_voc.pth.tar")
    commands = [
        line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ refinenet")
    ]
    assert len(commands) >= 9
    for command in commands:
        quick = command.partition(" #")[0].replace("streets:20", "streets:4:64x64").replace("--epochs 40", "")
        if "refinenet train" in quick and "--resume" not in quick:
            quick = quick.partition(" --set")[0].replace(LARGE_NETWORK, SMALL_NETWORK) + QUICK_OPTIONS
            quick += "" if any(word in quick for word in NAMES_A_NETWORK) else SMALL_NETWORK
        if "refinenet export" in quick:
            quick = quick.replace("streets:4", "streets:1:64x64") + " --size 64x64"
        result = call_refinenet(*shlex.split(with_local_paths(quick, users_files), comments=True)[1:])
        if "--recipe lightweight_nyu" in quick:  # its encoder's ImageNet weights are fetched first
            assert result.returncode == 1
            assert "'resnet50' could not be downloaded" in result.stderr
            assert "encoder_weights=FILE" in result.stderr
            continue
        assert result.returncode == 0, (command, result.stderr)
    for made in (
        "my/overlay.jpg",
        "my/labels/one.png",
        "my/overlay.mp4",
        "my/frames/000002.png",
        "my/results.json",
        "runs/mine/log.csv",
        "segmented/5.png",
        "report/report.html",
        "voc.tgz",
        "street.onnx.certificate.json",
    ):
        assert (users_files / made).exists(), made
