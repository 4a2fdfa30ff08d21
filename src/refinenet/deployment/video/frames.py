"""Predictions for the frames of a video, a stream or a camera, one after another, for programs that use them at once.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from refinenet.deployment.video.reader import TIMEOUT, Frame, find_source
from refinenet.deployment.video.runner import RETRIES
from refinenet.deployment.video.stream import Delivery, VideoStream
from refinenet.inference.prediction import Prediction
from refinenet.inference.segmentation import Segmentation
from refinenet.io.console import print_note
from refinenet.settings import is_within

WAITING = 1
"""Default number of frames that wait for the network. Of a camera it is always the newest, whose result is then late by
at most the time of two predictions."""
LONGEST_TIMEOUT = 3600.0
"""Most seconds that a stream may be silent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedFrame:
    """A frame of a video with what the network predicts for it; unpacks into image, seconds and segmentation."""

    image: npt.NDArray[np.uint8] = field(repr=False)
    """`(H, W, 3)` uint8, upright, its channels in the order of the model's arrays (`channel_order`)."""
    seconds: float
    """Presentation time, from the beginning of the video."""
    prediction: Prediction
    """All outputs of the network."""
    dropped: int
    """Frames of a camera or live stream that were dropped so far, because they came faster than the network works."""
    delay: float
    """Seconds from the moment when the frame was decoded to that of its prediction."""

    @property
    def segmentation(self) -> Segmentation:
        """Labels, confidence and pictures.

        Raises:
            ValueError: the network has no output of classes.
        """
        if self.prediction.segmentation is None:
            raise ValueError("The network has no output of classes: read `prediction` instead.")
        return self.prediction.segmentation

    def __iter__(self) -> Iterator[Any]:
        """Iterate over image, seconds and segmentation.

        Raises:
            ValueError: the network has no output of classes.
        """
        return iter((self.image, self.seconds, self.segmentation))


def predict_frames(
    predict: Callable[[npt.NDArray[np.uint8]], Prediction],
    source: str | os.PathLike[str],
    *,
    waiting: int = WAITING,
    live: bool | None = None,
    retries: int = RETRIES,
    timeout: float = TIMEOUT,
) -> Generator[PredictedFrame]:
    """Predict the frames of a video in order; the source is closed with the iterator.

    Frames are decoded ahead in a thread. Of a live source the oldest waiting frame is dropped when a newer one arrives,
    so that predictions are never late by more than the waiting frames and the one in work; of others none is dropped.

    Args:
        predict: From a frame, `(H, W, 3)` uint8 RGB, to its prediction.
        source: As for `reader.find_source`.
        waiting: Number of decoded frames that may wait, at least 1.
        live: Whether the source counts as live; by default cameras, `rtsp://` and the like do, and streams over HTTP
            that declare neither a length nor a size. A file is then played at its own pace, as a camera would send it.
        retries: Attempts in a row to reconnect to a stream that broke off.
        timeout: Seconds without data after which a stream or a camera counts as broken off.

    Raises:
        ValueError: PyAV is not installed, the source is not a video, has no frames, or an argument is not allowed.
        OSError: A file cannot be read, or a stream does not respond.
    """
    if type(waiting) is not int or waiting < 1:
        raise ValueError(f"waiting must be a whole number of frames, at least 1, not {waiting!r}.")
    if live is not None and not isinstance(live, bool):
        raise ValueError(f"live must be True, False or None, not {live!r}.")
    if not (is_within(timeout, 0, LONGEST_TIMEOUT) and timeout):
        raise ValueError(f"timeout must be a number of seconds above 0, at most {LONGEST_TIMEOUT:g}, not {timeout!r}.")
    delivery = Delivery(waiting=waiting, at_once=True, live=live, timeout=timeout)
    frames = _predict_each(predict, VideoStream(find_source(source), retries, print_note, delivery))
    next(frames)  # so that closing it before the first frame closes the source, too
    return cast("Generator[PredictedFrame]", frames)


def _predict_each(
    predict: Callable[[npt.NDArray[np.uint8]], Prediction], stream: VideoStream
) -> Generator[PredictedFrame | None]:
    """Yield None once the stream is sure to be closed, and then the frames."""
    is_empty = True
    with closing(stream):
        yield None
        for item in stream:
            if isinstance(item, Frame):
                is_empty = False
                found = predict(item.pixels)
                yield PredictedFrame(
                    image=found.image,
                    seconds=float(item.seconds),
                    prediction=found,
                    dropped=stream.left_out,
                    delay=time.monotonic() - item.decoded_at,
                )
    if is_empty:
        raise ValueError(f"{stream.source.name} has no frames that can be decoded.")
