"""Files of JSON objects, one a line, to which a long run appends, and that a crash may have torn.

A torn line is cut off, so that it does not run into the next one that is appended. A line that is no object, or has no
text under the key that it is found by, is skipped: its work is done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def append_json_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append an object to a file, which is created if missing.

    The line is not flushed to the disk (fsync): that would take longer than much of the work that lines record, and a
    lost line costs one piece of it.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("ab") as stream:
        stream.write(json.dumps(values).encode() + b"\n")


def read_json_lines(path: Path, key: str) -> dict[str, dict[str, Any]]:
    """Read a file that `append_json_line` has written, and cut off its last line if it is torn.

    Args:
        path: The file; a missing one has no lines.
        key: Name of the text by which objects are found.

    Returns:
        The last object for each text.

    Raises:
        OSError: The file cannot be read, or not be written.
    """
    if not path.exists():
        return {}
    with path.open("rb+") as stream:
        return {values[key]: values for values in parse_json_lines(_cut_torn(stream), key)}


def _cut_torn(stream: Any) -> Iterator[bytes]:
    """Yield the whole lines of a file; only the last one can lack its end."""
    whole = 0
    for line in stream:
        if not line.endswith(b"\n"):
            stream.truncate(whole)
            return
        whole += len(line)
        yield line


def parse_json_lines(lines: Iterable[bytes], key: str) -> Iterator[dict[str, Any]]:
    """Yield the objects among lines that have a text under a key."""
    for line in lines:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and isinstance(values.get(key), str):
            yield values
