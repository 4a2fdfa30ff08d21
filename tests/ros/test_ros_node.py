"""The ROS 2 node, in a world of a stand-in for ROS: not run under ROS."""

from __future__ import annotations

import array
import importlib
import re
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from dense_network import new_network
from ros_standin import Header, Image, Time, World, ros_world

from refinenet import RefineNet

PACKAGE = Path(__file__).parents[2] / "ros"
COUNTS = {"labels": 1, "label_info": 1, "confidence": 0, "overlay": 0}
"""Messages after one image that nobody listens to."""
Pixels = npt.NDArray[np.uint8]
NewNode = Callable[..., Any]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.syspath_prepend(PACKAGE)
    with ros_world() as made:
        yield made


@pytest.fixture
def new_node(world: World) -> NewNode:
    """Makes a node with parameters from the command line."""

    def new(**parameters: Any) -> Any:
        node = importlib.import_module("refinenet_ros.node")
        words = ["--ros-args", "-p", "device:=cpu", "-p", "backend:=pytorch"]
        for name, value in parameters.items():
            words += ["-p", f"{name}:={value}"]
        sys.modules["rclpy"].init(args=words)
        return node.SegmentationNode()

    return new


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    RefineNet(encoder="test_resnet", num_classes=3, device="cpu", seed=4).save(path)
    return path


def message(rgb: Pixels, encoding: str = "rgb8", padding: int = 0, second: int = 7) -> Image:
    """An image message in an encoding, with `padding` bytes after each row."""
    grey, opaque = rgb[..., :1], np.full_like(rgb[..., :1], 9)
    forms = {
        "rgb8": [rgb],
        "bgr8": [rgb[..., ::-1]],
        "mono8": [grey],
        "rgba8": [rgb, opaque],
        "bgra8": [rgb[..., ::-1], opaque],
    }
    rows = np.concatenate(forms[encoding], axis=-1).reshape(len(rgb), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    header = Header(stamp=Time(sec=second, nanosec=3), frame_id="camera_optical")
    made = Image(header=header, height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, step=padded.shape[1])
    made.data = array.array("B", padded.tobytes())
    return made


def pixels_of(found: Image) -> npt.NDArray[Any]:
    """The pixels of a message, as its fields say."""
    order = ">" if found.is_bigendian else "<"
    kinds = {"mono8": ("u1", 1), "mono16": ("u2", 1), "32FC1": ("f4", 1), "rgb8": ("u1", 3)}
    kind, channels = kinds[found.encoding]
    values = np.frombuffer(found.data, np.dtype(order + kind))
    assert found.step == found.width * channels * values.itemsize
    assert len(found.data) == found.step * found.height
    shape = (found.height, found.width, channels)
    return values.reshape(shape if channels > 1 else shape[:2])


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "rgba8", "bgra8"])
def test_every_encoding_and_padding_gives_the_pixels_in_rgb(
    world: World, street: Pixels, encoding: str, padding: int
) -> None:
    decode = importlib.import_module("refinenet_ros.images").decode_image
    wanted = np.repeat(street[..., :1], 3, axis=-1) if encoding == "mono8" else street
    for rgb, expected in ((street, wanted), (street[:1, :1], wanted[:1, :1])):
        found = decode(message(rgb, encoding, padding))
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected)


def test_labels_have_the_header_of_the_image_and_info_says_what_they_mean(
    world: World, new_node: NewNode, street: Pixels, camvid_model: RefineNet
) -> None:
    labels = world.listen("/refinenet/labels")
    new_node(threshold=0.6)
    world.send("/image", message(street, "bgr8", padding=8, second=41))
    world.work()
    (found,) = labels
    assert (found.encoding, found.height, found.width) == ("mono8", *street.shape[:2])
    assert (found.header.stamp.sec, found.header.stamp.nanosec, found.header.frame_id) == (41, 3, "camera_optical")
    segmentation = camvid_model.segment(street)
    unsure = segmentation.confidence < 0.6
    assert 0 < unsure.mean() < 1
    assert np.array_equal(pixels_of(found), np.where(unsure, 255, segmentation.labels))
    (info,) = world.listen("/refinenet/label_info", latched=True)  # after it was published
    named = {each.class_id: each.class_name for each in info.class_map}
    assert named == dict(enumerate(camvid_model.label_set.names))
    assert info.threshold == 0.6
    assert info.header.stamp.sec > 0


