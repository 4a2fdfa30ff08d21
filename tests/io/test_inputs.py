"""Inputs and outputs of all kinds: file objects, addresses, channel orders, label files, folders with bad entries."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CommandLine
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from refinenet import RefineNet
from refinenet.inference.segmentation import Logits, Segmentation
from refinenet.labels import LabelSet

PIXELS = np.random.default_rng(7).integers(0, 256, (40, 56, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> RefineNet:
    return RefineNet(model="camvid", device="cpu", backend="pytorch")


@pytest.fixture(scope="module")
def bgr_model() -> RefineNet:
    return RefineNet(model="camvid", device="cpu", backend="pytorch", channel_order="bgr")


def _png(pixels: np.ndarray[Any, Any] = PIXELS) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _planted(classes: int) -> Segmentation:
    label_set = LabelSet.numbered(classes)
    labels = label_set.cast(np.arange(classes * 2).reshape(2, classes) % classes)
    labels[0, 0] = label_set.ignore_index
    scores = Logits(values=torch.zeros(classes, 2, classes), size=(2, classes), temperature=1.0)
    image = np.zeros((2, classes, 3), np.uint8)
    return Segmentation(image=image, labels=labels, label_set=label_set, scores=scores)


@pytest.mark.parametrize("classes", [1, 2, 16, 17, 255, 256, 300])
def test_every_reader_sees_the_ids(classes: int, tmp_path: Path) -> None:
    found = _planted(classes)
    path = found.save(tmp_path / "ids.png")
    with Image.open(path) as image:
        assert image.mode == ("L" if classes <= 255 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), found.labels)
    np.testing.assert_array_equal(decode_image(str(path), ImageReadMode.UNCHANGED)[0].numpy(), found.labels)
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), found.labels)
    cv2 = pytest.importorskip("cv2")
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), found.labels)
    if classes <= 255:
        read = cv2.imread(str(path))
        assert all((read[..., channel] == found.labels).all() for channel in range(3))
        with Image.open(io.BytesIO(found.encode(".png", "palette"))) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), found.labels)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), found.colour)
    else:
        with pytest.raises(ValueError, match="at most 255 classes"):
            found.encode(".png", "palette")


@pytest.mark.parametrize("as_tensor", [False, True])
def test_arrays_in_bgr_give_pictures_in_bgr_and_right_files(
    as_tensor: bool, model: RefineNet, bgr_model: RefineNet, tmp_path: Path
) -> None:
    expected = model.segment(PIXELS)
    bgr: Any = np.ascontiguousarray(PIXELS[..., ::-1])
    bgr = torch.from_numpy(bgr).permute(2, 0, 1) if as_tensor else bgr
    for found in (bgr_model.segment(bgr), model.segment(bgr, channel_order="bgr")):
        np.testing.assert_array_equal(found.labels, expected.labels)
        for name in ("image", "colour", "overlay"):
            np.testing.assert_array_equal(getattr(found, name)[..., ::-1], getattr(expected, name))
        for kind in ("colour", "overlay"):
            assert found.encode(".png", kind) == expected.encode(".png", kind)
    picture = bgr_model.deploy(image=bgr, output_file=tmp_path / "o.png", output="overlay")
    np.testing.assert_array_equal(picture[..., ::-1], expected.overlay)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o.png")), expected.overlay)
    np.testing.assert_array_equal(bgr_model.segment(PIXELS, channel_order="rgb").overlay, expected.overlay)


def test_files_and_pillow_images_are_rgb_whatever_arrays_are(
    model: RefineNet, bgr_model: RefineNet, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(_png())
    expected = model.segment(PIXELS)
    for image in (tmp_path / "in" / "a.png", _png(), io.BytesIO(_png()), Image.fromarray(PIXELS)):
        np.testing.assert_array_equal(bgr_model.segment(image).overlay, expected.overlay)
    bgr_model.deploy_files(tmp_path / "in", tmp_path / "out", "overlay", progress=False)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), expected.overlay)
    with pytest.raises(ValueError, match="'rgb' or 'bgr'"):
        RefineNet(model="camvid", channel_order="gbr")  # type: ignore[arg-type]


class _Upload:
    """As Werkzeug's FileStorage: what is asked of it is asked of the stream."""

    filename = "up.png"

    def __init__(self) -> None:
        self.stream = io.BytesIO(_png())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def read(self, *sizes: int) -> bytes:
        return self.stream.read(*sizes)


