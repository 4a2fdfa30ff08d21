"""Exported files that want too much memory: refused, or run in a process with limited memory."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child_trouble import InterruptedByTestError, children, no_new_files, raised_after
from exported_files import make_tiny, write_openvino
from onnx import TensorProto, helper, numpy_helper

from refinenet import RefineNet
from refinenet.export.loading.onnx import check_onnx
from refinenet.export.loading.openvino import check_openvino
from refinenet.inference import Engine

pytestmark = pytest.mark.usefixtures("canary")


def constant(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


def blow_up(kind: str, *sizes: list[int] | int) -> Callable[[Any], None]:
    """Make a huge tensor of the pooled image, or of nothing, and add one of its values to the logits."""

    def change(model: Any) -> None:
        names = [f"size{number}" for number in range(len(sizes))]
        model.graph.initializer.extend(map(constant, names, sizes))
        model.graph.node[0].output[0] = "pooled"
        first = [] if kind in ("ConstantOfShape", "Range") else ["pooled"]
        nodes = [helper.make_node(kind, [*first, *names], ["huge"])]
        nodes.append(helper.make_node("ReduceSum", ["huge"], ["total"], keepdims=0))
        nodes.append(helper.make_node("CastLike", ["total", "pooled"], ["number"]))
        nodes.append(helper.make_node("Add", ["pooled", "number"], ["logits"]))
        for number, node in enumerate(nodes):
            model.graph.node.insert(1 + number, node)

    return change


def double(times: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        nodes = [helper.make_node("Concat", [f"d{i}"] * 2, [f"d{i + 1}"], axis=3) for i in range(times)]
        model.graph.node[0].output[0] = "d0"
        total = [
            helper.make_node("ReduceMax", [f"d{times}"], ["total"], keepdims=0),
            helper.make_node("Add", ["d0", "total"], ["logits"]),
        ]
        for number, node in enumerate([*nodes, *total]):
            model.graph.node.insert(1 + number, node)

    return change


def outer_product(model: Any) -> None:
    """A tensor as large as the square of the number of pixels, as little as that is for a small image."""
    model.graph.initializer.extend([constant("row", [1, -1]), constant("column", [-1, 1])])
    model.graph.node[0].output[0] = "pooled"
    nodes = [
        helper.make_node("Reshape", ["images", "row"], ["flat"]),
        helper.make_node("Reshape", ["images", "column"], ["tall"]),
        helper.make_node("Add", ["flat", "tall"], ["square"]),
        helper.make_node("ReduceMax", ["square"], ["total"], keepdims=0),
        helper.make_node("Add", ["pooled", "total"], ["logits"]),
    ]
    for number, node in enumerate(nodes):
        model.graph.node.insert(1 + number, node)


def many(model: Any) -> None:
    model.graph.node.extend(helper.make_node("Relu", ["logits"], [f"r{number}"]) for number in range(20_001))


def many_tensors(model: Any) -> None:
    model.graph.initializer.extend(TensorProto(name=str(number), data_type=1) for number in range(20_001))


def claim_values(model: Any) -> None:
    model.graph.initializer.append(TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[2**40]))
    model.graph.node[0].output[0] = "pooled"
    model.graph.node.insert(1, helper.make_node("Add", ["pooled", "weight"], ["logits"]))


BOMBS: dict[str, tuple[Callable[[Any], object], str]] = {
    "constant of shape": (blow_up("ConstantOfShape", [10**5, 10**6]), "rejected"),
    "constant that overflows": (blow_up("ConstantOfShape", [2**62, 2**62, 4]), "rejected"),
    "expand": (blow_up("Expand", [10**7, 1, 1, 1]), "rejected"),
    "tile": (blow_up("Tile", [10**7, 1, 1, 1]), "rejected"),
    "range": (blow_up("Range", 0, 10**11, 1), "rejected"),
    "pad": (blow_up("Pad", [0, 0, 0, 0, 10**8, 0, 0, 10**3]), "rejected"),
    "doubled forty times": (double(40), "rejected"),
    "a square of the picture": (outer_product, "rejected"),
    "a tensor without its values": (claim_values, "rejected"),
    "20,001 operators": (many, "20004 operators"),
    "20,001 tensors": (many_tensors, "20001 tensors"),
}
_MEASURED = """
import json, resource, sys
from pathlib import Path
from refinenet.export.loading.loader import open_exported
told = {}
for path in sys.argv[1:]:
    try:
        open_exported(Path(path), "onnxruntime")
        told[path] = "accepted"
    except ValueError as error:
        told[path] = str(error)
print(json.dumps({"told": told, "kilobytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as on Linux")
def test_graphs_that_want_all_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"bomb{number}.onnx" for number in range(len(BOMBS))]
    for path, (change, _) in zip(paths, BOMBS.values(), strict=True):
        model = make_tiny()
        change(model)
        path.write_bytes(model.SerializeToString())
    command = [sys.executable, "-c", _MEASURED, *map(str, paths)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=500, check=True).stdout)
    assert found["kilobytes"] < 1400 * 1024  # of any of the processes that tried them
    for path, (case, (_, message)) in zip(paths, BOMBS.items(), strict=True):
        assert message in found["told"][str(path)], case
        assert str(path) in found["told"][str(path)]


