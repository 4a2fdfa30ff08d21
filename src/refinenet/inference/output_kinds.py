"""Kinds of results of a segmentation: the table from which files, videos, large images and the command line are served.

A new kind of picture is a function that renders it, a row of `OUTPUT_KINDS`, and its name in `Output`. NumPy is
imported where it is needed, because `--help` reads the table.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from refinenet.inference.segmentation import Segmentation
    from refinenet.labels import LabelSet

Output = Literal["labels", "colour", "overlay", "confidence", "palette"]
"""Kinds of pictures, for annotations."""
OUTPUTS: tuple[Output, ...] = get_args(Output)
Kind = Literal[Output, "probabilities", "coco", "geojson"]
"""All kinds, for annotations."""
KINDS: tuple[Kind, ...] = get_args(Kind)
POLYGONS = "polygons"
"""Short for all kinds that hold polygons."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True)
class OutputKind:
    """Description of a kind of results."""

    render: Callable[[Segmentation], npt.NDArray[Any]] | None = None
    """Returns the picture; None for files for other programs, which `deployment.outputs` writes. Large images are
    rendered in blocks: a value that depends on other pixels would change where blocks meet."""
    suffix: str = ".png"
    """Suffix of its files, unless the user chooses another one."""
    channels: int = 1
    """Channels of the picture: 1 for `(H, W)`, 3 for `(H, W, 3)`."""
    holds_ids: bool = False
    """Whether its values are class ids, of the type of label maps; other pictures are uint8."""
    has_palette: bool = False
    """Whether its files store the classes' colours as a palette."""
    survives_jpeg: bool = False
    """Whether it may be compressed as JPEG."""
    has_polygons: bool = False
    """Whether "polygons" stands for it, too."""
    remark: str = ""
    """Remark beside its name in the help of the command line."""

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture; otherwise it is a file for other programs."""
        return self.render is not None

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the picture of an image."""
        return (height, width) if self.channels == 1 else (height, width, self.channels)

    def dtype(self, label_set: LabelSet) -> type[np.uint8 | np.uint16]:
        """Return the type of its values."""
        import numpy as np

        return label_set.dtype if self.holds_ids else np.uint8

    def no_data(self, label_set: LabelSet) -> int | None:
        """Return the value of pixels without a class; None if there is none."""
        return label_set.ignore_index if self.holds_ids else None


def _render_confidence(segmentation: Segmentation) -> npt.NDArray[np.uint8]:
    """Return `(H, W)` uint8, 255 for certain."""
    import numpy as np

    return np.rint(segmentation.confidence * 255).astype(np.uint8)


OUTPUT_KINDS: Mapping[Kind, OutputKind] = MappingProxyType(
    {
        "labels": OutputKind(render=attrgetter("labels"), holds_ids=True, remark="default for .png"),
        "colour": OutputKind(render=attrgetter("colour"), channels=3, survives_jpeg=True, remark="default for .jpg"),
        "overlay": OutputKind(render=attrgetter("overlay"), channels=3, survives_jpeg=True),
        "confidence": OutputKind(render=_render_confidence),
        "palette": OutputKind(render=attrgetter("palette"), holds_ids=True, has_palette=True),
        "probabilities": OutputKind(suffix=".npz", remark=".npz"),
        "coco": OutputKind(suffix=".json", has_polygons=True),
        "geojson": OutputKind(suffix=".geojson", has_polygons=True),
    }
)
"""All kinds by name, in the order in which results are written."""
