"""Streets whose labels are right but for planted errors, for the search for label errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

CAR, SKY = 8, 0
PLANTED = 3
"""Number of the street with the errors."""


def write_streets(root: Path, model: RefineNet, errors: Sequence[tuple[slice, slice]]) -> Path:
    """Write six streets, labelled as the bundled model sees them, but for cars in the sky of the third.

    Args:
        root: The dataset's folder.
        model: The bundled model.
        errors: Rows and columns of each car.
    """
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for seed in range(6):
        image = draw_street(seed + 40, 90, 120)[0]
        labels = model.segment(image).labels.copy()
        for place in errors if seed == PLANTED else ():
            assert (labels[place] == SKY).mean() > 0.9
            labels[place] = CAR
        Image.fromarray(image).save(root / "images" / f"{seed}.png")
        Image.fromarray(labels).save(root / "masks" / f"{seed}.png")
    names = ", ".join(f'"{name}"' for name in model.label_set.names)
    (root / "classes.yaml").write_text(f"names: [{names}]\n")
    return root
