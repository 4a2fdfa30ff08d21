"""Live HLS playlists from a real local server: the delay of frames, slow readers, the end of a broadcast."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from hls_camera import HlsCamera, hls_camera
from live_camera import read_number

from refinenet import RefineNet
from refinenet.deployment.video.stream import SegmentPace

RATE, SEGMENT = 20, 1.0
"""Pictures a second, and seconds of a segment."""


@pytest.fixture
def camera() -> Iterator[HlsCamera]:
    """A camera that has filmed for some seconds, as all have that somebody tunes in to."""
    with hls_camera(RATE, SEGMENT) as camera:
        while len(camera.taken) < 5 * RATE * SEGMENT:
            time.sleep(0.05)
        yield camera


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> RefineNet:
    """A network that needs a few milliseconds for a frame."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    RefineNet(encoder="test_resnet", num_classes=4, device="cpu", seed=1).save(path)
    model = RefineNet(model=path, device="cpu", backend="pytorch")
    model.segment(np.zeros((48, 60, 3), np.uint8))
    return model


def test_frames_of_a_live_playlist_come_evenly_and_soon(small_model: RefineNet, camera: HlsCamera) -> None:
    """A segment arrives all at once, but its frames one after the other: a loop that is too slow misses single ones."""
    numbers, begun = list[int](), time.monotonic()
    with closing(small_model.frames(camera.address)) as frames:
        for frame in frames:
            numbers.append(read_number(frame.image))
            time.sleep(1.2 / RATE)
            if time.monotonic() > begun + 6:
                break
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= (camera.listed[0] - 1) * RATE * SEGMENT, "players begin three segments before the newest"
    assert np.quantile(np.diff(numbers), 0.9) < RATE * SEGMENT / 2, "all but a few frames of each segment are missing"


def test_a_slow_loop_is_not_later_at_the_end(small_model: RefineNet, camera: HlsCamera) -> None:
    ages, begun = [], time.monotonic()
    with closing(small_model.frames(camera.address)) as frames:
        for frame in frames:
            ages.append(time.monotonic() - camera.taken[read_number(frame.image)])
            time.sleep(0.4)
            if time.monotonic() > begun + 8:
                break
    assert frame.dropped > 40
    assert np.median(ages[-5:]) < np.median(ages[:5]) + 1.5


def test_a_broadcast_that_ends_is_not_shown_again(
    small_model: RefineNet, camera: HlsCamera, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers: list[int] = []
    with closing(small_model.frames(camera.address)) as frames:
        for frame in frames:
            numbers.append(read_number(frame.image))
            if len(numbers) == RATE:
                camera.finish()
    assert numbers == sorted(set(numbers))
    assert len(numbers) > RATE
    assert f"{camera.address} has ended." in capfd.readouterr().err


def test_a_delay_of_the_network_is_caught_up() -> None:
    """Without a server: frames are late after a segment that comes five seconds late, and soon no longer."""
    pace, now, ages = SegmentPace(), 0.0, []
    for number in range(40 * RATE):
        # Segments are there a second after their first picture was taken; the sixth one comes five seconds late.
        segment = number // RATE
        there = (segment + 1) * SEGMENT + (5 if segment == 5 else 0)
        now = max(now, there)
        now += pace.find_pause(number / RATE, now)
        ages.append(now - number / RATE)
    assert max(ages) > 5.9
    assert max(ages[: 4 * RATE]) < 1.5
    assert max(ages[-4 * RATE :]) < 2.1
