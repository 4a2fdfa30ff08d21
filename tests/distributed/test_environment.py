"""Versions of a run's record, and the predecessor of the same name in the environment."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import refinenet
from refinenet import RefineNet
from refinenet.distributed import describe_run


def _install(site: Path, version: str) -> None:
    """Write what pip leaves of an installed distribution `refinenet`."""
    folder = site / f"refinenet-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: refinenet\nVersion: {version}\n")


def test_an_environment_with_the_predecessor_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "0.9.5")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match=r"refinenet 0\.9\.5, the predecessor.*pip uninstall -y refinenet"):
        RefineNet(encoder="test_resnet", num_classes=2, device="cpu", backend="pytorch")
    assert describe_run()["packages"]["refinenet"] == refinenet.__version__


def test_earlier_installations_of_this_package_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "1.0.0a1")
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RefineNet(encoder="test_resnet", num_classes=2, device="cpu", backend="pytorch")
