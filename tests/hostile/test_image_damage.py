"""Damaged and hostile image files: a clear error, at once, and no other effect."""

import os
import random
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_bytes import PICTURE, chunk, file_bytes, save
from PIL import Image, ImageFile

from refinenet.io.images import codec, image_files, mask_files


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height"),
    [(7072, 7072), (10_000, 10_000), (60_000, 60_000), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)],
)
def test_header_of_a_huge_image_is_refused_unread(width: int, height: int, tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path = save(tmp_path / "huge.png", header + chunk(b"IDAT", zlib.compress(b"")))
    for read in (codec.decode, mask_files.read_mask, mask_files.read_colour_mask):
        with pytest.raises(ValueError, match=r"huge\.png has .* pixels, at most 50,000,000 .* windows .*pip install"):
            read(path)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_pillow_bomb_warning_made_an_error_is_the_same_error() -> None:
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    with pytest.raises(ValueError, match="has 100000000 pixels, at most 50,000,000"):
        codec.decode(header + chunk(b"IDAT", zlib.compress(b"")))


def test_size_limit_is_exact_and_holds_for_pillow_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_PIXELS", 35)
    assert codec.decode(Image.fromarray(PICTURE)).shape == (7, 5, 3)
    with pytest.raises(ValueError, match="has 6 x 6 pixels, at most 35"):
        codec.decode(Image.new("L", (6, 6)))
    assert codec.decode(np.zeros((6, 6), np.uint8)).shape == (6, 6, 3)


def test_pillow_settings_stay_as_they_are() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    codec.decode(file_bytes(Image.fromarray(PICTURE), "PNG"))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))


def test_pillow_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no pixels \(0 x 3\)"):
        codec.decode(Image.new("RGB", (0, 3)))


def test_closed_pillow_image_is_refused() -> None:
    image = Image.fromarray(PICTURE)
    image.close()
    with pytest.raises(ValueError, match="The Pillow image"):
        codec.decode(image)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_refused(image_format: str) -> None:
    large = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    content = file_bytes(Image.fromarray(large), image_format)
    # The last bytes may be only the marker of the end, with all pixels before it.
    for cut in np.linspace(1, len(content) * 0.98, 50).astype(int):
        with pytest.raises(ValueError, match="The image of"):
            codec.decode(content[:cut])


def test_flipped_bits_of_a_png_are_refused_or_harmless() -> None:
    content = file_bytes(Image.fromarray(PICTURE), "PNG")
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        try:
            result = codec.decode(bytes(flipped))
        except ValueError:
            continue
        np.testing.assert_array_equal(result, PICTURE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_random_damage_raises_nothing_but_value_errors(image_format: str) -> None:
    content = file_bytes(Image.fromarray(PICTURE), image_format)
    source = random.Random(0)
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(source.choice([1, 2, 8])):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        try:
            result = codec.decode(bytes(damaged))
        except ValueError:
            continue
        assert result.ndim == 3


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        b"%PDF-1.7\n1 0 obj\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"<!DOCTYPE html><html></html>",
        b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\1\0\0\0\1\0\x08\0\3" + bytes(40),
        b"SIMPLE  =                    T",
        b"PK\3\4" + bytes(60),
        b"\0\0\0\x18ftypmp42" + bytes(60),
        b"P6 1 1 255 abc",
        b"\0\0\1\0\1\0\1\1\0\0\1\0\x20\0\x30\0\0\0\x16\0\0\0" + bytes(60),
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"x",
    ],
)
def test_disguised_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "disguised.png", content)
    for read in (codec.decode, mask_files.read_mask, mask_files.read_colour_mask):
        with pytest.raises(ValueError, match=r"disguised\.png is (not a JPEG|damaged)"):
            read(path)


def test_empty_missing_and_unreadable_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = save(tmp_path / "empty.png", b"")
    for read in (codec.decode, mask_files.read_mask, mask_files.read_colour_mask):
        with pytest.raises(ValueError, match=r"empty\.png is empty"):
            read(empty)
        with pytest.raises(FileNotFoundError, match=r"missing\.png: No such file"):
            read(tmp_path / "missing.png")
        with pytest.raises(IsADirectoryError, match="it is a folder"):
            read(str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"Cannot read .*empty\.png: Permission denied"):
        codec.decode(empty)
    with pytest.raises(ValueError, match=r"0 bytes is empty"):
        codec.decode(b"")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe or a device"):
        codec.decode(tmp_path / "pipe")


READ_MASK = """
import sys
from refinenet.io.images.mask_files import read_mask
opened = []
sys.addaudithook(lambda event, values: opened.append(values[0]) if event == "open" else None)
print(read_mask(sys.argv[1]).tolist())
print([str(path) for path in opened].count(sys.argv[1]))
"""


def test_a_mask_with_checksums_is_read_from_the_disk_once(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.png", file_bytes(Image.fromarray(np.array([[1, 2]], np.uint8)), "PNG"))
    told = subprocess.run([sys.executable, "-c", READ_MASK, path], capture_output=True, text=True, check=True)
    assert told.stdout == "[[1, 2]]\n1\n"


def test_a_mask_whose_checksum_is_not_that_of_its_pixels_is_refused(tmp_path: Path) -> None:
    """Pillow alone reads it without a word."""
    content = bytearray(file_bytes(Image.fromarray(np.array([[1, 2]], np.uint8)), "PNG"))
    place = content.index(b"IDAT")
    content[place + 4 + struct.unpack_from(">I", content, place - 4)[0]] ^= 1
    path = save(tmp_path / "mask.png", bytes(content))
    assert codec.decode(path).shape == (1, 2, 3)
    with pytest.raises(ValueError, match=r"mask\.png is damaged: its checksums do not match .* Get a new copy"):
        mask_files.read_mask(path)