def test_more_than_255_classes_are_mono16_and_65535_has_none(
    world: World, new_node: NewNode, street: Pixels, tmp_path: Path
) -> None:
    model = RefineNet(encoder="test_resnet", num_classes=300, device="cpu", seed=4)
    model.save(tmp_path / "many.safetensors")
    labels = world.listen("/refinenet/labels")
    new_node(model=tmp_path / "many.safetensors")
    world.send("/image", message(street))
    world.work()
    new_node(model=tmp_path / "many.safetensors", threshold=0.99)
    world.send("/image", message(street))
    world.work()
    sure, unsure = labels[0], labels[-1]
    assert sure.encoding == unsure.encoding == "mono16"
    assert np.array_equal(pixels_of(sure), model.segment(street).labels)
    assert (pixels_of(unsure) == 65_535).all()


def test_overlay_and_confidence_are_made_for_subscribers_only(
    world: World, new_node: NewNode, street: Pixels, camvid_model: RefineNet
) -> None:
    new_node()
    world.send("/image", message(street))
    world.work()
    published = {name: topic.published for name, topic in world.topics.items() if name.startswith("/refinenet/")}
    assert published == {f"/refinenet/{name}": n for name, n in COUNTS.items()}
    overlay, confidence = world.listen("/refinenet/overlay"), world.listen("/refinenet/confidence")
    world.send("/image", message(street))
    world.work()
    assert overlay[0].encoding == "rgb8"
    segmentation = camvid_model.segment(street)
    assert np.array_equal(pixels_of(overlay[0]), segmentation.overlay)
    assert np.array_equal(pixels_of(confidence[0]), segmentation.confidence)


@pytest.mark.parametrize("outputs", ["classes,depth:0.5:80", "depth:0.5:80"])
def test_depth_is_in_metres(world: World, new_node: NewNode, street: Pixels, tmp_path: Path, outputs: str) -> None:
    model = new_network(outputs)
    model.save(tmp_path / "deep.safetensors")
    new_node(model=tmp_path / "deep.safetensors")
    depth, labels = world.listen("/refinenet/depth"), world.listen("/refinenet/labels")
    world.send("/image", message(street))
    world.work()
    (found,) = depth
    assert found.encoding == "32FC1"
    assert found.header.frame_id == "camera_optical"
    values = pixels_of(found)
    assert np.array_equal(values, model.predict(street).depth)
    assert 0.5 <= values.min() < values.max() <= 80
    assert len(labels) == (1 if "classes" in outputs else 0)
    assert not world.errors


@pytest.mark.parametrize(("queue", "kept"), [(1, [5]), (3, [3, 4, 5])])
def test_the_newest_images_win(
    world: World, new_node: NewNode, street: Pixels, small_model: Path, queue: int, kept: list[int]
) -> None:
    labels = world.listen("/refinenet/labels")
    node = new_node(model=small_model, queue=queue)
    assert node is not None
    world.send("/image", *(message(street[:16, :16], second=second) for second in range(6)))
    world.work()
    assert [each.header.stamp.sec for each in labels] == kept


@pytest.mark.parametrize(("rate", "number"), [(20.0, 40), (10.0, 20), (30.0, 60), (0.0, 60), (100.0, 60)])
def test_the_rate_is_the_most_that_is_processed(
    world: World,
    new_node: NewNode,
    street: Pixels,
    small_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    rate: float,
    number: int,
) -> None:
    """Of two seconds of a camera with 30 images a second, which come a little early or late."""
    labels = world.listen("/refinenet/labels")
    new_node(model=small_model, rate=rate)
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 60)
    for k in range(60):
        now = 1000 + k / 30 + jitter[k]
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        world.send("/image", message(street[:8, :8], second=k))
        world.work()
    assert abs(len(labels) - number) <= (1 if rate in (10, 20) else 0)


def test_images_that_cannot_be_read_are_reported_and_skipped(
    world: World, new_node: NewNode, street: Pixels, small_model: Path
) -> None:
    labels = world.listen("/refinenet/labels")
    new_node(model=small_model)
    short, strange, narrow, empty = (message(street[:16, :16]) for _ in range(4))
    short.data = short.data[:-1]
    strange.encoding = "16UC1"
    narrow.step = 47
    empty.height = 0
    for bad in (short, strange, narrow, empty):
        world.send("/image", bad)
        world.work()
    assert len(world.errors) == 4
    assert "'16UC1'" in world.errors[1]
    assert "rgb8, bgr8, mono8, rgba8, bgra8" in world.errors[1]
    assert "16x16" in world.errors[0]
    assert "47 bytes" in world.errors[2]
    world.send("/image", message(street[:16, :16], second=9))
    world.work()
    assert [each.header.stamp.sec for each in labels] == [9]


