"""The conda package is of the version, and needs what the wheel needs, under the names that conda-forge has for it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""What conda-forge calls differently from PyPI."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text("utf-8"))
    return loaded


def test_it_needs_what_the_wheel_needs(project: dict[str, Any], recipe: dict[str, Any]) -> None:
    wanted = [Requirement(line) for line in project["project"]["dependencies"]]
    run = recipe["requirements"]["run"]
    assert run[0] == "python >=${{ python_min }}"
    assert len(set(run)) == len(run)
    assert set(run[1:]) == {f"{NAMES.get(need.name, need.name)} {need.specifier}" for need in wanted}
    assert recipe["requirements"]["host"][2:] == [
        str(Requirement(line)).replace(">", " >") for line in project["build-system"]["requires"]
    ]


def test_it_says_what_the_wheel_says(project: dict[str, Any], recipe: dict[str, Any]) -> None:
    ours = project["project"]
    assert recipe["context"]["version"] == ours["version"]
    assert f">={recipe['context']['python_min']}" == ours["requires-python"]
    about = recipe["about"]
    assert (about["summary"], about["license"]) == (ours["description"], ours["license"])
    assert about["license_file"] == ours["license-files"]
    (command,) = ours["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(command)]
