"""Files for the servers of Cityscapes, VOC 2012 and ADE20K, read back by zipfile, tarfile and Pillow."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import png_miniatures
import pytest
import typer
import warm_start
from conftest import CommandLine
from matlab_miniatures import VAL, VOC_TEST, voc_palette, write_voc, write_voc_test
from PIL import Image
from png_miniatures import noise, save

from refinenet import RefineNet, evaluate_predictions
from refinenet.cli import app
from refinenet.datasets.catalog import PUBLISHED, open_dataset
from refinenet.evaluation.submission import plan_submission
from refinenet.labels import LabelSet

# What the servers take for each class, written out from the owners' pages.
CITYSCAPES_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
IDS = {"cityscapes": list(CITYSCAPES_IDS.values()), "voc": list(range(21)), "ade20k": list(range(1, 151))}
ARCHIVES = {"cityscapes": "cityscapes.zip", "voc": "voc.tgz", "ade20k": "ade20k.zip"}
TEST_FILES = {
    "cityscapes": ["berlin_000000_000019_leftImg8bit.png"],
    "voc": [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in VOC_TEST],
    "ade20k": ["ADE_test_00000001.png", "ADE_test_00000002.png"],
}
VAL_FILES = {
    "cityscapes": {
        "frankfurt/frankfurt_000000_000294": "frankfurt_000000_000294_leftImg8bit.png",
        "munster/munster_000000_000019": "munster_000000_000019_leftImg8bit.png",
    },
    "voc": {name: f"results/VOC2012/Segmentation/comp6_val_cls/{name}.png" for name in VAL},
    "ade20k": {name: f"{name}.png" for name in ("ADE_val_00000001", "ADE_val_00000002")},
}
SERVERS = ("cityscapes", "voc", "ade20k")


def test_every_server_is_tried_and_named_where_users_look() -> None:
    assert set(SERVERS) == {name for name, published in PUBLISHED.items() if published.server is not None}
    command: Any = typer.main.get_command(app)
    options = {option.name: option.help for option in command.commands["eval"].params}
    for text in (options["submission"], str(RefineNet.submit.__doc__)):
        assert all(name in text for name in SERVERS)


def write_cityscapes(root: Path) -> None:
    """As its owners give it, but for the dummy masks of test, which many do not unpack."""
    png_miniatures.write_cityscapes(root)
    shutil.rmtree(root / "gtFine" / "test")


def write_voc_with_test(root: Path) -> None:
    write_voc(root)
    write_voc_test(root)


def write_ade20k(root: Path) -> None:
    png_miniatures.write_ade20k(root)
    for number in (1, 2):
        picture = Image.fromarray(noise(number, 24, 30)).convert("RGB" if number == 1 else "L")
        save(root / "release_test" / "testing" / f"ADE_test_{number:08d}.jpg", picture)
    (root / "release_test" / "list.txt").write_text("ADE_test_00000001.jpg\nADE_test_00000002.jpg\n")


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "cityscapes": write_cityscapes,
    "voc": write_voc_with_test,
    "ade20k": write_ade20k,
}


@pytest.fixture(scope="module", params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def root(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a miniature of the dataset lies; tests only read it."""
    folder = tmp_path_factory.mktemp(name)
    WRITERS[name](folder)
    return folder


@pytest.fixture(scope="module")
def network(name: str, root: Path) -> RefineNet:
    """An untrained network with the dataset's classes, which says several of them."""
    label_set = open_dataset(name, root)("val").label_set
    found = RefineNet(encoder="test_resnet", num_classes=len(label_set), device="cpu", seed=1)
    found.label_set = label_set
    return found