def grow(*steps: str) -> Callable[[Any], None]:
    """Add a tensor of a size that is computed from the height of the image, in steps "output = operator inputs"."""

    def change(model: Any) -> None:
        numbers = {"axis": [2], "limit": [150], "zero": [0], "big": [40_000_000], "half": [2**31], "one": [1],
                   "many": [500], "flat": [-1]}  # fmt: skip
        model.graph.initializer.extend(constant(name, values) for name, values in numbers.items())
        model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "number"))
        chain = ("shape = Shape images", "height = Gather shape axis", *steps)
        ends = ("total = ReduceMax huge", "logits = Add pooled total")
        model.graph.node[0].output[0] = "pooled"
        for place, step in enumerate((*chain, *ends)):
            output, _, rest = step.partition(" = ")
            kind, *inputs = rest.split()
            options: dict[str, Any] = {"keepdims": 0} if kind == "ReduceMax" else {}
            model.graph.node.insert(1 + place, helper.make_node(kind, inputs, [output], **options))

    return change


_PAST = ("past = Sub height limit", "over = Max past zero")
_HUGE = ("much = Mul over big", "length = Add much one", "huge = Expand number length")
GROWING: dict[str, Callable[[Any], None]] = {
    "a maximum": grow(*_PAST, *_HUGE),
    "a rectifier": grow("past = Sub height limit", "over = Relu past", *_HUGE),
    "a rounded quotient": grow("over = Div height limit", *_HUGE),
    "a remainder": grow("past = Div height limit", "over = Mod past big", *_HUGE),
    "a power": grow(*_PAST, "length = Mul over over", "huge = ConstantOfShape length"),
    "many small factors": grow(
        *_PAST, "m1 = Mul over many", "m2 = Mul m1 many", "m3 = Mul m2 many", "huge = Expand number m3"
    ),
    "an overflow": grow("o1 = Mul height half", "o2 = Mul o1 half", "o3 = Add o2 big", "huge = Expand number o3"),
    "an outer product": grow(
        *_PAST, "length = Mul over many", "line = Reshape images flat", "part = Slice line zero length",
        "row = Unsqueeze part zero", "column = Unsqueeze part one", "huge = Mul row column",
    ),
    "a value of the picture": grow(
        "light = ReduceMax images", "whole = CastLike light one", "r = Reshape whole one", "length = Mul r big",
        "huge = Expand number length",
    ),
}  # fmt: skip
"""Harmless for the images that the sandbox tries, and too large for others."""


@pytest.mark.parametrize("case", GROWING)
def test_a_size_that_grows_only_with_larger_images_is_not_proven_harmless(case: str, tmp_path: Path) -> None:
    model = make_tiny()
    assert check_onnx(model.SerializeToString()).has_bounded_memory
    GROWING[case](model)
    assert not check_onnx(model.SerializeToString()).has_bounded_memory
    write_openvino(model, tmp_path / "growing.xml")
    text, weights = ((tmp_path / f"growing.{ending}").read_bytes() for ending in ("xml", "bin"))
    assert not check_openvino(text, weights).has_bounded_memory


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_is_not_proven_harmless_runs_in_limited_memory(
    backend: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = make_tiny(), tmp_path / "growing.onnx"
    GROWING["a maximum"](model)
    path.write_bytes(model.SerializeToString())
    r = RefineNet(model=path, backend=backend)
    assert "it runs with limited memory" in capsys.readouterr().err
    small, large = np.zeros((100, 90, 3), np.uint8), np.zeros((400, 90, 3), np.uint8)
    expected = r.segment(small).labels
    for _ in range(2):
        with pytest.raises(ValueError, match=r"growing\.onnx (fails on|returns, for) images of shape"):
            r.segment(large)  # 40 GB
        assert (r.segment(small).labels == expected).all()  # the process that ended is started again
    assert (pickle.loads(pickle.dumps(r)).segment(small).labels == expected).all()  # noqa: S301  (its own pickle)


@pytest.mark.skipif(sys.platform != "linux", reason="stops and limits processes as Linux does")
def test_an_interrupted_image_does_not_answer_for_the_next_one(tmp_path: Path) -> None:
    model, path = make_tiny(), tmp_path / "growing.onnx"
    GROWING["a maximum"](model)
    path.write_bytes(model.SerializeToString())
    others = children()
    r = RefineNet(model=path, backend="onnxruntime")
    (process,) = children() - others
    first, second = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), np.uint8)
    expected = [r.segment(image).labels for image in (first, second)]
    assert (expected[0] != expected[1]).any()
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(InterruptedByTestError), raised_after(0.3):
        r.segment(first)
    assert not Path(f"/proc/{process}").exists()
    assert (r.segment(second).labels == expected[1]).all()
    assert (r.segment(first).labels == expected[0]).all()
    (process,) = children() - others
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(InterruptedByTestError), raised_after(0.3):
        r.segment(first)
    with pytest.raises(ValueError, match=r"cannot be started \(Too many open files\)"), no_new_files():
        r.segment(first)
    assert (r.segment(second).labels == expected[1]).all()
