"""The notebooks of the documentation, run from top to bottom.

Only the export, which takes PyTorch half a minute, is replaced by a stored one; other tests export. The build of the
documentation runs the notebooks as they stand.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
STORED = Path(__file__).parents[1] / "stored" / "1.0.0a1.tar.xz"
INSTEAD_OF_THE_EXPORT = """\
from refinenet import RefineNet

r = RefineNet(model="model.safetensors")
"""


def unpack_export(folder: Path) -> None:
    """Put a model and its export, as `street.onnx`, into a folder."""
    with tarfile.open(STORED) as archive:
        for name, place in {"model.safetensors": "model.safetensors", "exported.onnx": "street.onnx"}.items():
            held = archive.extractfile(f"1.0.0a1/{name}")
            assert held
            (folder / place).write_bytes(held.read())


def test_notebooks_run(tmp_path: Path) -> None:
    """One after the other in one kernel: to start one, and to import PyTorch, takes longer than most cells."""
    nbclient = pytest.importorskip("nbclient", reason="pip install 'refinenet-torch[dev]'")
    nbformat = pytest.importorskip("nbformat")
    together = nbformat.v4.new_notebook()
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        (tmp_path / path.stem).mkdir()
        together.cells.append(nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {tmp_path / path.stem}"))
        together.cells += notebook.cells
    for cell in together.cells:
        if "r.export(" in cell.source:
            cell.source = INSTEAD_OF_THE_EXPORT
    unpack_export(tmp_path / "onnx")
    nbclient.NotebookClient(together, timeout=300).execute()
    outputs = [output for cell in together.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    assert any("95 % interval" in output.get("text", "") for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_results(path: Path) -> None:
    """Results are made when the documentation is built; here they would be megabytes that nobody reviews."""
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
