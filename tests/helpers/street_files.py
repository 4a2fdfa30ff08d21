"""The streets that `here` holds, and what a run made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet import RefineNet

SIZE = (48, 64)


def files(folder: Path) -> list[str]:
    """Return the files below a folder, without the journal."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in ("deploy.json", "deploy.jsonl"))


def read(path: Path) -> npt.NDArray[Any]:
    return np.asarray(Image.open(path))


def labels_of(model: RefineNet, image: Path) -> npt.NDArray[Any]:
    return model.segment(image).labels
