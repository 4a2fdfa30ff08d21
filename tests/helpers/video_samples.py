"""Small videos made by PyAV, and what a player would see of one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from refinenet.datasets.street_scenes import draw_street

Pictures = Sequence[npt.NDArray[np.uint8]]


def moving_street(count: int, height: int = 48, width: int = 64) -> list[npt.NDArray[np.uint8]]:
    """Pictures `(height, width, 3)` of a street that passes by, each different."""
    street = draw_street(4, height, 2 * width)[0]
    return [np.ascontiguousarray(street[:, 2 * k % width :][:, :width]) for k in range(count)]


def write_video(
    path: Path,
    pictures: Pictures,
    times: Sequence[Fraction] | None = None,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str | None = None,
    unit: Fraction = Fraction(1, 12_800),
    turned: tuple[float, bool] | None = None,
    sound: str | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """Write pictures `(H, W, 3)`, 25 a second or at `times`; `turned` is an angle and whether it is mirrored, too."""
    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2] if len(pictures) else (48, 64)
        stream.pix_fmt = pixels
        stream.codec_context.time_base = unit
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turned is not None:
            stream.set_display_rotation(turned[0], hflip=turned[1])
        track: Any = output.add_stream(sound, rate=48_000) if sound is not None else None
        output.start_encoding()
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round((times[index] if times else Fraction(index, 25)) / unit), unit
            output.mux(stream.encode(frame))
            if track is not None:
                output.mux(_encode_tone(track, index * 1920, 1920))
        output.mux(stream.encode(None))
        if track is not None:
            output.mux(track.encode(None))
    return path


def write_sound(path: Path, codec: str = "aac", cover: npt.NDArray[np.uint8] | None = None) -> Path:
    """Write half a second of a tone, perhaps with the picture of a cover."""
    with av.open(str(path), "w") as output:
        track: Any = output.add_stream(codec, rate=48_000)
        picture: Any = None
        if cover is not None:
            picture = output.add_stream("png", rate=1)
            picture.height, picture.width, picture.pix_fmt = *cover.shape[:2], "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
        output.start_encoding()
        if cover is not None:
            output.mux(picture.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")))
            output.mux(picture.encode(None))
        output.mux([*_encode_tone(track, 0, 24_000), *track.encode(None)])
    return path


def _encode_tone(track: Any, start: int, samples: int) -> list[Any]:
    wave = np.sin(np.arange(start, start + samples) / 20).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]) / 4, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
    packets: list[Any] = track.encode(frame)
    return packets


def read_video(path: Path) -> tuple[list[npt.NDArray[np.uint8]], list[Fraction]]:
    """All pictures `(H, W, 3)` of a file, and their times in seconds; errors are not forgiven."""
    pictures, times = [], []
    with av.open(str(path)) as source:
        for frame in source.decode(video=0):
            assert frame.pts is not None
            assert frame.time_base is not None
            pictures.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
            times.append(frame.pts * frame.time_base)
    return pictures, times


def read_sound(path: Path) -> list[tuple[Fraction, bytes]]:
    """The encoded sound of a file: times in seconds, and content."""
    with av.open(str(path)) as source:
        return [
            (packet.pts * packet.time_base, bytes(packet)) for packet in source.demux(audio=0) if packet.pts is not None
        ]
