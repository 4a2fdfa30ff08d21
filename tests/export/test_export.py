"""Exports: run by each format's own program, from the file alone, and compared with PyTorch by sums made here.

Exporting takes seconds, so each format is exported once: of a small network whose classes have hostile names.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
import torch
from conftest import CommandLine
from model_parts import SMALL_DECODER
from torch import Tensor, nn
from torch.nn import functional

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset
from refinenet.datasets.street_scenes import draw_street
from refinenet.export.certificate import Certificate
from refinenet.export.formats.table import find_format
from refinenet.labels import LabelSet, voc_colours
from refinenet.models.files.model_card import read_header

NAMES = ("a b", '\'; drop: "x"', "</rt_info>&amp;<", "日本 ünï", "{0}\\n%s")
SHAPES = [(1, 1, 1), (2, 1, 50), (3, 33, 47), (1, 64, 31), (2, 96, 130)]
SMALL: dict[str, Any] = {
    "model_type": "lightweight",
    "encoder": "test_resnet.r160_in1k",
    "decoder": SMALL_DECODER,
    "device": "cpu",
}
"""One of timm's smallest networks; it takes images whose sides are multiples of 32, and others padded."""

Images = npt.NDArray[np.float32]
Answer = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@pytest.fixture(scope="session")
def model() -> RefineNet:
    made = RefineNet(**SMALL, num_classes=len(NAMES), seed=1)
    made.label_set = LabelSet(names=NAMES, colours=voc_colours(len(NAMES)))
    return made


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def exported_onnx(model: RefineNet, folder: Path) -> Certificate:
    return model.export(folder / "net.onnx", sizes=[(64, 96)], progress=False)


@pytest.fixture(scope="session")
def exported_openvino(model: RefineNet, folder: Path) -> Certificate:
    return model.export(folder / "net.xml", sizes=[(64, 96)], progress=False)


@pytest.fixture(scope="session")
def exported_program(model: RefineNet, folder: Path) -> Certificate:
    return model.export(folder / "net.pt2", sizes=[(64, 96)], progress=False)


@pytest.fixture(scope="session")
def exported_triton(model: RefineNet, folder: Path) -> Certificate:
    return model.export(folder / "street net.triton", sizes=[(64, 96)], progress=False)


def images_of(shape: tuple[int, int, int], seed: int = 5) -> Images:
    """Drawn streets `(N, 3, H, W)` float32 in [0, 1]."""
    batch, height, width = shape
    streets = [draw_street(seed + k, max(height, 40), max(width, 40))[0][:height, :width] for k in range(batch)]
    return np.ascontiguousarray(np.stack(streets).transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def expected(model: RefineNet, images: Images) -> Answer:
    """What the network says, put together here from its logits."""
    with torch.no_grad():
        logits = model.network.logits(torch.from_numpy(images))
        resized = functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
    return resized.argmax(1).numpy(), logits.numpy()


def check_answers(model: RefineNet, run: Callable[[Images], Answer]) -> None:
    for shape in SHAPES:
        images = images_of(shape)
        labels, logits = expected(model, images)
        found_labels, found_logits = run(images)
        batch, height, width = shape
        assert found_labels.dtype == np.uint8
        assert found_labels.shape == shape
        assert found_logits.dtype == np.float32
        assert found_logits.shape == (batch, len(NAMES), -(-height // 4), -(-width // 4))
        assert np.abs(found_logits - logits).max() < 1e-4 * np.ptp(logits)
        assert (found_labels == labels).mean() > 0.999


def run_onnx(path: Path) -> Callable[[Images], Answer]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Images) -> Answer:
        labels, logits = session.run(["labels", "logits"], {"images": images})
        return labels, logits

    return run


def test_onnx_runtime_says_what_pytorch_says(model: RefineNet, exported_onnx: Certificate, folder: Path) -> None:
    check_answers(model, run_onnx(folder / "net.onnx"))


def test_the_onnx_file_is_one_file_that_onnx_finds_right(exported_onnx: Certificate, folder: Path) -> None:
    file = onnx.load(folder / "net.onnx", load_external_data=False)
    onnx.checker.check_model(file, full_check=True)
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in file.graph.initializer)
    assert [entry.version for entry in file.opset_import if entry.domain == ""] == [exported_onnx.graph["opset"]]

    def sizes(value: onnx.ValueInfoProto) -> list[str | int]:
        return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]

    assert sizes(file.graph.input[0]) == ["batch", 3, "height", "width"]
    assert sizes(file.graph.output[0]) == ["batch", "height", "width"]
    assert sizes(file.graph.output[1])[:2] == ["batch", len(NAMES)]


