"""Opened videos into upright RGB frames with their times: the only place that decodes videos.

Shape letters: H height, W width.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from refinenet.io.image_files import MAX_PIXELS, RGB

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer


VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    *(".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".h265"),
)
"""Files that are taken for videos."""

REAL_TIME_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp")
STREAM_SCHEMES = (*REAL_TIME_SCHEMES, "http", "https", "tcp")
_STILL_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jpe", ".jfif", ".avif")


@dataclass(frozen=True, kw_only=True)
class VideoSource:
    """Where a video comes from."""

    kind: Literal["file", "stream", "camera"]
    address: str
    """As FFmpeg takes it."""
    name: str
    """For messages: without a password."""
    is_real_time: bool = False
    """Whether it does not wait for whoever reads it."""


def is_video(source: str | os.PathLike[str]) -> bool:
    """Whether a path or address is taken for a video: by its suffix, as a stream's address, or as `camera:0`."""
    text = os.fspath(source)
    address = urlsplit(text) if "://" in text else None
    if address is None:
        return bool(_camera_number(text)) or Path(text).suffix.lower() in VIDEO_SUFFIXES
    is_picture = address.scheme in ("http", "https") and Path(address.path).suffix.lower() in _STILL_SUFFIXES
    return address.scheme in STREAM_SCHEMES and not is_picture


def find_source(source: str | os.PathLike[str]) -> VideoSource:
    """Understand what a user names as a video.

    Args:
        source: A file, the address of a stream (`rtsp://`, `rtmp://`, `http://`, ...), or a camera: `camera:0` for the
            first one, which is `/dev/video0`.

    Raises:
        ValueError: another kind of address, a pipe or a device, an empty file, or a camera on a system other than
            Linux.
        OSError: the file or the camera is not there, is a folder or may not be read.
    """
    text = os.fspath(source)
    if "://" in text:
        scheme = urlsplit(text).scheme
        if scheme not in STREAM_SCHEMES:
            raise ValueError(f"A stream's address begins with one of {', '.join(STREAM_SCHEMES)}, not {scheme!r}://.")
        name = re.sub(r"//[^/@]*@", "//", text)
        return VideoSource(kind="stream", address=text, name=name, is_real_time=scheme in REAL_TIME_SCHEMES)
    if number := _camera_number(text):
        return _find_camera(number)
    _check_file(Path(text))
    # "file:" keeps FFmpeg from understanding a file's name as an address.
    return VideoSource(kind="file", address=f"file:{text}", name=text)


def _camera_number(text: str) -> str | None:
    match = re.fullmatch(r"camera:(\d{1,3})", text)
    return match.group(1) if match else None


def _find_camera(number: str) -> VideoSource:
    if sys.platform != "linux":
        raise ValueError(f"camera:{number} is read on Linux only. Elsewhere pass the address of a stream.")
    device = Path(f"/dev/video{number}")
    if not device.exists():
        found = ", ".join(f"camera:{path.name[5:]}" for path in sorted(Path("/dev").glob("video[0-9]*")))
        raise FileNotFoundError(f"There is no camera:{number} ({device}). Found: {found or 'none'}.")
    return VideoSource(kind="camera", address=str(device), name=f"camera:{number}", is_real_time=True)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"Cannot read {path}: it is a folder. Name a video in it.")
    if path.exists() and not path.is_file():
        raise ValueError(f"Cannot read {path}: it is a pipe or a device. Name a file, or a camera as camera:0.")
    try:
        with path.open("rb") as stream:
            is_empty = not stream.read(1)
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read {path}: {error.strerror}") from error
    if is_empty:
        raise ValueError(f"{path} is empty (0 bytes).")


TIMEOUT = 10.0
"""Seconds without an answer after which a stream or a camera counts as lost."""

