"""Helpers for PASCAL VOC's datasets: folders at various depths, and lists of image names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def find_folder(root: Path, places: Sequence[str], sign: str) -> Path | None:
    """Return the first of the folders `places` below `root` ("" is `root` itself) that contains `sign`."""
    return next((root / place for place in places if (root / place / sign).exists()), None)


def require_folder(root: Path, places: Sequence[str], sign: str, what: str) -> Path:
    """Like `find_folder`, but the folder, called `what` in messages, must exist.

    Raises:
        FileNotFoundError: No folder contains `sign`; the message names all paths that were tried.
    """
    found = find_folder(root, places, sign)
    if found is None:
        raise not_found(what, [root / place / sign for place in places])
    return found


def not_found(what: str, looked_for: Iterable[Path]) -> FileNotFoundError:
    """Return the error that names all paths that were tried."""
    return FileNotFoundError(f"{what} not found. Looked for {', '.join(map(str, looked_for))}.")


def read_names(path: Path, flag: str | None = None) -> list[str]:
    """Read the image names in a list, the first word of each line, in order.

    Args:
        path: The list.
        flag: Read only lines with this second word, as in VOC's lists of one class.

    Raises:
        FileNotFoundError: There is no such list.
        ValueError: The list is not text, is empty, or has a name that occurs twice or is not a plain file name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"The list {path} is missing.")
    try:
        lines = [line.split() for line in path.read_text("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a list of names: it is not text. Download it again.") from error
    names = [words[0] for words in lines if words and (flag is None or words[1:2] == [flag])]
    invalid = [name for name in names if not name.replace("_", "").replace("-", "").isalnum()]
    if invalid or not names:
        raise ValueError(f"{path} is not a list of image names: it has {invalid[0][:80] if invalid else 'none'!r}.")
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"{path} names {twice} twice. Download it again.")
    return names


def check_presence(folder: Path, ending: str, names: Iterable[str]) -> None:
    """Check that a folder has all files.

    Raises:
        FileNotFoundError: The folder, or files named `name` + `ending` in it, are missing; up to five are named.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} is missing.")
    there = {path.name for path in folder.iterdir()}
    absent = [name + ending for name in names if name + ending not in there]
    if absent:
        raise FileNotFoundError(
            f"{folder} lacks {len(absent)} of the files that belong to it: {', '.join(absent[:5])}"
            f"{' ...' if len(absent) > 5 else ''}."
        )
