"""Writing of frames and sound to a video file that plays everywhere, or of frames to a folder.

Shape letters: H height, W width.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt

from refinenet.deployment.video.reader import Frame, Sound
from refinenet.inference.prediction import Prediction
from refinenet.inference.rendering import Renderer
from refinenet.io.extras import install_extra
from refinenet.io.files import make_folders, write_atomically

if TYPE_CHECKING:
    from av import AudioStream, VideoFrame, VideoStream
    from av.container import OutputContainer


CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's format names by suffix, for formats that store the time of each frame."""

ENCODERS = ("libx264", "mpeg4")
"""Encoders in order of preference: H.264, which plays everywhere, and the one that every FFmpeg has."""

_BT709 = 1
_LIMITED_RANGE = 1
_COARSEST_TIMES_OF_MPEG4 = 65_535
_BITS_FOR_A_PIXEL = 4


@dataclass(frozen=True, kw_only=True)
class VideoForm:
    """Format of a video file."""

    height: int
    width: int
    time_base: Fraction
    """Unit of frame times, in seconds; the container may choose a coarser one (.mkv: milliseconds)."""
    rate: Fraction | None = None
    """Average frames per second, if known."""
    aspect: Fraction | None = None
    """Width of a pixel divided by its height; None for square pixels."""


