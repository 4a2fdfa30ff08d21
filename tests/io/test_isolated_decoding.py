"""Images decoded in child processes: the same pixels as in this process, and nothing that happens there ends it."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from child_trouble import InterruptedByTestError, children, no_new_files, raised_after, run_fresh
from picture_bytes import file_bytes
from PIL import Image

from refinenet.io.images.bands import read_bands
from refinenet.io.images.codec import read_image
from refinenet.io.images.image_files import TooLargeError, UnknownFormatError
from refinenet.io.images.isolated_decoding import DecoderEndedError, DecoderPool
from refinenet.io.images.sample_values import AS_DECLARED, Reading

MAX_PIXELS = 50_000
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="finds and stops child processes by /proc")


@pytest.fixture(scope="module")
def restarts() -> list[int]:
    return []


@pytest.fixture(scope="module")
def pool(restarts: list[int]) -> Iterator[DecoderPool]:
    decoders = DecoderPool(1, max_pixels=MAX_PIXELS, seconds=60, observe_restart=lambda: restarts.append(1))
    decoders.start()
    yield decoders
    decoders.close()


def picture(mode: str, *size: int, low: int = 0, high: int = 256) -> Image.Image:
    shape = (*size, len(mode)) if mode != "I;16" else size
    values = np.random.default_rng(3).integers(low, high, shape, np.uint16 if mode == "I;16" else np.uint8)
    return Image.fromarray(values.squeeze())


@pytest.mark.parametrize(
    ("content", "reading"),
    [
        (file_bytes(picture("RGB", 20, 31), "PNG"), AS_DECLARED),
        (file_bytes(picture("RGB", 33, 7), "JPEG"), AS_DECLARED),
        (file_bytes(picture("RGBA", 12, 9), "PNG"), AS_DECLARED),
        (file_bytes(picture("I;16", 15, 10, high=4096), "PNG"), AS_DECLARED),  # with a note
        (file_bytes(picture("I;16", 15, 10, high=4096), "PNG"), Reading(value_range=(0, 4095))),
        (file_bytes(picture("RGB", 20, 31), "PNG"), Reading(bands=(3, 2, 1))),
        (file_bytes(picture("RGB", 20, 31), "PNG"), Reading(model_bands=read_bands("red,green,blue"))),
    ],
)
def test_pixels_and_notes_are_those_of_this_process(pool: DecoderPool, content: bytes, reading: Reading) -> None:
    expected, found = read_image(content, reading=reading), pool.decode(content, reading)
    assert found.pixels.dtype == expected.pixels.dtype
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.valid is None) == (expected.valid is None)
    if found.valid is not None and expected.valid is not None:
        np.testing.assert_array_equal(found.valid, expected.valid)
    assert found.notes == expected.notes


def test_what_is_no_image_is_refused_with_its_reason(pool: DecoderPool) -> None:
    with pytest.raises(UnknownFormatError, match="is not a JPEG"):
        pool.decode(b"%!PS-Adobe-3.0", AS_DECLARED)
    with pytest.raises(TooLargeError, match="300 x 200, has too many pixels: at most 50,000 are read"):
        pool.decode(file_bytes(Image.new("RGB", (300, 200)), "PNG"), AS_DECLARED)
    with pytest.raises(ValueError, match="empty"):
        pool.decode(b"", AS_DECLARED)


def test_memory_is_limited(pool: DecoderPool) -> None:
    tifffile = pytest.importorskip("rasterio.io", reason="pip install 'refinenet-torch[large]'")
    with tifffile.MemoryFile() as file:
        with file.open(
            driver="GTiff", width=6000, height=6000, count=30, dtype="float64", compress="deflate", sparse_ok=True
        ):
            pass  # without blocks: all zero
        content = file.read()
    bands = read_bands(",".join(f"band{k}:0:1" for k in range(30)))
    with pytest.raises((TooLargeError, DecoderEndedError)):  # 8 GB of samples
        pool.decode(content, Reading(model_bands=bands))
    assert pool.decode(file_bytes(picture("RGB", 4, 5), "PNG"), AS_DECLARED).pixels.shape == (4, 5, 3)


@linux_only
def test_a_decoder_that_crashes_fails_alone(pool: DecoderPool, restarts: list[int]) -> None:
    content = file_bytes(picture("RGB", 20, 31), "PNG")
    others = children()
    own = DecoderPool(1, max_pixels=MAX_PIXELS, seconds=60, observe_restart=lambda: restarts.append(2))
    own.start()
    (decoder,) = children() - others
    os.kill(decoder, signal.SIGSTOP)  # so that it is still decoding when it is killed
    threading.Timer(0.5, os.kill, (decoder, signal.SIGKILL)).start()
    with pytest.raises(DecoderEndedError, match="ended the process that decoded it") as caught:
        own.decode(content, AS_DECLARED)
    assert not caught.value.is_timeout
    np.testing.assert_array_equal(own.decode(content, AS_DECLARED).pixels, np.array(Image.open(io.BytesIO(content))))
    assert restarts.count(2) == 1
    own.close()
    assert children() == others


@linux_only
def test_a_decoder_that_takes_too_long_is_ended() -> None:
    content = file_bytes(picture("RGB", 20, 31), "PNG")
    others = children()
    pool = DecoderPool(1, max_pixels=MAX_PIXELS, seconds=60)
    pool.decode(content, AS_DECLARED)
    (decoder,) = children() - others
    hasty = DecoderPool(1, max_pixels=MAX_PIXELS, seconds=0.2)
    hasty.start()
    (stopped,) = children() - others - {decoder}
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(DecoderEndedError, match=r"took longer than 0\.2 s") as caught:
        hasty.decode(content, AS_DECLARED)
    assert caught.value.is_timeout
    assert not Path(f"/proc/{stopped}").exists()
    pool.close()
    hasty.close()


def check(pool: DecoderPool, *size: int) -> None:
    """Decode an image of a size, and compare its pixels."""
    expected = picture("RGB", *size)
    np.testing.assert_array_equal(pool.decode(file_bytes(expected, "PNG"), AS_DECLARED).pixels, np.array(expected))


@linux_only
def test_an_interrupted_image_does_not_become_the_next_one() -> None:
    restarts = list[int]()
    others = children()
    pool = DecoderPool(1, max_pixels=MAX_PIXELS, seconds=60, observe_restart=lambda: restarts.append(1))
    check(pool, 9, 8)
    (decoder,) = children() - others
    os.kill(decoder, signal.SIGSTOP)
    with pytest.raises(InterruptedByTestError), raised_after(0.3):
        check(pool, 20, 31)
    assert not Path(f"/proc/{decoder}").exists()
    check(pool, 12, 5)
    assert restarts == [1]
    pool.close()


_LARGE_IMAGE = """
from child_trouble import limited
from picture_bytes import file_bytes
from PIL import Image
from refinenet.io import AS_DECLARED, DecoderPool, used_addresses
pool = DecoderPool(1, max_pixels=20_000_000, seconds=60)
large, small = (file_bytes(Image.new("RGB", size, "red"), "PNG") for size in ((5000, 4000), (5, 12)))
pool.decode(small, AS_DECLARED)
with limited("RLIMIT_AS", used_addresses() + 2**25):
    try:
        pool.decode(large, AS_DECLARED)  # 60 MB
    except MemoryError:
        print("too little memory")
