"""Decoding of arrays and tensors, and encoding of files, against values computed by hand."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from refinenet.io.images import codec, mask_files

GREY_STEPS = [0, 1, 127, 128, 254, 255]


def same(actual: npt.NDArray[Any], expected: object) -> None:
    """Assert equal values, dtype uint8 and contiguous memory."""
    assert actual.dtype == np.uint8
    assert actual.flags.c_contiguous
    np.testing.assert_array_equal(actual, np.array(expected))


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 6, 1), (6, 1, 1)])
def test_grey_array_is_repeated_in_three_channels(shape: tuple[int, ...]) -> None:
    result = codec.decode(np.array(GREY_STEPS, np.uint8).reshape(shape))
    same(result, np.repeat(GREY_STEPS, 3).reshape(*shape[:2], 3))


def test_alpha_is_laid_over_black() -> None:
    array = np.array([[[200, 100, 50, 128], [255, 255, 255, 0], [7, 8, 9, 255]]], np.uint8)
    same(codec.decode(array), [[[100, 50, 25], [0, 0, 0], [7, 8, 9]]])
    same(codec.decode(array, channel_order="bgr"), [[[25, 50, 100], [0, 0, 0], [9, 8, 7]]])


def test_bgr_swaps_colours_and_leaves_grey() -> None:
    same(codec.decode(np.array([[[1, 2, 3]]], np.uint8), channel_order="bgr"), [[[3, 2, 1]]])
    same(codec.decode(np.array([[5]], np.uint8), channel_order="bgr"), [[[5, 5, 5]]])
    same(codec.decode(torch.tensor([[[1.0]], [[0.0]], [[0.2]]]), channel_order="bgr"), [[[51, 0, 255]]])


@pytest.mark.parametrize("source", [b"", "x.png", Path("x.png"), Image.new("RGB", (1, 1))])
def test_bgr_is_refused_where_the_source_knows_its_order(source: codec.ImageSource) -> None:
    with pytest.raises(ValueError, match="Leave it out"):
        codec.decode(source, channel_order="bgr")


def test_unknown_channel_order_is_refused() -> None:
    order: Any = "brg"
    with pytest.raises(ValueError, match="'rgb' or 'bgr', not 'brg'"):
        codec.decode(np.zeros((1, 1), np.uint8), channel_order=order)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_and_rounded(dtype: str) -> None:
    array = np.array([[0, 128, 129, 257, 257 * 77, 65_535 - 129, 65_535 - 128, 65_535]], dtype)
    assert codec.decode(array)[0, :, 0].tolist() == [0, 0, 1, 1, 77, 254, 255, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unit_range_floats_give_back_all_bytes(dtype: type) -> None:
    array: npt.NDArray[Any] = (np.arange(256) / 255).astype(dtype).reshape(16, 16)
    assert codec.decode(array)[..., 1].ravel().tolist() == list(range(256))


def test_bool_is_black_and_white() -> None:
    same(codec.decode(np.array([[True, False]])), [[[255] * 3, [0] * 3]])


@pytest.mark.parametrize("array", [np.array([[0.0, 255.0]]), np.array([[-0.25, 255]]), np.array([[0, 1.001]])])
def test_floats_out_of_range_are_refused(array: npt.NDArray[Any]) -> None:
    pattern = f"from {array.min():g} to {array.max():g}.*Divide by 255"
    with pytest.raises(ValueError, match=pattern):
        codec.decode(array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_and_located(bad: float) -> None:
    array = np.zeros((4, 5, 3), np.float32)
    array[2, 3, 1] = array[3, 0, 0] = bad
    with pytest.raises(ValueError, match=r"has 2 values .* first in row 2, column 3"):
        codec.decode(array)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint32", "complex64", "object", "U3"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=r"uint8, bool, uint16.*not "):
        codec.decode(np.zeros((2, 2), dtype))


@pytest.mark.parametrize("shape", [(), (4,), (3, 8, 9), (8, 9, 2), (8, 9, 5), (1, 8, 9, 3), (2, 2, 2, 2, 2)])
def test_wrong_array_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"transpose\(1, 2, 0\)"):
        codec.decode(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0, 3), (0, 5, 4)])
def test_arrays_without_pixels_are_refused(shape: tuple[int, ...]) -> None:
    for dtype in (np.uint8, np.float32):
        with pytest.raises(ValueError, match="at least one pixel"):
            codec.decode(np.zeros(shape, dtype))


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.sampled_from(["plain", "flipped", "fortran", "strided", "read-only"]),
)
def test_any_memory_layout_is_read_and_left_alone(array: npt.NDArray[np.uint8], layout: str) -> None:
    expected = array.tolist()
    if layout == "flipped":
        array = array[::-1, ::-1].copy()[::-1, ::-1]
    elif layout == "fortran":
        array = np.asfortranarray(array)
    elif layout == "strided":
        array = np.repeat(np.repeat(array, 2, 0), 3, 1)[::2, ::3]
    elif layout == "read-only":
        array.flags.writeable = False
    result = codec.decode(array)
    same(result, expected)
    result[:] = 255 - result
    assert array.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(st.sampled_from(["f2", "f4", "f8"]), hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)))
def test_any_float_array_is_an_image_or_a_value_error(array: npt.NDArray[Any]) -> None:
    before = array.copy()
    try:
        result = codec.decode(array)
    except ValueError:
        pass
    else:
        assert array.min() >= 0
        assert array.max() <= 1
        assert result.shape == (*array.shape[:2], 3)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_tensors_of_all_kinds(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[0.2, 0.5]]], dtype=dtype, requires_grad=True)
    same(codec.decode(tensor), [[[0, 255, 51], [255, 0, 128]]])
    assert tensor.requires_grad


@pytest.mark.parametrize("shape", [(2, 5), (1, 2, 5), (3, 2, 5), (4, 2, 5)])
def test_tensor_shapes(shape: tuple[int, ...]) -> None:
    assert codec.decode(torch.full(shape, 255, dtype=torch.uint8)).shape == (2, 5, 3)


def test_integer_and_bool_tensors() -> None:
    same(codec.decode(torch.tensor([[257 * 9]], dtype=torch.uint16)), [[[9, 9, 9]]])
    same(codec.decode(torch.tensor([[True]])), [[[255, 255, 255]]])
    with pytest.raises(TypeError, match="not int64"):
        codec.decode(torch.tensor([[1]]))


def test_tensor_result_is_a_copy() -> None:
    tensor = torch.zeros(3, 4, 4, dtype=torch.uint8)
    codec.decode(tensor)[:] = 9
    assert int(tensor.max()) == 0


def test_wrong_tensor_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one image, or use r\.network"):
        codec.decode(torch.zeros(2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"permute\(2, 0, 1\)"):
        codec.decode(torch.zeros(5, 6, 3))
    with pytest.raises(ValueError, match="at least one pixel"):
        codec.decode(torch.zeros(3, 0, 5))


@pytest.mark.parametrize("source", [None, 3, [[1, 2]], {"a": 1}])
def test_other_types_are_refused(source: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(source).__name__}"):
        codec.decode(source)


def test_images_do_not_import_torch() -> None:
    program = "import sys, refinenet.io.images.codec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_written_label_map_keeps_ids_and_shows_colours(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2, 255]], np.uint8)
    path = codec.write(tmp_path / "new" / "a.PNG", ids, palette=[(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    with Image.open(path) as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == ids.tolist()
        assert (image.getpalette() or [])[:15] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0]
        assert len(image.getpalette() or []) == 768
    np.testing.assert_array_equal(mask_files.read_mask(path), ids)
    same(mask_files.read_colour_mask(path), [[[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]]])


@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">u2"])
def test_written_ids_come_back(dtype: str, tmp_path: Path) -> None:
    ids = np.array([[0, 1, 200], [17, 255, 254]], dtype)
    ids = ids * ids.dtype.type(257) if ids.itemsize == 2 else ids
    back = mask_files.read_mask(codec.write(tmp_path / "a.png", ids[:, ::-1]))
    assert back.dtype == ids.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back, ids[:, ::-1])


def test_png_picture_comes_back_exactly_and_jpeg_nearly() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = (255, 0, 0)
    same(codec.decode(codec.encode(pixels, ".png")), pixels)
    for suffix in (".jpg", ".jpeg", ".JPG"):
        back = codec.decode(codec.encode(pixels, suffix))
        # With the colour halved in resolution, the edge in the middle would be off by more than 100.
        assert np.abs(back.astype(int) - pixels).max() < 12


def test_written_files_carry_no_metadata() -> None:
    for suffix in (".png", ".jpg"):
        with Image.open(io.BytesIO(codec.encode(np.zeros((2, 2, 3), np.uint8), suffix))) as image:
            assert not set(image.info) & {"exif", "icc_profile", "xmp", "comment", "Software"}


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix", "colours", "error", "pattern"),
    [
        ((2, 2, 3), "uint8", ".webp", None, ValueError, r"\.png, \.jpg or \.jpeg, not '\.webp'"),
        ((2, 2, 3), "uint8", "", None, ValueError, r"not ''"),
        ((2, 2), "uint8", ".jpg", None, ValueError, "would change its ids"),
        ((2, 2), "uint16", ".jpeg", None, ValueError, "would change its ids"),
        ((2, 2, 4), "uint8", ".png", None, ValueError, "cannot be written"),
        ((2, 2, 3), "uint16", ".png", None, ValueError, "cannot be written"),
        ((0, 2), "uint8", ".png", None, ValueError, "at least one pixel"),
        ((1, 65_536, 3), "uint8", ".jpg", None, ValueError, "cannot be written as JPEG"),
        ((2, 2), "int64", ".png", None, TypeError, "not from int64"),
        ((2, 2, 3), "float32", ".png", None, TypeError, "not from float32"),
        ((2, 2), "bool", ".png", None, TypeError, "not from bool"),
        ((2, 2), "uint16", ".png", 3, ValueError, "Leave it out"),
        ((2, 2, 3), "uint8", ".jpg", 3, ValueError, "Leave it out"),
        ((2, 2), "uint8", ".png", 257, ValueError, "257 colours"),
    ],
)
def test_what_cannot_be_written_is_refused(
    shape: tuple[int, ...], dtype: str, suffix: str, colours: int | None, error: type[Exception], pattern: str
) -> None:
    palette = None if colours is None else [(1, 2, 3)] * colours
    with pytest.raises(error, match=pattern):
        codec.encode(np.zeros(shape, dtype), suffix, palette=palette)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not '\.gif'"):
        codec.write(tmp_path / "folder" / "a.gif", np.zeros((2, 2), np.uint8))
    assert list(tmp_path.iterdir()) == []