def unpack(path: Path) -> dict[str, bytes]:
    """The files in an archive, in its order."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            return {entry: archive.read(entry) for entry in archive.namelist()}
    with tarfile.open(path, "r:gz") as archive:
        return {entry.name: read_member(archive, entry) for entry in archive}


def read_member(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    assert file is not None
    return file.read()


def values(content: bytes) -> npt.NDArray[np.uint8]:
    """The stored values of a PNG of 8 bits with one channel."""
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    assert image.mode in ("L", "P")
    return np.asarray(image)


def test_a_split_without_labels_becomes_what_the_server_takes(
    name: str, root: Path, network: RefineNet, tmp_path: Path
) -> None:
    target = tmp_path / "new" / ARCHIVES[name]
    written = network.submit(name, target, root, progress=False)
    assert (written.path, len(written.dataset)) == (target, len(TEST_FILES[name]))
    files = unpack(target)
    assert list(files) == TEST_FILES[name]
    images = {path.stem: path for path in root.rglob("*test*/**/*") if path.suffix in (".jpg", ".png")}
    images |= {path.stem: path for path in root.rglob("JPEGImages/*")}
    for file, content in files.items():
        labels = network.segment(images[Path(file).stem]).labels
        np.testing.assert_array_equal(values(content), np.array(IDS[name])[labels])
    assert len({int(k) for content in files.values() for k in np.unique(values(content))}) > 1


def test_only_voc_s_files_have_a_palette(name: str, root: Path, network: RefineNet, tmp_path: Path) -> None:
    network.submit(name, tmp_path / ARCHIVES[name], root, progress=False)
    for content in unpack(tmp_path / ARCHIVES[name]).values():
        palette = Image.open(io.BytesIO(content)).getpalette("RGB")
        assert (None if palette is None else bytes(palette[:63])) == (voc_palette()[:63] if name == "voc" else None)


def test_beside_figures_it_holds_what_was_measured(name: str, root: Path, network: RefineNet, tmp_path: Path) -> None:
    """The submission of val, its values turned back into classes, is measured as predictions of unknown origin."""
    evaluation = network.eval(name, root, submission=tmp_path / ARCHIVES[name], progress=False)
    assert evaluation.scores.miou is not None
    files = unpack(tmp_path / ARCHIVES[name])
    assert list(files) == list(VAL_FILES[name].values())
    for item, file in VAL_FILES[name].items():
        stored = values(files[file])
        classes = np.array([IDS[name].index(value) for value in stored.ravel().tolist()], np.uint8).reshape(
            stored.shape
        )
        save(tmp_path / "predictions" / f"{item}.png", classes)
    again = evaluate_predictions(name, tmp_path / "predictions", root, progress=False)
    assert again.scores == evaluation.scores
    plain = network.eval(name, root, progress=False)
    assert plain.scores == evaluation.scores


def test_every_class_gets_the_server_s_value(name: str, root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(name, root)("test")
    count = len(IDS[name])
    labels = np.arange(count, dtype=np.uint8).reshape(1, count)
    if name == "cityscapes":
        assert list(dataset.label_set.names) == list(CITYSCAPES_IDS)
    with plan_submission(tmp_path / ARCHIVES[name], name).of(dataset).writing() as add:
        for item in dataset.items:
            add(item, labels)
    for content in unpack(tmp_path / ARCHIVES[name]).values():
        assert values(content).tolist() == [IDS[name]]


def test_the_same_label_maps_give_the_same_bytes(
    name: str, root: Path, network: RefineNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / ARCHIVES[name], tmp_path / f"other_{ARCHIVES[name]}"
    network.submit(name, first, root, progress=False)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    network.submit(name, second, root, progress=False)
    assert first.read_bytes() == second.read_bytes()
    if name == "voc":
        with tarfile.open(first) as archive:
            assert {(entry.mtime, entry.uid, entry.gid, entry.mode) for entry in archive} == {(0, 0, 0, 0o644)}
        with gzip.open(first) as packed:
            packed.peek(1)
            assert packed.mtime == 0
    else:
        with zipfile.ZipFile(first) as archive_of_zip:
            assert {entry.date_time for entry in archive_of_zip.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_labels_that_their_owners_keep_are_not_measured_nor_learned_from(
    name: str, root: Path, network: RefineNet, tmp_path: Path
) -> None:
    for call in (
        lambda: network.eval(name, root, split="test", progress=False),
        lambda: network.eval(name, root, split="test", submission=tmp_path / ARCHIVES[name], progress=False),
        lambda: network.calibrate(name, root, split="test", progress=False),
        lambda: evaluate_predictions(name, tmp_path, root, split="test", progress=False),
        lambda: open_dataset(name, root)("test")[0],
        lambda: next(iter(open_dataset(name, root)("test"))),
        lambda: open_dataset(name, root)("test").labels(0),
        lambda: network.eval(open_dataset(name, root), split="test", progress=False),
    ):
        with pytest.raises(ValueError, match=rf"{name} test has no public labels.*--submission FILE") as caught:
            call()
        assert "RefineNet.submit" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_where_the_images_are_missing_it_is_said_what_to_download(
    name: str, network: RefineNet, tmp_path: Path
) -> None:
    wanted = {"cityscapes": "leftImg8bit_trainvaltest.zip", "voc": "VOC2012test.tar", "ade20k": "release_test.zip"}
    {"cityscapes": write_cityscapes, "voc": write_voc, "ade20k": png_miniatures.write_ade20k}[name](tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "leftImg8bit" / "test", ignore_errors=True)
    for root in (tmp_path / "data", tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=rf"(?i)download.*{wanted[name]}.*root=") as caught:
            network.submit(name, tmp_path / ARCHIVES[name], root, progress=False)
        assert str(root) in str(caught.value)
    with pytest.raises(ValueError, match=r"has the splits .*, and test without labels, not 'tset'"):
        open_dataset(name, tmp_path / "data")("tset")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_damaged_image_leaves_what_was_there_before(name: str, network: RefineNet, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "data")
    dataset = open_dataset(name, tmp_path / "data")("test")
    last = dataset.image_file(dataset.items[-1])
    assert last is not None
    last.write_bytes(last.read_bytes()[:80])
    target = tmp_path / "out" / ARCHIVES[name]
    target.parent.mkdir()
    target.write_bytes(b"the former submission")
    with pytest.raises(ValueError, match=f"{last.name} is damaged"):
        network.submit(name, target, tmp_path / "data", progress=False)
    assert target.read_bytes() == b"the former submission"
    assert list(target.parent.iterdir()) == [target]


def test_pixels_without_a_class_are_refused(name: str, root: Path, network: RefineNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pixels have no class.*Leave abstain_below"):
        network.eval(name, root, abstain_below=1.0, submission=tmp_path / ARCHIVES[name], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_submission_is_refused(name: str, root: Path, network: RefineNet, tmp_path: Path) -> None:
    wrong = "other.tgz" if name != "voc" else "other.zip"
    with pytest.raises(
        ValueError, match=rf"The server of {name} accepts a file \.(zip|tgz or \.tar\.gz), not '{wrong}'"
    ):
        network.submit(name, tmp_path / wrong, root, progress=False)
    for other in ("voc_aug", "camvid", "streets", "coco:stuff", str(tmp_path)):
        with pytest.raises(ValueError, match=r"Submissions are for .*ade20k, cityscapes and voc, not for"):
            network.submit(other, tmp_path / ARCHIVES[name], progress=False)
    with pytest.raises(ValueError, match=r"ade20k, cityscapes and voc, not for 'voc_aug'"):
        network.eval("voc_aug", split="test", submission=tmp_path / "a.tgz", progress=False)
    with pytest.raises(ValueError, match=r"ade20k, cityscapes and voc, not for 'this one'"):
        network.eval(open_dataset(name, root), submission=tmp_path / ARCHIVES[name], progress=False)
    (tmp_path / ARCHIVES[name]).mkdir()
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        network.submit(name, tmp_path / ARCHIVES[name], root, progress=False)
    network.label_set = LabelSet(names=("x", *network.label_set.names[1:]), colours=network.label_set.colours)
    try:
        with pytest.raises(ValueError, match="classes are not those"):
            network.submit(name, tmp_path / f"b{ARCHIVES[name]}", root, progress=False)
    finally:
        network.label_set = open_dataset(name, root)("val").label_set


def test_on_the_command_line(call_refinenet: CommandLine, tmp_path: Path) -> None:
    write_cityscapes(tmp_path / "data")
    label_set = open_dataset("cityscapes", tmp_path / "data")("val").label_set
    network = RefineNet(encoder="test_resnet", num_classes=19, device="cpu")
    network.label_set = label_set
    network.save(tmp_path / "model.safetensors")
    common = ["eval", "-d", "cityscapes", "--root", "data", "--model", "model.safetensors"]
    refused = call_refinenet(*common, "--split", "test")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--split test --submission FILE" in refused.stderr
    idle = call_refinenet(*common, "--split", "test", "--submission", "a.zip", "--output", "b.json", "--report", "c")
    assert idle.returncode == 2
    assert "--output, --report would have no effect" in " ".join(idle.stderr.replace("│", "").split())
    done = call_refinenet(*common, "--split", "test", "--submission", "a.zip")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "a.zip, 1 images of cityscapes test. It is not complete: 1,525 images were published" in done.stderr
    network.submit("cityscapes", tmp_path / "own.zip", tmp_path / "data", progress=False)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "own.zip").read_bytes()
    told = call_refinenet(*common, "--split", "test", "--submission", "a.zip", "--flip", "--json")
    assert json.loads(told.stdout) == {
        "submission": "a.zip", "dataset": "cityscapes", "split": "test", "images": 1, "images_published": 1525,
        "server": "https://www.cityscapes-dataset.com/submit/",
    }  # fmt: skip
    measured = call_refinenet(*common, "--submission", "val.zip", "--json")
    assert json.loads(measured.stdout)["images"] == 2
    assert len(unpack(tmp_path / "val.zip")) == 2
    with_predictions = call_refinenet("eval", "-d", "cityscapes", "--predictions", "p", "--submission", "a.zip")
    assert with_predictions.returncode == 2
    assert "--submission would have no effect" in " ".join(with_predictions.stderr.replace("│", "").split())


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would each write a share of the images."""
    for variable, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match="run it without torchrun"):
        plan_submission(tmp_path / "a.zip", "cityscapes")


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Of what is written, 6 MB that cannot be compressed, no more than a tenth is ever kept."""
    write_cityscapes(tmp_path / "data")
    dataset = open_dataset("cityscapes", tmp_path / "data")("test")
    random = np.random.default_rng(0)
    with plan_submission(tmp_path / "big.zip", "cityscapes").of(dataset).writing() as add:
        for number in range(40):
            if number == 2:
                tracemalloc.start()
            add(f"city/city_{number}", random.integers(0, 19, (512, 512), np.uint8))
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "big.zip").stat().st_size > 6_000_000
    assert kept < 600_000


def test_a_full_disk_is_told_by_the_file_s_name_and_leaves_nothing(tmp_path: Path) -> None:
    write_voc_with_test(tmp_path / "data")
    program = """
import resource, signal, sys
import numpy as np
from refinenet.datasets.catalog import open_dataset
from refinenet.evaluation.submission import plan_submission
dataset = open_dataset("voc", sys.argv[1])("test")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with plan_submission(sys.argv[2], "voc").of(dataset).writing() as add:
        for number in range(5):
            add(f"{number}", np.random.default_rng(number).integers(0, 21, (200, 200), np.uint8))
except OSError as error:
    print(error)
"""
    target = tmp_path / "out" / "voc.tgz"
    command = [sys.executable, "-c", program, str(tmp_path / "data"), str(target)]
    done = warm_start.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert f"Cannot write {target}: File too large" in done.stdout
    assert done.stderr == ""
    assert list(target.parent.iterdir()) == []
