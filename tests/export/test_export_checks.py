"""What exports refuse before any work, and the tables of formats that say what can be written and opened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from refinenet import RefineNet
from refinenet.cli import app
from refinenet.export.formats.table import FORMATS
from refinenet.export.formats.targets import TARGETS
from refinenet.export.loading.loader import graph_kind
from refinenet.models.files.file_checks import UNOPENED
from refinenet.models.model_spec import EXPORTED_SUFFIXES


@pytest.mark.parametrize("name", ["net.pt", "net", "net.onnx.zip", "net.safetensors"])
def test_other_endings_are_refused(camvid_model: RefineNet, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"exported as \.onnx \(ONNX\), \.xml .*not as '.*" + re.escape(name)):
        camvid_model.export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_before_the_work(camvid_model: RefineNet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file.triton").write_text("mine")
    for target, said in (
        ("file/net.onnx", "file is a file, not a folder"),
        ("folder.onnx", "it must be a file, but a folder exists there"),
        ("file.triton", "it must be a folder, but a file exists there"),
    ):
        with pytest.raises(OSError, match=said):
            camvid_model.export(tmp_path / target)
    assert (tmp_path / "file").read_text() == (tmp_path / "file.triton").read_text() == "mine"
    assert list((tmp_path / "folder.onnx").iterdir()) == []


@pytest.mark.parametrize("size", [(0, 5), (5,), (1.5, 2), (10**9, 10**9)])
def test_what_is_no_size_is_refused(camvid_model: RefineNet, tmp_path: Path, size: Any) -> None:
    with pytest.raises(ValueError, match=r"A size must be a height and a width from 1"):
        camvid_model.export(tmp_path / "net.pt2", sizes=[size])


@pytest.mark.parametrize("suffix", FORMATS)
def test_exports_are_opened_or_say_what_they_are(suffix: str, tmp_path: Path) -> None:
    """The table of those that are not opened has every format that is not read back."""
    assert (graph_kind(f"net{suffix}") is None) == (suffix in UNOPENED)
    assert (suffix in EXPORTED_SUFFIXES) == (suffix not in UNOPENED)
    path = tmp_path / f"net{suffix.upper()}"
    if FORMATS[suffix].is_folder:
        path.mkdir()
    else:
        path.write_bytes(b"PK" + bytes(100))
    if suffix in UNOPENED:
        with pytest.raises(
            ValueError, match=f"net{suffix.upper()} is a .* Pass the model file that it was exported from"
        ):
            RefineNet(model=path)


def test_checks_before_any_work_know_the_formats_that_are_written() -> None:
    assert list(TARGETS) == list(FORMATS)
    assert {s: t.has_int8 for s, t in TARGETS.items()} == {s: f.write_int8 is not None for s, f in FORMATS.items()}


def test_every_format_is_named_where_users_look() -> None:
    command: Any = typer.main.get_command(app)
    options = {option.name: option.help for option in command.commands["export"].params}
    for text in (options["output"], str(RefineNet.export.__doc__)):
        assert all(suffix in text for suffix in FORMATS)
