"""One picture, one answer: PyTorch, OpenVINO, ONNX Runtime, and files exported to `.onnx` and `.xml`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from conftest import CommandLine
from exported_files import export_onnx, make_tiny, write_openvino
from model_parts import NARROW_CARD as CARD
from model_parts import narrow_network
from PIL import Image
from translations import save_small

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.protocol import Protocol

SIZES = [(1, 1), (33, 47), (97, 130)]
WAYS = ["openvino", "onnxruntime", "model.onnx", "model.onnx by openvino", "model.xml", "half.xml"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one network as model file, `.onnx`, and `.xml` in float32 and float16."""
    folder = tmp_path_factory.mktemp("exports")
    save_small(folder / "model.safetensors", "openvino", "onnxruntime")
    model = export_onnx(narrow_network(), CARD)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_openvino(model, folder / "model.xml")
    write_openvino(model, folder / "half.xml", half=True)
    return folder


@pytest.fixture(scope="module")
def by_pytorch(files: Path) -> RefineNet:
    return RefineNet(model=files / "model.safetensors", device="cpu")


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, files: Path) -> tuple[str, RefineNet]:
    """Another way to run the same network."""
    name: str = request.param
    options: dict[str, Any]
    if "." not in name:
        options = {"model": files / "model.safetensors", "backend": name, "device": "cpu"}
    else:
        file, _, backend = name.partition(" by ")
        options = {"model": files / file, "backend": backend or None}
    return name, RefineNet(**options)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    path.write_bytes(make_tiny().SerializeToString())
    return path


def street(size: tuple[int, int], seed: int = 3) -> npt.NDArray[np.uint8]:
    return draw_street(seed, 128, 160)[0][: size[0], : size[1]]


@pytest.mark.parametrize("size", SIZES)
def test_every_way_gives_the_same_answer(
    size: tuple[int, int], way: tuple[str, RefineNet], by_pytorch: RefineNet
) -> None:
    name, model = way
    pixels = street(size)
    expected, found = by_pytorch.segment(pixels), model.segment(pixels)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    logits, answer = by_pytorch._segmenter.backend(images), model._segmenter.backend(images)
    assert answer.shape == logits.shape == (1, 3, -(-size[0] // 4), -(-size[1] // 4))
    limit = 1e-2 if name == "half.xml" else 1e-3  # half of the bits of the weights are gone
    assert (answer - logits).abs().max() <= limit * (logits.max() - logits.min())
    assert (found.labels == expected.labels).mean() >= (0.99 if name == "half.xml" else 0.999)
    assert found.label_set == expected.label_set


def test_windows_and_mirrored_pictures_go_through_in_batches(way: tuple[str, RefineNet], by_pytorch: RefineNet) -> None:
    protocol = Protocol(window=(48, 64), scales=(0.75, 1.0), flip=True)
    pixels = street((97, 130), seed=5)
    expected = by_pytorch._segmenter.under(protocol).segment(pixels)
    found = way[1]._segmenter.under(protocol).segment(pixels)
    assert (found.labels == expected.labels).mean() >= (0.99 if way[0] == "half.xml" else 0.999)


def test_a_batch_of_several_pictures_is_answered_as_each_alone(way: tuple[str, RefineNet]) -> None:
    backend = way[1]._segmenter.backend
    images = torch.rand(3, 3, 45, 31, generator=torch.Generator().manual_seed(2))
    together, alone = backend(images), torch.cat([backend(images[i : i + 1]) for i in range(3)])
    assert (together - alone).abs().max() <= 1e-3 * (alone.max() - alone.min())


@pytest.mark.parametrize("file", ["model.onnx", "model.xml"])
def test_an_exported_file_says_what_it_is(file: str, files: Path) -> None:
    card = RefineNet(model=files / file).card
    assert (card.architecture, card.label_set, card.licence) == (CARD.architecture, CARD.label_set, CARD.licence)
    assert dict(card.scores) == dict(CARD.scores)


@pytest.mark.parametrize("file", ["model.onnx", "model.xml"])
def test_an_evaluation_names_the_file_that_was_measured(file: str, files: Path, drawn_folder: Path) -> None:
    (drawn_folder / "classes.yaml").write_text(f"names: {json.dumps(list(CARD.label_set.names))}\n")
    exported = RefineNet(model=files / file).eval(drawn_folder, progress=False)
    model = RefineNet(model=files / "model.safetensors", device="cpu").eval(drawn_folder, progress=False)
    assert exported.scores.miou == pytest.approx(model.scores.miou, abs=2e-3)
    assert exported.model_sha256 != model.model_sha256


def test_what_needs_a_network_is_refused(tiny: Path, drawn_folder: Path, tmp_path: Path) -> None:
    model = RefineNet(model=tiny)
    for attempt in (
        lambda: model.network,
        lambda: model.train(drawn_folder, output=tmp_path / "run", epochs=1),
        lambda: model.calibrate(drawn_folder),
        lambda: model.save(tmp_path / "copy.safetensors"),
    ):
        with pytest.raises(ValueError, match=r"tiny\.onnx is an exported graph.*export again"):
            attempt()
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "copy.safetensors").exists()


def test_other_names_for_the_classes_stay_with_an_exported_file(tiny: Path) -> None:
    model = RefineNet(model=tiny)
    renamed = type(model.label_set)(names=("a", "b", "c"), colours=model.label_set.colours)
    model.label_set = renamed
    assert set(model.segment(street((20, 30))).areas) == {"a", "b", "c"}


def test_a_file_that_changes_later_changes_nothing(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "served.onnx"
    shutil.copy(tiny, path)
    model = RefineNet(model=path)
    before = model.segment(street((40, 50))).labels
    path.write_bytes(b"")
    assert np.array_equal(model.segment(street((40, 50))).labels, before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "pytorch"}, "run by backend=onnxruntime or openvino, not by 'pytorch'"),
        ({"backend": "tensorflow"}, "not by 'tensorflow'"),
        ({"precision": "bfloat16"}, "onnxruntime does not support bfloat16"),
        ({"precision": "int4"}, "precision must be one of"),
        ({"num_classes": 4}, "num_classes=3, not 4"),
        ({"num_layers": 50}, "encoder='test_resnet', not 'resnet50'"),
        ({"encoder_weights": "imagenet"}, "not both"),
        ({"device": "meta"}, "runs on the CPU here"),
    ],
)
def test_options_that_contradict_the_file_are_refused(options: dict[str, Any], said: str, tiny: Path) -> None:
    with pytest.raises(ValueError, match=said):
        RefineNet(model=tiny, **options)


