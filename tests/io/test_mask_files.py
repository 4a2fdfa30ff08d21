"""Reading of mask files: exactly the stored ids and colours, or an error."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_bytes import PICTURE, colours_of, file_bytes, png, save, tiff
from PIL import Image

from refinenet.io.images import codec, mask_files


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_palette_mask_keeps_its_indices(image_format: str, tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2, 255], [255, 2, 1, 0]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(np.random.default_rng(3).permutation(768).astype(np.uint8).tobytes())
    result = mask_files.read_mask(save(tmp_path / "mask", file_bytes(image, image_format)))
    np.testing.assert_array_equal(result, ids)
    assert result.dtype == np.uint8


def test_gif_masks_are_refused_since_their_ids_may_be_renumbered(tmp_path: Path) -> None:
    content = file_bytes(Image.fromarray(np.array([[0, 1, 2, 7]], np.uint8)), "GIF")
    assert np.unique(np.asarray(Image.open(io.BytesIO(content)))).tolist() == [0, 1, 2, 3]  # Pillow's own doing
    with pytest.raises(ValueError, match=r"is a GIF: programs that write one renumber its values.*PNG"):
        mask_files.read_mask(save(tmp_path / "mask.gif", content))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([[0, 1, 255]], np.uint8), ([[0, 300, 65_535]], np.uint16), ([[True, False]], np.bool_)],
)
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_grey_masks_keep_their_values(values: Any, dtype: type, image_format: str, tmp_path: Path) -> None:
    path = save(tmp_path / "mask", file_bytes(Image.fromarray(np.array(values, dtype)), image_format))
    result = mask_files.read_mask(path)
    assert result.tolist() == np.array(values).astype(int).tolist()
    assert result.dtype == (np.uint16 if dtype is np.uint16 else np.uint8)
    assert result.flags.c_contiguous
    assert result.flags.writeable


def test_thirty_two_bit_mask_is_read_as_sixteen(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 300, 65_535]], np.int32))
    result = mask_files.read_mask(save(tmp_path / "mask.tif", file_bytes(image, "TIFF")))
    assert result.tolist() == [[0, 300, 65_535]]
    assert result.dtype == np.uint16


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_masks_of_few_bits_are_not_stretched(image_format: str, tmp_path: Path) -> None:
    def make(bits: int, row: bytes) -> bytes:
        return png(4, 1, bits, 0, b"\0" + row) if image_format == "PNG" else tiff(4, 1, bits, False, row)

    two = save(tmp_path / "two", make(2, bytes([0b00011011])))
    four = save(tmp_path / "four", make(4, b"\x01\x2f"))
    assert mask_files.read_mask(two).tolist() == [[0, 1, 2, 3]]
    assert mask_files.read_mask(four).tolist() == [[0, 1, 2, 15]]
    assert codec.decode(four)[0, :, 0].tolist() == [0, 17, 34, 255]


def test_masks_that_count_from_white_are_refused(tmp_path: Path) -> None:
    for bits in (1, 2, 4, 8):
        path = save(tmp_path / "white.tif", tiff(8 // bits, 1, bits, True, b"\x55"))
        with pytest.raises(ValueError, match=r"white\.tif stores white as 0"):
            mask_files.read_mask(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_colour_pictures_are_no_masks(mode: str, tmp_path: Path) -> None:
    image_format = "TIFF" if mode == "CMYK" else "PNG"
    path = save(tmp_path / "colours.png", file_bytes(Image.new(mode, (2, 2)), image_format))
    with pytest.raises(ValueError, match=rf"colours\.png is a colour picture \(mode {mode}\).*classes\.yaml"):
        mask_files.read_mask(path)


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_lossy_masks_are_refused(image_format: str, tmp_path: Path) -> None:
    path = save(tmp_path / "mask.png", file_bytes(Image.new("L", (8, 8), 3), image_format))
    for read in (mask_files.read_mask, mask_files.read_colour_mask):
        with pytest.raises(ValueError, match=rf"mask\.png is a {image_format} file, a lossy format"):
            read(path)


def test_float_mask_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "f.tif", file_bytes(Image.new("F", (2, 2)), "TIFF"))
    for read in (mask_files.read_mask, mask_files.read_colour_mask):
        with pytest.raises(ValueError, match="mode F"):
            read(path)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_colour_masks_keep_their_colours(image_format: str, tmp_path: Path) -> None:
    path = save(tmp_path / "mask", file_bytes(Image.fromarray(PICTURE), image_format))
    np.testing.assert_array_equal(mask_files.read_colour_mask(path), PICTURE)


def test_colour_mask_alpha_is_dropped_only_where_opaque(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    save(path, file_bytes(Image.new("RGBA", (2, 2), (9, 8, 7, 255)), "PNG"))
    assert colours_of(mask_files.read_colour_mask(path)) == [(9, 8, 7)]
    save(path, file_bytes(Image.new("RGBA", (2, 2), (9, 8, 7, 254)), "PNG"))
    with pytest.raises(ValueError, match=r"mask\.png is partly transparent"):
        mask_files.read_colour_mask(path)
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8))
    indexed.putpalette([9, 8, 7, 1, 2, 3, 4, 5, 6])
    save(path, file_bytes(indexed, "PNG", transparency=bytes([255, 255, 0])))
    assert mask_files.read_colour_mask(path).tolist() == [[[9, 8, 7], [1, 2, 3]]]
    save(path, file_bytes(indexed, "PNG", transparency=bytes([255, 0])))
    with pytest.raises(ValueError, match="partly transparent"):
        mask_files.read_colour_mask(path)


def test_colour_mask_in_grey_and_other_spaces(tmp_path: Path) -> None:
    grey = save(tmp_path / "grey.png", file_bytes(Image.new("L", (2, 2), 77), "PNG"))
    assert colours_of(mask_files.read_colour_mask(grey)) == [(77, 77, 77)]
    for mode in ("CMYK", "LAB", "I;16"):
        path = save(tmp_path / "other.tif", file_bytes(Image.new(mode, (2, 2)), "TIFF"))
        with pytest.raises(ValueError, match=f"mode {mode}: save a mask of colours as 8-bit RGB"):
            mask_files.read_colour_mask(path)