@pytest.mark.parametrize(
    ("parameter", "reported"),
    [
        ("model:=/nowhere/none.safetensors", "/nowhere/none.safetensors"),
        ("threshold:=1.5", "'threshold': 1.5"),
        ("rate:=-1.0", "'rate': -1.0"),
        ("queue:=0", "'queue': 0"),
    ],
)
def test_what_cannot_be_used_is_an_error_in_one_line(world: World, parameter: str, reported: str) -> None:
    node = importlib.import_module("refinenet_ros.node")
    with pytest.raises(SystemExit) as ending:
        node.main(["--ros-args", "-p", parameter])
    assert str(ending.value.code).startswith("refinenet_ros: ")
    assert reported in str(ending.value.code)
    assert "\n" not in str(ending.value.code)
    assert not world.is_running


def test_the_program_runs_until_ctrl_c(world: World, small_model: Path, street: Pixels) -> None:
    labels = world.listen("/refinenet/labels")
    node = importlib.import_module("refinenet_ros.node")
    world.send("/image", message(street[:8, :8]))  # before anybody subscribed: lost
    node.main(["--ros-args", "-p", f"model:={small_model}", "-p", "device:=cpu", "-p", "backend:=pytorch"])
    assert not labels
    assert not world.is_running


def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    given: dict[str, Any] = {}
    setuptools = ModuleType("setuptools")
    vars(setuptools)["setup"] = lambda **arguments: given.update(arguments)
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    runpy.run_path(str(PACKAGE / "setup.py"))
    return given


def test_what_colcon_installs_exists(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given, manifest = setup_arguments(monkeypatch), ElementTree.parse(PACKAGE / "package.xml").getroot()
    name, version = manifest.findtext("name"), manifest.findtext("version")
    assert (given["name"], given["version"], given["license"]) == (name, version, manifest.findtext("license"))
    files = {place: [PACKAGE / path for path in paths] for place, paths in given["data_files"]}
    assert all(path.is_file() for paths in files.values() for path in paths)
    marker = files["share/ament_index/resource_index/packages"]
    assert [path.name for path in marker] == [name]
    assert files[f"share/{name}"] == [PACKAGE / "package.xml"]
    (entry,) = given["entry_points"]["console_scripts"]
    command, module, function = re.fullmatch(r"(\w+) = ([\w.]+):(\w+)", entry).groups()  # type: ignore[union-attr]
    assert callable(getattr(importlib.import_module(module), function))
    launched = (PACKAGE / "launch" / "segment.launch.py").read_text()
    assert f'executable="{command}"' in launched
    assert f'package="{name}"' in launched
    imported = {
        line.split()[1].partition(".")[0]
        for path in [*PACKAGE.glob("refinenet_ros/*.py"), *PACKAGE.glob("launch/*.py")]
        for line in path.read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
    needed = {each.text for each in manifest.findall("exec_depend")}
    assert imported - set(sys.stdlib_module_names) - {"refinenet", "refinenet_ros", "numpy"} <= needed
    assert manifest.findtext("export/build_type") == "ament_python"


def launch_file(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the launch file, run with packages that keep what they are given."""

    def keep(*positional: Any, **named: Any) -> tuple[Any, ...]:
        return (*positional, named)

    wanted = {
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument"],
        "launch.substitutions": ["LaunchConfiguration"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
        "launch_ros.parameter_descriptions": ["ParameterValue"],
    }
    for name, classes in wanted.items():
        module = ModuleType(name)
        vars(module).update(dict.fromkeys(classes, keep))
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(PACKAGE / "launch" / "segment.launch.py"))


def test_launch_file_and_pages_have_every_parameter_and_topic(
    world: World, new_node: NewNode, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = importlib.import_module("refinenet_ros.node")
    parameters: dict[str, Any] = node.PARAMETERS
    launch = launch_file(monkeypatch)
    assert {name: kind(text) for name, (text, kind, _) in launch["ARGUMENTS"].items()} == parameters
    assert all(type(parameters[name]) is kind for name, (_, kind, _) in launch["ARGUMENTS"].items())
    actions = launch["generate_launch_description"]()[0]
    assert [action[0] for action in actions[:-1]] == ["image", *parameters]
    assert list(actions[-1][-1]["parameters"][0]) == list(parameters)
    new_node(model=small_model)
    topics = {name.removeprefix("/refinenet/") for name in world.topics} | {"depth"}
    assert topics == {"/image", "labels", "label_info", "confidence", "overlay", "depth"}
    for page in (PACKAGE.parent / "docs" / "how-to" / "ros.md",):
        rows = re.findall(r"^\| `(?:~/)?(\w+)` \| (?:`([^`]*)`)?", page.read_text(), flags=re.M)
        table = dict(rows)
        assert table.keys() == parameters.keys() | {name.lstrip("/") for name in topics}
        assert {name: table[name] for name in parameters} == {name: str(value) for name, value in parameters.items()}
    assert "not run under ROS" in (PACKAGE / "README.md").read_text()
