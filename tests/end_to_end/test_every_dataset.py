"""Every published dataset, in a miniature of its owner's layout: measured, trained on and prepared alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import matlab_miniatures
import numpy as np
import png_miniatures
import pytest
from model_parts import SMALL_DECODER

from refinenet import RefineNet
from refinenet.datasets.catalog import PUBLISHED, Dataset, open_dataset
from refinenet.datasets.preparation import prepare

WRITERS: dict[str, Callable[[Path], None]] = {
    "nyu": matlab_miniatures.write_nyu,
    "nyu:raw": matlab_miniatures.write_nyu,
    "voc": matlab_miniatures.write_voc,
    "sbd": matlab_miniatures.write_sbd,
    "voc_aug": matlab_miniatures.write_voc_aug,
    "context": matlab_miniatures.write_context,
    "context:59": matlab_miniatures.write_context,
    "person_part": matlab_miniatures.write_person_part,
    "sunrgbd": matlab_miniatures.write_sunrgbd,
    "coco": png_miniatures.write_coco,
    "coco:stuff": png_miniatures.write_coco_stuff,
    "cityscapes": png_miniatures.write_cityscapes,
    "ade20k": png_miniatures.write_ade20k,
    "camvid": png_miniatures.write_camvid,
}
ORIGINAL_CAMVID = pytest.param("camvid", png_miniatures.write_camvid_original, id="camvid, original form")
CHOSEN = [pytest.param(name, write, id=name) for name, write in WRITERS.items() if name != "nyu:raw"]
EVERY = [*CHOSEN, ORIGINAL_CAMVID]
"""Without `nyu:raw`, which differs from `nyu` in its depths alone."""


def test_every_published_dataset_has_a_miniature() -> None:
    assert set(WRITERS) == set(PUBLISHED)


@pytest.mark.parametrize(("name", "write"), EVERY)
def test_it_is_trained_on_and_measured(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root)
    plain, _, classes = name.partition(":")
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu")
    result = network.train(
        dataset=plain, root=root, classes=classes or None, output=tmp_path / "run", progress=False,
        epochs=1, batch_size=2, crop_size=[32, 32], workers=0, loggers=(),
    )  # fmt: skip
    assert result.epochs == 1
    figures = tmp_path / "results.json"
    network.eval(dataset=name, root=root, output_file=figures, progress=False)
    told = json.loads(figures.read_text())
    assert (told["dataset"], told["images"]) == (name, 2)
    assert list(told["class_iou"]) == list(PUBLISHED[name].info.label_set.names)
    assert 0 <= told["pixel_accuracy"] <= 1


def _open_whole(name: str, root: Path, split: str) -> Dataset:
    """Open a split with all of its targets."""
    dataset = open_dataset(name, root)(split)
    return dataset.with_targets(spec.name for spec in dataset.target_specs)


@pytest.mark.parametrize(
    "name", ["nyu", "nyu:raw", "sbd", "voc_aug", "coco", "context", "context:59", "person_part", "sunrgbd"]
)
def test_prepared_files_hold_what_the_owner_s_files_do(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    before = [list(_open_whole(name, tmp_path, split)) for split in ("train", "val")]
    has_depth = name.partition(":")[0] in ("nyu", "sunrgbd")
    is_slow = [open_dataset(name, tmp_path)(split).is_slow for split in ("train", "val")]
    report = prepare(name, tmp_path, download=False, workers=0, progress=False)
    assert [split.images for split in report.splits][:2] == [len(samples) for samples in before]
    for split, expected, was_slow in zip(("train", "val"), before, is_slow, strict=True):
        dataset = _open_whole(name, tmp_path, split)
        assert ("/prepared/" in dataset.locate(dataset.items[0])) == was_slow
        for sample, former in zip(dataset, expected, strict=True):
            assert sample.name == former.name
            assert sample.image.tolist() == former.image.tolist()
            assert sample.labels.tolist() == former.labels.tolist()
            assert list(sample.targets) == list(former.targets) == (["depth", "normals"] if has_depth else [])
            for target, values in sample.targets.items():
                assert np.array_equal(values, former.targets[target], equal_nan=True)
