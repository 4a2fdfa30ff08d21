"""The small installation: exported files and the bundled model run where PyTorch cannot be imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_files import export_onnx
from model_parts import small_network
from PIL import Image
from small_installation import SmallInstallation, link_packages
from video_samples import write_video
from write_project import describe, write_project

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

pytest.importorskip("openvino")

NEEDING_PYTORCH = (
    "train --dataset here",
    "pretrain here --encoder resnet50 --output there",
    "eval --dataset here",
    "eval --dataset here --model small.xml",
    "calibrate --dataset here --output new.safetensors",
    "export new.xml",
    "quantise camvid --dataset here --output new.safetensors",
    "convert old.pth new.safetensors",
    "info model.safetensors",
    "deploy street.jpg --model model.safetensors",
    "deploy street.jpg --model camvid --device cuda",
    "deploy street.jpg --engine ray --output there",
)
"""Command lines; none may show a traceback."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallInstallation:
    """An installation of refinenet-runtime with its extras but `large` and `tables`."""
    project = describe()["project"]
    extras = [line for extra in ("serve", "video", "onnx") for line in project["optional-dependencies"][extra]]
    folder = tmp_path_factory.mktemp("small") / "packages"
    packages = link_packages([*project["dependencies"], *extras], folder)
    assert not packages & {"torch", "torchvision", "lightning", "timm"}
    return SmallInstallation(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with classes and depth, exported to OpenVINO."""
    path = tmp_path_factory.mktemp("model") / "small.xml"
    network = RefineNet(
        "lightweight", encoder="mobilenetv2_100", num_classes=5, outputs="classes,depth:0.5:80", device="cpu"
    )
    network.export(path, sizes=((64, 96),), progress=False)
    return path


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three drawn streets of different sizes."""
    folder = tmp_path_factory.mktemp("streets")
    for seed, (height, width) in enumerate(((96, 128), (90, 121), (128, 96))):
        Image.fromarray(draw_street(seed, height, width)[0]).save(folder / f"{seed}.png")
    return folder


def read_labels(folder: Path) -> dict[str, Any]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def test_pytorch_cannot_be_imported_there(small: SmallInstallation) -> None:
    assert "No module named 'torch'" in small.run("import torch").stderr
    assert small.run("import numpy, openvino").returncode == 0


def test_labels_are_those_of_pytorch(small: SmallInstallation, streets: Path, tmp_path: Path) -> None:
    done = small.refinenet("deploy", str(streets), "--output", str(tmp_path / "small"), "--kind", "labels")
    assert done.returncode == 0, done.stderr
    network = RefineNet(model="camvid", device="cpu", backend="pytorch")
    for name, labels in read_labels(tmp_path / "small").items():
        expected = network.segment(streets / name).labels
        assert (labels == expected).mean() >= 0.999, name


def test_windows_scales_and_outputs_are_those_of_pytorch(
    small: SmallInstallation, model: Path, streets: Path, tmp_path: Path
) -> None:
    code = """
import numpy as np
from refinenet import RefineNet
from refinenet.inference import Protocol

r = RefineNet(model=sys.argv[1])
found = r.predict(sys.argv[2])
image = found.image
many = [r._segmenter.under(protocol).predict(image) for protocol in (
    Protocol(window=(64, 64)), Protocol(scales=(0.5, 1.2), flip=True))]
np.savez(sys.argv[3], found.labels, found.segmentation.confidence, found.segmentation.probabilities, found.depth, *many)
assert "torch" not in sys.modules
"""
    results: list[Any] = []
    for path in (small.path, [small.path[0], *sys.path]):
        target = tmp_path / f"{len(results)}.npz"
        done = small.run(code, str(model), str(streets / "0.png"), str(target), path=path)
        assert done.returncode == 0, done.stderr
        results.append(np.load(target))
    network = RefineNet(model=model).predict(streets / "0.png")
    assert (results[0]["arr_0"] == network.labels).mean() >= 0.999
    np.testing.assert_allclose(results[0]["arr_3"], network.depth, rtol=1e-4)
    for key in results[0].files:
        np.testing.assert_allclose(results[0][key], results[1][key], rtol=1e-5, atol=1e-5)


def test_every_way_to_deploy(small: SmallInstallation, model: Path, streets: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", [np.asarray(Image.open(streets / "0.png"))] * 3)
    for arguments in (
        (
            str(streets),
            "--output",
            str(tmp_path / "many"),
            "--kind",
            "overlay",
            "--kind",
            "confidence",
            "--kind",
            "coco",
        ),
        (str(streets), "--output", str(tmp_path / "depths"), "--kind", "depth_colour", "--kind", "depth"),
        (str(streets / "0.png"), "--output", str(tmp_path / "limited.png"), "--abstain-below", "0.9"),
        (str(video), "--output", str(tmp_path / "out.mp4")),
        (str(streets), "--output", str(tmp_path / "tabled"), "--table", str(tmp_path / "areas.csv")),
    ):
        done = small.refinenet("deploy", *arguments, "--model", str(model))
        assert done.returncode == 0, (arguments, done.stderr)
    assert (tmp_path / "out.mp4").stat().st_size > 0
    assert len(list((tmp_path / "many").rglob("*.png"))) == 6
    assert len((tmp_path / "areas.csv").read_text().splitlines()) == 1 + 3 * 5


def test_frames_and_lists(small: SmallInstallation, model: Path, streets: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mp4", [np.asarray(Image.open(streets / "0.png"))] * 3)
    code = """
from refinenet import RefineNet

r = RefineNet(model=sys.argv[1])
found = list(r.frames(sys.argv[2]))
assert [round(frame.seconds * 25) for frame in found] == [0, 1, 2]
last = list(r.frames(sys.argv[2], live=True))[-1]
for segmentation in r.segment([frame.image for frame in found]):
    assert (segmentation.labels == last.segmentation.labels).mean() > 0.9
try:
    r.frames(sys.argv[2], steady=True)
except ValueError as error:
    print(error)
assert "torch" not in sys.modules
"""
    done = small.run(code, str(model), str(video))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Steady labels need OpenCV, which finds motion: pip install")


def test_an_onnx_file(small: SmallInstallation, streets: Path, tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    model.write_bytes(export_onnx(small_network()).SerializeToString())
    done = small.refinenet("deploy", str(streets / "1.png"), "--model", str(model), "--output", str(tmp_path / "a.png"))
    assert done.returncode == 0, done.stderr
    expected = RefineNet(model=model).segment(streets / "1.png").labels
    assert (np.asarray(Image.open(tmp_path / "a.png")) == expected).mean() >= 0.999


def test_the_server_answers(small: SmallInstallation, model: Path, streets: Path) -> None:
    code = """
import io, json
from refinenet import RefineNet
from refinenet.deployment import ServerSettings, create_app

app = create_app(RefineNet(model=sys.argv[1]))
print(json.dumps(sorted(app.openapi()["paths"])))
assert "torch" not in sys.modules
"""
    done = small.run(code, str(model))
    assert done.returncode == 0, done.stderr
    assert "/segment" in json.loads(done.stdout)


@pytest.mark.parametrize("line", NEEDING_PYTORCH)
def test_what_needs_pytorch_says_so_in_one_line(
    small: SmallInstallation, line: str, model: Path, streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("small.xml", "small.bin"):
        (tmp_path / name).symlink_to(model.with_name(name))
    (tmp_path / "street.jpg").write_bytes((streets / "0.png").read_bytes())
    for name in ("model.safetensors", "old.pth"):
        (tmp_path / name).write_bytes(b"weights")
    done = small.refinenet(*line.split())
    told = [text for text in done.stderr.splitlines() if not text.startswith("No --model given")]
    assert done.returncode in (1, 2)
    assert len(told) == 1, done.stderr
    assert "cuda" in told[0] or ("PyTorch" in told[0] and "pip install refinenet-torch" in told[0])


def test_missing_packages_of_extras_are_named(small: SmallInstallation, streets: Path, tmp_path: Path) -> None:
    done = small.refinenet(
        "deploy",
        str(streets / "0.png"),
        "--output",
        str(tmp_path / "a.png"),
        "--table",
        str(tmp_path / "areas.parquet"),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, done.stderr.count("\n"))
    assert "[tables]" in done.stderr


def test_info_of_the_machine_and_of_a_model(small: SmallInstallation, model: Path) -> None:
    system = json.loads(small.refinenet("info", "--json").stdout)
    assert (system["default_backend"], system["backends"]["pytorch"]) == ("openvino", "needs torch")
    described = json.loads(small.refinenet("info", str(model), "--json").stdout)
    assert len(described["classes"]) == 5


def test_the_bundled_graph_is_of_the_bundled_model(small: SmallInstallation) -> None:
    code = "from refinenet import RefineNet; print(RefineNet(model='camvid').card.weights_sha256)"
    told = small.run(code)
    expected = RefineNet(model="camvid", device="cpu").card.weights_sha256
    assert told.stdout.strip() == expected, "run `make bundled`: the bundled model has changed since"


def test_the_project_of_the_distribution(tmp_path: Path) -> None:
    write_project(tmp_path / "project")
    write_project(tmp_path / "project")  # its own folder is replaced
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="holds something else"):
        write_project(tmp_path / "other")
    pretrained = tmp_path / "project" / "src" / "refinenet" / "models" / "pretrained"
    assert sorted(path.name for path in pretrained.iterdir()) == ["camvid.bin", "camvid.xml"]
