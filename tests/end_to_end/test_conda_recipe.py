"""The conda package is of the version, and needs what the wheel needs, under the names that conda-forge has for it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
NAMES = {
    **{"torch": "pytorch", "matplotlib": "matplotlib-base", "ray": "ray-data"},
    **{"prometheus-client": "prometheus_client", "opencv-python-headless": "py-opencv"},
}
"""What conda-forge calls differently from PyPI."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text("utf-8"))
    return loaded


def conda_names(lines: list[str]) -> set[str]:
    """Requirements of the wheel as those of the conda package."""
    return {f"{NAMES.get(need.name, need.name)} {need.specifier}" for need in map(Requirement, lines)}


def test_it_needs_what_the_wheel_needs(project: dict[str, Any], recipe: dict[str, Any]) -> None:
    run = recipe["requirements"]["run"]
    assert run[0] == "python >=${{ python_min }}"
    assert len(set(run)) == len(run)
    assert set(run[1:]) == conda_names(project["project"]["dependencies"])
    assert recipe["requirements"]["host"][2:] == [
        str(Requirement(line)).replace(">", " >") for line in project["build-system"]["requires"]
    ]


def test_it_bounds_what_the_extras_of_the_wheel_need(project: dict[str, Any], recipe: dict[str, Any]) -> None:
    ours = project["project"]
    optional = {
        line
        for extra, lines in ours["optional-dependencies"].items()
        if extra not in ("docs", "dev", "encoders")  # conda-forge does not have the encoders' packages
        for line in lines
        if not line.startswith((ours["name"], "openvino"))  # openvino: a dependency of the conda package
    }
    assert set(recipe["requirements"]["run_constraints"]) == conda_names(sorted(optional))


def test_the_environment_has_what_the_package_needs(project: dict[str, Any]) -> None:
    environment = yaml.safe_load((ROOT / "requirements.yml").read_text("utf-8"))
    *packages, pip = environment["dependencies"]
    python = f"python {project['project']['requires-python']}"
    assert set(packages) == {python, "pip", *conda_names(project["project"]["dependencies"])}
    assert pip == {"pip": ["--editable ."]}
    assert environment["channels"] == ["conda-forge"]


def test_it_says_what_the_wheel_says(project: dict[str, Any], recipe: dict[str, Any]) -> None:
    ours = project["project"]
    assert (recipe["package"]["name"], recipe["context"]["version"]) == (ours["name"], ours["version"])
    assert f">={recipe['context']['python_min']}" == ours["requires-python"]
    about = recipe["about"]
    assert (about["summary"], about["license"]) == (ours["description"], ours["license"])
    assert about["license_file"] == ours["license-files"]
    assert about["repository"] == ours["urls"]["Repository"]
    (command,) = ours["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(command)]


@pytest.fixture(scope="module")
def archive(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the name of a source archive."""
    path = tmp_path_factory.mktemp("dist") / f"refinenet_torch-{recipe['context']['version']}.tar.gz"
    path.write_bytes(b"sources")
    return path


def fill_in(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "conda" / "fill_in.py")
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


def test_a_release_fills_in_the_hash(recipe: dict[str, Any], archive: Path) -> None:
    filled = yaml.safe_load(fill_in(str(archive)).stdout)
    source = {**recipe["source"], "sha256": hashlib.sha256(b"sources").hexdigest()}
    assert filled == {**recipe, "source": source}


def test_an_archive_of_another_version_is_refused(archive: Path) -> None:
    other = archive.with_name("refinenet_torch-0.1.tar.gz")
    other.write_bytes(b"sources")
    refused = fill_in(str(other))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "not of refinenet_torch-0.1.tar.gz" in refused.stderr


def test_it_renders(recipe: dict[str, Any], archive: Path) -> None:
    rattler_build = pytest.importorskip("rattler_build", reason="pip install py-rattler-build")
    filled = fill_in(str(archive), "--local").stdout
    (variant,) = rattler_build.Stage0Recipe.from_yaml(filled).render(
        rattler_build.VariantConfig(), rattler_build.RenderConfig()
    )
    rendered = variant.recipe
    assert (rendered.package.name, rendered.package.version) == ("refinenet-torch", recipe["context"]["version"])
    assert rendered.build.number == 0
    assert rendered.requirements.run[0] == f"python >={recipe['context']['python_min']}"
    (source,) = rendered.to_dict()["source"]
    assert archive.as_uri() in str(source)
