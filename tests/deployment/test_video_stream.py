"""Streams from real local servers that break off, come back, stay away or stay silent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
import warm_start
from hostile_server import Behaviour, answer, hang, hostile_server, serve, status
from PIL import Image
from video_samples import moving_street, read_sound, read_video, write_video

from refinenet import RefineNet
from refinenet.deployment.video.reader import Frame, Sound, find_source
from refinenet.deployment.video.stream import VideoStream


@pytest.fixture
def transport_stream(tmp_path: Path) -> bytes:
    """A second of MPEG-TS, with sound, as cameras send it."""
    path = write_video(tmp_path / "live.ts", moving_street(25), codec="mpeg2video", sound="aac", unit=Fraction(1, 25))
    return path.read_bytes()


def endless(content: bytes, kind: str = "video/mp2t", cut: int | None = None) -> Behaviour:
    """Return a response without a declared length, which ends."""
    return answer(content, cut=cut, Content_Length=None, Content_Type=kind)


def test_a_stream_that_breaks_off_is_reconnected_and_continued(
    camvid_model: RefineNet, tmp_path: Path, transport_stream: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with hostile_server() as server:
        half = endless(transport_stream, cut=len(transport_stream) // 2)
        address = server.plan("/live", half, status(503), endless(transport_stream), status(404))
        result = camvid_model.deploy_video(address, tmp_path / "out.mp4", retries=2, progress=False)
    notes = capfd.readouterr().err
    assert f"{address} was disconnected" in notes
    assert "reconnecting in 0.5 s (1 of 2)" in notes
    assert "reconnecting in 1 s (2 of 2)" in notes
    assert "could not be reconnected: the video ends here" in notes
    assert result.reconnections == 1
    pictures, times = read_video(tmp_path / "out.mp4")
    assert len(pictures) == result.frames > 25
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert min(steps) > 0
    # Within a connection times are the stream's; between connections they are the pauses of 0.5 and 1 s.
    assert sorted(float(step) for step in steps)[:-1] == pytest.approx([0.04] * (len(steps) - 1), abs=0.0001)
    assert 1.4 < max(steps) < 30
    heard = [float(when) for when, _ in read_sound(tmp_path / "out.mp4")]
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(float(times[-1]), abs=0.3)


def test_pictures_pushed_by_a_web_camera(camvid_model: RefineNet, tmp_path: Path) -> None:
    parts = b""
    for picture in moving_street(6):
        Image.fromarray(picture).save(tmp_path / "part.jpg", quality=95)
        content = (tmp_path / "part.jpg").read_bytes()
        parts += b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(content), content)
    with hostile_server() as server:
        pushed = endless(parts, "multipart/x-mixed-replace;boundary=next")
        address = server.plan("/push", pushed, pushed, status(404))
        result = camvid_model.deploy_video(address, tmp_path / "out.mp4", retries=1, progress=False)
    assert result.reconnections == 1
    pictures, times = read_video(tmp_path / "out.mp4")
    assert len(pictures) == result.frames
    assert result.frames in (10, 11, 12)  # the last frame of a connection may be cut
    assert times == sorted(set(times))


def test_a_file_on_a_web_server_that_hangs_up_is_read_to_its_end(camvid_model: RefineNet, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mkv", moving_street(60), codec="mjpeg", pixels="yuvj420p", sound="aac")
    content = video.read_bytes()
    with hostile_server() as server:
        bad = serve(content, cut=len(content) // 2)
        address = server.plan("/in.mkv", bad, bad, bad, serve(content))
        result = camvid_model.deploy_video(address, tmp_path / "out.mkv", retries=6, progress=False)
    assert result.frames == 60
    assert read_video(tmp_path / "out.mkv")[1] == read_video(video)[1]
    assert [c for _, c in read_sound(tmp_path / "out.mkv")] == [c for _, c in read_sound(video)]


def test_a_file_that_is_never_complete_ends_after_the_attempts(
    camvid_model: RefineNet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each response holds the first half of the file, and a header that declares the whole."""
    video = write_video(tmp_path / "in.mkv", moving_street(60), codec="mjpeg", pixels="yuvj420p")
    content = video.read_bytes()
    with hostile_server() as server:
        address = server.plan("/in.mkv", *[serve(content, cut=len(content) // 2)] * 8)
        result = camvid_model.deploy_video(address, tmp_path / "out.mkv", retries=2, progress=False)
    assert result.reconnections == 2
    assert 20 < result.frames < 40
    assert read_video(tmp_path / "out.mkv")[1] == read_video(video)[1][: result.frames]
    notes = capfd.readouterr().err
    assert "reconnecting in 0.5 s (1 of 2)" in notes
    assert "reconnecting in 1 s (2 of 2)" in notes
    assert "could not be reconnected: the video ends here" in notes


def test_a_recording_without_a_length_is_not_played_forever(
    camvid_model: RefineNet, tmp_path: Path, transport_stream: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with hostile_server() as server:
        address = server.plan("/live", *[endless(transport_stream)] * 8)
        result = camvid_model.deploy_video(address, tmp_path / "out.mp4", retries=2, progress=False)
    assert result.reconnections == 1
    assert f"{address} sent the same {result.frames // 2} frames again: the video ends here." in capfd.readouterr().err


def test_a_server_that_never_answers_is_an_error_at_once(camvid_model: RefineNet, tmp_path: Path) -> None:
    with hostile_server() as server:
        missing = server.plan("/live", status(404))
        with pytest.raises(ConnectionError, match=r"live cannot be opened: .*404"):
            camvid_model.deploy_video(missing, tmp_path / "out.mp4", progress=False)
    secret = f"rtsp://user:word@127.0.0.1:{_free_port()}/live"
    with pytest.raises(ConnectionError, match="Connection refused") as error:
        camvid_model.deploy_video(secret, tmp_path / "out.mp4", progress=False)
    assert "word" not in str(error.value)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the test needs signals")
def test_ctrl_c_while_a_stream_is_silent_leaves_a_file_that_plays(tmp_path: Path, transport_stream: bytes) -> None:
    with hostile_server() as server:
        address = server.plan("/live", hang(transport_stream * 3, len(transport_stream), seconds=60))
        command = [sys.executable, "-m", "refinenet", "deploy", address, "--output", "out.mp4"]
        process = warm_start.Process(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 600
        while not any(path.stat().st_size for path in tmp_path.glob(".out.mp4.*.tmp")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=600)
    assert process.returncode == 130, said
    assert read_video(tmp_path / "out.mp4")[0]


def test_frames_that_come_too_fast_are_dropped(tmp_path: Path) -> None:
    """A real-time source, like a camera, that is read more slowly than it sends."""
    video = write_video(tmp_path / "in.mp4", moving_street(40), sound="aac")
    stream = VideoStream(replace(find_source(video), is_real_time=True), retries=0, notify=print)
    frames, sounds = [], 0
    for item in stream:
        if isinstance(item, Frame):
            frames.append(item.seconds)
            time.sleep(0.15)
        sounds += isinstance(item, Sound)
    stream.close()
    assert stream.left_out > 0
    assert len(frames) + stream.left_out == 40
    assert frames == sorted(set(frames))
    assert sounds == len(read_sound(video))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
