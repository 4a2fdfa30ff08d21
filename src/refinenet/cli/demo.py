"""The command `refinenet demo`: a synthetic street scene, its label map and the overlay, with a legend."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refinenet.cli.options import AsJson, Model
from refinenet.io.console import say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from refinenet.inference.segmentation import Segmentation


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The image to write.")] = Path("demo.png"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the street scene.")] = 8,
    model: Model = "camvid",
    as_json: AsJson = False,
) -> None:
    """Draw a street scene, segment it, and write the image, label map and overlay side by side to one file."""
    from refinenet.api import RefineNet
    from refinenet.io.images.codec import write

    picture, segmentation = _draw(RefineNet(model=model).segment, seed)
    write(output, picture)
    if as_json:
        say({"output": str(output), "areas": dict(segmentation.areas)})
        return
    from refinenet.io.console import print_table

    areas = sorted(segmentation.areas.items(), key=lambda item: -item[1])
    print_table(
        f"A synthetic street scene, segmented by {model!r}",
        ["class", "area %"],
        [[n, f"{100 * a:.1f}"] for n, a in areas],
    )
    say(
        f"Open {output}. Next:\n"
        "  refinenet deploy YOUR_IMAGE.jpg --output overlay.jpg --kind overlay\n"
        "  refinenet data check YOUR_FOLDER                         (with images/, masks/, classes.yaml)\n"
        "  refinenet train --dataset YOUR_FOLDER --model camvid\n"
        "  refinenet --help"
    )


def _draw(
    segment: "Callable[[npt.NDArray[np.uint8]], Segmentation]", seed: int
) -> "tuple[npt.NDArray[np.uint8], Segmentation]":
    """Draw a street scene and segment it.

    Args:
        segment: Segments an image, `(H, W, 3)` uint8 RGB.
        seed: Seed of the scene.

    Returns:
        `(H', 1440, 3)` uint8 RGB, with image, label map and overlay side by side above a legend; and the segmentation.
    """
    import numpy as np

    from refinenet.datasets.street_scenes import draw_street
    from refinenet.io.drawing.legend import add_legend

    street, _ = draw_street(seed, 360, 480)
    found = segment(street)
    panels = np.concatenate([street, found.colour, found.overlay], axis=1)
    return add_legend(panels, found.label_set, found.areas), found
