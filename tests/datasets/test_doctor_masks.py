"""What the doctor and `eval` say of masks whose ids are doubtful though each of them is a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets import doctor

COLOURS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)]


def draw(seed: int, count: int = 12) -> Image.Image:
    rng = np.random.default_rng(seed)
    ids = np.full((120, 160), rng.integers(count), np.uint8)
    for _ in range(14):
        y, x = rng.integers(0, 100), rng.integers(0, 130)
        ids[y : y + rng.integers(15, 40), x : x + rng.integers(15, 40)] = rng.integers(count)
    ids[:, 80] = 5  # a thin real object
    return Image.fromarray(ids)


def make(root: Path, masks: list[Image.Image], classes: str) -> Path:
    for split in ("train", "val"):
        for k, mask in enumerate(masks):
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([k, len(split)]).integers(0, 255, (*mask.size[::-1], 3), np.uint8)
            Image.fromarray(noise).save(root / "images" / split / f"{k}.png")
            mask.save(root / "masks" / split / f"{k}.png")
    (root / "classes.yaml").write_text(classes)
    return root


def kinds(root: Path) -> set[str]:
    report = doctor.check(root, quick=True, workers=0, progress=False)
    return {finding.kind for finding in report.findings if finding.stops}


@pytest.mark.parametrize("kind", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("scale", [0.55, 1.5])
def test_masks_resized_with_a_blending_filter_stop_training(
    kind: Image.Resampling, scale: float, tmp_path: Path
) -> None:
    size = (int(480 * scale), int(360 * scale))
    names = f"names: [{', '.join(f'c{k}' for k in range(256 - 1))}]\n"
    root = make(
        tmp_path, [draw(k).resize((470, 353), Image.Resampling.NEAREST).resize(size, kind) for k in range(6)], names
    )
    assert "mask-blended-ids" in kinds(root)


def test_clean_masks_outlines_and_rings_are_not_called_blended(tmp_path: Path) -> None:
    names = f"names: [{', '.join(f'c{k}' for k in range(12))}]\n"
    outlined = np.asarray(draw(9)).copy()
    edge = (outlined[1:, 1:] != outlined[:-1, 1:]) | (outlined[1:, 1:] != outlined[1:, :-1])
    outlined[1:, 1:][edge] = 255
    clean = [draw(k) for k in range(6)] + [draw(7).resize((240, 180), Image.Resampling.NEAREST)]
    assert kinds(make(tmp_path, [*clean, Image.fromarray(outlined)], names)) == set()


def with_palette(order: list[int]) -> Image.Image:
    image = Image.fromarray(np.arange(4, dtype=np.uint8).repeat(300).reshape(30, 40))
    image.putpalette([v for k in order for v in COLOURS[k]])
    return image


def test_palettes_whose_order_contradicts_classes_yaml_stop_training_and_eval(tmp_path: Path) -> None:
    text = f"names: [sky, road, tree, car]\ncolours: {[list(colour) for colour in COLOURS]}\n"
    assert kinds(make(tmp_path / "right", [with_palette([0, 1, 2, 3])], text)) == set()
    root = make(tmp_path / "wrong", [with_palette([0, 2, 1, 3])], text)
    report = doctor.check(root, quick=True, workers=0, progress=False)
    assert "id 1 is 'road' by its number and 'tree' by its colour" in " ".join(report.text().split())
    model = RefineNet(model_type="lightweight", num_layers=50, num_classes=4)
    with pytest.raises(ValueError, match=r"palettes-contradict.*cannot be measured|cannot be measured"):
        model.eval(dataset=str(root), progress=False)


def test_palettes_in_different_orders_stop_training(tmp_path: Path) -> None:
    masks = [with_palette([0, 1, 2, 3])] * 3 + [with_palette([0, 2, 1, 3])]
    assert "palettes-permuted" in kinds(make(tmp_path, masks, "names: [sky, road, tree, car]\n"))
