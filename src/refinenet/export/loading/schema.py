"""Inputs, outputs and limits of exported files of every format. Nothing here needs PyTorch.

Shape letters: N batch, B bands, K classes, H and W height and width of the image, h and w a quarter of these, rounded
up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refinenet.io.images.bands import MAX_BANDS
from refinenet.labels import MAX_CLASSES

HEADER_KEY = "refinenet"
"""Metadata entry of the header: JSON, as in model files (`model_file.make_header`)."""
INPUT = "images"
"""`(N, B, H, W)` float32 in [0, 1], of any N, H and W from 1: RGB, or other bands."""
LABELS = "labels"
"""`(N, H, W)` class ids; unused, since they follow from the logits."""
LOGITS = "logits"
"""`(N, K, h, w)` float32, before upsampling."""
MAPS = "maps"
"""`(N, C, h, w)` float32, in graphs of other outputs than classes: the maps of all outputs, before upsampling.

All other outputs of such graphs follow from them, and are unused."""
MAX_OUTPUTS = 128

MAX_NODES = 20_000
"""Greatest number of operators, and of tensors; our largest export has about 3,000."""
MAX_RANK = 8
MAX_HEADER_CHARACTERS = 10 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A file that passed all checks."""

    files: Mapping[str, bytes] = field(repr=False)
    """Files of a `backends.graph.Graph`."""
    header: str
    """The text of the entry `HEADER_KEY`."""
    result: str
    """The output that is kept: `LOGITS`, or `MAPS`."""
    channels: int
    """Number of its channels: of logits the number of classes."""
    bands: int
    """Number of bands of its images."""
    entries: Sequence[str]
    """Names of the metadata entries that this package's exporter writes, too."""
    has_bounded_memory: bool
    """Whether it is proven to need memory in proportion to the image (`memory_bound`)."""

    def facts(self) -> dict[str, Any]:
        """Return all but the files, as JSON-ready values."""
        return {
            "header": self.header,
            "result": self.result,
            "channels": self.channels,
            "bands": self.bands,
            "entries": list(self.entries),
            "has_bounded_memory": self.has_bounded_memory,
        }

    def __post_init__(self) -> None:
        if len(self.header) > MAX_HEADER_CHARACTERS:
            raise ValueError(f"its header has {len(self.header)} characters; up to {MAX_HEADER_CHARACTERS} are allowed")


def check_bands(number: int) -> int:
    """Return the number of bands of a graph's images.

    Raises:
        ValueError: It is out of range.
    """
    if not 1 <= number <= MAX_BANDS:
        raise ValueError(f"its images have {number} bands; 1 to {MAX_BANDS} are allowed")
    return number


MAX_CHANNELS = 2 * MAX_CLASSES


def check_channels(result: str, number: int) -> int:
    """Return the number of classes of the logits, or of channels of the maps.

    Raises:
        ValueError: It is out of range.
    """
    if result == LOGITS and not 1 <= number <= MAX_CLASSES:
        raise ValueError(f"its logits are of {number} classes; 1 to {MAX_CLASSES} are allowed")
    if not 1 <= number <= MAX_CHANNELS:
        raise ValueError(f"its maps have {number} channels; 1 to {MAX_CHANNELS} are allowed")
    return number
