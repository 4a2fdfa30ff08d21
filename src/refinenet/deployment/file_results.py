"""Options of a run over image files, and the outcome for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from refinenet.deployment.large_images import Windows
from refinenet.inference.output_kinds import Kind
from refinenet.inference.segmenter import check_abstention
from refinenet.inference.values.subject import AS_USUAL, RenderOptions
from refinenet.io.console import describe_error
from refinenet.io.images.sample_values import AS_DECLARED, Reading


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """Settings for reading and segmenting images, the same for all images of a run.

    Raises:
        ValueError: `abstain_below` is not in [0, 1], or both `windows` and `max_latency_ms` are given.
    """

    reading: Reading = AS_DECLARED
    """Bands and value range to read."""
    rendering: RenderOptions = AS_USUAL
    """Choices for files of depths and other values."""
    abstain_below: float = 0.0
    """Confidence below which a pixel gets the ignore index instead of a class, in [0, 1]."""
    windows: Windows | None = None
    """Windows for all images; None uses windows only for images too large for memory and for TIFF results."""
    max_latency_ms: float | None = None
    """Latency budget of an image, in milliseconds; needs a `LatencyTuner`."""
    overwrite: bool = False
    """Whether to redo results that exist, and to replace foreign files."""
    progress: bool = True
    """Whether to show the progress of a single image in windows."""
    measures_areas: bool = False
    """Whether to count regions, and to find the ground area of pixels, for a table."""

    def __post_init__(self) -> None:
        if self.windows is not None and self.max_latency_ms is not None:
            raise ValueError(
                "The time for an image in windows depends on its size: pass either windows or max_latency_ms."
            )
        check_abstention(self.abstain_below)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that results depend on, as JSON-ready values for the journal."""
        bands, value_range = self.reading.bands, self.reading.value_range
        return {
            "windows": None if self.windows is None else asdict(self.windows),
            "max_latency_ms": self.max_latency_ms,
            "abstain_below": self.abstain_below,
            # Left out where unset, so that folders started before these settings existed can be resumed.
            **({} if bands is None else {"bands": list(bands)}),
            **({} if value_range is None else {"value_range": list(value_range)}),
            **self.rendering.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """Outcome for one image."""

    image: Path
    outputs: Mapping[Kind, Path]
    """Result files by kind; empty if the image was not segmented or a result could not be written."""
    error: ValueError | OSError | None = None
    """Reason of the failure; None on success."""
    was_there: bool = False
    """Whether the results existed already, made from the same file with the same settings."""
    width: int = 0
    """Width of the image in pixels; 0 after an error."""
    height: int = 0
    areas: Mapping[str, float] = field(default_factory=dict)
    """Share of the image's pixels with data by class name, in [0, 1]."""
    no_data: float = 0.0
    """Share of the image's pixels without data, in [0, 1]; they have no class."""
    seconds: float = 0.0
    """Time for reading, segmenting and writing, without waiting in between."""
    regions: Mapping[str, int] | None = None
    """Number of regions by class name; None if not counted, as of images in windows."""
    pixel_area: float | None = None
    """Ground area of a pixel in square metres; None if not asked for, or without georeferencing."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values."""
        if self.error is not None:
            return {"image": str(self.image), "error": describe_error(self.error)}
        return {
            "image": str(self.image),
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
            "width": self.width,
            "height": self.height,
            "areas": dict(self.areas),
            **({"no_data": self.no_data} if self.no_data > 0 else {}),
            "seconds": round(self.seconds, 4),
            "was_there": self.was_there,
            **({} if self.regions is None else {"regions": dict(self.regions)}),
            **({} if self.pixel_area is None else {"pixel_area": self.pixel_area}),
        }