class _Pipe(io.RawIOBase):
    def __init__(self) -> None:
        self._content = io.BytesIO(_png())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._content.readinto(buffer)


def _spooled() -> Any:
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    file.write(_png())
    return file


@pytest.mark.parametrize(
    "make",
    [bytes, bytearray, memoryview, io.BytesIO, lambda _: _Upload(), lambda _: _Pipe(), lambda _: _spooled()],
    ids=["bytes", "bytearray", "memoryview", "BytesIO", "FileStorage", "pipe", "spooled"],
)
def test_bytes_and_file_objects_are_read(make: Callable[[bytes], Any], model: RefineNet) -> None:
    np.testing.assert_array_equal(model.segment(make(_png())).image, PIXELS)


def test_a_file_object_stands_afterwards_where_it_stood(model: RefineNet) -> None:
    stream = io.BytesIO(_png())
    for position in (0, 5, len(_png())):
        stream.seek(position)
        np.testing.assert_array_equal(model.segment(stream).image, PIXELS)
        assert stream.tell() == position


class _Asynchronous:
    async def read(self) -> bytes:
        return b""


def _closed() -> io.BytesIO:
    stream = io.BytesIO(_png())
    stream.close()
    return stream


PROVOKED: list[tuple[Callable[[], Any], str]] = [
    (lambda: io.StringIO("x"), "mode 'rb'"),
    (lambda: Path(__file__).open(), "mode 'rb'"),  # noqa: SIM115
    (lambda: _Asynchronous(), "asynchronous"),
    (_closed, "is closed"),
    (lambda: memoryview(PIXELS.data), r"numpy\.asarray"),
    (lambda: [[1, 2]], "one image at a time"),
    (lambda: 5, "not int"),
    (lambda: "https://x.org/y.jpg", r"https://x\.org/y\.jpg.*Download"),
    (lambda: Path("https://x.org/y.jpg"), r"https://x\.org/y\.jpg.*Download"),
    (lambda: "s3://bucket/y.jpg", "s3://bucket/y.*--engine ray"),
    (lambda: "foo+bar://y", r"foo\+bar://y"),
    (lambda: "data:image/png;base64," + "A" * 500, "data address"),
    (lambda: "file:///a/b.jpg", r"/a/b\.jpg\.$"),
    (lambda: b"", "empty"),
    (lambda: b"text", "not a JPEG"),
    (lambda: _png()[:60], "damaged"),
    (lambda: "no such file.jpg", "No such file"),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("make", "words"), PROVOKED, ids=[words for _, words in PROVOKED])
def test_what_is_no_image_is_refused_in_words(make: Callable[[], Any], words: str, model: RefineNet) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=words) as caught:
        model.segment(make())
    text = str(caught.value)
    assert not text.endswith("..") or text.endswith("...")
    assert "Value error" not in text
    assert len(text) < 400


@pytest.mark.parametrize("address", ["hf://owner", "https://x.org/m.safetensors", "s3://bucket/m"])
def test_an_address_is_no_model_dataset_or_output(address: str, model: RefineNet, tmp_path: Path) -> None:
    for named in (address, Path(address)):
        with pytest.raises(ValueError, match=f"(^model |model on the hub).*{address.replace('//', '/{1,2}')}"):
            RefineNet(model=named)
        with pytest.raises(ValueError, match=f"^A dataset .*{address}"):
            model.eval(named, progress=False)
        with pytest.raises(ValueError, match=f"^root .*{address}"):
            model.eval("camvid", root=named, progress=False)
        with pytest.raises(ValueError, match=f"^An output .*{address}"):
            model.save(named)
    assert not any(Path(name).exists() for name in ("hf:", "https:", "s3:"))


