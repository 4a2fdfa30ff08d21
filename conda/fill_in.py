"""Write the conda recipe with the hash of a source archive: for conda-forge, or to build from the archive itself.

python conda/fill_in.py dist/refinenet_torch-1.0.0.tar.gz > recipe.yaml
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

RECIPE = Path(__file__).with_name("recipe.yaml")
NO_HASH = "0" * 64
_ADDRESS = "https://pypi.org/packages/source/r/refinenet-torch/refinenet_torch-${{ version }}.tar.gz"


def fill_in(archive: Path, *, local: bool = False) -> str:
    """Return the recipe for a source archive.

    Args:
        archive: The archive that `python -m build --sdist` wrote.
        local: Whether to build from the archive itself instead of its address on the package index.

    Raises:
        ValueError: The archive is of another version than the recipe.
        OSError: It cannot be read.
    """
    recipe = RECIPE.read_text("utf-8")
    version = recipe.partition("\n  version: ")[2].partition("\n")[0]
    if archive.name != f"refinenet_torch-{version}.tar.gz":
        raise ValueError(f"The recipe is of version {version}, not of {archive.name}: build that version first.")
    recipe = _replace(recipe, NO_HASH, hashlib.sha256(archive.read_bytes()).hexdigest())
    if local:
        recipe = _replace(recipe, _ADDRESS, archive.resolve().as_uri())
    return recipe


def _replace(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="the source archive")
    parser.add_argument("--local", action="store_true", help="build from the archive itself")
    given = parser.parse_args()
    sys.stdout.write(fill_in(given.archive, local=given.local))
