"""Decoding of image files: every format, mode and orientation."""

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_bytes import PICTURE, chunk, colours_of, file_bytes, png, save
from PIL import Image

from refinenet.io.images import codec, image_files, mask_files

# Six different pixels, so that no two orientations look alike.
SIX_PIXELS = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
UPRIGHT = {
    0: [[1, 2, 3], [4, 5, 6]],
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
    9: [[1, 2, 3], [4, 5, 6]],
    65535: [[1, 2, 3], [4, 5, 6]],
}


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_path_bytes_and_pillow_image_agree(image_format: str, options: dict[str, Any], tmp_path: Path) -> None:
    content = file_bytes(Image.fromarray(PICTURE), image_format, **options)
    # The name says nothing about the content.
    path = save(tmp_path / "picture.jpg", content)
    for source in (content, path, str(path), Image.open(io.BytesIO(content)), Image.fromarray(PICTURE)):
        result = codec.decode(source)
        np.testing.assert_array_equal(result, PICTURE)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        assert result.flags.writeable


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (31, 17)])
@pytest.mark.parametrize("image_format", ["JPEG", "GIF", "PNG", "WEBP"])
def test_plain_grey_of_all_sizes(image_format: str, size: tuple[int, int]) -> None:
    result = codec.decode(file_bytes(Image.new("L", size, 100), image_format, **{"quality": 100}))
    assert result.shape == (size[1], size[0], 3)
    assert np.abs(result.astype(int) - 100).max() <= 1


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("LA", (200, 128), (100, 100, 100)),
        ("La", bytes((100, 128)), (100, 100, 100)),
        ("RGBA", (200, 100, 50, 128), (100, 50, 25)),
        ("RGBa", bytes((100, 50, 25, 128)), (100, 50, 25)),
        ("RGBX", (1, 2, 3, 4), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("HSV", (85, 255, 255), (0, 255, 0)),
        # White, as near as LittleCMS comes to it.
        ("LAB", bytes((255, 0, 0)), (254, 255, 254)),
        ("I", 257 * 9, (9, 9, 9)),
        ("I;16", 65_535, (255, 255, 255)),
        ("I;16B", b"\x01\x02", (1, 1, 1)),
        ("I;16L", b"\x00\x03", (3, 3, 3)),
        ("F", 0.2, (51, 51, 51)),
    ],
)
def test_modes(mode: str, colour: Any, expected: tuple[int, int, int]) -> None:
    raw = isinstance(colour, bytes)
    image = Image.frombytes(mode, (2, 3), colour * 6) if raw else Image.new(mode, (2, 3), colour)
    assert colours_of(codec.decode(image)) == [expected]


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
def test_sixteen_bit_grey_files_are_scaled(suffix: str) -> None:
    values = np.array([[0, 257, 65_535, 257 * 200, 128, 129]], np.uint16)
    assert codec.decode(file_bytes(Image.fromarray(values), suffix))[0, :, 2].tolist() == [
        0,
        1,
        255,
        200,
        0,
        1,
    ]


@pytest.mark.parametrize("value", [-1, 65_536, 2**31 - 1])
def test_integers_past_sixteen_bits_are_refused(value: int, tmp_path: Path) -> None:
    content = file_bytes(Image.fromarray(np.array([[0, value]], np.int32)), "TIFF")
    path = save(tmp_path / "deep.tif", content)
    with pytest.raises(ValueError, match=r"deep\.tif has .*int32.*--value-range"):
        codec.decode(path)  # no range is declared for 32 bits: the caller names it
    with pytest.raises(ValueError, match=rf"deep\.tif has values from .*{value}"):
        mask_files.read_mask(path)


def test_float_files_range_to_one() -> None:
    good = Image.fromarray(np.array([[0.0, 0.2, 1.0]], np.float32))
    assert codec.decode(file_bytes(good, "TIFF"))[0, :, 0].tolist() == [0, 51, 255]
    bad = Image.fromarray(np.array([[0.0, 255.0]], np.float32))
    with pytest.raises(ValueError, match="Divide by 255"):
        codec.decode(file_bytes(bad, "TIFF"))


def test_transparency_keys_become_black() -> None:
    rgb = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    content = file_bytes(rgb, "PNG", transparency=(9, 8, 7))
    assert codec.decode(content).tolist() == [[[0, 0, 0], [1, 2, 3]]]
    grey = Image.fromarray(np.array([[9, 8]], np.uint8))
    assert codec.decode(file_bytes(grey, "PNG", transparency=9))[0, :, 0].tolist() == [0, 8]
    deep = Image.fromarray(np.array([[257 * 9, 257 * 8]], np.uint16))
    key = chunk(b"tRNS", struct.pack(">H", 257 * 9))
    rows = b"\0" + np.asarray(deep).astype(">u2").tobytes()
    assert codec.decode(png(2, 1, 16, 0, rows, key))[0, :, 0].tolist() == [0, 8]
    # Four bits: samples 15, 3, 1, 0, of which 3 (shown as 51) is transparent.
    four_bits = png(4, 1, 4, 0, b"\0\xf3\x10", chunk(b"tRNS", struct.pack(">H", 3)))
    assert codec.decode(four_bits)[0, :, 0].tolist() == [255, 0, 17, 0]