_MICROSECOND = Fraction(1, 1_000_000)
_RESET = Fraction(1, 2)
"""Seconds back in time that are taken for a clock that began anew, as where recordings are strung together."""
_USUAL_STEP = Fraction(1, 25)
"""Between frames that say no time, in a file that says no rate; seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture of a video."""

    pixels: RGB
    """`(H, W, 3)` uint8 RGB, upright."""
    seconds: Fraction
    """When it is shown, exactly; from the beginning of the video."""
    aspect: Fraction | None = None
    """Width of a pixel for its height, where the video says it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """A piece of the sound, still encoded."""

    packet: Packet[Any]
    track: int
    """Which of `Recording.sound` it is of."""
    delay: Fraction
    """Seconds by which it is to be heard later than its packet says."""


def require_av() -> None:
    """Make sure that PyAV is there.

    Raises:
        ValueError: it is not installed.
    """
    try:
        importlib.import_module("av")
    except ImportError as error:
        raise ValueError("PyAV, which reads videos, is not installed: pip install 'refinenet[video]'") from error


class Recording:
    """An opened video: iterate over it once for its frames and its sound, in the order of the file.

    Args:
        source: What to open.

    Raises:
        ValueError: PyAV is not installed, the file is no video or damaged, has no pictures, or frames of more than
            `image_files.MAX_PIXELS`.
        ConnectionError: a stream or a camera does not answer, or not with a video.
    """

    def __init__(self, source: VideoSource) -> None:
        require_av()
        self.source = source
        self.damaged = 0
        """Packets that could not be decoded, so far."""
        self.trouble: str | None = None
        """Why reading ended before the end, if it did."""
        self._last: Fraction | None = None
        self._jump = Fraction(0)
        self._container = _open(source)
        try:
            self._video = self._find_video()
        except ValueError:
            self.close()
            raise
        self.sound: tuple[AudioStream, ...] = self._container.streams.audio
        self.time_base: Fraction = self._video.time_base or _MICROSECOND
        """The unit of the frames' times, in seconds."""
        self.rate: Fraction | None = self._video.average_rate or self._video.guessed_rate or None
        """Frames for each second on average, where it is known."""
        duration = self._container.duration
        self.seconds: float | None = float(duration * _MICROSECOND) if duration is not None else None
        """How long it says it is."""
        self._origin = self._find_origin()

    def _find_video(self) -> VideoStream:
        name = self.source.name
        # The picture on a record's cover is stored as a video of one frame.
        videos = [stream for stream in self._container.streams.video if not int(stream.disposition) & _cover()]
        if not videos:
            kinds = sorted({stream.type for stream in self._container.streams})
            holds = f"has no video, only {', '.join(kinds)}" if kinds else "has no frames"
            raise ValueError(f"{name} {holds}. Name a video.")
        video = videos[0]
        _check_size(video.codec_context.width, video.codec_context.height, name)
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        video.thread_type = "AUTO"
        return video

    def _find_origin(self) -> Fraction:
        """What to take off all times, so that the video begins at 0; a whole number of the frames' units."""
        starts = [
            stream.start_time * stream.time_base
            for stream in (self._video, *self.sound)
            if stream.start_time is not None and stream.time_base is not None
        ]
        # Sound may begin a little before 0, by the encoder's delay, which files can say.
        return max(Fraction(0), min(starts, default=Fraction(0))) // self.time_base * self.time_base

    @property
    def frames(self) -> int | None:
        """How many frames it says it has."""
        if self._video.frames or self.seconds is None or self.rate is None:
            return self._video.frames or None
        return round(self.seconds * self.rate)

    def __iter__(self) -> Iterator[Frame | Sound]:
        import av

        tracks = {stream.index: track for track, stream in enumerate(self.sound)}
        try:
            for packet in self._container.demux(self._video, *self.sound):
                if packet.stream.index not in tracks:
                    yield from self._decode(packet)
                elif packet.dts is not None:
                    yield Sound(packet=packet, track=tracks[packet.stream.index], delay=self._jump - self._origin)
        except av.FFmpegError as error:
            self.trouble = error.strerror or type(error).__name__
            yield from self._decode(None)

    def _decode(self, packet: Any) -> Iterator[Frame]:
        """The frames that a packet completes; of None, those that the decoder still holds."""
        import av

        try:
            frames = self._video.codec_context.decode(packet)
            for frame in frames:
                _check_size(frame.width, frame.height, self.source.name)
                pixels, is_turned = _upright(frame)
                self._last = self._find_time(frame)
                aspect = self._video.sample_aspect_ratio
                yield Frame(pixels=pixels, seconds=self._last, aspect=1 / aspect if aspect and is_turned else aspect)
        except av.FFmpegError:
            self.damaged += 1

    def _find_time(self, frame: VideoFrame) -> Fraction:
        following = Fraction(0) if self._last is None else self._last + (1 / self.rate if self.rate else _USUAL_STEP)
        if frame.pts is None:
            return following
        seconds = frame.pts * (frame.time_base or self.time_base) - self._origin + self._jump
        if self._last is not None and seconds < self._last - _RESET:
            self._jump += following - seconds
            return following
        return seconds

    def close(self) -> None:
        """Let go of the file, stream or camera."""
        self._container.close()


def _open(source: VideoSource) -> InputContainer:
    import av

    is_file = source.kind == "file"
    # A playlist on the disk is not to reach for the network.
    options = {"protocol_whitelist": "file"} if is_file else {}
    if source.address.startswith("rtsp"):
        options = {"rtsp_flags": "prefer_tcp"}
    try:
        return av.open(
            source.address,
            "r",
            format="v4l2" if source.kind == "camera" else None,
            options=options,
            metadata_errors="replace",
            timeout=None if is_file else TIMEOUT,
        )
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        if isinstance(error, av.error.EOFError):
            reason = "it has no frames: it ends in its header"
        if is_file:
            raise ValueError(f"{source.name} is no video that can be read, or is damaged ({reason}).") from error
        raise ConnectionError(f"{source.name} cannot be opened: {reason}.") from error


def _cover() -> int:
    from av.stream import Disposition

    return int(Disposition.attached_pic)


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} has frames of {width} x {height} pixels, at most {MAX_PIXELS:,} are read. Make it smaller."
        )


def _upright(frame: VideoFrame) -> tuple[RGB, bool]:
    """`(H, W, 3)` uint8 RGB, turned and mirrored as the frame's display matrix says; whether the sides changed places.

    The matrix takes a point (x, y) of the frame to (a x + c y, b x + d y); of rotations that are no quarter turns the
    nearest one is taken. Source: FFmpeg's libavutil/display.h.
    """
    pixels = frame.to_ndarray(format="rgb24")
    side_data: Any = frame.side_data
    matrix = side_data.get("DISPLAYMATRIX")
    is_turned = False
    if matrix is not None:
        a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
        is_turned = abs(b) + abs(c) > abs(a) + abs(d)
        if is_turned:
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels, np.uint8), is_turned
