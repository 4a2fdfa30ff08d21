"""The wheel and the source archive: what they would hold and say, without building them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from write_project import NAME as SMALL
from write_project import describe

ROOT = Path(__file__).parents[2]
NOT_FOR_USERS = {"all", "dev", "docs"}
"""Extras that `[all]` leaves out."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return loaded


def packed(kind: str) -> set[str]:
    """The paths inside a package that hatchling would build: "wheel" or "sdist"."""
    builders = pytest.importorskip(f"hatchling.builders.{kind}", reason="pip install hatchling")
    builder = getattr(builders, {"wheel": "WheelBuilder", "sdist": "SdistBuilder"}[kind])(str(ROOT))
    return {file.distribution_path.replace("\\", "/") for file in builder.recurse_included_files()}


def test_the_wheel_holds_the_code_and_every_data_file() -> None:
    source = ROOT / "src"
    files = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    wanted = {path.relative_to(source).as_posix() for path in files if not path.parent.name.endswith(".egg-info")}
    assert packed("wheel") == wanted | {"refinenet/models/pretrained/MODEL_CARD.md"}
    assert {Path(name).suffix for name in wanted} >= {".safetensors", ".json", ".html", ".css", ".js", ".toml"}


def test_the_source_archive_builds_the_wheel_and_runs_the_tests() -> None:
    held = packed("sdist")
    tops = {name.partition("/")[0] for name in held}
    assert tops >= {"src", "tests", "docs", "benchmarks", "LICENSE", "NOTICE", "README.md", "MODEL_CARD.md"}
    assert {f"src/{name}" for name in packed("wheel") if not name.endswith("MODEL_CARD.md")} <= held
    assert not tops & {".ci", ".github", ".git", ".venv", "runs", "data"}


def test_links_of_the_description_lead_to_the_repository(project: dict[str, Any]) -> None:
    """The package index shows the README without the files around it."""
    hooks = pytest.importorskip("hatch_fancy_pypi_readme.hooks", reason="pip install hatch-fancy-pypi-readme")
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["metadata"]["hooks"]
    described: dict[str, Any] = {"name": project["name"], "version": project["version"]}
    hooks.FancyReadmeMetadataHook(str(ROOT), table["fancy-pypi-readme"]).update(described)
    text = described["readme"]["text"]
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    ours = f"{project['urls']['Repository']}/blob/v{project['version']}/"
    assert len(links) == len(re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text("utf-8")))
    assert all(link.startswith(("https://", "#")) for link in links)
    targets = [link.removeprefix(ours).partition("#")[0] for link in links if link.startswith(ours)]
    assert len(targets) > 20
    assert all((ROOT / target).is_file() for target in targets)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text)
    raw = project["urls"]["Repository"].replace("https://github.com", "https://raw.githubusercontent.com")
    assert pictures
    assert all(picture.startswith(f"{raw}/v{project['version']}/") for picture in pictures)


def extras(project: dict[str, Any], name: str) -> set[str]:
    """The extras that an extra consists of."""
    needs = [Requirement(line) for line in project["optional-dependencies"][name]]
    return {extra for need in needs if need.name == project["name"] for extra in need.extras}


def test_all_is_every_extra_for_users(project: dict[str, Any]) -> None:
    assert extras(project, "all") == set(project["optional-dependencies"]) - NOT_FOR_USERS


def test_messages_and_pages_name_extras_that_exist(project: dict[str, Any]) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    named = {
        (where, extra)
        for page in pages
        for where, group in re.findall(r"['\"](\.|[\w-]+)\[([a-z0-9,]+)\]['\"]", page.read_text("utf-8"))
        if where == "." or where.startswith("refinenet")
        for extra in group.split(",")
    }
    small, whole = set(describe()["project"]["optional-dependencies"]), set(project["optional-dependencies"])
    calls = re.compile(r"install_extra\(['\"](\w+)['\"](?:, small=['\"](\w+)['\"])?\)")
    for page in (ROOT / "src").rglob("*.py"):
        for extra, in_small in calls.findall(page.read_text("utf-8")):
            named |= {(project["name"], extra), (SMALL, in_small or extra)} - {(SMALL, "export")}
    assert {where for where, _ in named} == {".", project["name"], SMALL}
    assert {extra for where, extra in named if where != SMALL} <= whole
    assert {extra for where, extra in named if where == SMALL} <= small
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "install.md").read_text("utf-8"), flags=re.M)
    assert sorted(listed) == sorted(set(project["optional-dependencies"]) - {"openvino"})


def test_the_lock_is_of_these_dependencies(project: dict[str, Any]) -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    assert locked["requires-python"] == project["requires-python"]
    (ours,) = (package for package in locked["package"] if package["name"] == project["name"])
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    wanted = {
        (re.sub(r"[-_.]+", "-", need.name).lower(), need.specifier)
        for lines in groups.values()
        for need in map(Requirement, lines)
        if need.name != project["name"]
    }
    needs = [need for need in ours["metadata"]["requires-dist"] if need["name"] != project["name"]]
    assert {(need["name"], SpecifierSet(need.get("specifier", ""))) for need in needs} == wanted
