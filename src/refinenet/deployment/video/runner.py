"""Segmentation of a video: decode ahead, segment, draw, encode.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from refinenet.deployment.video.reader import Frame, Sound, VideoSource, find_source
from refinenet.deployment.video.stream import EVERYTHING, Delivery, VideoStream
from refinenet.deployment.video.window import LiveWindow
from refinenet.deployment.video.writer import FrameFolder, VideoFile, VideoForm, check_container, check_empty
from refinenet.inference.output_kinds import OUTPUT_KINDS, Kind, file_word, split_kind
from refinenet.inference.prediction import Prediction
from refinenet.inference.rendering import Renderer, check_kind, open_renderer, refuse_idle
from refinenet.inference.values.subject import RenderOptions, usual_kind
from refinenet.io.console import print_note, progress_bar
from refinenet.io.files import refuse_same_file, replacing
from refinenet.io.processes.signals import StopRequest
from refinenet.labels import LabelSet
from refinenet.outputs import CLASSES, OutputSpec

RETRIES = 6
"""Attempts to reconnect to a stream that broke off, within half a minute."""
SHOWN = Delivery(waiting=1, at_once=True, live=True)
"""What a window shows: the newest frame, of a file at its own pace."""


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """Outcome for a video."""

    source: str
    output: Path | None
    """What was written; None if the frames were only shown."""
    frames: int
    """Number of frames written or shown."""
    seconds: float
    """Duration of the run."""
    sound: bool
    """Whether the output has the source's sound."""
    reconnections: int
    """Number of reconnections to a stream."""
    left_out: int
    """Frames that came faster than the network works, and were dropped."""
    damaged: int
    """Number of packets that could not be decoded."""

    def describe(self) -> str:
        """Return the outcome in one line."""
        rate = self.frames / max(self.seconds, 1e-9)
        done = f"{self.source} -> {self.output}" if self.output is not None else f"{self.source}, shown"
        line = f"{done}: {self.frames} frames in {self.seconds:.1f} s ({rate:.1f} frames/s)"
        line += ", with audio" if self.sound else ""
        counts = {"reconnected %d times": self.reconnections, "%d frames dropped": self.left_out}
        counts["%d damaged packets skipped"] = self.damaged
        return ", ".join([line, *(words % count for words, count in counts.items() if count)])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Output of a video run."""

    path: Path
    kind: Kind
    container: str | None
    """FFmpeg's name of the file format; None for a folder."""

    @property
    def suffix(self) -> str:
        """Suffix that stands for the pictures: of values ".jpg" for those that may be compressed."""
        return ".png" if self.container is None else ".jpg"


