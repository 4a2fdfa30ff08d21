"""Commands that users copy into their shell."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence


def write_command(words: Sequence[str], system: str = os.name) -> str:
    """A command to be copied into a shell; `system` is as `os.name`, where "nt" is Windows."""
    return subprocess.list2cmdline(words) if system == "nt" else shlex.join(words)
