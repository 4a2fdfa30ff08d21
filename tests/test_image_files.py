"""Image and mask files into pixels: every format, mode and orientation, and damaged and hostile files."""

import io
import os
import random
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from refinenet import images

PICTURE = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
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


def file_bytes(image: Image.Image, image_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG by hand, for what Pillow does not write: `rows` with their filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width: int, height: int, bits: int, white_is_zero: bool, rows: bytes) -> bytes:
    """A grey TIFF by hand."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 277: 1}
    tags |= {273: 8, 278: height, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    folder = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + folder


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def colours_of(pixels: npt.NDArray[np.uint8]) -> list[tuple[int, ...]]:
    return sorted({tuple(int(value) for value in pixel) for pixel in pixels.reshape(-1, 3)})


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
def test_path_bytes_and_pillow_image_agree(
    image_format: str, options: dict[str, Any], tmp_path: Path
) -> None:
    content = file_bytes(Image.fromarray(PICTURE), image_format, **options)
    # The name says nothing about the content.
    path = save(tmp_path / "picture.jpg", content)
    for source in (content, path, str(path), Image.open(io.BytesIO(content)), Image.fromarray(PICTURE)):
        result = images.decode(source)
        np.testing.assert_array_equal(result, PICTURE)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        assert result.flags.writeable


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (31, 17)])
@pytest.mark.parametrize("image_format", ["JPEG", "GIF", "PNG", "WEBP"])
def test_plain_grey_of_all_sizes(image_format: str, size: tuple[int, int]) -> None:
    result = images.decode(file_bytes(Image.new("L", size, 100), image_format, **{"quality": 100}))
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
    if isinstance(colour, bytes):
        image = Image.frombytes(mode, (2, 3), colour * 6)
    else:
        image = Image.new(mode, (2, 3), colour)
    assert colours_of(images.decode(image)) == [expected]


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
def test_sixteen_bit_grey_files_are_scaled(suffix: str) -> None:
    values = np.array([[0, 257, 65_535, 257 * 200, 128, 129]], np.uint16)
    assert images.decode(file_bytes(Image.fromarray(values), suffix))[0, :, 2].tolist() == [
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
    for read in (images.decode, images.read_mask):
        with pytest.raises(ValueError, match=rf"deep\.tif has values from .*{value}"):
            read(path)


def test_float_files_range_to_one() -> None:
    good = Image.fromarray(np.array([[0.0, 0.2, 1.0]], np.float32))
    assert images.decode(file_bytes(good, "TIFF"))[0, :, 0].tolist() == [0, 51, 255]
    bad = Image.fromarray(np.array([[0.0, 255.0]], np.float32))
    with pytest.raises(ValueError, match="Divide by 255"):
        images.decode(file_bytes(bad, "TIFF"))


def test_transparency_keys_become_black() -> None:
    rgb = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    content = file_bytes(rgb, "PNG", transparency=(9, 8, 7))
    assert images.decode(content).tolist() == [[[0, 0, 0], [1, 2, 3]]]
    grey = Image.fromarray(np.array([[9, 8]], np.uint8))
    assert images.decode(file_bytes(grey, "PNG", transparency=9))[0, :, 0].tolist() == [0, 8]
    deep = Image.fromarray(np.array([[257 * 9, 257 * 8]], np.uint16))
    key = chunk(b"tRNS", struct.pack(">H", 257 * 9))
    rows = b"\0" + np.asarray(deep).astype(">u2").tobytes()
    assert images.decode(png(2, 1, 16, 0, rows, key))[0, :, 0].tolist() == [0, 8]
    # Four bits: samples 15, 3, 1, 0, of which 3 (shown as 51) is transparent.
    four_bits = png(4, 1, 4, 0, b"\0\xf3\x10", chunk(b"tRNS", struct.pack(">H", 3)))
    assert images.decode(four_bits)[0, :, 0].tolist() == [255, 0, 17, 0]


def test_palette_with_alpha_is_laid_over_black() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([200, 100, 50, 10, 20, 30, 40, 50, 60])
    content = file_bytes(image, "PNG", transparency=bytes([128, 255, 0]))
    assert images.decode(content).tolist() == [[[100, 50, 25], [10, 20, 30], [0, 0, 0]]]
    assert images.decode(image).tolist() == [[[200, 100, 50], [10, 20, 30], [40, 50, 60]]]


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
    assert images.decode(image).tolist() == expected
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
def test_orientation_is_honoured(
    orientation: int, image_format: str, options: dict[str, Any], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file_bytes(Image.fromarray(SIX_PIXELS), image_format, exif=exif, **options)
    assert images.decode(content)[..., 0].tolist() == UPRIGHT[orientation]
    assert images.decode(Image.open(io.BytesIO(content)))[..., 0].tolist() == UPRIGHT[orientation]
    if image_format != "WEBP":
        path = save(tmp_path / "mask", content)
        assert images.read_mask(path).tolist() == UPRIGHT[orientation]
        assert images.read_colour_mask(path)[..., 1].tolist() == UPRIGHT[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_jpeg_sixteen_bits_and_palette(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.array(UPRIGHT[orientation])
    blocks = Image.fromarray(np.kron(SIX_PIXELS * 40, np.ones((16, 16), np.uint8)))
    result = images.decode(file_bytes(blocks, "JPEG", exif=exif, quality=95))
    assert np.abs(result[8::16, 8::16, 0].astype(int) - expected * 40).max() <= 2
    deep = save(
        tmp_path / "deep.png", file_bytes(Image.fromarray(SIX_PIXELS * np.uint16(300)), "PNG", exif=exif)
    )
    assert images.read_mask(deep).tolist() == (expected * 300).tolist()
    palette = Image.fromarray(SIX_PIXELS)
    palette.putpalette(range(100, 124))
    indexed = save(tmp_path / "indexed.png", file_bytes(palette, "PNG", exif=exif))
    assert images.read_mask(indexed).tolist() == expected.tolist()
    assert images.read_colour_mask(indexed)[..., 0].tolist() == (100 + 3 * expected).tolist()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "content", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0junk" * 9]
)
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_is_ignored(image_format: str, content: bytes) -> None:
    data = file_bytes(Image.fromarray(PICTURE), image_format, exif=content)
    assert images.decode(data).shape == PICTURE.shape


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation_with_a_warning(image_format: str) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = file_bytes(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    with pytest.warns(UserWarning, match="only the first one"):
        result = images.decode(content)
    assert colours_of(result) == [(255, 0, 0)]
    image = Image.open(io.BytesIO(content))
    image.seek(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.decode(image)[0, 0].tolist() == [0, 255, 0]
    assert image.tell() == 1


def test_photograph_with_a_preview_is_no_animation() -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    content = file_bytes(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.decode(content)[0, 0, 0] >= 250


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height"),
    [(7072, 7072), (10_000, 10_000), (60_000, 60_000), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)],
)
def test_header_of_a_huge_image_is_refused_unread(width: int, height: int, tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path = save(tmp_path / "huge.png", header + chunk(b"IDAT", zlib.compress(b"")))
    for read in (images.decode, images.read_mask, images.read_colour_mask):
        with pytest.raises(ValueError, match=r"huge\.png has .* pixels, at most 50,000,000 .* tiles"):
            read(path)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_pillow_bomb_warning_made_an_error_is_the_same_error() -> None:
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    with pytest.raises(ValueError, match="has 100000000 pixels, at most 50,000,000"):
        images.decode(header + chunk(b"IDAT", zlib.compress(b"")))


def test_size_limit_is_exact_and_holds_for_pillow_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 35)
    assert images.decode(Image.fromarray(PICTURE)).shape == (7, 5, 3)
    with pytest.raises(ValueError, match="has 6 x 6 pixels, at most 35"):
        images.decode(Image.new("L", (6, 6)))
    assert images.decode(np.zeros((6, 6), np.uint8)).shape == (6, 6, 3)


def test_pillow_settings_stay_as_they_are() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    images.decode(file_bytes(Image.fromarray(PICTURE), "PNG"))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))


def test_pillow_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no pixels \(0 x 3\)"):
        images.decode(Image.new("RGB", (0, 3)))


def test_closed_pillow_image_is_refused() -> None:
    image = Image.fromarray(PICTURE)
    image.close()
    with pytest.raises(ValueError, match="The Pillow image"):
        images.decode(image)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_refused(image_format: str) -> None:
    large = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    content = file_bytes(Image.fromarray(large), image_format)
    # The last bytes may be only the marker of the end, with all pixels before it.
    for cut in np.linspace(1, len(content) * 0.98, 50).astype(int):
        with pytest.raises(ValueError, match="The image of"):
            images.decode(content[:cut])


def test_flipped_bits_of_a_png_are_refused_or_harmless() -> None:
    content = file_bytes(Image.fromarray(PICTURE), "PNG")
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        try:
            result = images.decode(bytes(flipped))
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
            result = images.decode(bytes(damaged))
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
    for read in (images.decode, images.read_mask, images.read_colour_mask):
        with pytest.raises(ValueError, match=r"disguised\.png is (not a JPEG|damaged)"):
            read(path)


def test_empty_missing_and_unreadable_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = save(tmp_path / "empty.png", b"")
    for read in (images.decode, images.read_mask, images.read_colour_mask):
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
        images.decode(empty)
    with pytest.raises(ValueError, match=r"0 bytes is empty"):
        images.decode(b"")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe or a device"):
        images.decode(tmp_path / "pipe")


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "GIF"])
def test_palette_mask_keeps_its_indices(image_format: str, tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2, 255], [255, 2, 1, 0]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(np.random.default_rng(3).permutation(768).astype(np.uint8).tobytes())
    # Pillow's GIF writer renumbers palettes unless told not to.
    options = {"optimize": False} if image_format == "GIF" else {}
    result = images.read_mask(save(tmp_path / "mask", file_bytes(image, image_format, **options)))
    np.testing.assert_array_equal(result, ids)
    assert result.dtype == np.uint8


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([[0, 1, 255]], np.uint8), ([[0, 300, 65_535]], np.uint16), ([[True, False]], np.bool_)],
)
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_grey_masks_keep_their_values(values: Any, dtype: type, image_format: str, tmp_path: Path) -> None:
    path = save(tmp_path / "mask", file_bytes(Image.fromarray(np.array(values, dtype)), image_format))
    result = images.read_mask(path)
    assert result.tolist() == np.array(values).astype(int).tolist()
    assert result.dtype == (np.uint16 if dtype is np.uint16 else np.uint8)
    assert result.flags.c_contiguous
    assert result.flags.writeable


def test_thirty_two_bit_mask_is_read_as_sixteen(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 300, 65_535]], np.int32))
    result = images.read_mask(save(tmp_path / "mask.tif", file_bytes(image, "TIFF")))
    assert result.tolist() == [[0, 300, 65_535]]
    assert result.dtype == np.uint16


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_masks_of_few_bits_are_not_stretched(image_format: str, tmp_path: Path) -> None:
    def make(bits: int, row: bytes) -> bytes:
        return png(4, 1, bits, 0, b"\0" + row) if image_format == "PNG" else tiff(4, 1, bits, False, row)

    two = save(tmp_path / "two", make(2, bytes([0b00011011])))
    four = save(tmp_path / "four", make(4, b"\x01\x2f"))
    assert images.read_mask(two).tolist() == [[0, 1, 2, 3]]
    assert images.read_mask(four).tolist() == [[0, 1, 2, 15]]
    assert images.decode(four)[0, :, 0].tolist() == [0, 17, 34, 255]


def test_masks_that_count_from_white_are_refused(tmp_path: Path) -> None:
    for bits in (1, 2, 4, 8):
        path = save(tmp_path / "white.tif", tiff(8 // bits, 1, bits, True, b"\x55"))
        with pytest.raises(ValueError, match=r"white\.tif stores white as 0"):
            images.read_mask(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_colour_pictures_are_no_masks(mode: str, tmp_path: Path) -> None:
    image_format = "TIFF" if mode == "CMYK" else "PNG"
    path = save(tmp_path / "colours.png", file_bytes(Image.new(mode, (2, 2)), image_format))
    with pytest.raises(ValueError, match=rf"colours\.png is a colour picture \(mode {mode}\).*classes\.yaml"):
        images.read_mask(path)


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_lossy_masks_are_refused(image_format: str, tmp_path: Path) -> None:
    path = save(tmp_path / "mask.png", file_bytes(Image.new("L", (8, 8), 3), image_format))
    for read in (images.read_mask, images.read_colour_mask):
        with pytest.raises(ValueError, match=rf"mask\.png is a {image_format} file, a lossy format"):
            read(path)


def test_float_mask_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "f.tif", file_bytes(Image.new("F", (2, 2)), "TIFF"))
    for read in (images.read_mask, images.read_colour_mask):
        with pytest.raises(ValueError, match="mode F"):
            read(path)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_colour_masks_keep_their_colours(image_format: str, tmp_path: Path) -> None:
    path = save(tmp_path / "mask", file_bytes(Image.fromarray(PICTURE), image_format))
    np.testing.assert_array_equal(images.read_colour_mask(path), PICTURE)


def test_colour_mask_alpha_is_dropped_only_where_opaque(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    save(path, file_bytes(Image.new("RGBA", (2, 2), (9, 8, 7, 255)), "PNG"))
    assert colours_of(images.read_colour_mask(path)) == [(9, 8, 7)]
    save(path, file_bytes(Image.new("RGBA", (2, 2), (9, 8, 7, 254)), "PNG"))
    with pytest.raises(ValueError, match=r"mask\.png is partly transparent"):
        images.read_colour_mask(path)
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8))
    indexed.putpalette([9, 8, 7, 1, 2, 3, 4, 5, 6])
    save(path, file_bytes(indexed, "PNG", transparency=bytes([255, 255, 0])))
    assert images.read_colour_mask(path).tolist() == [[[9, 8, 7], [1, 2, 3]]]
    save(path, file_bytes(indexed, "PNG", transparency=bytes([255, 0])))
    with pytest.raises(ValueError, match="partly transparent"):
        images.read_colour_mask(path)


def test_colour_mask_in_grey_and_other_spaces(tmp_path: Path) -> None:
    grey = save(tmp_path / "grey.png", file_bytes(Image.new("L", (2, 2), 77), "PNG"))
    assert colours_of(images.read_colour_mask(grey)) == [(77, 77, 77)]
    for mode in ("CMYK", "LAB", "I;16"):
        path = save(tmp_path / "other.tif", file_bytes(Image.new(mode, (2, 2)), "TIFF"))
        with pytest.raises(ValueError, match=f"mode {mode}: save a mask of colours as 8-bit RGB"):
            images.read_colour_mask(path)
