"""Decoding of videos into upright RGB frames with their times; nothing else in the package decodes videos.

Shape letters: H height, W width.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from refinenet.io.extras import install_extra
from refinenet.io.images.image_files import MAX_PIXELS, RGB

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer


VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    *(".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".h265"),
)
"""Suffixes of video files."""

REAL_TIME_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp")
STREAM_SCHEMES = (*REAL_TIME_SCHEMES, "http", "https", "tcp")
_CAMERA = re.compile(r"camera:(\d{1,3})")
_STILL_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jpe", ".jfif", ".avif")


@dataclass(frozen=True, kw_only=True)
class VideoSource:
    """Source of a video."""

    kind: Literal["file", "stream", "camera"]
    address: str
    """Address for FFmpeg."""
    name: str
    """Name for messages, without a password."""
    is_real_time: bool = False
    """Whether frames arrive at their own pace, however slow the reader is."""


def is_video(source: str | os.PathLike[str]) -> bool:
    """Return whether a path or address means a video: by its suffix, as a stream's address, or as `camera:0`."""
    text = os.fspath(source)
    address = urlsplit(text) if "://" in text else None
    if address is None:
        return bool(_CAMERA.fullmatch(text)) or Path(text).suffix.lower() in VIDEO_SUFFIXES
    is_picture = address.scheme in ("http", "https") and Path(address.path).suffix.lower() in _STILL_SUFFIXES
    return address.scheme in STREAM_SCHEMES and not is_picture


def find_source(source: str | os.PathLike[str]) -> VideoSource:
    """Find the source that a user names.

    Args:
        source: A file, the address of a stream (`rtsp://`, `rtmp://`, `http://`, ...), or a camera: `camera:0` for the
            first one, which is `/dev/video0`.

    Raises:
        ValueError: another kind of address, a pipe or a device, an empty file, or a camera on a system other than
            Linux.
        OSError: the file or the camera does not exist, is a folder or cannot be read.
    """
    text = os.fspath(source)
    if "://" in text:
        scheme = urlsplit(text).scheme
        if scheme not in STREAM_SCHEMES:
            raise ValueError(
                f"The address of a stream must begin with one of {', '.join(STREAM_SCHEMES)}, not {scheme!r}://."
            )
        name = re.sub(r"//[^/@]*@", "//", text)
        return VideoSource(kind="stream", address=text, name=name, is_real_time=scheme in REAL_TIME_SCHEMES)
    if camera := _CAMERA.fullmatch(text):
        return _find_camera(camera[1])
    _check_file(Path(text))
    # "file:" keeps FFmpeg from taking a file name for an address.
    return VideoSource(kind="file", address=f"file:{text}", name=text)


def _find_camera(number: str) -> VideoSource:
    if sys.platform != "linux":
        raise ValueError(
            f"Cameras such as camera:{number} are supported on Linux only. Elsewhere, pass the address of a stream."
        )
    device = Path(f"/dev/video{number}")
    if not device.exists():
        found = ", ".join(f"camera:{path.name[5:]}" for path in sorted(Path("/dev").glob("video[0-9]*")))
        advice = "Pass one of these" if found else "Connect one, or pass a video or the address of a stream"
        raise FileNotFoundError(f"There is no camera:{number} ({device}). Found: {found or 'none'}. {advice}.")
    return VideoSource(kind="camera", address=str(device), name=f"camera:{number}", is_real_time=True)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"Cannot read {path}: it is a folder. Pass a video in it.")
    if path.exists() and not path.is_file():
        raise ValueError(f"Cannot read {path}: it is a pipe or a device. Pass a file, or a camera as camera:0.")
    try:
        with path.open("rb") as stream:
            is_empty = not stream.read(1)
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read {path}: {error.strerror}") from error
    if is_empty:
        raise ValueError(f"{path} is empty (0 bytes).")


TIMEOUT = 10.0
"""Seconds without data after which a stream or a camera counts as lost."""

_MICROSECOND = Fraction(1, 1_000_000)
_RESET = Fraction(1, 2)
"""Seconds back in time that count as a restarted clock, as in concatenated recordings."""
_USUAL_STEP = Fraction(1, 25)
"""Seconds between frames without times, in a file without a frame rate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A frame of a video."""

    pixels: RGB
    """`(H, W, 3)` uint8 RGB, upright."""
    seconds: Fraction
    """Exact presentation time, from the beginning of the video."""
    aspect: Fraction | None = None
    """Width of a pixel divided by its height, if the video declares it."""
    decoded_at: float = field(default_factory=time.monotonic)
    """`time.monotonic()` when it was decoded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """A packet of encoded sound."""

    packet: Packet[Any]
    track: int
    """Index of its stream in `Recording.sound`."""
    delay: Fraction
    """Seconds to add to the packet's time."""


def require_av() -> None:
    """Check that PyAV is installed.

    Raises:
        ValueError: it is not.
    """
    try:
        importlib.import_module("av")
    except ImportError as error:
        raise ValueError(f"PyAV, which reads videos, is not installed: {install_extra('video')}") from error


