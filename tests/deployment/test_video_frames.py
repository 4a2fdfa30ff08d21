"""`RefineNet.frames`: predictions for the frames of a video as they come."""

from __future__ import annotations

import threading
import time
from contextlib import closing, nullcontext
from fractions import Fraction
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import pytest
from hostile_server import hostile_server, status
from live_camera import LiveCamera, draw_number, live_camera, read_number
from rtsp_camera import rtsp_camera
from video_samples import moving_street, read_video, write_video

from refinenet import RefineNet


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "street.mp4", moving_street(6))


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> RefineNet:
    """A network that needs a few milliseconds for a frame."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    RefineNet(encoder="test_resnet", num_classes=4, device="cpu", seed=1).save(path)
    model = RefineNet(model=path, device="cpu", backend="pytorch")
    model.segment(draw_number(0))
    return model


def decoders() -> int:
    return sum(thread.name == "decode" for thread in threading.enumerate())


def test_each_frame_of_a_file_comes_with_its_time_and_labels(camvid_model: RefineNet, video: Path) -> None:
    pictures, times = read_video(video)
    found = list(camvid_model.frames(video))
    assert len(found) == len(pictures)
    for (image, seconds, segmentation), picture, expected in zip(found, pictures, times, strict=True):
        np.testing.assert_array_equal(image, picture)
        assert seconds == pytest.approx(float(expected))
        np.testing.assert_array_equal(segmentation.labels, camvid_model.segment(picture).labels)
    assert {frame.dropped for frame in found} == {0}


def test_a_half_read_video_is_closed(camvid_model: RefineNet, video: Path) -> None:
    frames = camvid_model.frames(video)
    next(frames)
    assert decoders() == 1
    del frames
    assert decoders() == 0


def test_images_have_the_order_of_the_model(video: Path) -> None:
    network = RefineNet(encoder="test_resnet", device="cpu", backend="pytorch", channel_order="bgr")
    with pytest.warns(UserWarning, match="network is untrained"):
        frame = next(network.frames(video))
    np.testing.assert_array_equal(frame.image[..., ::-1], read_video(video)[0][0])
    np.testing.assert_array_equal(frame.segmentation.labels, network.segment(frame.image).labels)


def test_of_a_live_source_the_newest_frame_is_kept(small_model: RefineNet) -> None:
    """A loop that needs seven times as long as the camera sees what was sent during its last turn."""
    with live_camera(rate=50) as (address, camera), closing(small_model.frames(address)) as frames:
        lags, dropped, numbers = [], [], []
        for frame in islice(frames, 12):
            numbers.append(read_number(frame.image))
            lags.append(camera.sent - numbers[-1])
            dropped.append(frame.dropped)
            time.sleep(0.14)
    assert numbers == sorted(set(numbers))
    assert dropped[-1] > 30
    # A turn sees a frame that came at most one turn ago. All frames in order would be 28 to 77 late.
    assert np.median(lags[4:]) < 25
    assert dropped[-1] >= numbers[-1] + 1 - len(numbers)  # each that was skipped is counted


def test_an_rtsp_camera_with_sound_is_followed(small_model: RefineNet, tmp_path: Path) -> None:
    """A quarter of its frames are seen, none much later than it was sent, and leaving hangs up."""
    pictures = [draw_number(number) for number in range(250)]
    content = write_video(tmp_path / "in.ts", pictures, codec="mpeg2video", sound="aac", unit=Fraction(1, 25))
    with rtsp_camera(content.read_bytes(), seconds=10) as camera:
        numbers, lags = [], []
        for frame in islice(small_model.frames(camera.address), 12):
            numbers.append(read_number(frame.image))
            lags.append(250 * camera.share - numbers[-1])
            time.sleep(0.2)
        assert camera.is_left.wait(15)
    assert numbers == sorted(set(numbers))
    assert frame.dropped >= numbers[-1] + 1 - len(numbers) > 20
    # At the beginning FFmpeg reads ahead to find out what is sent: in order, all would be more than 30 late.
    assert np.median(lags[3:]) < 25


def test_a_stream_that_is_not_to_drop_gives_each_frame(small_model: RefineNet) -> None:
    with live_camera(rate=100) as (address, _camera), closing(small_model.frames(address, live=False)) as frames:
        found = []
        for frame in islice(frames, 12):
            found.append((read_number(frame.image), frame.dropped))
            time.sleep(0.03)
    assert found == [(number, 0) for number in range(12)]


def test_a_file_played_as_a_camera_keeps_its_pace(small_model: RefineNet, tmp_path: Path) -> None:
    """Two seconds of video, with sound, whose packets must not hold the frames up."""
    video = write_video(tmp_path / "in.mp4", [draw_number(number) for number in range(50)], sound="aac")
    started, found = time.monotonic(), []
    for frame in small_model.frames(video, live=True):
        found.append((read_number(frame.image), time.monotonic() - started, frame))
        time.sleep(0.3)
    numbers = [number for number, _, _ in found]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + found[-1][2].dropped == 50
    assert found[-1][2].dropped > 30
    arrivals = [seconds - frame.delay for _, seconds, frame in found]
    assert arrivals[-1] - arrivals[0] > (numbers[-1] - numbers[0]) / 25 - 0.2
    assert [frame.seconds for _, _, frame in found] == pytest.approx([number / 25 for number in numbers])
    # When its prediction begins, the newest frame has waited less than the 0.04 s to the next one; the oldest, a turn.
    turns = np.diff([seconds for _, seconds, _ in found])
    assert np.median(turns[:-1] - [frame.delay for _, _, frame in found[1:-1]]) > 0.15


@pytest.mark.parametrize("ending", ["break", "error"])
def test_leaving_the_loop_hangs_up(small_model: RefineNet, ending: str) -> None:
    def read(address: str) -> None:
        for _ in small_model.frames(address):
            if ending == "error":
                raise LookupError
            break

    with live_camera() as (address, camera):
        with pytest.raises(LookupError) if ending == "error" else nullcontext():
            read(address)
        assert camera.is_left.wait(10)
    assert decoders() == 0


def test_a_silent_camera_is_reported_and_opened_again(
    small_model: RefineNet, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        live_camera(silent_after=20) as (address, _camera),
        closing(small_model.frames(address, timeout=0.5)) as frames,
    ):
        seconds = [frame.seconds for frame in takewhile(lambda frame: frame.seconds < 1, frames)]
    notes = capfd.readouterr().err
    assert f"{address} was disconnected" in notes
    assert "reconnecting in 0.5 s (1 of 6)" in notes
    assert seconds[0] == 0


def test_a_camera_that_stays_away_ends_the_loop_in_words(
    small_model: RefineNet, capfd: pytest.CaptureFixture[str]
) -> None:
    camera = LiveCamera(rate=1000, count=10)
    with hostile_server() as server:
        address = server.plan("/camera", camera.push, status(404))
        numbers = [read_number(frame.image) for frame in small_model.frames(address, retries=1, live=False)]
    assert numbers == list(range(10))
    assert "could not be reconnected: the video ends here" in capfd.readouterr().err


def test_what_cannot_be_iterated_is_named(camvid_model: RefineNet, tmp_path: Path, video: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
        camvid_model.frames(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="waiting must be a whole number of frames, at least 1, not 0"):
        camvid_model.frames(video, waiting=0)
    with pytest.raises(ValueError, match="live must be True, False or None, not 1"):
        camvid_model.frames(video, live=1)  # type: ignore[arg-type] # is refused
    with pytest.raises(ValueError, match="timeout must be a number of seconds above 0, at most 3600, not 0"):
        camvid_model.frames(video, timeout=0)
    with pytest.raises(FileNotFoundError, match="There is no camera:77"):
        camvid_model.frames("camera:77")
    with hostile_server() as server, pytest.raises(ConnectionError, match=r"live cannot be opened: .*404"):
        camvid_model.frames(server.plan("/live", status(404)))
    depth = RefineNet(encoder="test_resnet", outputs="depth", device="cpu", backend="pytorch")
    with pytest.warns(UserWarning, match="network is untrained"):
        frame = next(depth.frames(video))
    assert frame.prediction.depth.shape == frame.image.shape[:2]
    with pytest.raises(ValueError, match="no output of classes: read `prediction`"):
        _image, _seconds, _segmentation = frame