def check_header(model: RefineNet, text: str) -> None:
    card, preprocessing = read_header({"refinenet": text})
    assert card.label_set == model.label_set
    assert card.architecture == model.card.architecture
    assert re.fullmatch("[0-9a-f]{64}", card.weights_sha256)
    assert preprocessing["channel_order"] == "RGB"


def test_onnx_says_what_it_is(model: RefineNet, exported_onnx: Certificate, folder: Path) -> None:
    session = onnxruntime.InferenceSession(folder / "net.onnx", providers=["CPUExecutionProvider"])
    entries = session.get_modelmeta().custom_metadata_map
    check_header(model, entries["refinenet"])
    assert ast.literal_eval(entries["names"]) == dict(enumerate(NAMES))
    assert entries["task"] == "semantic"
    assert int(entries["stride"]) == 32
    assert ast.literal_eval(entries["imgsz"]) == [512, 512]
    assert json.loads(entries["palette"]) == [list(colour) for colour in model.label_set.colours]


def test_openvino_says_what_pytorch_says(model: RefineNet, exported_openvino: Certificate, folder: Path) -> None:
    core = openvino.Core()
    compiled = core.compile_model(folder / "net.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: Images) -> Answer:
        answer = compiled({"images": images})
        return answer["labels"], answer["logits"]

    check_answers(model, run)


def test_openvino_says_what_it_is(model: RefineNet, exported_openvino: Certificate, folder: Path) -> None:
    read = openvino.Core().read_model(folder / "net.xml")
    check_header(model, read.get_rt_info(["refinenet"]).astype(str))
    assert read.get_rt_info(["model_info", "model_type"]).astype(str) == "Segmentation"
    labels = read.get_rt_info(["model_info", "labels"]).astype(str).split(" ")
    assert labels == [name.replace(" ", "_") for name in NAMES]
    assert read.input("images").partial_shape == openvino.PartialShape([-1, 3, -1, -1])


def test_a_pytorch_program_says_what_pytorch_says(
    model: RefineNet, exported_program: Certificate, folder: Path
) -> None:
    entries = {"refinenet": "", "names": ""}
    program = torch.export.load(folder / "net.pt2", extra_files=entries)
    check_header(model, entries["refinenet"])
    assert ast.literal_eval(entries["names"]) == dict(enumerate(NAMES))
    module = program.module()

    def run(images: Images) -> Answer:
        labels, logits = module(torch.from_numpy(images))
        return labels.numpy(), logits.detach().numpy()

    check_answers(model, run)


def test_a_triton_repository_lies_as_triton_looks_for_it(
    model: RefineNet, exported_triton: Certificate, folder: Path
) -> None:
    repository = folder / "street net.triton"
    files = sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())
    assert files == ["street_net/1/model.onnx", "street_net/config.pbtxt", "street_net/labels.txt"]
    assert (repository / "street_net" / "labels.txt").read_text("utf-8").split("\n") == [*NAMES, ""]
    config = (repository / "street_net" / "config.pbtxt").read_text("utf-8")
    assert 'name: "street_net"' in config
    assert 'backend: "onnxruntime"' in config
    session = onnxruntime.InferenceSession(repository / "street_net" / "1" / "model.onnx")
    for value in (*session.get_inputs(), *session.get_outputs()):
        (dims,) = re.findall(rf'name: "{value.name}" .*dims: \[ (.*?) \]', config)
        assert [int(size) for size in dims.split(", ")] == [s if isinstance(s, int) else -1 for s in value.shape[1:]]
        kind = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8"}[value.type]
        assert re.search(rf'name: "{value.name}" data_type: {kind} ', config)
    check_answers(model, run_onnx(repository / "street_net" / "1" / "model.onnx"))


def test_a_certificate_holds_the_files_and_their_hashes(
    exported_onnx: Certificate, exported_openvino: Certificate, exported_program: Certificate, folder: Path
) -> None:
    for name, files in (("net.onnx", ["net.onnx"]), ("net.xml", ["net.bin", "net.xml"]), ("net.pt2", ["net.pt2"])):
        written = json.loads((folder / f"{name}.certificate.json").read_text("utf-8"))
        assert sorted(written["files"]) == files
        for file, facts in written["files"].items():
            content = (folder / file).read_bytes()
            assert facts == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        assert torch.__version__.startswith(written["made"]["packages"]["torch"])
        assert written["bounds"]["least_agreement"] == 0.999
    assert json.loads((folder / "net.onnx.certificate.json").read_text())["made"]["packages"]["onnxruntime"]