@pytest.mark.parametrize("name", ["nothing.onnx", "nothing.xml"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        RefineNet(model=tmp_path / name)


def test_weights_that_are_not_there(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "model.xml", tmp_path / "alone.xml")
    with pytest.raises(FileNotFoundError, match=r"alone\.xml needs its weights in alone\.bin"):
        RefineNet(model=tmp_path / "alone.xml")


def test_the_command_line_runs_exported_files(call_refinenet: CommandLine, files: Path, tmp_path: Path) -> None:
    Image.fromarray(street((90, 120))).save(tmp_path / "street.png")
    for name in ("model.safetensors", "model.onnx"):
        done = call_refinenet("deploy", "street.png", "--model", files / name, "-o", f"{name}.png")
        assert done.returncode == 0, done.stderr
    first, second = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("model.safetensors", "model.onnx"))
    assert (first == second).mean() >= 0.999
    told = json.loads(call_refinenet("info", files / "model.onnx", "--json").stdout)
    assert told["classes"] == list(CARD.label_set.names)
    refused = call_refinenet("convert", files / "model.onnx", "model.safetensors")
    assert refused.returncode == 1
    assert "exported graph" in refused.stderr
    assert not (tmp_path / "model.safetensors").exists()


def test_a_cached_translation_for_onnxruntime_is_used_silently(
    files: Path, by_pytorch: RefineNet, capsys: pytest.CaptureFixture[str]
) -> None:
    model = RefineNet(model=files / "model.safetensors", backend="onnxruntime", device="cpu")
    assert np.array_equal(model.segment(street((20, 30))).labels, by_pytorch.segment(street((20, 30))).labels)
    assert capsys.readouterr().err == ""


def test_the_tiny_file_says_what_it_computes(tiny: Path) -> None:
    """The colour that is strongest in a square of four pixels, which NumPy says as well."""
    assert onnx.load(tiny).graph.node[0].op_type == "AveragePool"
    pixels = np.kron(np.random.default_rng(1).integers(0, 256, (9, 7, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    labels = RefineNet(model=tiny).segment(pixels).labels
    assert (labels[1::4, 1::4] == pixels[1::4, 1::4].argmax(-1)).mean() > 0.9


def test_a_file_that_passed_is_not_tried_again(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINENET_CACHE", str(tmp_path / "cache"))
    path, picture = tmp_path / "model.onnx", street((33, 47))
    shutil.copy(files / "model.onnx", path)
    expected = RefineNet(model=path).segment(picture).labels
    monkeypatch.setattr("sys.executable", "/bin/false")  # no process can test a file any more
    assert (RefineNet(model=path).segment(picture).labels == expected).all()
    changed = onnx.load(path)
    changed.doc_string = "another file"
    path.write_bytes(changed.SerializeToString())
    with pytest.raises(ValueError, match="rejected"):
        RefineNet(model=path)
    shutil.copy(files / "model.onnx", path)
    (entry,) = (tmp_path / "cache" / "checked").iterdir()
    entry.chmod(0o777)  # anyone could have put another graph there
    with pytest.raises(ValueError, match="rejected"):
        RefineNet(model=path)
