"""An installation without PyTorch: this package, and links to the packages that refinenet-runtime requires, no others.

Packages are found by what is installed here: `importlib.metadata` knows the files of each and what it requires.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import refinenet


def link_packages(requirements: Iterable[str], folder: Path) -> set[str]:
    """Make links to the files of packages and of all that these require, in a new folder.

    Returns:
        The names of the packages.
    """
    folder.mkdir()
    waiting, found = [Requirement(line) for line in requirements], set[str]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            continue
        _link(files, distribution(name).locate_file(""), folder)
        waiting += [Requirement(line) for line in distribution(name).requires or []]
    return found


def _link(files: Iterable[PurePath], root: object, folder: Path) -> None:
    for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
        link = folder / top
        if not link.exists():
            link.symlink_to(Path(str(root)) / top)


class SmallInstallation:
    """Runs Python and the command line where nothing but the given packages can be imported.

    Args:
        folder: Folder of their links.
    """

    def __init__(self, folder: Path) -> None:
        self.path = [str(Path(refinenet.__file__).parents[1]), str(folder)]

    def run(self, code: str, *arguments: str, path: Sequence[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Python code, of which `sys.path` is this installation."""
        # Without the packages of the environment (-S), of the user and of PYTHONPATH (-I).
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path[:0] = {path or self.path!r}\n{code}",
            *arguments,
        ]
        environment = {name: value for name, value in os.environ.items() if name != "REFINENET_BACKEND"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    def refinenet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command `refinenet`."""
        return self.run("from refinenet.cli import main; main()", *arguments)
