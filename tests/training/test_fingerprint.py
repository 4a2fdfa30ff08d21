"""Changes of data that a resumed run detects: files of bands and targets, and what their numbers mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from band_scenes import BANDS, draw_scene, write_several

from refinenet import RefineNet
from refinenet.datasets import open_training_datasets
from refinenet.io.images.bands import read_bands
from refinenet.training.records.fingerprint import Fingerprint, find_changes, take_fingerprint

NEW = ("band_sizes", "target_sizes", "declarations")
SETTINGS: dict[str, Any] = {
    **{"epochs": 1, "batch_size": 2, "crop_size": [32, 32], "workers": 0, "loggers": [], "precision": "float32"},
    **{"check": False, "progress": False},
}


def _write(root: Path) -> Path:
    """A folder of 6 scenes whose bands lie in three files each, with depth."""
    write_several(root, 6)
    (root / "depth").mkdir()
    for seed in range(6):
        np.save(root / "depth" / f"{seed:02d}.npy", 20 + draw_scene(seed)[0][..., 4])
    (root / "targets.yaml").write_text("depth: {range: [1, 100]}\n")
    return root


def _find(root: Path, before: dict[str, Fingerprint], bands: str = BANDS, depth: bool = True) -> list[str]:
    """Return the changes of the folder, and store its fingerprints in `before` if there are none."""
    parts = open_training_datasets(root, bands=read_bands(bands) if bands else ())
    datasets = {part.split: part.with_targets(["depth"] if depth else []) for part in parts}
    before.update({split: take_fingerprint(datasets[split]) for split in datasets} if not before else {})
    return find_changes(before, datasets)


def _double(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


DEPTH_CHANGED = "train has files of depth whose sizes have changed"
CHANGES: list[tuple[Callable[[Path], object], str, str, bool]] = [
    (lambda root: _double(root / "depth" / "03.npy"), DEPTH_CHANGED, BANDS, True),
    (
        lambda root: (root / "depth" / "03.npy").unlink(),
        DEPTH_CHANGED,
        BANDS,
        True,
    ),
    (lambda root: _double(root / "depth" / "03.npy"), "", BANDS, False),
    (lambda root: _double(root / "lidar" / "00.npy"), "val has band files whose sizes have changed", BANDS, False),
    (lambda root: _double(root / "lidar" / "00.npy"), "", "red,green,blue,nir:0:4095", False),
    (lambda root: _double(root / "lidar" / "00.npy"), "", "", True),
    (lambda root: (root / "targets.yaml").unlink(), "train has a different bands.yaml or targets.yaml", BANDS, True),
    (lambda root: (root / "targets.yaml").unlink(), "", BANDS, False),
    (
        lambda root: (root / "bands.yaml").write_text("images: [blue, green, red]\nnir: nir\nlidar: [height]\n"),
        "train has a different bands.yaml or targets.yaml",
        BANDS,
        False,
    ),
]


@pytest.mark.parametrize(("change", "words", "bands", "depth"), CHANGES)
def test_changes_of_what_a_run_reads(
    change: Callable[[Path], object], words: str, bands: str, depth: bool, tmp_path: Path
) -> None:
    root, before = _write(tmp_path / "scenes"), dict[str, Fingerprint]()
    assert _find(root, before, bands, depth) == []
    old = {split: Fingerprint(**{k: v for k, v in vars(one).items() if k not in NEW}) for split, one in before.items()}
    change(root)
    assert _find(root, before, bands, depth)[:1] == ([words] if words else [])
    assert _find(root, old, bands, depth) == []  # as older versions recorded it
    moved = root.rename(tmp_path / "elsewhere")
    assert _find(moved, before, bands, depth)[:1] == ([words] if words else [])


def test_runs_continue_with_the_same_depth_and_those_of_older_versions_with_any(tmp_path: Path) -> None:
    root, run = _write(tmp_path / "scenes"), tmp_path / "run"
    network = RefineNet(encoder="test_resnet", outputs="depth:1:100", bands=BANDS, device="cpu", seed=1)
    network.train(root, output=run, stop_after=1, **SETTINGS)
    path = root / "depth" / "03.npy"
    kept = path.read_bytes()
    _double(path)
    with pytest.raises(ValueError, match=DEPTH_CHANGED):
        RefineNet(encoder="test_resnet", device="cpu").train(resume=run, progress=False)
    described = json.loads((run / "run.json").read_text())
    assert described["fingerprints"]["train"].keys() >= {*NEW}
    path.write_bytes(kept)
    for each in described["fingerprints"].values():
        for name in NEW:
            del each[name]
    (run / "run.json").write_text(json.dumps(described))
    _double(path)
    assert RefineNet(encoder="test_resnet", device="cpu").train(resume=run, progress=False).is_over
