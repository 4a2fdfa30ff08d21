"""Videos to videos or folders: the decoded result, compared with the pictures that went in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import warm_start
from conftest import CommandLine
from PIL import Image
from video_samples import moving_street, read_sound, read_video, write_sound, write_video

from refinenet import RefineNet
from refinenet.cli import main
from refinenet.deployment.video.reader import Frame, Recording, find_source, is_video
from refinenet.deployment.video.writer import VideoFile, VideoForm
from refinenet.inference.output_kinds import Output
from refinenet.io.images.image_files import MAX_PIXELS


def deploy(model: RefineNet, source: Path, output: Path, kind: Output | None = None) -> int:
    """Segment a video and return the reported number of frames."""
    result = model.deploy_video(source, output, kind, progress=False)
    assert result.output == output
    return result.frames


def decoded(path: Path) -> list[Frame]:
    recording = Recording(find_source(path))
    frames = [item for item in recording if isinstance(item, Frame)]
    recording.close()
    return frames


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("a.mkv", "ffv1", "bgr0"), ("a.avi", "rawvideo", "bgr24"), ("a.mov", "png", "rgb24")]
)
def test_a_lossless_frame_has_the_labels_of_the_same_picture_as_png(
    camvid_model: RefineNet, tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    pictures = moving_street(2, 90, 120)
    video = write_video(tmp_path / name, pictures, codec=codec, pixels=pixels, unit=Fraction(1, 25))
    assert deploy(camvid_model, video, tmp_path / "frames") == 2
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "still.png")
        camvid_model.deploy(image_file=tmp_path / "still.png", output_file=tmp_path / "labels.png")
        labels = np.asarray(Image.open(tmp_path / "frames" / f"{index:06d}.png"))
        assert len(np.unique(labels)) > 3
        np.testing.assert_array_equal(labels, np.asarray(Image.open(tmp_path / "labels.png")))


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_each_frame_becomes_its_overlay(camvid_model: RefineNet, tmp_path: Path, count: int, suffix: str) -> None:
    pictures = moving_street(count)
    video = write_video(tmp_path / "in.mkv", pictures, codec="ffv1", pixels="bgr0")
    output = tmp_path / "new" / f"out{suffix}"
    assert deploy(camvid_model, video, output) == count
    shown, times = read_video(output)
    assert times == [Fraction(k, 25) for k in range(count)]
    for k in (0, count - 1):
        expected = camvid_model.segment(pictures[k]).overlay
        assert np.abs(shown[k].astype(int) - expected).mean() < 6
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    with av.open(str(output)) as made:
        assert made.streams.video[0].codec_context.name == "h264"
        assert made.streams.video[0].pix_fmt == "yuv420p"


@pytest.mark.parametrize("name", ["in.mkv", "in.mp4", "in.avi"])
def test_a_video_without_frames_is_refused_and_nothing_is_written(
    camvid_model: RefineNet, tmp_path: Path, name: str
) -> None:
    video = write_video(tmp_path / name, [])
    (tmp_path / "out.mp4").write_bytes(b"what was there")
    with pytest.raises(ValueError, match=rf"{name}.*has no frames"):
        deploy(camvid_model, video, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"what was there"
    with pytest.raises(ValueError, match="no frames"):
        deploy(camvid_model, video, tmp_path / "frames")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("suffix", "unit"), [(".mp4", 12_800), (".mov", 90_000), (".mkv", 1000)])
def test_uneven_frame_times_are_kept(camvid_model: RefineNet, tmp_path: Path, suffix: str, unit: int) -> None:
    times = [Fraction(k, 100) for k in (0, 4, 8, 30, 31, 50, 90, 95, 99, 200)]
    video = write_video(tmp_path / f"in{suffix}", moving_street(10), times, unit=Fraction(1, unit))
    expected = read_video(video)[1]
    deploy(camvid_model, video, tmp_path / f"out{suffix}", "colour")
    assert read_video(tmp_path / f"out{suffix}")[1] == expected
    with av.open(str(tmp_path / f"out{suffix}")) as made:
        assert made.duration is not None
        assert made.duration >= 2_000_000  # includes the last frame, after a long pause


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_whose_clock_starts_late_begins_at_zero(camvid_model: RefineNet, tmp_path: Path, suffix: str) -> None:
    times = [Fraction(k, 25) for k in (5000, 5001, 5004)]
    video = write_video(tmp_path / "in.mkv", moving_street(3), times, codec="ffv1", pixels="bgr0")
    deploy(camvid_model, video, tmp_path / f"out{suffix}")
    assert read_video(tmp_path / f"out{suffix}")[1] == [Fraction(k, 25) for k in (0, 1, 4)]


@pytest.mark.parametrize("shape", [(47, 63), (47, 64), (48, 63), (1, 1), (2, 301)])
def test_odd_sides_are_made_even_by_a_copy_of_the_edge(
    camvid_model: RefineNet, tmp_path: Path, shape: tuple[int, int]
) -> None:
    pictures = moving_street(2, *shape)
    video = write_video(tmp_path / "in.mkv", pictures, codec="ffv1", pixels="bgr0")
    assert deploy(camvid_model, video, tmp_path / "out.mp4", "colour") == 2
    shown, _ = read_video(tmp_path / "out.mp4")
    even = tuple(side + side % 2 for side in shape)
    assert shown[0].shape == (*even, 3)
    drawn = np.asarray(camvid_model.segment(pictures[0]).colour, np.int64)
    if shape != (1, 1):
        assert np.median(np.abs(shown[0][: shape[0], : shape[1]] - drawn)) <= 4
        assert np.abs(shown[0][-1].astype(int) - shown[0][shape[0] - 1]).mean() < 12


@pytest.mark.parametrize("turned", [(0, True), (90, False), (180, False), (-90, False), (90, True)])
def test_turned_and_mirrored_videos_are_upright(
    camvid_model: RefineNet, tmp_path: Path, turned: tuple[int, bool]
) -> None:
    stored = moving_street(1)[0]
    video = write_video(
        tmp_path / "in.mov", [stored], codec="png", pixels="rgb24", turned=turned, aspect=Fraction(4, 3)
    )
    angle, is_mirrored = turned
    upright = np.rot90(stored, angle // 90)  # counter-clockwise, both
    upright = upright[:, ::-1] if is_mirrored else upright  # FFmpeg mirrors after rotating
    (frame,) = decoded(video)
    np.testing.assert_array_equal(frame.pixels, upright)
    deploy(camvid_model, video, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert made.streams.video[0].sample_aspect_ratio == (Fraction(4, 3) if angle % 180 == 0 else Fraction(3, 4))
        (shown,) = made.decode(video=0)
        assert shown.rotation == 0
        assert (shown.height, shown.width) == upright.shape[:2]


@pytest.mark.parametrize(
    ("codec", "before", "after"),
    [("aac", "in.mp4", "out.mp4"), ("aac", "in.ts", "out.mp4"), ("libopus", "in.mkv", "out.mp4")],
)
def test_sound_is_copied_as_it_is(camvid_model: RefineNet, tmp_path: Path, codec: str, before: str, after: str) -> None:
    video = write_video(tmp_path / before, moving_street(12), sound=codec, unit=Fraction(1, 90_000))
    assert camvid_model.deploy_video(video, tmp_path / after, progress=False).sound
    old, new = read_sound(video), read_sound(tmp_path / after)
    assert len(old) > 20
    strip = 7 if before.endswith(".ts") else 0  # AAC's ADTS header, which MP4 stores once for the file
    assert [content[strip:] for _, content in old] == [content for _, content in new]
    assert [float(when - old[0][0]) for when, _ in old] == pytest.approx(
        [float(when - new[0][0]) for when, _ in new], abs=0.001
    )
    gap = [read_video(path)[1][0] - read_sound(path)[0][0] for path in (video, tmp_path / after)]
    assert float(gap[0]) == pytest.approx(float(gap[1]), abs=0.002)


def test_sound_that_the_file_cannot_hold_is_dropped_and_reported(
    camvid_model: RefineNet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "in.mkv", moving_street(3), sound="pcm_s16le")
    assert not camvid_model.deploy_video(video, tmp_path / "out.mp4", progress=False).sound
    assert "pcm_s16le" in capfd.readouterr().err
    assert len(read_video(tmp_path / "out.mp4")[0]) == 3
    assert camvid_model.deploy_video(video, tmp_path / "out.mkv", progress=False).sound
    assert b"".join(c for _, c in read_sound(tmp_path / "out.mkv")) == b"".join(c for _, c in read_sound(video))


def test_a_truncated_file_gives_its_complete_frames(
    camvid_model: RefineNet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / "whole.mkv", moving_street(60), codec="mjpeg", pixels="yuvj420p")
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = deploy(camvid_model, tmp_path / "cut.mkv", tmp_path / "out.mp4")
    assert 20 < frames < 40
    assert "cut.mkv is cut off" in capfd.readouterr().err
    assert len(read_video(tmp_path / "out.mp4")[0]) == frames
    indexed = write_video(tmp_path / "whole.mp4", moving_street(60))
    (tmp_path / "cut.mp4").write_bytes(indexed.read_bytes()[: indexed.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\.mp4 is not a readable video, or is damaged"):
        deploy(camvid_model, tmp_path / "cut.mp4", tmp_path / "not.mp4")
    assert not (tmp_path / "not.mp4").exists()


def test_damage_in_the_middle_costs_only_frames_there(camvid_model: RefineNet, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.avi", moving_street(20), codec="png", pixels="rgb24", unit=Fraction(1, 25))
    content = bytearray(video.read_bytes())
    middle = content.index(b"\x89PNG", len(content) // 2)
    content[middle : middle + 60] = bytes(60)
    video.write_bytes(content)
    result = camvid_model.deploy_video(video, tmp_path / "out.mp4", progress=False)
    assert result.damaged == 1
    assert result.frames in (18, 19)  # the reader may merge the damaged packet with the next one
    times = read_video(tmp_path / "out.mp4")[1]
    assert (len(times), times[-1]) == (result.frames, Fraction(19, 25))


def test_concatenated_recordings_continue_where_the_clock_restarts(tmp_path: Path) -> None:
    part = write_video(tmp_path / "a.ts", moving_street(30), codec="mpeg2video", unit=Fraction(1, 25)).read_bytes()
    (tmp_path / "both.ts").write_bytes(part + part)
    times = [frame.seconds for frame in decoded(tmp_path / "both.ts")]
    assert len(times) == 60
    assert all(0 < later - earlier < 0.2 for earlier, later in pairwise(times))


@pytest.mark.skipif(sys.platform == "win32", reason="the test needs a limit on file sizes")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("limit", [300, 5000])
def test_a_full_disk_is_an_error_and_leaves_the_old_file(
    camvid_model: RefineNet, tmp_path: Path, suffix: str, limit: int
) -> None:
    import resource

    video = write_video(tmp_path / "in.mkv", moving_street(20), codec="ffv1", pixels="bgr0")
    (tmp_path / f"out{suffix}").write_bytes(b"what was there")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match=rf"Cannot write .*out{suffix}: File too large"):
            deploy(camvid_model, video, tmp_path / f"out{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / f"out{suffix}").read_bytes() == b"what was there"
    assert len(list(tmp_path.iterdir())) == 2


def test_sound_alone_is_refused_with_or_without_a_cover(camvid_model: RefineNet, tmp_path: Path) -> None:
    for source in (
        write_sound(tmp_path / "tone.m4a"),
        write_sound(tmp_path / "cover.mp4", cover=moving_street(1)[0]),
    ):
        with pytest.raises(ValueError, match=rf"{source.name} has no video, only.*audio"):
            deploy(camvid_model, source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_absurd_sizes_are_refused(camvid_model: RefineNet, tmp_path: Path) -> None:
    side = 8000
    assert side**2 > MAX_PIXELS
    with av.open(str(tmp_path / "huge.mov"), "w") as output:
        stream = output.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = side, side, "gray"
        frame = av.VideoFrame(side, side, "gray")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"huge\.mov has frames of 8000 x 8000 pixels; at most 50,000,000"):
        deploy(camvid_model, tmp_path / "huge.mov", tmp_path / "out.mp4")


def test_a_folder_gets_numbered_labels_and_a_list(camvid_model: RefineNet, tmp_path: Path) -> None:
    times = [Fraction(k, 100) for k in (0, 4, 50)]
    pictures = moving_street(3)
    video = write_video(tmp_path / "in.mkv", pictures, times, codec="ffv1", pixels="bgr0")
    assert deploy(camvid_model, video, tmp_path / "frames") == 3
    lines = [json.loads(line) for line in (tmp_path / "frames" / "frames.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert [line["seconds"] for line in lines] == [0.0, 0.04, 0.5]
    for line in lines:
        labels = np.asarray(Image.open(tmp_path / "frames" / line["file"]))
        assert line["areas"]["Road"] == pytest.approx((labels == 3).mean())
    with pytest.raises(ValueError, match="frames is not empty"):
        deploy(camvid_model, video, tmp_path / "frames")


def test_frames_of_another_size_are_resized(tmp_path: Path) -> None:
    form = VideoForm(height=48, width=64, time_base=Fraction(1, 25))
    with VideoFile(tmp_path / "a.mp4", "mp4", form) as file:
        file.write(np.full((48, 64, 3), 200, np.uint8), Fraction(0))
        file.write(np.full((30, 20, 3), 60, np.uint8), Fraction(1, 25))
    shown, _ = read_video(tmp_path / "a.mp4")
    assert [picture.shape for picture in shown] == [(48, 64, 3)] * 2
    assert abs(shown[1].astype(int) - 60).max() <= 3


def test_without_h264_there_is_still_a_video_that_plays(tmp_path: Path) -> None:
    form = VideoForm(height=48, width=64, time_base=Fraction(1, 90_000))
    times = [Fraction(0), Fraction(1, 30), Fraction(1, 30), Fraction(2, 3)]  # the third is not later than the second
    with VideoFile(tmp_path / "a.mp4", "mp4", form, encoders=("no_such_encoder", "mpeg4")) as file:
        for when in times:
            file.write(np.full((48, 64, 3), (200, 30, 60), np.uint8), when)
    shown, read = read_video(tmp_path / "a.mp4")
    assert [float(when) for when in read] == pytest.approx([0, 1 / 30, 1 / 30, 2 / 3], abs=0.0001)
    assert abs(shown[0].astype(int) - (200, 30, 60)).max() < 12
    with pytest.raises(ValueError, match="none of the encoders no_such_encoder"):
        VideoFile(tmp_path / "b.mp4", "mp4", form, encoders=("no_such_encoder",))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.mp4"], "nothing.mp4"),
        (["folder.mp4"], "folder"),
        (["empty.mp4"], "empty (0 bytes)"),
        (["text.mp4"], "text.mp4 is not a readable video"),
        (["text.mp4", "in.mp4"], "Pass a single video"),
        (["http://127.0.0.1:9/live"], "--output"),
        (["camera:987", "-o", "a.mp4"], "There is no camera:987"),
        (["in.mp4", "-o", "a.avi"], ".mp4, .m4v, .mov, .mkv"),
        (["in.mp4", "-o", "a.mp4", "-k", "labels"], "Choose a folder"),
        (["in.mp4", "-o", "in.mp4"], "the input itself"),
        (["in.mp4", "-o", "text.mp4/a.mp4"], "text.mp4"),
    ],
)
def test_errors_are_reported_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["refinenet", "deploy", *arguments])
    write_video(tmp_path / "in.mp4", moving_street(1))
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert words in said
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_line_reports_its_output(
    run_refinenet: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "in.mp4", moving_street(3), sound="aac")
    result = run_refinenet("deploy", "in.mp4", timeout=600)
    assert result.returncode == 0, result.stderr
    assert "in.mp4 -> in_overlay.mp4: 3 frames" in result.stdout
    assert "with audio" in result.stdout
    assert len(read_video(tmp_path / "in_overlay.mp4")[0]) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["refinenet", "deploy", "in.mp4", "-k", "confidence", "-o", "sure.mkv", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    facts = json.loads(capsys.readouterr().out)
    assert (facts["frames"], facts["output"], facts["sound"]) == (3, "sure.mkv", True)


def test_without_pyav_the_error_says_what_to_install(
    camvid_model: RefineNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "in.mp4", moving_street(1))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'refinenet-torch\[video\]'"):
        deploy(camvid_model, video, tmp_path / "out.mp4")


@pytest.mark.skipif(sys.platform == "win32", reason="the test needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_a_file_that_plays(tmp_path: Path, number: signal.Signals) -> None:
    video = write_video(tmp_path / "in.mp4", moving_street(2000), sound="aac")
    command = [sys.executable, "-m", "refinenet", "deploy", str(video), "--output", "out.mp4"]
    process = warm_start.Process(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    # The file under its temporary name grows once frames are encoded.
    while not any(path.stat().st_size for path in tmp_path.glob(".out.mp4.*.tmp")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "out.mp4").exists()
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130, said
    assert "Stopped: out.mp4 is complete" in said
    shown, times = read_video(tmp_path / "out.mp4")
    assert 0 < len(shown) < 2000
    assert f"{len(shown)} frames so far" in said
    assert times == [Fraction(k, 25) for k in range(len(shown))]
    assert read_sound(tmp_path / "out.mp4") == read_sound(video)[: len(read_sound(tmp_path / "out.mp4"))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        *((name, True) for name in ("a.mp4", "b/c.MKV", "camera:0", "rtsp://user:word@host/1", "http://host/live")),
        *((name, False) for name in ("a.png", "folder", "camera:x", "ftp://host/a.mp4", "http://host/a.jpg", "mp4")),
    ],
)
def test_which_names_mean_a_video(source: str, expected: bool) -> None:
    assert is_video(source) is expected
