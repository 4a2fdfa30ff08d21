"""Every command and Python example of the how-to pages and the tutorial, run in the order of its page.

Networks, images and numbers of epochs are small; settings are checked by `test_docs`. The pages with published data are
run by `end_to_end/test_readme.py`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import band_scenes
import numpy as np
import pytest
import target_folders
from model_parts import SMALL_DECODER
from PIL import Image
from video_samples import moving_street, write_video

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.labelling import write_labels
from refinenet.labels import LabelSet

DOCS = Path(__file__).parents[2] / "docs"
QUICK = " --epochs 1 --batch-size 2 --set crop_size=[48,48] --set workers=0 --set loggers=[] --set validate_every=1"
QUICK_FOLDS = " --epochs 1 --set batch_size=2 --set crop_size=[48,48] --set workers=0 --set loggers=[]"
QUICK_PYTHON = ", epochs=1, crop_size=[48, 48], batch_size=2, workers=0, loggers=[]"
ELSEWHERE = re.compile(
    r"refinenet (serve|push|pull)|hf://"  # servers: test_server.py, test_hub.py
    r"|label correct|label take (todo|suspects) "  # test_corrector.py, test_corrector_page.py
    r"|encoder-weights imagenet"  # a download: test_installed_weights.py
    r"|export street\.engine"  # TensorRT: test_tensorrt.py
)
NEEDS_MORE = re.compile(r"VideoCapture|tritonclient|uvicorn|cv2\.imread")
"""Examples for a camera and a running server, and with OpenCV, which is not installed with the tests."""


COMMANDS_ELSEWHERE = (
    *("how-to/old-weights.md", "how-to/many-images.md", "how-to/video.md"),
    *("how-to/evaluate.md", "how-to/papers.md", "how-to/export.md"),
)
"""Pages whose commands need published data or each other's results: see `end_to_end/test_readme.py`."""


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Yield the commands and Python examples of a page, with their language."""
    text = (DOCS / page).read_text("utf-8")
    for language, block in re.findall(r"^```(console|python)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        if language == "python":
            yield language, block
            continue
        for line in block.splitlines() if page not in COMMANDS_ELSEWHERE else ():
            if line.startswith("$ refinenet ") and not ELSEWHERE.search(line):
                yield language, line[2:].partition(" #")[0]


def write_files(folder: Path, drawn: Path) -> None:
    """Write what the readers of the pages have: photographs, a dataset, models, a video, a large image."""
    assert drawn == folder / "mine"
    street = Image.fromarray(draw_street(5, 60, 80)[0])
    (folder / "photographs").mkdir()
    for name in ("photograph.jpg", "photo.jpg", "street.jpg", "photographs/0001.jpg"):
        street.save(folder / name)
    write_video(folder / "drive.mp4", moving_street(3))
    shutil.copy(folder / "drive.mp4", folder / "street.mp4")
    own = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=3, device="cpu")
    own.label_set = LabelSet(names=("other", "sky", "road"), colours=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    own.save(folder / "mine.safetensors")


def quick(command: str) -> list[str]:
    """Return the words of a command after `refinenet`: quick if it trains, with time enough if that is limited."""
    if "refinenet train" in command:
        command = re.sub(r" --set ('[^']*'|\S+)| --epochs \d+", "", command).replace("mobilenetv2_100", "test_resnet")
        command += QUICK + (" --encoder test_resnet" if not re.search("--model|--encoder|--continue", command) else "")
    if "--folds" in command:
        command = re.sub(r"--folds \d+", "--folds 2 --start mine.safetensors --unseen", command) + QUICK_FOLDS
    command = re.sub(r"streets:\d+", "streets:2:64x64", command)
    command = re.sub(r"--max-latency \d+", "--max-latency 60000", command)  # also where other processes are busy
    return shlex.split(command)[1:]


def quick_python(text: str) -> str:
    """Return a Python example with fewer and smaller images, and one epoch."""
    text = text.replace("streets:4", "streets:2:64x64").replace(", epochs=40", QUICK_PYTHON)
    return text.replace('"train": range(40), "val": range(40, 50)', '"train": range(8), "val": range(40, 44)')


def prepare(page: str, folder: Path) -> None:
    """Write what one page alone needs."""
    if page == "how-to/bands.md":
        band_scenes.write_folder(folder / "fields", 8)
        band_scenes.write_tiff(folder / "field.tif", band_scenes.draw_scene(9)[0])
    if page == "how-to/depth-normals.md":
        target_folders.write_folder(folder / "fields")
        shutil.rmtree(folder / "mine")
        target_folders.write_folder(folder / "mine")
        small: dict[str, Any] = {"encoder": "test_resnet", "decoder": SMALL_DECODER, "device": "cpu"}
        three = RefineNet(num_classes=4, outputs="classes,depth:0.5:80,normals", **small)
        three.save(folder / "three.safetensors")
        (folder / "runs" / "mine").mkdir(parents=True)
        shutil.copy(folder / "three.safetensors", folder / "runs" / "mine" / "best.safetensors")
    if page == "how-to/choose-what-to-label.md":
        shutil.copytree(folder / "mine", folder / "grown")
    if page in ("how-to/fine-boundaries.md", "how-to/containers.md"):
        (folder / "runs" / "mine").mkdir(parents=True)
        shutil.copy(folder / "mine.safetensors", folder / "runs" / "mine" / "best.safetensors")
    if page == "how-to/label.md":
        write_export(folder)
    if page == "how-to/export.md":
        network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=3, device="cpu")
        network.export(folder / "street.onnx", sizes=[(60, 80)], progress=False)
    if page in ("how-to/large-images.md", "how-to/read-results.md"):
        street = draw_street(7, 60, 80)[0].astype(np.float32)
        band_scenes.write_tiff(folder / "ortho.tif", street.astype(np.uint8))
        band_scenes.write_tiff(folder / "scene.tif", np.dstack([street, street[..., :1]]) * 10)


def write_export(folder: Path) -> None:
    """Write what an annotation tool exports: the drafts of the photographs, unchanged."""
    model = RefineNet(model=folder / "mine.safetensors", device="cpu")
    images = folder / "photographs"
    drafts = write_labels(images, folder / "elsewhere", model=model, progress=False)
    shutil.copy(drafts.files / "cvat_masks.zip", folder / "export.zip")


OWN_FOLDERS = ("how-to/annotate.md", "how-to/moving.md")
"""Pages whose Python examples are run by `test_docs`."""
PAGES = [
    page
    for path in sorted([*(DOCS / "how-to").glob("*.md"), DOCS / "tutorial.md"])
    if (page := str(path.relative_to(DOCS))) not in OWN_FOLDERS and any(steps(page))
]


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_a_page_run_in_its_order(
    page: str, tmp_path: Path, drawn_folder: Path, call_refinenet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, drawn_folder)
    prepare(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("example_of_a_page")  # forked processes find its functions by name
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names = vars(module)
    for language, text in steps(page):
        if language == "python":
            if not NEEDS_MORE.search(text):
                exec(quick_python(text), names)
            continue
        run = re.search(r"refinenet train.* (?:--output|-o) (\S+)", text)
        if run:  # a page may train into the same folder in several ways
            shutil.rmtree(tmp_path / run.group(1), ignore_errors=True)
        found = call_refinenet(*quick(text))
        assert found.returncode == 0, (text, found.stderr)
