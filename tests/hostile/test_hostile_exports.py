"""Exported files that are damaged, lie or attack: refused by name, for a reason, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported_files import make_tiny, tiny_openvino
from hostile_files import refuse
from model_parts import CARD
from onnx import TensorProto, helper, numpy_helper

from refinenet import RefineNet
from refinenet.export.loading.checksum import EXPORTER_ENTRIES, OPEN_SEAL, SEAL_KEY, close_seal, is_sealed
from refinenet.export.loading.onnx import check_onnx
from refinenet.export.loading.openvino import check_openvino
from refinenet.export.metadata import describe
from refinenet.models.network import Network

pytestmark = pytest.mark.usefixtures("canary", "warm_sandbox")


def refuse_onnx(model: Any, tmp_path: Path, message: str) -> None:
    path = tmp_path / "hostile.onnx"
    path.write_bytes(model.SerializeToString())
    refuse(path, message)


def add_external(model: Any, entries: dict[str, str]) -> None:
    """Give the graph a weight that is stored in another file, and has a part in the logits."""
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    model.graph.node[0].output[0] = "pooled"
    model.graph.node.insert(1, helper.make_node("Add", ["pooled", "weight"], ["logits"]))


EXTERNAL = [
    {"location": "canary.bin"},
    {"location": "../canary.bin"},
    {"location": "a/../../canary.bin"},
    {"location": "/etc/passwd"},
    {"location": "link.bin"},
    {"location": "hard.bin"},
    {"location": "/dev/zero", "length": "1000000000000"},
    {"location": "canary.bin", "offset": "-1", "length": "-4"},
    {"location": "canary.bin", "offset": "99999999999999999999", "length": "4"},
    {"location": "canary.bin", "unknown": "key"},
    {"location": "canary.bin", "__class__": "os.system", "__dict__": "{}"},
    {"location": "*/_ORT_MEM_ADDR_/*", "offset": "140000000000000", "length": "4"},
    {"location": "file://canary.bin"},
    {},
]


@pytest.mark.parametrize("entries", EXTERNAL, ids=str)
def test_data_in_other_files(entries: dict[str, str], tmp_path: Path, canary: Path) -> None:
    (tmp_path / "link.bin").symlink_to(canary)
    os.link(canary, tmp_path / "hard.bin")
    model = make_tiny()
    add_external(model, entries)
    refuse_onnx(model, tmp_path, "its tensor 'weight' is stored in another file")


def in_attribute(model: Any) -> None:
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1])
    tensor.external_data.add(key="location", value="canary.bin")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["constant"], value=tensor))


def insert(*, kind: str, domain: str = "", **attributes: Any) -> Callable[[Any], None]:
    """Put an operator behind the images."""

    def change(model: Any) -> None:
        model.graph.node.insert(0, helper.make_node(kind, ["images"], ["changed"], domain=domain, **attributes))
        model.graph.node[1].input[0] = "changed"
        if domain:
            model.opset_import.add(domain=domain, version=1)

    return change


def body(name: str = "body") -> Any:
    value = helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Identity", ["images"], ["inside"])], name, [], [value])


def nested_body(depth: int) -> Any:
    graph = body()
    for level in range(depth):
        node = helper.make_node("If", ["condition"], ["inside"], then_branch=graph, else_branch=body())
        graph = helper.make_graph([node], f"level{level}", [], [body().output[0]])
    return graph


def add_function(model: Any) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    function = helper.make_function("own", "twice", ["x"], ["y"], [node], [helper.make_opsetid("", 18)])
    model.functions.append(function)


def add_sparse(model: Any) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**40]))


def set_opsets(*versions: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid("", version) for version in versions)

    return change


def add_tensor(**fields: Any) -> Callable[[Any], None]:
    return lambda model: model.graph.initializer.append(TensorProto(name="weight", **fields))


def set_reference(model: Any) -> None:
    attribute = model.graph.node[0].attribute.add(name="count_include_pad", type=onnx.AttributeProto.INT)
    attribute.ref_attr_name = "outer"


OPERATORS: dict[str, tuple[Callable[[Any], object], str]] = {
    "external data in an attribute": (in_attribute, "'hidden' is stored in another file"),
    "a custom operator": (insert(kind="Custom", domain="evil.example"), "'Custom' is of the domain 'evil.example'"),
    "Python": (insert(kind="PythonOp", domain="com.microsoft"), "'PythonOp' is of the domain 'com.microsoft'"),
    "Python extensions": (insert(kind="PyOp", domain="ai.onnx.contrib"), "domain 'ai.onnx.contrib'"),
    "trees": (insert(kind="Scaler", domain="ai.onnx.ml"), "domain 'ai.onnx.ml'"),
    "fused": (insert(kind="FusedConv", domain="com.microsoft"), "domain 'com.microsoft'"),
    "terminal escapes": (insert(kind="\x1b[2J" * 1000, domain="\x1b]0;x\x07"), r"\\x1b"),
    "If": (insert(kind="If", then_branch=body(), else_branch=body()), "'If' is not supported"),
    "Loop": (insert(kind="Loop", body=body()), "'Loop' is not supported"),
    "Scan": (insert(kind="Scan", body=body(), num_scan_inputs=1), "'Scan' is not supported"),
    "SequenceMap": (insert(kind="SequenceMap", body=body()), "'SequenceMap' is not supported"),
    "random numbers": (insert(kind="RandomNormalLike"), "'RandomNormalLike' is not supported"),
    "image files": (insert(kind="ImageDecoder"), "'ImageDecoder' is not supported"),
    "texts": (insert(kind="RegexFullMatch"), "'RegexFullMatch' is not supported"),
    "no such operator": (insert(kind="Nonsense"), "'Nonsense' is not supported"),
    "other case": (insert(kind="relu"), "'relu' is not supported"),
    "a hidden graph": (insert(kind="Relu", hidden=body()), "'hidden' of its operator 'Relu' is not a number"),
    "hidden graphs": (insert(kind="Relu", hidden=[body(), body()]), "'hidden' of its operator 'Relu'"),
    "graphs in graphs": (
        insert(kind="If", then_branch=nested_body(10), else_branch=body()),
        "'If' is not supported|damaged",
    ),
    "a function": (add_function, "custom functions"),
    "training": (lambda model: model.training_info.add(), "training instructions"),
    "sparse weights": (add_sparse, "sparse weights"),
    "an attribute from outside": (set_reference, "'count_include_pad' of its operator 'AveragePool'"),
    "opset 99": (set_opsets(99), "opset 99"),
    "opset 5": (set_opsets(5), "opset 5"),
    "opset -1": (set_opsets(-1), "opset -1"),
    "no opset": (set_opsets(), "opset none"),
    "two opsets": (set_opsets(18, 19), "opset 18, 19"),
    "text weights": (add_tensor(data_type=TensorProto.STRING, dims=[1], string_data=[b"x"]), "which is not a number"),
    "no type": (add_tensor(dims=[1]), "which is not a number"),
    "negative side": (add_tensor(data_type=1, dims=[-1]), r"has the shape \[-1\]"),
    "many sides": (add_tensor(data_type=1, dims=[1] * 1000), r"has the shape \[1, 1"),
    "a part of a tensor": (
        add_tensor(data_type=1, dims=[1], segment=TensorProto.Segment(begin=0, end=1)),
        "not a complete tensor",
    ),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_what_a_graph_may_not_hold(case: str, tmp_path: Path) -> None:
    change, message = OPERATORS[case]
    model = make_tiny()
    change(model)
    refuse_onnx(model, tmp_path, message)


def value(name: str, kind: int, shape: list[Any] | None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def set_values(which: str, *values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        field = getattr(model.graph, which)
        del field[:]
        field.extend(values)

    return change


LABELS = value("labels", TensorProto.UINT8, ["n", "h", "w"])
SIGNATURES: dict[str, tuple[Callable[[Any], object], str]] = {
    "double": (set_values("input", value("images", TensorProto.DOUBLE, ["n", 3, "h", "w"])), "its inputs are"),
    "rank 3": (set_values("input", value("images", 1, [3, "h", "w"])), "its inputs are"),
    "rank 5": (set_values("input", value("images", 1, ["n", 3, "h", "w", 1])), "its inputs are"),
    "channels last": (set_values("input", value("images", 1, ["n", "h", "w", 3])), "its inputs are"),
    "four channels": (
        set_values("input", value("images", 1, ["n", 4, "h", "w"])),
        r"returns float32 of shape \(1, 4, 32, 32\)",
    ),
    "too many bands": (set_values("input", value("images", 1, ["n", 33, "h", "w"])), "have 33 bands"),
    "fixed size": (set_values("input", value("images", 1, [1, 3, 64, 64])), "with N, H and W free"),
    "another name": (set_values("input", value("x", 1, ["n", 3, "h", "w"])), "its inputs are"),
    "no input": (set_values("input"), r"its inputs are \[\]"),
    "two inputs": (
        set_values("input", *[value(name, 1, ["n", 3, "h", "w"]) for name in ("images", "more")]),
        "its inputs are .*more",
    ),
    "no labels": (set_values("output", value("logits", 1, ["n", 3, "h", "w"])), "its outputs are"),
    "three outputs": (
        set_values("output", LABELS, value("logits", 1, ["n", 3, "h", "w"]), value("images", 1, None)),
        "its outputs are",
    ),
    "twice logits": (set_values("output", *[value("logits", 1, ["n", 3, "h", "w"])] * 2), "its outputs are"),
    "half logits": (
        set_values("output", LABELS, value("logits", TensorProto.FLOAT16, ["n", 3, "h", "w"])),
        "its outputs are",
    ),
    "flat logits": (set_values("output", LABELS, value("logits", 1, ["n", 3])), "its outputs are"),
    "free classes": (set_values("output", LABELS, value("logits", 1, ["n", "k", "h", "w"])), "its outputs are"),
    "no class": (set_values("output", LABELS, value("logits", 1, ["n", 0, "h", "w"])), "of 0 classes"),
    "too many classes": (set_values("output", LABELS, value("logits", 1, ["n", 10**6, "h", "w"])), "of 1000000"),
    "other classes": (set_values("output", LABELS, value("logits", 1, ["n", 4, "h", "w"])), "rejected"),
    "float labels": (
        set_values("output", value("labels", 1, ["n", "h", "w"]), value("logits", 1, ["n", 3, "h", "w"])),
        "its outputs are",
    ),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_what_goes_in_and_out(case: str, tmp_path: Path) -> None:
    change, message = SIGNATURES[case]
    model = make_tiny()
    change(model)
    refuse_onnx(model, tmp_path, message)


def edit_header(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda header: header.update(changes)


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown entry": (edit_header(unknown=1), "exactly the entries"),
    "another version": (edit_header(format_version=2), "format version is 2"),
    "an encoder that is a path": (
        lambda header: header["architecture"].update(encoder="../../etc/passwd"),
        "no encoder named",
    ),
    "escapes": (lambda header: header["architecture"].update(encoder="\x1b[2J"), "no encoder named"),
    "another number of classes": (lambda header: header["architecture"].update(num_classes=4), "label set names 3"),
    "other classes than the logits": (
        lambda header: (header["architecture"].update(num_classes=1), header["label_set"].update(
            names=["a"], colours=[[0, 0, 0]])),
        "names 1 classes, but its logits are of 3",
    ),
    "a name that steers terminals": (
        lambda header: header["label_set"].update(names=["a", "b", "\x1b[31m"]),
        "class 2",
    ),
    "BGR": (lambda header: header["preprocessing"].update(channel_order="BGR"), "not RGB in"),
    "bytes": (lambda header: header["preprocessing"].update(range=[0, 255]), "not RGB in"),
    "no hash": (edit_header(weights_sha256=""), "SHA-256 is ''"),
    "hash with escapes": (edit_header(weights_sha256="\x1b" * 64), "SHA-256 is"),
    "temperature": (edit_header(temperature=-1.0), "temperature"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_lies_in_the_header(case: str, tmp_path: Path) -> None:
    change, message = HEADERS[case]
    model = make_tiny()
    header = json.loads(model.metadata_props[0].value)
    change(header)
    model.metadata_props[0].value = json.dumps(header)
    refuse_onnx(model, tmp_path, message)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "was not exported by this package"),
        (["{}", "{}"], "2 entries 'refinenet'"),
        ([""], "not a usable export"),
        (["[" * 100_000], "not a usable export"),
        (['{"format_version": 1, "format_version": 1}'], "occurs twice"),
        (['{"format_version": NaN}'], "NaN is not a JSON number"),
        (["x" * (10 * 1024**2 + 1)], "10485761 characters"),
    ],
    ids=lambda given: str(given)[:30],
)
def test_headers_that_are_none(texts: list[str], message: str, tmp_path: Path) -> None:
    model = make_tiny()
    del model.metadata_props[:]
    for text in texts:
        model.metadata_props.add(key="refinenet", value=text)
    refuse_onnx(model, tmp_path, message)


@pytest.mark.parametrize(
    "content",
    [b"x", b"\x00" * 1000, b"PK\x03\x04" + b"x" * 100, b"\x80\x04cos\nsystem\n", b"\x08" * 10**6, b"\xff" * 10**6,
     b"<html></html>", b"\x0a\xff\xff\xff\xff\x0f", b"*\x00" * 10**6, b"\x3a\x02\x0a\x00" * 10**6],
    ids=lambda content: repr(content[:10]),
)  # fmt: skip
def test_content_that_is_no_graph(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    path.write_bytes(content)
    refuse(path, "rejected")


def test_files_that_are_no_files(tmp_path: Path) -> None:
    empty, folder, pipe, device = (tmp_path / f"{name}.onnx" for name in ("empty", "folder", "pipe", "device"))
    empty.write_bytes(b"")
    folder.mkdir()
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    refuse(empty, "has 0 bytes")
    refuse(pipe, "a pipe or a device")
    refuse(device, "a pipe or a device")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        RefineNet(model=folder)
    large = tmp_path / "large.onnx"
    with large.open("wb") as stream:
        stream.truncate(2 * 1024**3 + 1)  # takes no room on the disk
    refuse(large, "has 2147483649 bytes")


def test_flipped_and_cut_files_raise_nothing_but_value_errors() -> None:
    chance, content, (text, weights) = random.Random(4), make_tiny().SerializeToString(), tiny_openvino()
    xml = text.encode()
    for _ in range(1500):
        for good, check in ((content, check_onnx), (xml, lambda changed: check_openvino(changed, weights))):
            changed = bytearray(good)
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            if chance.random() < 0.3:
                del changed[chance.randrange(len(changed)) :]
            with suppress(ValueError):
                check(bytes(changed))


def test_an_answer_of_another_size(tmp_path: Path) -> None:
    model = make_tiny()
    model.graph.node[0].attribute[2].ints[:] = [5, 5]
    refuse_onnx(model, tmp_path, r"for images of shape \(1, 3, 128, 128\)")


def test_an_answer_that_is_no_number(tmp_path: Path, street: Any) -> None:
    model, path = make_tiny(), tmp_path / "broken.onnx"
    model.graph.initializer.append(numpy_helper.from_array(np.full((), np.nan, np.float32), "nan"))
    model.graph.node[0].output[0] = "pooled"
    model.graph.node.insert(1, helper.make_node("Add", ["pooled", "nan"], ["logits"]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="not finite"):
        RefineNet(model=path).segment(street)


def sealed_tiny(folder: Path) -> Any:
    """A tiny graph with the metadata and the hash that the exporter writes."""
    model, path = make_tiny(), folder / "sealed.onnx"
    for key, text in describe(Network(CARD.architecture), CARD).text_entries().items():
        if key != "refinenet":
            model.metadata_props.add(key=key, value=text)
    model.metadata_props.add(key=SEAL_KEY, value=OPEN_SEAL)
    path.write_bytes(model.SerializeToString())
    close_seal(path)
    return onnx.load(path)


def is_intact(model: Any) -> bool:
    content = model.SerializeToString()
    return is_sealed([content], check_onnx(content).entries)


def test_damage_is_found_where_the_hash_itself_is_damaged_or_missing(tmp_path: Path) -> None:
    assert is_intact(sealed_tiny(tmp_path))
    for text in ("", "refinenet-content-sha256:", OPEN_SEAL.upper(), OPEN_SEAL, OPEN_SEAL * 2, "x" + OPEN_SEAL[1:]):
        model = sealed_tiny(tmp_path)
        model.metadata_props[-1].value = text
        with pytest.raises(ValueError, match="hash"):
            is_intact(model)
    model = sealed_tiny(tmp_path)
    model.metadata_props[-1].key = "refinenet_seam"
    model.metadata_props[-1].value = ""
    with pytest.raises(ValueError, match="and no readable hash"):
        is_intact(model)
    model = sealed_tiny(tmp_path)
    del model.metadata_props[-1]
    with pytest.raises(ValueError, match="and no readable hash"):
        is_intact(model)
    model = sealed_tiny(tmp_path)
    model.graph.node[0].name = "changed"
    with pytest.raises(ValueError, match="does not have the hash"):
        is_intact(model)


def test_a_foreign_file_may_mention_what_the_exporter_writes(tmp_path: Path) -> None:
    model = make_tiny()
    model.doc_string = "Not made by RefineNet (lightweight), {'dynamic': True}, refinenet_seal, blur_strength"
    model.metadata_props.add(key="description", value="RefineNet (full, resnet50), refinenet-content-sha256:")
    model.metadata_props.add(key="author", value="somebody")
    assert not is_intact(model)
    (tmp_path / "foreign.onnx").write_bytes(model.SerializeToString())
    assert len(RefineNet(model=tmp_path / "foreign.onnx").label_set) == 3


def test_the_entries_that_show_the_exporter_are_those_that_it_writes() -> None:
    facts = describe(Network(CARD.architecture), CARD)
    assert {*facts.text_entries(), *facts.model_info()} == {"refinenet", *EXPORTER_ENTRIES}


def test_the_good_ones_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "good.onnx").write_bytes(make_tiny().SerializeToString())
    (tmp_path / "good.xml").write_text(tiny_openvino()[0])
    (tmp_path / "good.bin").write_bytes(tiny_openvino()[1])
    for name in ("good.onnx", "good.xml"):
        assert len(RefineNet(model=tmp_path / name).label_set) == 3
