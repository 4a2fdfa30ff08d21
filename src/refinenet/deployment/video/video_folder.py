"""Frames as numbered pictures in a folder, with their times in a list."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TextIO

from refinenet.deployment.video.reader import Frame, Sound
from refinenet.inference.segmenter import Output, Segmentation
from refinenet.io.files import make_folders

LIST = "frames.jsonl"
"""A line of JSON for each picture: its `index` from 0, `file`, `seconds` from the video's beginning, `areas` of the
classes, each in [0, 1]."""


class FrameFolder:
    """Writes `000000.png`, `000001.png`, ... and `LIST`, which after each frame is as far as the pictures.

    Args:
        path: The folder; it is made with the first frame. It has to be empty, so that frames of
            another video do not mix with these.
        kind: Which picture of each frame.

    Raises:
        ValueError: the folder holds something.
    """

    def __init__(self, path: Path, kind: Output) -> None:
        check_empty(path)
        self.path, self.kind = path, kind
        self._count = 0
        self._list: TextIO | None = None

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        """Add a frame.

        Raises:
            OSError: a file cannot be written.
        """
        if self._list is None:
            make_folders(self.path)
            self._list = (self.path / LIST).open("x", encoding="utf-8")
        name = f"{self._count:06d}.png"
        segmentation.save(self.path / name, self.kind)
        facts = {"index": self._count, "file": name, "seconds": float(frame.seconds), "areas": dict(segmentation.areas)}
        self._list.write(json.dumps(facts) + "\n")
        self._list.flush()
        self._count += 1

    def write_sound(self, sound: Sound) -> None:
        """Pictures have none."""

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._list is not None:
            self._list.close()


def check_empty(path: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ValueError: it does, or it is a file.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: name a folder for the frames, or a video by its suffix, such as .mp4.")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{path} is not empty: frames would mix with what is there. Name a new folder.")
