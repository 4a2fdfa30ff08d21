"""Images of all kinds, damaged and hostile, sent to a real server: its answers are those of Python, or refusals.

Arrays are in `io/test_images.py`.
"""

from __future__ import annotations

import io
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from picture_bytes import chunk, file_bytes, png, tiff
from PIL import Image, PngImagePlugin
from serve_process import Answer, ServeProcess

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")

MAX_PIXELS = 100_000
STREET = draw_street(5, 31, 47)[0]
RGB = Image.fromarray(STREET)


@pytest.fixture(scope="module")
def network() -> RefineNet:
    return RefineNet(encoder="test_resnet", num_classes=5, device="cpu", seed=4)


@pytest.fixture(scope="module")
def server(network: RefineNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("images")
    network.save(folder / "tiny.safetensors")
    limits = {"max_pixels": MAX_PIXELS, "request_seconds": 200, "decode_seconds": 100}
    server = ServeProcess("--model", folder / "tiny.safetensors", folder=folder, **limits)
    good = file_bytes(RGB, "PNG")
    before = server.segment(good).body
    yield server
    assert server.segment(good).body == before
    assert server.stop() == 0, server.error_text()
    assert server.error_text() == ""


def labels_of(answer: Answer) -> npt.NDArray[Any]:
    assert answer.status == 200, answer.body
    return np.array(Image.open(io.BytesIO(answer.body)))


def expected_of(network: RefineNet, content: bytes) -> npt.NDArray[Any] | None:
    """What Python says; None for what it refuses."""
    with warnings.catch_warnings(action="ignore"):
        try:
            return network.segment(content).labels
        except ValueError:
            return None


def refused(answer: Answer, *statuses: int) -> None:
    assert answer.status in statuses, (answer.status, answer.body[:200])
    assert set(answer.json) == {"error", "request_id"}
    assert b"Traceback" not in answer.body


MODES = {
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"),
    "GIF": ("1", "L", "P", "RGB"),
}


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)
    return image.convert(mode)


def _kinds() -> Iterator[tuple[str, bytes]]:
    for image_format, modes in MODES.items():
        for mode in modes:
            yield f"{image_format} {mode}", file_bytes(in_mode(RGB, mode), image_format)
    for size in ((1, 1), (1, 50), (50, 1), (53, 61)):
        for image_format in ("JPEG", "PNG", "WEBP"):
            yield f"{image_format} {size[0]}x{size[1]}", file_bytes(RGB.resize(size), image_format)
    yield "PNG P with transparency", file_bytes(RGB.convert("P"), "PNG", transparency=3)
    yield "PNG of 2 bits", png(8, 4, 2, 0, b"\0\x1b\xe4" * 4)
    yield "TIFF, white is zero", tiff(8, 4, 8, True, bytes(range(32)))


def test_formats_modes_and_sizes(server: ServeProcess, network: RefineNet) -> None:
    count = 0
    for name, content in _kinds():
        answer, expected = server.segment(content), expected_of(network, content)
        if expected is None:
            refused(answer, 400, 415)
        else:
            np.testing.assert_array_equal(labels_of(answer), expected, err_msg=name)
            count += 1
    assert count >= 40, "most of them are read"


def test_orientations_of_photographs(server: ServeProcess, network: RefineNet) -> None:
    turned = {
        1: STREET,
        2: STREET[:, ::-1],
        3: STREET[::-1, ::-1],
        4: STREET[::-1],
        5: STREET.transpose(1, 0, 2),
        6: STREET.transpose(1, 0, 2)[:, ::-1],
        7: STREET[::-1, ::-1].transpose(1, 0, 2),
        8: STREET.transpose(1, 0, 2)[::-1],
        0: STREET,
        9: STREET,
        65535: STREET,
    }
    for number, upright in turned.items():
        exif = Image.Exif()
        exif[0x0112] = number
        labels = labels_of(server.segment(file_bytes(RGB, "PNG", exif=exif)))
        np.testing.assert_array_equal(
            labels, network.segment(np.ascontiguousarray(upright)).labels, err_msg=f"{number}"
        )
    broken = file_bytes(RGB, "JPEG", exif=b"Exif\0\0" + b"\xff" * 60)
    np.testing.assert_array_equal(labels_of(server.segment(broken)), expected_of(network, broken))


