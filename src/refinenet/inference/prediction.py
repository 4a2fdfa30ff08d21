"""Predictions: all outputs of a network for one image.

Shape letters: H height, W width, D channels of an output, h and w height and width of the network's maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from refinenet.inference.segmentation import Segmentation, reorder_channels
from refinenet.inference.upsampling import resize
from refinenet.io.arrays import Array, as_numpy
from refinenet.io.images.codec import ChannelOrder
from refinenet.io.images.sample_values import Mask
from refinenet.io.processes.threads import survive_fork
from refinenet.labels import LabelMap
from refinenet.models.finishing import finish, finish_deviations
from refinenet.outputs import CLASS_KIND, OutputSpec, find_quantity, list_quantities

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction:
    """Outputs of a network for one image; values are computed on first access."""

    outputs: tuple[OutputSpec, ...]
    """Specifications of the outputs."""
    size: tuple[int, int]
    """Height and width of the image."""
    segmentation: Segmentation | None
    """Labels, confidence, probabilities and pictures; None for networks without an output of classes."""
    image: npt.NDArray[np.uint8] = field(repr=False)
    """`(H, W, 3)` uint8: the image itself, upright, its channels in `channel_order`."""
    channel_order: ChannelOrder = "rgb"
    """Channel order of `image` and of pictures: that of the array or tensor, "rgb" for files and Pillow images."""
    maps: Mapping[str, Array] = field(repr=False)
    """Maps of the outputs besides classes, by name: `(D, h, w)` float32 before resizing."""
    valid: Mask | None = field(default=None, repr=False)
    """`(H, W)` bool: pixels with data; None if all have. Values of other pixels are NaN."""
    _values: dict[str, Values] = field(default_factory=dict, init=False, repr=False)

    def __repr__(self) -> str:
        height, width = self.size
        outputs = [spec.name if spec.name == spec.kind else f"{spec.name} ({spec.kind})" for spec in self.outputs]
        return f"Prediction({width}x{height}, outputs: {', '.join(outputs)})"

    def _repr_png_(self) -> bytes | None:
        """Return what notebooks show: that of the segmentation; None without an output of classes."""
        return None if self.segmentation is None else self.segmentation._repr_png_()

    def __getitem__(self, name: str) -> Values:
        """Return the values of an output besides classes by its name, `(D, H, W)` float32 in its unit.

        Raises:
            ValueError: there is no such output.
        """
        spec = self._find(name)
        if name not in self._values:
            self._values[name] = self._finish(spec, finish)
        return self._values[name]

    def _find(self, name: str) -> OutputSpec:
        spec = next((spec for spec in self.outputs if spec.name == name and spec.kind != CLASS_KIND), None)
        if spec is None:
            raise ValueError(f"The network has no output of values named {name!r}: {self._describe()}.")
        return spec

    def _finish(self, spec: OutputSpec, function: Callable[[Array, OutputSpec], Array]) -> Values:
        survive_fork()
        values = as_numpy(function(resize(self.maps[spec.name][None], self.size), spec)[0])
        if self.valid is not None:
            values = np.where(self.valid, values, np.float32(np.nan))
        return np.ascontiguousarray(values)

    def deviation(self, name: str) -> Values:
        """Return how uncertain the values of an output are: the standard deviation that the network expects of them.

        Returns:
            `(D, H, W)` float32, in the unit of the values.

        Raises:
            ValueError: there is no such output, or the network does not predict its uncertainty.
        """
        spec = self._find(name)
        if spec.likelihood is None:
            advice = f"outputs of {spec.kind} never have one"
            if spec.info.is_scaled:
                advice = f"train a network with the output {replace(spec, likelihood='laplace').to_text()}"
            raise ValueError(f"The network does not predict the uncertainty of the output {name!r}: {advice}.")
        return self._finish(spec, finish_deviations)

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """`(H, W, 3)` uint8 RGB: the image."""
        return reorder_channels(self.image, self.channel_order)

    @property
    def areas(self) -> Mapping[str, float]:
        """Fraction of the pixels with data for each class name, in [0, 1]; empty without an output of classes."""
        return {} if self.segmentation is None else self.segmentation.areas

    @property
    def no_data(self) -> float:
        """Fraction of pixels without data, in [0, 1]."""
        return 0.0 if self.valid is None else 1 - int(self.valid.sum()) / self.valid.size

    @property
    def labels(self) -> LabelMap:
        """`(H, W)` class ids, as in `Segmentation.labels`.

        Raises:
            ValueError: the network has no output of classes.
        """
        if self.segmentation is None:
            raise ValueError(f"The network has no output of classes: {self._describe()}.")
        return self.segmentation.labels

    @property
    def depth(self) -> Values:
        """`(H, W)` float32: metres along the optical axis, NaN without data; of several depths the first.

        Raises:
            ValueError: the network has no output of this kind.
        """
        depth: Values = self[self._first("depth")][0]
        return depth

    @property
    def normals(self) -> Values:
        """`(H, W, 3)` float32: unit vectors, x right, y down, z into the scene; NaN without data.

        Raises:
            ValueError: the network has no output of this kind.
        """
        normals: Values = np.moveaxis(self[self._first("normals")], 0, -1)
        return normals

    @property
    def values(self) -> Quantities:
        """Quantities of regression outputs by their names, each `(H, W)` float32 in its unit, NaN without data."""
        return Quantities(self)

    def _first(self, kind: str) -> str:
        name = next((spec.name for spec in self.outputs if spec.kind == kind), None)
        if name is None:
            raise ValueError(f"The network has no output of {kind}: {self._describe()}.")
        return name

    def _describe(self) -> str:
        return f"its outputs are {', '.join(f'{spec.name} ({spec.kind})' for spec in self.outputs)}"


class Quantities(Mapping[str, Values]):
    """Quantities of the regression outputs of a prediction by name; those that several outputs have as OUTPUT.NAME."""

    def __init__(self, prediction: Prediction) -> None:
        self._prediction = prediction

    def __getitem__(self, name: str) -> Values:
        """Return the values of a quantity, `(H, W)` float32.

        Raises:
            KeyError: there is no such quantity.
            ValueError: several outputs have one of this name.
        """
        place = find_quantity(name, self._prediction.outputs)
        if place is None:
            raise KeyError(name)
        spec, channel = place
        values: Values = self._prediction[spec.name][channel]
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(list_quantities(self._prediction.outputs))

    def __len__(self) -> int:
        return len(list_quantities(self._prediction.outputs))
