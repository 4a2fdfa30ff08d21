"""`RefineNet.frames`: predictions for the frames of a video as they come."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from video_samples import moving_street, read_video, write_video

from refinenet import RefineNet
from refinenet.deployment.video.reader import Frame, find_source
from refinenet.deployment.video.stream import VideoStream


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "street.mp4", moving_street(6))


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


def test_of_a_live_source_the_oldest_waiting_frame_is_dropped(video: Path) -> None:
    source = replace(find_source(video), is_real_time=True)
    stream = VideoStream(source, 0, print, waiting=2, keeps_newest=True)
    frames = (item for item in stream if isinstance(item, Frame))
    first = next(frames)
    while stream.left_out + 1 + 2 < 6:  # until the reader has seen the last frame
        time.sleep(0.01)
    last = list(frames)
    stream.close()
    _, times = read_video(video)
    assert first.seconds in times[:4]
    assert [frame.seconds for frame in last] == times[-len(last) :]
    assert len(last) + 1 + stream.left_out == 6


def test_what_cannot_be_iterated_is_named(camvid_model: RefineNet, tmp_path: Path, video: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
        camvid_model.frames(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="waiting must be a whole number of frames, at least 1, not 0"):
        camvid_model.frames(video, waiting=0)
    depth = RefineNet(encoder="test_resnet", outputs="depth", device="cpu", backend="pytorch")
    with pytest.warns(UserWarning, match="network is untrained"):
        frame = next(depth.frames(video))
    assert frame.prediction.depth.shape == frame.image.shape[:2]
    with pytest.raises(ValueError, match="no output of classes: read `prediction`"):
        _image, _seconds, _segmentation = frame