class VideoFile:
    """A video file being written; as a context manager it is completed even after an error, so that it plays.

    Colours are BT.709 in limited range with 4:2:0 subsampling, as players expect; an odd side is made even by repeating
    its last column or row.

    Args:
        path: The file to write; an existing one is replaced.
        container: One of the values of `CONTAINERS`.
        form: Size and time base.
        sound: Streams whose packets will be passed to `write_sound`; dropped if the container cannot hold them.
        name: Name of the file for messages.
        encoders: FFmpeg's names of encoders; the first available one is used.

    Raises:
        ValueError: no encoder is available, or it does not support frames of this size.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        container: str,
        form: VideoForm,
        sound: Sequence[AudioStream] = (),
        name: str | None = None,
        encoders: Sequence[str] = ENCODERS,
    ) -> None:
        self.path, self.form, self.name = path, form, name or str(path)
        self._encoder = _find_encoder(encoders)
        self.sound_left_out: str | None = None
        """Reason why the sound was dropped, if it was."""
        try:
            self._start(container, sound)
        except (ValueError, OSError) as error:
            if not sound:
                raise
            kinds = ", ".join(sorted({stream.codec_context.name for stream in sound}))
            self._start(container, ())
            self.sound_left_out = f"the sound ({kinds}) cannot be stored in {container}: {error}"
        self._last: int | None = None
        self._heard: dict[int, int] = {}

    def _start(self, container: str, sound: Sequence[AudioStream]) -> None:
        import av

        with self._clear_errors():
            self._container: OutputContainer = av.open(f"file:{self.path}", "w", format=container)
        try:
            _check_sound(container, sound)
            with self._clear_errors():
                self._video = self._add_video()
                self._sound: list[Any] = [self._container.add_stream_from_template(stream) for stream in sound]
                self._container.start_encoding()
        except (ValueError, OSError):
            self._container.close()
            raise

    def _add_video(self) -> VideoStream:
        import av

        form = self.form
        rate = form.rate.limit_denominator(1001) if form.rate else 25
        stream = self._container.add_stream(self._encoder, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = form.width + form.width % 2, form.height + form.height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = form.time_base
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        if form.aspect:
            context.sample_aspect_ratio = form.aspect
        if self._encoder == "libx264":
            # No B-frames: with uneven frame times they would end the file before its last frame.
            context.options = {"preset": "veryfast", "crf": "18", "bf": "0"}
        else:
            context.bit_rate = max(1, round(_BITS_FOR_A_PIXEL * form.width * form.height))
            if form.time_base.denominator > _COARSEST_TIMES_OF_MPEG4:
                context.time_base = Fraction(1, 60_000)
        try:
            context.open()
        except av.FFmpegError as error:
            raise ValueError(
                f"{self.name}: {self._encoder} cannot encode frames of {form.width} x {form.height} pixels."
            ) from error
        return stream

    def write(self, picture: npt.NDArray[np.uint8], seconds: Fraction) -> None:
        """Add a frame.

        Args:
            picture: `(H, W, 3)` uint8 RGB; resized if its size is not that of the file.
            seconds: Presentation time; moved to just after the last frame if it is not later.

        Raises:
            OSError: the file cannot be written.
        """
        unit = self._video.codec_context.time_base
        time = round(seconds / unit)
        self._last = time if self._last is None else max(time, self._last + 1)
        frame = self._convert(picture)
        frame.pts, frame.time_base = self._last, unit
        with self._clear_errors():
            self._container.mux(self._video.encode(frame))

    def _convert(self, picture: npt.NDArray[np.uint8]) -> VideoFrame:
        import av

        height, width = self.form.height, self.form.width
        if picture.shape[:2] != (height, width):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            picture = frame.reformat(width=width, height=height).to_ndarray().astype(np.uint8, copy=False)
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")

    def write_sound(self, sound: Sound) -> None:
        """Add a packet of sound unchanged; packets that are not later than the last one are dropped.

        Raises:
            OSError: the file cannot be written.
        """
        packet = sound.packet
        if not self._sound or packet.dts is None:
            return
        delay = round(sound.delay / packet.time_base)
        packet.dts += delay
        if packet.pts is not None:
            packet.pts += delay
        if packet.dts <= self._heard.get(sound.track, packet.dts - 1):
            return
        self._heard[sound.track] = packet.dts
        packet.stream = self._sound[sound.track]
        with self._clear_errors():
            self._container.mux(packet)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(ValueError, OSError):  # the original error says more
            self.close()

    def close(self) -> None:
        """Complete the file and flush it to the disk.

        Raises:
            OSError: the file cannot be written.
        """
        try:
            with self._clear_errors():
                self._container.mux(self._video.encode(None))
        finally:
            with self._clear_errors():
                self._container.close()
        # Before the caller renames the file: a name must never point to content that a power cut can still lose.
        with self.path.open("rb+") as stream:
            os.fsync(stream.fileno())

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except av.FFmpegError as error:
            raise OSError(f"Cannot write {self.name}: {error.strerror or type(error).__name__}") from error


def check_container(path: str | os.PathLike[str]) -> str:
    """Return FFmpeg's format name for the suffix of a file.

    Raises:
        ValueError: the suffix is not supported.
    """
    container = CONTAINERS.get(Path(path).suffix.lower())
    if container is None:
        raise ValueError(
            f"Videos are written as {', '.join(CONTAINERS)}, not as {os.fspath(path)!r}; "
            "a folder (a name without a suffix) gets a picture for each frame."
        )
    return container


def _check_sound(container: str, sound: Sequence[AudioStream]) -> None:
    if container == "mp4" and any(stream.codec_context.name.startswith("pcm_") for stream in sound):
        # FFmpeg starts such a file and may fail at its end; few players support them.
        raise ValueError("uncompressed sound needs .mov or .mkv")


def _find_encoder(names: Sequence[str]) -> str:
    import av
    from av.codec.codec import UnknownCodecError

    for name in names:
        with suppress(UnknownCodecError):
            return av.Codec(name, "w").name
    raise ValueError(f"This build of FFmpeg has none of the encoders {', '.join(names)}. {install_extra('video')}")


LIST = "frames.jsonl"
"""JSON lines file with `index` from 0, `file`, `seconds` from the beginning of the video, and class `areas` in [0, 1]
of each picture."""


class FrameFolder:
    """Writes `000000.png`, `000001.png`, ... and `LIST`, which is up to date after each frame.

    Args:
        path: The folder, created with the first frame. It must be empty, so that frames of different videos do not mix.
        renderer: Renderer of the pictures. Colours without limits get those of the first frame.

    Raises:
        ValueError: the folder is not empty.
    """

    def __init__(self, path: Path, renderer: Renderer) -> None:
        check_empty(path)
        self.path, self._renderer = path, renderer
        self._count = 0
        self._list: TextIO | None = None

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Add a frame.

        Raises:
            OSError: a file cannot be written.
        """
        if self._list is None:
            make_folders(self.path)
            self._list = (self.path / LIST).open("x", encoding="utf-8")
        name = f"{self._count:06d}.png"
        self._renderer = self._renderer.with_limits(prediction)
        write_atomically(self.path / name, self._renderer.encode(prediction))
        facts = {"index": self._count, "file": name, "seconds": float(frame.seconds), "areas": dict(prediction.areas)}
        self._list.write(json.dumps(facts) + "\n")
        self._list.flush()
        self._count += 1

    def write_sound(self, sound: Sound) -> None:
        """Ignore sound, which a folder of pictures cannot hold."""

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._list is not None:
            self._list.close()


def check_empty(path: Path) -> None:
    """Check that a folder is missing or empty.

    Raises:
        ValueError: it is not empty, or it is a file.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: choose a folder for the frames, or a video with a suffix such as .mp4.")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{path} is not empty: frames would mix with its files. Choose a new folder.")