def header_alone(width: int, height: int) -> bytes:
    fields = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _bombs() -> Iterator[tuple[str, bytes]]:
    yield "13,000 squared", file_bytes(Image.new("1", (13_000, 13_000)), "PNG")
    yield "60,000 squared, header alone", header_alone(60_000, 60_000)
    yield "a line of 2**31 - 1", header_alone(2**31 - 1, 1)
    yield "no size", header_alone(0, 0)
    yield "JPEG of 65,500 squared", b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\x03\x01\x11\0\x02\x11\x01\x03\x11\x01"
    yield "GIF of 65,535 squared", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;"
    yield "BMP of 2**30", b"BM" + bytes(12) + (40).to_bytes(4, "little") + (2**30).to_bytes(4, "little") * 2 + bytes(40)
    yield "TIFF folder that leads to itself", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"
    for kind in (b"zTXt", b"iCCP"):
        packed = zlib.compress(bytes(50_000_000), 9)
        text = chunk(kind, b"name\0\0" + packed)
        yield f"{kind.decode()} of 50 MB", png(8, 4, 8, 0, b"\0" * 36, text)


def test_bombs(server: ServeProcess, network: RefineNet) -> None:
    for name, content in _bombs():
        started = time.monotonic()
        answer = server.segment(content)
        if answer.status != 200:
            refused(answer, 400, 413, 415)
        assert answer.status != 200 or "50 MB" in name, name
        assert time.monotonic() - started < 60, name  # two seconds on a machine of its own


def test_animations_and_texts(server: ServeProcess, network: RefineNet) -> None:
    """The first frame counts, however many there are."""
    frames = [RGB.resize((20, 16))] + [Image.new("RGB", (20, 16), (k, 0, 0)) for k in range(100)]
    for image_format in ("GIF", "WEBP", "PNG"):
        content = file_bytes(frames[0], image_format, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(labels_of(server.segment(content)), expected_of(network, content))
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "<script>alert(1)</script>" * 1000, zip=True)
    content = file_bytes(RGB, "PNG", pnginfo=texts)
    answer = server.segment(content, "?kind=overlay")
    assert answer.status == 200
    assert b"script" not in answer.body


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_truncated_and_changed_files(server: ServeProcess, network: RefineNet, image_format: str) -> None:
    """What is read is what Python reads; a part of a picture is never taken for the whole."""
    content = file_bytes(RGB, image_format)
    draws = np.random.default_rng(7)
    cut = [content[: len(content) * k // 20] for k in range(20)]
    flipped = []
    for _ in range(20):
        changed = bytearray(content)
        changed[draws.integers(len(changed))] ^= 1 << draws.integers(8)
        flipped.append(bytes(changed))
    for damaged in (*cut, *flipped):
        answer, expected = server.segment(damaged), expected_of(network, damaged)
        if expected is None or expected.size > MAX_PIXELS:
            refused(answer, 400, 413, 415)
        else:
            np.testing.assert_array_equal(labels_of(answer), expected)
    assert all(expected_of(network, damaged) is None for damaged in cut[:15]), "cut files are no pictures"


DISGUISED: dict[str, bytes] = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PS": b"%!PS\nshowpage\n",
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "PSD": b"8BPS\0\x01" + bytes(20),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "ZIP": b"PK\x03\x04" + bytes(100),
    "MP4": b"\0\0\0\x20ftypisom" + bytes(100),
    "NPY": b"\x93NUMPY\x01\0" + bytes(100),
    "pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x94",
    "text": b"http://127.0.0.1/secret.png",
    "path": b"/etc/passwd",
    "ICNS": b"icns" + bytes(100),
    "XBM": b"#define x_width 9\n#define x_height 9\nstatic char x_bits[] = {0};",
    "PCX": b"\x0a\x05\x01\x08" + bytes(124),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "GRIB": b"GRIB" + bytes(100),
    "zeros": bytes(1000),
}


def test_disguised_files(server: ServeProcess, network: RefineNet, tmp_path: Path) -> None:
    for name, content in DISGUISED.items():
        for media in ("image/png", "image/jpeg", "application/octet-stream"):
            answer = server.ask("POST", "/segment", content, {"Content-Type": media})
            refused(answer, 415)
            assert "is not a" in answer.json["error"], name
    both = file_bytes(RGB, "PNG") + b"PK\x05\x06" + bytes(18)  # a picture, and an archive behind it
    np.testing.assert_array_equal(labels_of(server.segment(both)), network.segment(file_bytes(RGB, "PNG")).labels)
