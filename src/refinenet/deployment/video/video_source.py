"""Where videos come from: files, addresses of streams, cameras."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

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