def test_a_suffix_alone_is_enough_to_encode(model: RefineNet, tmp_path: Path) -> None:
    found = model.segment(PIXELS)
    for suffix in (".png", ".jpg", ".jpeg", ".PNG"):
        assert found.encode(suffix, "overlay") == found.save(tmp_path / f"a{suffix}", "overlay").read_bytes()
    for wrong in (".webp", "png", "", "/a/.png"):
        with pytest.raises(ValueError, match="written as"):
            found.encode(wrong, "overlay")
    with pytest.raises(ValueError, match="JPEG would change"):
        found.encode(".jpg", "palette")


def test_a_network_without_weights_says_so_once() -> None:
    r = RefineNet(model_type="lightweight", encoder="mobilenetv2_100", num_classes=3, device="cpu", backend="pytorch")
    with pytest.warns(UserWarning, match="untrained"):
        r.deploy(image=PIXELS)


def test_the_default_model_is_named_on_standard_error(call_refinenet: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png())
    arguments = ("deploy", "a.png", "--output", "b.png", "--backend", "pytorch", "--json")
    result = call_refinenet(*arguments)
    assert json.loads(result.stdout)[0]["image"] == "a.png"
    assert "bundled model camvid" in result.stderr
    assert "street scenes" in result.stderr
    assert "Pedestrian" in result.stderr
    assert "bundled" not in call_refinenet(*arguments, "--model", "camvid").stderr


@pytest.mark.skipif(sys.platform != "linux", reason="links, pipes and any bytes in names")
def test_a_folder_run_skips_what_cannot_be_and_goes_on(model: RefineNet, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    (photos / "sub").mkdir(parents=True)
    out.mkdir()
    fine = ["good.png", "sub/good.png", f"{'é' * 125}.jpg", os.fsdecode(b"bad\xff.png"), "dir.png", "linked.png"]
    for name in fine[:4]:
        (photos / name).write_bytes(_png())
    for name in ("dir.png", "linked.png", "twice.jpg", "twice.png"):
        (photos / name).write_bytes(_png())
    (photos / "loop1.png").symlink_to("loop2.png")
    (photos / "loop2.png").symlink_to("loop1.png")
    (photos / "gone.png").symlink_to("nowhere.png")
    (photos / "sub" / "up").symlink_to("..")
    os.mkfifo(photos / "pipe.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(_png())
    (photos / "link").symlink_to(elsewhere)
    (out / "dir.png").mkdir()
    (out / "linked.png").symlink_to(tmp_path / "precious.png")
    found = model.deploy_files(photos, out, recursive=True, progress=False)
    failed = {result.image.name: str(result.error) for result in found if result.error is not None}
    assert set(failed) == {
        *("loop1.png", "loop2.png", "gone.png", "pipe.png", "link", "dir.png", "linked.png", "twice.png")
    }
    assert sum(result.error is None for result in found) == 5
    assert not (tmp_path / "precious.png").exists()
    again = model.deploy_files(photos, out, recursive=True, progress=False)
    assert sum(result.was_there for result in again) == 5
    model.deploy_files(photos, out, recursive=True, progress=False, overwrite=True)
    assert not (tmp_path / "precious.png").exists()
    assert (out / "linked.png").is_file()
    assert not (out / "linked.png").is_symlink()


def test_a_name_that_is_too_long_for_its_result_is_one_image(model: RefineNet, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    (tmp_path / "in").mkdir()
    for name in ("good.png", f"{'x' * 251}.png"):
        (tmp_path / "in" / name).write_bytes(_png())
    found = model.deploy_files(tmp_path / "in", tmp_path / "out", "geojson", progress=False)
    assert [result.error is None for result in found] == [True, False]
    assert "too long" in str(found[1].error)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few users make links")
@pytest.mark.parametrize("name", ["deploy.json", "deploy.jsonl", ".deploy.lock"])
def test_a_record_that_leads_elsewhere_is_refused(name: str, model: RefineNet, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(_png())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link"):
        model.deploy_files(tmp_path / "in", tmp_path / "out", progress=False)
    assert not (tmp_path / "elsewhere").exists()