def test_info_shows_what_the_certificate_says(
    exported_openvino: Certificate, folder: Path, call_refinenet: CommandLine
) -> None:
    done = call_refinenet("info", folder / "net.xml", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["export"]
    assert (told["format"], told["precision"]) == (exported_openvino.format, "float32")
    assert told["bytes"] == sum((folder / name).stat().st_size for name in ("net.xml", "net.bin"))


def miou_of(pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> float:
    """Mean over the classes that occur of intersection over union, of all pixels but void ones."""
    truth, found = (np.concatenate([pair[which].ravel() for pair in pairs]) for which in (0, 1))
    truth, found = truth[truth != 255], found[truth != 255]
    shares = []
    for k in np.union1d(truth, found):
        shares.append(((truth == k) & (found == k)).sum() / ((truth == k) | (found == k)).sum())
    return float(np.mean(shares))


def test_the_command_line_exports_the_bundled_model_and_certifies_its_figures(
    run_refinenet: CommandLine, camvid_model: RefineNet, tmp_path: Path
) -> None:
    done = run_refinenet(
        "export", "made/street.pt2", "--dataset", "streets:2:96x64", "--size", "160x96", "--json", timeout=500
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "made" / "street.pt2.certificate.json").read_text("utf-8"))
    assert json.loads(done.stdout) == written
    module = torch.export.load(tmp_path / "made" / "street.pt2").module()
    differences, same, pairs_before, pairs_after = [], 0, [], []
    for seed in (2_000_000, 2_000_001):  # the first of the split "val"
        street, truth = draw_street(seed, 64, 96)
        images = torch.from_numpy(street).permute(2, 0, 1)[None] / 255
        labels, logits = expected(camvid_model, images.numpy())
        found_labels, found_logits = module(images)
        differences.append(np.abs(found_logits.detach().numpy() - logits).max())
        same += int((found_labels.numpy() == labels).sum())
        pairs_before.append((truth, labels[0]))
        pairs_after.append((truth, found_labels[0].numpy()))
    on_streets = [case for case in written["cases"] if not case["source"].startswith("drawn")]
    assert [case["source"] for case in on_streets] == ["2000000", "2000001"]
    assert [case["largest_difference"] for case in on_streets] == pytest.approx(differences, abs=1e-4)
    assert sum(case["agreement"] for case in on_streets) * 64 * 96 == pytest.approx(same)
    assert written["dataset"]["miou_before"] == pytest.approx(miou_of(pairs_before), abs=1e-9)
    assert written["dataset"]["miou_after"] == pytest.approx(miou_of(pairs_after), abs=1e-9)
    assert written["dataset"]["images"] == 2
    shapes = [case["shape"] for case in written["cases"]]
    assert [1, 1, 1] in shapes
    assert [1, 96, 160] in shapes
    assert max(batch for batch, _, _ in shapes) > 1
    assert written["pixels"] == sum(batch * height * width for batch, height, width in shapes)
    assert written["largest_difference"] == max(case["largest_difference"] for case in written["cases"])
    (latency,) = written["latency_ms"]
    assert (latency["height"], latency["width"]) == (96, 160)
    for times in (latency["before"], latency["after"]):
        assert 0 < times["network"] <= times["total"]


class OtherWhenTraced(nn.Module):
    """Takes the place of a module that does nothing, and does something in exports only."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        return features * self.factor if torch.compiler.is_compiling() else features


def broken_model(factor: float) -> RefineNet:
    made = RefineNet(**SMALL, num_classes=3, seed=2)
    made.network.add_module("dropout", OtherWhenTraced(factor))
    return made


def test_an_export_that_says_something_else_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "net.pt2"
    target.write_bytes(b"what was there")
    with pytest.raises(ValueError, match=r"not kept.*a logit differs by .*0\.001 is allowed"):
        broken_model(1.01).export(target, sizes=[(64, 96)], progress=False)
    assert target.read_bytes() == b"what was there"
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


def test_a_network_that_says_nothing_is_refused(tmp_path: Path) -> None:
    made = broken_model(1.0)
    assert made.network.classifier.bias is not None
    made.network.classifier.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        made.export(tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_and_help(call_refinenet: CommandLine, tmp_path: Path) -> None:
    done = call_refinenet("export", "net.tflite")
    assert done.returncode == 1
    assert "not as 'net.tflite'" in done.stderr
    assert call_refinenet("export", "net.onnx", "--size", "large").returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_an_export_is_loaded_as_its_certificate_says_it_is(
    name: str, model: RefineNet, exported_onnx: Certificate, exported_openvino: Certificate, tmp_path: Path
) -> None:
    made = {"net.onnx": exported_onnx, "net.xml": exported_openvino}[name]
    for file in (*made.files, f"{name}.certificate.json"):
        (tmp_path / file).write_bytes((made.path.parent / file).read_bytes())
    street = draw_street(2, 40, 60)[0]
    by_pytorch = RefineNet.segment(model, street).labels
    assert (RefineNet(model=tmp_path / name).segment(street).labels == by_pytorch).mean() >= 0.999
    heavy = max((tmp_path / file for file in made.files), key=lambda path: path.stat().st_size)
    content = bytearray(heavy.read_bytes())
    content[len(content) // 2] ^= 1
    heavy.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not what net\.\w+\.certificate\.json certifies"):
        RefineNet(model=tmp_path / name)
    (tmp_path / f"{name}.certificate.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged: remove it"):
        RefineNet(model=tmp_path / name)


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_a_damaged_file_is_refused_without_its_certificate(
    name: str, exported_onnx: Certificate, exported_openvino: Certificate, folder: Path, tmp_path: Path
) -> None:
    assert exported_onnx.path.parent == exported_openvino.path.parent == folder
    names = [name] if name.endswith(".onnx") else [name, "net.bin"]
    for each in names:
        shutil.copy(folder / each, tmp_path / each)
    assert RefineNet(model=tmp_path / name).label_set.names == NAMES
    weights = tmp_path / names[-1]
    whole = weights.read_bytes()
    for place in (len(whole) // 2, len(whole) * 3 // 4):
        weights.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"damaged|refused"):
            RefineNet(model=tmp_path / name)
    weights.write_bytes(whole)
    RefineNet(model=tmp_path / name)


def test_int8_is_kept_by_what_it_costs_and_runs_like_any_model(model: RefineNet, tmp_path: Path) -> None:
    made = model.export(
        tmp_path / "net.xml",
        dataset=lambda split: _labelled(model, split),
        sizes=[(64, 96)],
        precision="int8",
        max_drop=0.2,
        progress=False,
    )
    assert made.precision == "int8"
    graph = openvino.Core().read_model(tmp_path / "net.xml")
    assert any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())
    assert made.comparison.miou_loss is not None
    assert made.comparison.miou_loss <= 0.2
    street = draw_street(2, 64, 96)[0]
    found = RefineNet(model=tmp_path / "net.xml").segment(street).labels
    assert (found == model.segment(street).labels).mean() > 0.8
    with pytest.raises(ValueError, match=r"for OpenVINO \(\.xml\) only"):
        model.export(tmp_path / "net.onnx", precision="int8")
    with pytest.raises(ValueError, match="pass dataset"):
        model.export(tmp_path / "other.xml", precision="int8")


def test_a_graph_that_an_engine_refuses_is_an_error_of_one_line(tmp_path: Path) -> None:
    node = onnx.helper.make_node("NoSuchOperator", ["images"], ["labels"])
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("images", "labels")]
    graph = onnx.helper.make_graph([node], "graph", sides[:1], sides[1:])
    (tmp_path / "net.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    (tmp_path / "net.xml").write_text("<net")
    for name, program in (("net.onnx", "ONNX Runtime"), ("net.xml", "OpenVINO")):
        with pytest.raises(ValueError, match=f"{program} cannot read the graph"):
            find_format(name).open(tmp_path / name)


def _labelled(model: RefineNet, split: str) -> Dataset:
    """Drawn streets with what the model itself says of them as their truth."""
    streets = [draw_street(10 * (split == "train") + number, 64, 96)[0] for number in range(3)]
    return Dataset(
        name="streets",
        split=split,
        label_set=model.label_set,
        items=[str(number) for number in range(3)],
        read_image=lambda item: streets[int(item)],
        read_labels=lambda item: model.segment(streets[int(item)]).labels,
    )
