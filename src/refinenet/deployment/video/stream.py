"""Frames of a video, decoded ahead in a thread; a stream that breaks off is reconnected with exponential backoff."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from refinenet.deployment.video.reader import TIMEOUT, Frame, Recording, Sound, VideoSource

LOOK_AHEAD = 8
"""Most decoded frames and sound packets waiting."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first attempt to reconnect, and the longest pause; each pause is twice as long as the last."""

_POLL = 0.1
_TOLERANCE = 1.0
"""Seconds by which a video may fall short of its declared length."""

_DOUBLINGS = 10
"""Most doublings of the pause: more than the longest pause needs, few enough not to overflow."""

_FASTER, _MUCH_FASTER = 0.97, 0.75
"""Time between the frames of a live playlist, as shares of the time in the video; the latter if they are late."""
_LATE = 1.0
"""Seconds by which these frames may be shown later than at the beginning, until they are shown much faster."""
_LONGEST_STEP = 0.5
"""Seconds after which the next frame is shown even if segments between them are missing."""

_END = object()


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How frames are handed over, and which are dropped."""

    waiting: int = LOOK_AHEAD
    """Most frames and sound packets in the queue."""
    at_once: bool = False
    """Whether each frame is wanted as soon as it arrives, without sound: of a full queue the oldest is dropped, rather
    than the new one."""
    live: bool | None = None
    """Whether frames are dropped when the queue is full; by default those of cameras and real-time streams, and if
    `at_once` those of streams without a length. A video with a length is then played at its own pace."""
    timeout: float = TIMEOUT
    """Seconds without data after which a stream or a camera counts as lost."""


EVERYTHING = Delivery()
"""What a video file is written from: all frames that can be waited for, and sound."""


class SegmentPace:
    """Spreads frames that arrive a segment at a time over the time until the next segment.

    Frames are shown a little faster than they were filmed, so that a delay that a slow network causes does not stay.
    """

    def __init__(self) -> None:
        self._due: float | None = None
        self._seconds = self._usual = 0.0

    def find_pause(self, seconds: float, now: float) -> float:
        """Return how long to wait before a frame is shown.

        Args:
            seconds: Its time in the video.
            now: A monotonic time, at which it was decoded.
        """
        if self._due is None:
            self._due, self._usual = now, now - seconds
        else:
            step = min(max(0.0, seconds - self._seconds), _LONGEST_STEP)
            is_late = self._due - seconds - self._usual > _LATE
            self._due = max(now, self._due + step * (_MUCH_FASTER if is_late else _FASTER))
        self._seconds = seconds
        return max(0.0, self._due - now)


@dataclass
class _Shown:
    """Summary of the frames of a connection, to recognise a recording that is played again."""

    frames: int = 0
    first: Frame | None = None
    last: Frame | None = None

    def add(self, frame: Frame) -> None:
        self.first, self.last = self.first or frame, frame
        self.frames += 1

    def is_same_as(self, other: _Shown) -> bool:
        """Return whether both have the same number of frames, and equal first and last frames."""
        pairs = ((self.first, other.first), (self.last, other.last))
        return self.frames == other.frames and all(
            one is not None and two is not None and np.array_equal(one.pixels, two.pixels) for one, two in pairs
        )


class VideoStream:
    """Reads a source from beginning to end, ahead of the consumer.

    A stream (or a camera) that breaks off is opened again after growing pauses, and its time advances by the pause. A
    stream with a declared length, such as a video file on a web server, continues where it was. One without that shows
    the same frames again from first to last is a recording, and ends there.

    Args:
        source: What to read.
        retries: Attempts in a row, without a new frame, to reconnect to a stream.
        notify: Called with a sentence about each event.
        delivery: Which frames are dropped when the consumer is slower than the source.

    Raises:
        ValueError, OSError: as `Recording`.
    """

    def __init__(
        self,
        source: VideoSource,
        retries: int,
        notify: Callable[[str], None],
        delivery: Delivery = EVERYTHING,
    ) -> None:
        self.source, self.retries, self._notify, self._delivery = source, retries, notify, delivery
        self.first = self._open()
        is_live = self.first.is_endless if delivery.at_once else source.is_real_time
        self._may_drop = is_live if delivery.live is None else delivery.live
        self._is_paced = self._may_drop and not self.first.is_endless and delivery.at_once
        has_bursts = self._may_drop and self.first.is_endless and self.first.has_segments and delivery.at_once
        self._bursts = SegmentPace() if has_bursts else None
        self.reconnections = self.left_out = self.damaged = 0
        self._stop = threading.Event()
        self._queue: queue.Queue[object] = queue.Queue(delivery.waiting)
        self._started: float | None = None
        self._last: Fraction | None = None
        self._heard = 0.0
        self._attempts = 0  # since the last new frame
        self._error: ValueError | OSError | None = None
        self._thread = threading.Thread(target=self._read, name="decode", daemon=True)

    def _open(self) -> Recording:
        return Recording(self.source, timeout=self._delivery.timeout, at_once=self._delivery.at_once)

    def __iter__(self) -> Iterator[Frame | Sound | None]:
        """Yield frames and sound; None when nothing has arrived for a moment, so that the consumer can notice a stop.

        Raises:
            ValueError: a frame is too large.
            RuntimeError: decoding failed unexpectedly, for example for lack of memory.
        """
        self._thread.start()
        while True:
            try:
                item = self._queue.get(timeout=_POLL)
            except queue.Empty:
                if not self._thread.is_alive() and self._queue.empty():
                    raise RuntimeError("Decoding ended with an unexpected error.") from None
                yield None
                continue
            if item is _END:
                break
            assert isinstance(item, Frame | Sound)
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop reading, without waiting for a stream that does not answer."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * _POLL)
        if not self._thread.is_alive():
            self.first.close()

    def _read(self) -> None:
        try:
            for item in self._follow():
                if not self._put(self._pace(item)):
                    return
        except (ValueError, OSError) as error:
            self._error = error
        self._put(_END)

    def _pace(self, item: Frame | Sound) -> Frame | Sound:
        """Wait until the time of a frame has come, if the video is played as a camera would send it.

        So are live playlists: of a segment that is handed over all at once all frames but the last would be dropped.
        """
        if isinstance(item, Sound) or not (self._is_paced or self._bursts):
            return item
        now = time.monotonic()
        if self._bursts:
            self._stop.wait(self._bursts.find_pause(float(item.seconds), now))
            return replace(item, decoded_at=time.monotonic())
        if self._started is None:
            self._started = now - float(item.seconds)
        self._stop.wait(max(0.0, self._started + float(item.seconds) - now))
        return replace(item, decoded_at=time.monotonic())

    def _put(self, item: object) -> bool:
        """Hand over an item; return False once the stream is closed."""
        may_drop = self._may_drop and isinstance(item, Frame)
        while not self._stop.is_set():
            try:
                # A live source does not wait: a pause here would become a delay of all frames that follow.
                self._queue.put(item, timeout=0 if may_drop else _POLL)
            except queue.Full:
                if not may_drop:
                    continue
                if not self._delivery.at_once:
                    self.left_out += 1
                    return True
                self._drop_oldest()
            else:
                return True
        return False

    def _drop_oldest(self) -> None:
        with suppress(queue.Empty):  # the consumer may have been faster
            self.left_out += isinstance(self._queue.get_nowait(), Frame)

    def _follow(self) -> Iterator[Frame | Sound]:
        recording: Recording | None = self.first
        shown_before = _Shown()
        while recording is not None:
            shown = _Shown()
            was_live_playlist = recording.is_endless and recording.has_segments
            try:
                yield from self._play(recording, shown)
            finally:  # also when the consumer has left
                self.damaged += recording.damaged
                if recording is not self.first:
                    recording.close()
            if self.source.kind == "file" or self._is_complete(recording):
                self._report_early_end(recording)
                return
            if recording.seconds is None and shown.is_same_as(shown_before):
                self._notify(f"{self.source.name} sent the same {shown.frames} frames again: the video ends here.")
                return
            shown_before, trouble = shown, recording.trouble
            recording = self._reconnect(trouble or "the other side closed it")
            if recording is not None and was_live_playlist and recording.has_segments and not recording.is_endless:
                # Its playlist now says that it is whole: what is listed are the last frames, which were shown.
                lost = " What it sent after the interruption is not shown." if trouble else ""
                self._notify(f"{self.source.name} has ended.{lost}")
                recording.close()
                return

    def _play(self, recording: Recording, shown: _Shown) -> Iterator[Frame | Sound]:
        """Yield the content of a recording, with times that continue those before, and add its frames to `shown`."""
        is_again, has_sound = recording is not self.first, _sounds_alike(recording, self.first)
        shift = None if is_again and recording.seconds is None else Fraction(0)
        before = self._last
        for item in recording:
            if isinstance(item, Sound):
                if has_sound and shift is not None:
                    yield replace(item, delay=item.delay + shift)
                continue
            shown.add(item)
            if shift is None:
                # Without a declared length a stream restarts its clock: shift it by the pause since the last frame.
                pause = Fraction(time.monotonic() - self._heard).limit_denominator(1000)
                shift = (before or Fraction(0)) + max(pause, recording.time_base) - item.seconds
            seconds = item.seconds + shift
            self._heard = time.monotonic()
            # A stream with a length starts over: frames that were read already are skipped.
            if not is_again or before is None or seconds > before:
                self._last = seconds
                self._attempts = 0
                yield replace(item, seconds=seconds)

    def _is_complete(self, recording: Recording) -> bool:
        if recording.seconds is None:
            return False
        return self._last is not None and self._last + Fraction(_TOLERANCE) >= recording.seconds

    def _report_early_end(self, recording: Recording) -> None:
        length, reached = recording.seconds, float(self._last or 0)
        if recording.trouble is not None:
            self._notify(f"{self.source.name} is damaged after {reached:.1f} s ({recording.trouble}): it ends there.")
        elif length is not None and self._last is not None and reached + _TOLERANCE < length:
            self._notify(f"{self.source.name} is cut off: it ends after {reached:.1f} of {length:.1f} s.")

    def _reconnect(self, reason: str) -> Recording | None:
        while self._attempts < self.retries:
            pause = min(FIRST_PAUSE * 2 ** min(self._attempts, _DOUBLINGS), LONGEST_PAUSE)
            self._attempts += 1
            count = f"{self._attempts} of {self.retries}"
            self._notify(f"{self.source.name} was disconnected ({reason}); reconnecting in {pause:g} s ({count}).")
            if self._stop.wait(pause):
                return None
            try:
                recording = self._open()
            except (ValueError, OSError) as error:
                reason = str(error)
            else:
                self.reconnections += 1
                return recording
        self._notify(f"{self.source.name} could not be reconnected: the video ends here.")
        return None


def _sounds_alike(one: Recording, other: Recording) -> bool:
    kinds = [[(s.codec_context.name, s.sample_rate, s.layout.name) for s in take.sound] for take in (one, other)]
    return kinds[0] == kinds[1]
