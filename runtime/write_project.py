"""Write the project of the distribution refinenet-runtime: this package with the dependencies that need no PyTorch.

    python runtime/write_project.py build/runtime
    python -m build build/runtime

Names are those of `[tool.refinenet.runtime]` in `pyproject.toml`; everything else is that of the whole distribution.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

ROOT = Path(__file__).parents[1]
COPIED = ("LICENSE", "NOTICE", "MODEL_CARD.md", "src")
"""Files and folders of the checkout that the project consists of, besides its README."""
_WITHOUT = ("__pycache__", "*.safetensors")
"""What is left out: networks of PyTorch cannot run there, and each is there as a graph."""
NAME = "refinenet-runtime"


def describe(root: Path = ROOT) -> dict[str, Any]:
    """Return the content of `pyproject.toml` of the distribution.

    Args:
        root: Folder with that of the whole distribution.

    Raises:
        ValueError: A dependency is none of the whole distribution.
    """
    whole = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    project, chosen = whole["project"], whole["tool"]["refinenet"]["runtime"]
    extras: Mapping[str, list[str]] = project["optional-dependencies"]
    required = project["dependencies"]

    def find(name: str) -> list[str]:
        """Return the requirements of an extra, or those of a package."""
        others = (line for lines in extras.values() for line in lines)
        lines = extras.get(name) or _of_package(name, required) or _of_package(name, others)
        if not lines:
            raise ValueError(f"{name} is neither a dependency nor an extra of {project['name']}.")
        return lines

    optional = {
        extra: list(dict.fromkeys(line for name in names for line in find(name)))
        for extra, names in chosen["optional-dependencies"].items()
    }
    kept = ("version", "license", "license-files", "requires-python", "classifiers", "urls", "scripts")
    return {
        "build-system": {"requires": ["hatchling>=1.27"], "build-backend": "hatchling.build"},
        "project": {
            "name": NAME,
            "description": chosen["description"],
            "readme": "README.md",
            **{key: project[key] for key in kept},
            "dependencies": [line for name in chosen["dependencies"] for line in _of_package(name, required)],
            "optional-dependencies": {**optional, "all": [f"{NAME}[{','.join(optional)}]"]},
        },
        "tool": {"hatch": {"build": {"targets": {"wheel": _wheel(whole)}}}},
    }


def _wheel(whole: Mapping[str, Any]) -> dict[str, Any]:
    target: dict[str, Any] = whole["tool"]["hatch"]["build"]["targets"]["wheel"]
    return target


def _of_package(name: str, lines: Iterable[str]) -> list[str]:
    """Return the requirements of a package, each once; there may be one for each platform."""
    return list(dict.fromkeys(line for line in lines if re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0] == name))


def write_project(folder: Path, root: Path = ROOT) -> None:
    """Write the project into a folder, which is replaced if this function wrote it.

    Raises:
        ValueError: The folder holds something else, or as `describe`.
    """
    written = folder / "pyproject.toml"
    if folder.exists() and not (written.is_file() and f'name = "{NAME}"' in written.read_text("utf-8")):
        raise ValueError(f"{folder} holds something else: name a new folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(*_WITHOUT))
        else:
            shutil.copy(source, folder / name)
    shutil.copy(root / "runtime" / "README.md", folder / "README.md")
    (folder / "pyproject.toml").write_text(tomli_w.dumps(describe(root)), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Folder to write; an existing one is replaced.")
    write_project(parser.parse_args().folder)
