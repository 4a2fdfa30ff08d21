"""What PASCAL VOC's datasets have in common: folders that people keep at several depths, and lists of image names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def find_folder(root: Path, places: Sequence[str], sign: str) -> Path | None:
    """The first of the folders `places` below `root` ("" is `root` itself) that holds a file or folder `sign`."""
    return next((root / place for place in places if (root / place / sign).exists()), None)


def require_folder(root: Path, places: Sequence[str], sign: str, what: str) -> Path:
    """As `find_folder`, for what must be there; messages call it `what`.

    Raises:
        FileNotFoundError: none of the folders holds `sign`; all that was looked for is named.
    """
    found = find_folder(root, places, sign)
    if found is None:
        raise not_found(what, [root / place / sign for place in places])
    return found


def not_found(what: str, looked_for: Iterable[Path]) -> FileNotFoundError:
    """The error that names all that was looked for."""
    return FileNotFoundError(f"{what} not found. Looked for {', '.join(map(str, looked_for))}.")


def read_names(path: Path, flag: str | None = None) -> list[str]:
    """The image names in a list, one at the start of each line, in the list's order.

    Args:
        path: The list.
        flag: Take only lines that have this word after the name, as in VOC's lists of one class.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: it is no text, empty, names an image twice, or names what is no plain file name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"The list {path} is missing.")
    try:
        lines = [line.split() for line in path.read_text("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a list of names: it is no text. Get it again.") from error
    names = [words[0] for words in lines if words and (flag is None or words[1:2] == [flag])]
    strange = [name for name in names if not name.replace("_", "").replace("-", "").isalnum()]
    if strange or not names:
        raise ValueError(f"{path} is not a list of image names: it has {strange[0][:80] if strange else 'none'!r}.")
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"{path} names {twice} twice. Get it again.")
    return names


def check_presence(folder: Path, ending: str, names: Iterable[str]) -> None:
    """Refuse a folder that lacks files.

    Raises:
        FileNotFoundError: the folder, or a file named `name` + `ending` in it, is missing; five of them are named.
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