decoded = pool.decode(small, AS_DECLARED).pixels
print(decoded.shape, decoded.mean((0, 1)))
"""


@linux_only
def test_an_image_that_this_process_has_no_memory_for_does_not_disturb_the_next_one() -> None:
    assert run_fresh(_LARGE_IMAGE) == "too little memory\n(12, 5, 3) [255.   0.   0.]\n"


@linux_only
def test_closing_ends_those_that_decode() -> None:
    others = children()
    pool = DecoderPool(2, max_pixels=MAX_PIXELS, seconds=60)
    pool.start()
    decoders = children() - others
    assert len(decoders) == 2
    for decoder in decoders:
        os.kill(decoder, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        decoding = threads.submit(check, pool, 20, 31)
        threading.Event().wait(0.5)
        pool.close()
        with pytest.raises(DecoderEndedError, match="the processes that decode images were ended") as caught:
            decoding.result(30)
    assert not caught.value.is_timeout
    with pytest.raises(DecoderEndedError, match="were ended"):
        check(pool, 20, 31)
    assert children() == others


@linux_only
def test_a_decoder_that_cannot_be_started_is_started_for_a_later_image() -> None:
    restarts = list[int]()
    pool = DecoderPool(1, max_pixels=MAX_PIXELS, seconds=60, observe_restart=lambda: restarts.append(1))
    content = file_bytes(picture("RGB", 20, 31), "PNG")
    with pytest.raises(DecoderEndedError, match=r"cannot be started \(Too many open files\)"), no_new_files():
        pool.decode(content, AS_DECLARED)
    check(pool, 12, 5)
    assert restarts == []
    pool.close()
    with pytest.raises(ValueError, match="A process that decodes images cannot be started"), no_new_files():
        DecoderPool(1, max_pixels=MAX_PIXELS, seconds=60).start()