def test_palette_with_alpha_is_laid_over_black() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([200, 100, 50, 10, 20, 30, 40, 50, 60])
    content = file_bytes(image, "PNG", transparency=bytes([128, 255, 0]))
    assert codec.decode(content).tolist() == [[[100, 50, 25], [10, 20, 30], [0, 0, 0]]]
    assert codec.decode(image).tolist() == [[[200, 100, 50], [10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, [[[200, 100, 50], [0, 0, 0]]]), (6, [[[200, 100, 50]], [[0, 0, 0]]])],
)
def test_pillow_image_passed_in_is_not_modified(orientation: int, expected: list[Any]) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([200, 100, 50, 10, 20, 30])
    image.info["transparency"] = 1
    image.getexif()[0x0112] = orientation

    def state() -> tuple[Any, ...]:
        return image.tobytes(), image.getpalette("RGBA"), dict(image.info), image.size, dict(image.getexif())

    before = state()
    assert codec.decode(image).tolist() == expected
    assert state() == before


@pytest.mark.parametrize(
    ("orientation", "image_format", "options"),
    [
        *((orientation, "PNG", {}) for orientation in UPRIGHT),
        *((orientation, "TIFF", {}) for orientation in UPRIGHT),
        # Pillow cannot write the values that do not exist (0, 9, 65535) into a compressed TIFF.
        *((orientation, "TIFF", {"compression": "tiff_lzw"}) for orientation in range(1, 9)),
        *((orientation, "WEBP", {"lossless": True}) for orientation in UPRIGHT),
    ],
)
def test_orientation_is_honoured(orientation: int, image_format: str, options: dict[str, Any], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file_bytes(Image.fromarray(SIX_PIXELS), image_format, exif=exif, **options)
    assert codec.decode(content)[..., 0].tolist() == UPRIGHT[orientation]
    assert codec.decode(Image.open(io.BytesIO(content)))[..., 0].tolist() == UPRIGHT[orientation]
    if image_format != "WEBP":
        path = save(tmp_path / "mask", content)
        assert mask_files.read_mask(path).tolist() == UPRIGHT[orientation]
        assert mask_files.read_colour_mask(path)[..., 1].tolist() == UPRIGHT[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_jpeg_sixteen_bits_and_palette(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.array(UPRIGHT[orientation])
    blocks = Image.fromarray(np.kron(SIX_PIXELS * 40, np.ones((16, 16), np.uint8)))
    result = codec.decode(file_bytes(blocks, "JPEG", exif=exif, quality=95))
    assert np.abs(result[8::16, 8::16, 0].astype(int) - expected * 40).max() <= 2
    deep = save(tmp_path / "deep.png", file_bytes(Image.fromarray(SIX_PIXELS * np.uint16(300)), "PNG", exif=exif))
    assert mask_files.read_mask(deep).tolist() == (expected * 300).tolist()
    palette = Image.fromarray(SIX_PIXELS)
    palette.putpalette(range(100, 124))
    indexed = save(tmp_path / "indexed.png", file_bytes(palette, "PNG", exif=exif))
    assert mask_files.read_mask(indexed).tolist() == expected.tolist()
    assert mask_files.read_colour_mask(indexed)[..., 0].tolist() == (100 + 3 * expected).tolist()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "content", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0junk" * 9]
)
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_is_ignored(image_format: str, content: bytes) -> None:
    data = file_bytes(Image.fromarray(PICTURE), image_format, exif=content)
    assert codec.decode(data).shape == PICTURE.shape


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation_with_a_warning(image_format: str) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = file_bytes(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    with pytest.warns(UserWarning, match="only the first one"):
        result = codec.decode(content)
    assert colours_of(result) == [(255, 0, 0)]
    image = Image.open(io.BytesIO(content))
    image.seek(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert codec.decode(image)[0, 0].tolist() == [0, 255, 0]
    assert image.tell() == 1


def test_photograph_with_a_preview_is_no_animation() -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    content = file_bytes(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert codec.decode(content)[0, 0, 0] >= 250


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1000, 1000), (10, 200, 30)).save(buffer, "JPEG", progressive=True)
    usual = buffer.getvalue()
    last = usual[usual.rindex(b"\xff\xda") : -2]

    def with_scans(more: int) -> io.BytesIO:
        return io.BytesIO(usual[:-2] + last * more + usual[-2:])

    assert image_files.read_picture(io.BytesIO(usual), "usual").image.size == (1000, 1000)
    image_files.read_picture(with_scans(20), "more")
    with pytest.raises(ValueError, match=r"^bomb is a progressive JPEG of 5,0\d\d scans.*at most 1,500 are read"):
        image_files.read_picture(with_scans(5000), "bomb")
