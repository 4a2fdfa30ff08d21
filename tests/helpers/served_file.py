"""The file that servers of tests serve, another of its length, and a short patience with them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from refinenet.io.download.download import Patience

CONTENT = bytes(range(256)) * 1200
OTHER = CONTENT[::-1]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
QUICK = Patience(attempts=3, timeout=0.4, pause=0.01)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
