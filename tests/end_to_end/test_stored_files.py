"""Files that version 1.0.0a1 (commit fe7bced) wrote are read for ever: a model, exports, results, runs that stopped.

`stored/1.0.0a1.tar.xz` holds them, with what that version predicted and where it ended. The weights repeat 61 numbers
in each tensor, and those of the training run are zeros but for the classifier's bias, so that the archive stays small.
"""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CommandLine
from PIL import Image
from small_runs import resume, state

from refinenet import RefineNet

ARCHIVE = Path(__file__).parents[1] / "stored" / "1.0.0a1.tar.xz"
WRITTEN_IN = "/tmp/oldfiles/out"
"""Where the run, the results and the photographs lay when they were written."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    root = folder / "1.0.0a1"
    for name in ("run/run.json", "run/recipe.toml", "results.json", "segmented/deploy.jsonl"):
        text = (root / name).read_text("utf-8")
        (root / name).write_text(text.replace(WRITTEN_IN, str(root)), "utf-8")
    for line in (root / "segmented" / "deploy.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        os.utime(entry["source"], ns=(entry["mtime_ns"], entry["mtime_ns"]))
    return root


@pytest.mark.parametrize("name", ["model.safetensors", "model16.safetensors", "exported.onnx", "exported.xml"])
def test_a_stored_model_predicts_what_it_predicted(stored: Path, name: str) -> None:
    r = RefineNet(model=stored / name, device="cpu")
    found = r.segment(stored / "image.png")
    expected = np.load(stored / "expected.npz")
    assert (found.labels == expected["labels"]).mean() > (0.99 if "16" in name else 0.999)
    assert np.abs(found.confidence - expected["confidence"]).mean() < 1e-3
    assert r.label_set.names == ("floor", "wall", "Straße")
    assert r.label_set.colours == ((1, 2, 3), (200, 100, 50), (0, 128, 255))
    assert r.card.temperature == 1.25
    if name.endswith(".safetensors"):
        assert r.card.licence == "CC-BY-4.0"
        assert r.card.recipe["epochs"] == 3


def test_a_stored_model_has_its_logits(stored: Path) -> None:
    expected = np.load(stored / "expected.npz")["logits"]
    r = RefineNet(model=stored / "model.safetensors", device="cpu")
    pixels = np.asarray(Image.open(stored / "image.png"), np.float32).transpose(2, 0, 1)[None] / 255
    logits = r.network.logits(torch.from_numpy(pixels)).detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.ptp(expected))


def test_a_run_that_stopped_is_resumed_to_the_end_it_had(stored: Path) -> None:
    result = resume(stored / "run")
    assert result.is_over
    assert result.epochs == 2
    final = json.loads((stored / "run_final.json").read_text("utf-8"))
    tensors = state(stored / "run")
    for name, values in final["tensors"].items():
        np.testing.assert_allclose(tensors[name].numpy(), values, rtol=1e-6, err_msg=name)
    assert _measured((stored / "run" / "log.csv").read_text("utf-8")) == _measured(final["log"])


def _measured(log: str) -> list[list[str]]:
    """The log without what depends on the machine's speed."""
    rows = [row.split(",") for row in log.splitlines()]
    keep = [k for k, name in enumerate(rows[0]) if "second" not in name and "per_s" not in name]
    return [[row[k] for k in keep] for row in rows]


def test_stored_results_compare_with_new_ones(stored: Path, tmp_path: Path, run_refinenet: CommandLine) -> None:
    r = RefineNet(model=stored / "model.safetensors", device="cpu")
    r.eval(str(stored / "data"), output_file=tmp_path / "new.json", progress=False)
    old, new = (json.loads(path.read_text("utf-8")) for path in (stored / "results.json", tmp_path / "new.json"))
    assert new["miou"] == pytest.approx(old["miou"], abs=1e-6)
    done = run_refinenet("eval", "--compare", stored / "results.json", tmp_path / "new.json", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_a_folder_of_results_goes_on_where_it_stopped(stored: Path) -> None:
    r = RefineNet(model=stored / "model.safetensors", device="cpu", backend="pytorch")
    before = (stored / "segmented" / "0.png").stat().st_mtime_ns
    found = r.deploy_files(stored / "photos", stored / "segmented", progress=False)
    assert [(result.image.name, result.was_there) for result in found] == [
        ("0.png", True),
        ("1.png", True),
        ("2.png", False),
    ]
    assert (stored / "segmented" / "0.png").stat().st_mtime_ns == before
    with Image.open(stored / "segmented" / "2.png") as image:
        assert image.mode == "P"  # as the two before it