class Recording:
    """An open video: iterate over it once for its frames and its sound, in file order.

    Args:
        source: What to open.
        timeout: Seconds without data after which a stream or a camera counts as lost.
        at_once: Whether each frame is wanted as soon as it arrives: without sound, and decoded with the least delay.

    Raises:
        ValueError: PyAV is not installed, or the file is not a video, is damaged, has no frames, or has frames of more
            than `image_files.MAX_PIXELS`.
        ConnectionError: a stream or a camera does not answer, or does not send a video.
    """

    def __init__(self, source: VideoSource, *, timeout: float = TIMEOUT, at_once: bool = False) -> None:
        require_av()
        self.source = source
        self.damaged = 0
        """Number of packets so far that could not be decoded."""
        self.trouble: str | None = None
        """Reason why reading stopped early, if it did."""
        self._last: Fraction | None = None
        self._jump = Fraction(0)
        self._container = _open(source, timeout, at_once=at_once)
        try:
            self._video = self._find_video()
        except ValueError:
            self.close()
            raise
        self.sound: tuple[AudioStream, ...] = () if at_once else self._container.streams.audio
        self.time_base: Fraction = self._video.time_base or _MICROSECOND
        """Unit of frame times, in seconds."""
        self.rate: Fraction | None = self._video.average_rate or self._video.guessed_rate or None
        """Average frames per second, if known."""
        duration = self._container.duration
        self.seconds: float | None = float(duration * _MICROSECOND) if duration is not None else None
        """Declared length in seconds."""
        self._origin = self._find_origin()
        # Threads that decode a frame each would keep as many frames back.
        self._video.thread_type = "SLICE" if at_once and self.is_endless else "AUTO"

    @property
    def is_endless(self) -> bool:
        """Whether it is sent while it is filmed: by the kind of its address, or as a stream of no length and size."""
        if self.source.is_real_time or self.source.kind == "file":
            return self.source.is_real_time
        # Playlists have a size themselves.
        return self.seconds is None and (self.has_segments or self._container.size <= 0)

    @property
    def has_segments(self) -> bool:
        """Whether it is a playlist, whose frames arrive some seconds of video at a time."""
        return self._container.format.name.startswith(("hls", "dash"))

    def _find_video(self) -> VideoStream:
        name = self.source.name
        # Cover art is stored as a video stream with one frame.
        videos = [stream for stream in self._container.streams.video if not int(stream.disposition) & _cover()]
        if not videos:
            kinds = sorted({stream.type for stream in self._container.streams})
            holds = f"has no video, only {', '.join(kinds)}" if kinds else "has no frames"
            raise ValueError(f"{name} {holds}. Pass a video.")
        video = videos[0]
        _check_size(video.codec_context.width, video.codec_context.height, name)
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        return video

    def _find_origin(self) -> Fraction:
        """Return the time to subtract so that the video begins at 0: a multiple of the frames' unit, to stay exact."""
        starts = [
            stream.start_time * stream.time_base
            for stream in (self._video, *self.sound)
            if stream.start_time is not None and stream.time_base is not None
        ]
        # Sound may start slightly before 0, by the encoder's delay, which files can store: times below 0 stay.
        return max(Fraction(0), min(starts, default=Fraction(0))) // self.time_base * self.time_base

    @property
    def frames(self) -> int | None:
        """Declared or estimated number of frames."""
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
        """Yield the frames that a packet completes; for None, those left in the decoder."""
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
        """Close the file, stream or camera."""
        self._container.close()


def _open(source: VideoSource, timeout: float, *, at_once: bool) -> InputContainer:
    import av

    is_file = source.kind == "file"
    # A local playlist must not open network addresses.
    options = {"protocol_whitelist": "file"} if is_file else {}
    if source.address.startswith("rtsp"):
        options = {"rtsp_flags": "prefer_tcp"}
    elif source.kind == "stream" and at_once:
        # Of a live playlist FFmpeg would begin three segments, often 20 seconds, before the newest frame.
        options = {"live_start_index": "-1"}
    try:
        return av.open(
            source.address,
            "r",
            format="v4l2" if source.kind == "camera" else None,
            options=options,
            metadata_errors="replace",
            timeout=None if is_file else timeout,
        )
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        if isinstance(error, av.error.EOFError):
            reason = "it has no frames: it ends within its header"
        if is_file:
            raise ValueError(f"{source.name} is not a readable video, or is damaged ({reason}).") from error
        is_camera = source.kind == "camera"
        advice = f" Check that {source.address} is a camera that no other program uses, and that you may read it."
        raise ConnectionError(f"{source.name} cannot be opened: {reason}.{advice if is_camera else ''}") from error


def _cover() -> int:
    from av.stream import Disposition

    return int(Disposition.attached_pic)


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} has frames of {width} x {height} pixels; at most {MAX_PIXELS:,} are allowed. Scale it down."
        )


def _upright(frame: VideoFrame) -> tuple[RGB, bool]:
    """Return `(H, W, 3)` uint8 RGB, rotated and mirrored by the frame's display matrix, and whether H and W swapped.

    The matrix maps a point (x, y) of the frame to (a x + c y, b x + d y). Other rotations are rounded to quarter turns.
    Source: FFmpeg's libavutil/display.h.
    """
    pixels = frame.to_ndarray(format="rgb24")
    side_data: Any = frame.side_data
    matrix = side_data.get("DISPLAYMATRIX")
    is_turned = False
    if matrix is not None:
        a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
        is_turned = abs(b) + abs(c) > abs(a) + abs(d)
        # A quarter turn is a transposition followed by mirroring; half turns only mirror.
        if is_turned:
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels, np.uint8), is_turned