class VideoOutput(Protocol):
    """Destination of frames and sound."""

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Add a frame."""

    def write_sound(self, sound: Sound) -> None:
        """Add a packet of sound."""


def choose_output(source: str, kind: Kind | None, outputs: Sequence[OutputSpec] = (CLASSES,)) -> Path:
    """Return the default output of a video file: `NAME_overlay.mp4` beside it.

    Raises:
        ValueError: the source is a stream or a camera.
        OSError: the file does not exist or cannot be read.
    """
    if find_source(source).kind != "file":
        raise ValueError(f"Specify an output for {find_source(source).name}: --output FILE.mp4.")
    return Path(source).with_name(f"{Path(source).stem}_{file_word(kind or usual_kind(outputs) or 'overlay')}.mp4")


def plan_output(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    kind: Kind | None,
    outputs: Sequence[OutputSpec] = (CLASSES,),
) -> Plan:
    """Choose format and kind of the output.

    Args:
        source: The video.
        output: A video file, or a folder: an existing one, or a name without a suffix.
        kind: Kind of picture; by default overlays in a video, label ids in a folder.
        outputs: Outputs of the network; without classes the default is a picture of the first one.

    Raises:
        ValueError: an unknown kind, a kind that cannot be a video, an unknown suffix, a folder that is not empty, or an
            output that is the source.
    """
    path = Path(output)
    row = None if kind is None else OUTPUT_KINDS.get(split_kind(kind)[0])
    if kind is not None and not (row is not None and (row.is_picture or row.forms)):
        able = [name for name, row in OUTPUT_KINDS.items() if row.is_picture or row.forms]
        raise ValueError(f"kind must be one of {', '.join(able)}, not {kind!r}.")
    usual = usual_kind(outputs)
    if path.is_dir() or not path.suffix:
        check_empty(path)
        return Plan(path=path, kind=kind or usual or "labels", container=None)
    container = check_container(path)
    if row is not None and not row.may_be_video:
        raise ValueError(
            f"The compression of {path} would change {kind}. Choose a folder, which gets a PNG for each frame."
        )
    if "://" not in os.fspath(source):
        refuse_same_file(source, path)
    return Plan(path=path, kind=kind or usual or "overlay", container=container)


def open_renderers(
    plan: Plan | None,
    kind: Kind | None,
    outputs: Sequence[OutputSpec],
    label_set: LabelSet,
    options: RenderOptions,
    *,
    display: bool,
) -> tuple[Renderer | None, Renderer | None]:
    """Open the renderers of what is written and of what is shown; each option must affect at least one of them.

    Args:
        plan: Output, from `plan_output`; None to write nothing.
        kind: Kind of result; if it cannot be shown in a window, the usual picture is shown there.
        outputs: Outputs of the network.
        label_set: Its classes.
        options: Choices of the user.
        display: Whether frames are shown in a window.

    Returns:
        The renderer of the output, None without one; and that of the window, None without one.

    Raises:
        ValueError: as `open_renderer`, or an option has no effect.
    """
    written = shown = None
    if plan is not None:
        kind = plan.kind
        written = open_renderer(kind, plan.suffix, outputs, label_set, options)
    if display:
        if kind is None or not check_kind(kind, outputs).may_be_video:
            kind = usual_kind(outputs) or "overlay"
        shown = open_renderer(kind, ".jpg", outputs, label_set, options)
    refuse_idle(options, [each for each in (written, shown) if each is not None])
    return written, shown


def segment_video(
    predict: Callable[[npt.NDArray[np.uint8]], Prediction],
    source: str | os.PathLike[str],
    plan: Plan | None,
    renderers: tuple[Renderer | None, Renderer | None],
    *,
    retries: int = RETRIES,
    progress: bool = True,
) -> VideoResult:
    """Segment each frame of a video and write the results, show them, or both.

    A file gets its name when it is complete. Ctrl-C or SIGTERM completes it with the frames so far, and so does closing
    the window. A video that is only shown is played at its own pace, or that of the network.

    Args:
        predict: From a frame, `(H, W, 3)` uint8 RGB, to its prediction.
        source: As for `reader.find_source`.
        plan: Output, from `plan_output`; None to write nothing.
        renderers: Those of the output and of the window, from `open_renderers`; None for no window. Colours without
            limits get those of the first frame.
        retries: Attempts in a row to reconnect to a stream that broke off.
        progress: Whether to show progress on standard error.

    Raises:
        ValueError: PyAV is not installed, the source is not a video or has no frames, or the output does not fit.
        OSError: a file cannot be read or written, a stream does not answer, or there is no display.
        KeyboardInterrupt: the user or the system stopped the run; the frames so far are kept, with a note.
    """
    found, (written, shown) = find_source(source), renderers
    started = time.monotonic()
    with (
        closing(VideoStream(found, retries, print_note, EVERYTHING if plan else SHOWN)) as stream,
        StopRequest() as interruption,
        ExitStack() as opened,
    ):
        file = opened.enter_context(_open_output(plan, written, stream)) if plan and written else None
        window = opened.enter_context(LiveWindow(found.name, shown)) if shown else None
        outputs = [output for output in (file, window) if output is not None]
        frames = _segment_frames(predict, stream, outputs, interruption, progress=progress)
        if not frames:
            is_closed = window is not None and window.is_closed
            _refuse_empty(found, is_stopped=is_closed or interruption.asked_by is not None)
    path = plan.path if plan else None
    if interruption.asked_by is not None:
        print_note(f"Stopped: {path} is complete, with the {frames} frames so far." if path else "Stopped.")
        raise KeyboardInterrupt
    return VideoResult(
        source=found.name,
        output=path,
        frames=frames,
        seconds=time.monotonic() - started,
        sound=isinstance(file, _FileOutput) and file.has_sound,
        reconnections=stream.reconnections,
        left_out=stream.left_out,
        damaged=stream.damaged,
    )


def _segment_frames(
    predict: Callable[[npt.NDArray[np.uint8]], Prediction],
    stream: VideoStream,
    outputs: Sequence[VideoOutput],
    interruption: StopRequest,
    *,
    progress: bool,
) -> int:
    """Move all frames and sound from the source to the outputs, and return the number of frames."""
    frames, started = 0, time.monotonic()
    windows = [output for output in outputs if isinstance(output, LiveWindow)]
    with progress_bar(progress) as bar:
        task = bar.add_task(stream.source.name, total=stream.first.frames, status="", unit="frames")
        for item in stream:
            for window in windows:
                window.update()
            if interruption.asked_by is not None or any(window.is_closed for window in windows):
                break
            if isinstance(item, Frame):
                prediction = predict(item.pixels)
                for output in outputs:
                    output.write(item, prediction)
                frames += 1
                bar.update(task, advance=1, status=f"{frames / (time.monotonic() - started):.1f} frames/s")
            elif item is not None:
                for output in outputs:
                    output.write_sound(item)
    return frames


def _refuse_empty(source: VideoSource, *, is_stopped: bool) -> None:
    """Report that there was no frame.

    Raises:
        KeyboardInterrupt: the run was stopped.
        ValueError: the source has no frames.
    """
    if is_stopped:
        print_note("Stopped before the first frame: nothing was written.")
        raise KeyboardInterrupt
    raise ValueError(f"{source.name} has no frames that can be decoded: nothing was written.")


@contextmanager
def _open_output(plan: Plan, renderer: Renderer, stream: VideoStream) -> Iterator[VideoOutput]:
    if plan.container is None:
        with FrameFolder(plan.path, renderer) as folder:
            yield folder
        return
    with replacing(plan.path) as temporary, _FileOutput(plan, temporary, stream, renderer) as file:
        yield file


class _FileOutput:
    """A video file that is opened at the first frame, which determines its size."""

    def __init__(self, plan: Plan, temporary: Path, stream: VideoStream, renderer: Renderer) -> None:
        self._plan, self._temporary, self._stream = plan, temporary, stream
        self._renderer = renderer.with_all_classes()
        self._file: VideoFile | None = None
        self._waiting: list[Sound] = []

    @property
    def has_sound(self) -> bool:
        return self._file is not None and bool(self._stream.first.sound) and self._file.sound_left_out is None

    def write(self, frame: Frame, prediction: Prediction) -> None:
        self._renderer = self._renderer.with_limits(prediction)
        picture = self._renderer.picture(prediction)
        if self._file is None:
            self._file = self._open(frame, picture.shape)
            for sound in self._waiting:
                self._file.write_sound(sound)
            self._waiting.clear()
        if picture.ndim == 2:
            picture = np.repeat(picture[..., np.newaxis], 3, axis=2)
        self._file.write(picture, frame.seconds)

    def _open(self, frame: Frame, shape: tuple[int, ...]) -> VideoFile:
        recording = self._stream.first
        form = VideoForm(
            height=shape[0],
            width=shape[1],
            time_base=recording.time_base,
            rate=recording.rate,
            aspect=frame.aspect,
        )
        assert self._plan.container is not None
        file = VideoFile(self._temporary, self._plan.container, form, recording.sound, str(self._plan.path))
        if file.sound_left_out is not None:
            print_note(f"Warning: {file.sound_left_out}. An .mkv file can hold nearly every kind.")
        return file

    def write_sound(self, sound: Sound) -> None:
        if self._file is None:
            self._waiting.append(sound)
        else:
            self._file.write_sound(sound)

    def __enter__(self) -> _FileOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.__exit__(kind, error, trace)
