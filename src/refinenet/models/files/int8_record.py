"""Int8 record: results of a quantisation, with which a model file runs in int8 without any image.

The record is an entry "int8" in the header of a model file. It holds what depends on images: the ranges of feature maps
and the corrections of biases. Int8 weights follow from the weights in the file.

Operations of a graph are named by signatures, see `inference.backends.int8`: they depend on the layers that the
operation is computed from, and not on names that a version of PyTorch or OpenVINO invents.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RECORD_VERSION = 1
"""Version of the entry in model files."""
STRETCHES = (1, 2)
"""Allowed values of `QuantisedLayer.stretch`."""
MOST_ENTRIES = 10_000
"""Largest number of feature maps or layers in a record."""
_ENTRIES = ("network_sha256", "maps", "layers", "kept_in_float", "difference", "scores", "made")
_SIGNATURE = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Reader = tuple[str, int]
"""Signature of an operation, and the number of its input."""


def _encode(values: Sequence[float]) -> str:
    """Return numbers as little-endian float32 in base64, which is exact and a third of their decimals' length."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode("ascii")


def _decode(text: str) -> tuple[float, ...]:
    """Read what `_encode` returned.

    Raises:
        ValueError, TypeError: It is none.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"numbers of the record of int8 are not in base64: {error}") from error
    return tuple(np.frombuffer(content, "<f4").tolist())


@dataclass(frozen=True, kw_only=True)
class QuantisedMap:
    """A feature map that is rounded to 256 values.

    Raises:
        ValueError: A range is empty or not finite, or a signature is not valid.
    """

    node: str
    """Signature of the operation that computes it."""
    low: tuple[float, ...]
    """Least value, or that of each channel; float32."""
    high: tuple[float, ...]
    """Largest value, or that of each channel; float32."""
    readers: tuple[Reader, ...] = ()
    """Those that read the rounded map; none stands for all."""

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise ValueError("a feature map must have as many minima as maxima: one, or one for each channel")
        for low, high in zip(self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"a range must be two finite numbers, the lower one first, not {low!r} and {high!r}")
        signatures = [self.node, *(name for name, _ in self.readers)]
        if not all(isinstance(name, str) and _SIGNATURE.fullmatch(name) for name in signatures):
            raise ValueError("a signature must be 16 hexadecimal digits")
        if not all(type(port) is int and 0 <= port < MOST_ENTRIES for _, port in self.readers):
            raise ValueError("the input of an operation must be a whole number of at least 0")

    def to_list(self) -> list[Any]:
        """Return the fields as a JSON-ready list, numbers as `_encode` writes them, readers only if there are any."""
        readers = [[list(reader) for reader in self.readers]] if self.readers else []
        return [self.node, _encode(self.low), _encode(self.high), *readers]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> QuantisedMap:
        """Read what `to_list` returned.

        Raises:
            ValueError, TypeError: A value is not allowed.
        """
        node, low, high, *more = values
        readers = tuple((name, port) for name, port in (more[0] if more else ()))
        return cls(node=node, low=_decode(low), high=_decode(high), readers=readers)


@dataclass(frozen=True, kw_only=True)
class QuantisedLayer:
    """A convolution that is computed in int8.

    Raises:
        ValueError: The stretch is not allowed, or a correction is not finite.
    """

    weights: str
    """Name of its weights in the fused network, such as "encoder.features.conv_stem.weight"."""
    stretch: int
    """Largest int8 value over that of the weights of an output channel: 1 uses all values from -127 to 127, 2 half of
    them, by which NNCF avoids sums that overflow 16 bits on processors without VNNI."""
    correction: tuple[float, ...] = ()
    """What is added to the bias of each output channel, float32; none for nothing."""

    def __post_init__(self) -> None:
        if not isinstance(self.weights, str) or not self.weights:
            raise ValueError("a layer must have a name")
        if self.stretch not in STRETCHES:
            raise ValueError(f"int8 weights are stretched by one of {STRETCHES}, not {self.stretch!r}")
        if not all(map(math.isfinite, self.correction)):
            raise ValueError(f"a correction of {self.weights} is not finite")

    def to_list(self) -> list[Any]:
        """Return the fields as a JSON-ready list; numbers as `_encode` writes them."""
        return [self.weights, self.stretch, _encode(self.correction)]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> QuantisedLayer:
        """Read what `to_list` returned.

        Raises:
            ValueError, TypeError: A value is not allowed.
        """
        weights, stretch, correction = values
        return cls(weights=weights, stretch=stretch, correction=_decode(correction))


@dataclass(frozen=True, kw_only=True)
class Int8Record:
    """A quantisation of a network, with its scores.

    Raises:
        ValueError: A value is not allowed.
    """

    network_sha256: str
    """Hexadecimal SHA-256 of the float32 weights that were quantised (`tensor_files.digest`)."""
    maps: tuple[QuantisedMap, ...]
    layers: tuple[QuantisedLayer, ...]
    kept: tuple[str, ...] = ()
    """Layers that stay in floating point, in words, the most sensitive first."""
    difference: float
    """Root mean square of the int8 network's error on a random image, as a share of the range of its maps: what a
    translation on another machine is compared with (`inference.backends.int8.measure_difference`)."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Images used, and mIoU and root mean squared errors before and after, JSON-ready."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """Versions of the packages that quantised it."""

    def __post_init__(self) -> None:
        if not (isinstance(self.network_sha256, str) and _SHA256.fullmatch(self.network_sha256)):
            raise ValueError("the record of int8 needs the SHA-256 of the network")
        if not (0 <= self.difference < math.inf):
            raise ValueError(f"the difference of int8 must be a number of at least 0, not {self.difference!r}")
        if not self.layers or max(len(self.maps), len(self.layers)) > MOST_ENTRIES:
            raise ValueError(f"the record of int8 must have from 1 to {MOST_ENTRIES} layers and feature maps")
        names = [layer.weights for layer in self.layers]
        if len({*names}) < len(names):
            raise ValueError("the record of int8 names a layer twice")
        if not all(isinstance(words, str) for words in self.kept):
            raise ValueError("the layers that stay in floating point must be strings")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready entry of a model file."""
        return {
            "version": RECORD_VERSION,
            "network_sha256": self.network_sha256,
            "maps": [item.to_list() for item in self.maps],
            "layers": [layer.to_list() for layer in self.layers],
            "kept_in_float": list(self.kept),
            "difference": self.difference,
            "scores": dict(self.scores),
            "made": dict(self.made),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Int8Record:
        """Read what `to_dict` returned.

        Raises:
            ValueError, TypeError: A value is missing or not allowed.
        """
        if values.get("version") != RECORD_VERSION:
            raise ValueError(
                f"its record of int8 has version {values.get('version')!r}, this package reads {RECORD_VERSION}; a "
                "newer package may read it"
            )
        missing = [key for key in _ENTRIES if key not in values]
        if missing:
            raise ValueError(f"its record of int8 lacks {', '.join(missing)}")
        return cls(
            network_sha256=values["network_sha256"],
            maps=tuple(map(QuantisedMap.from_list, values["maps"])),
            layers=tuple(map(QuantisedLayer.from_list, values["layers"])),
            kept=tuple(values["kept_in_float"]),
            difference=float(values["difference"]),
            scores=dict(values["scores"]),
            made=dict(values["made"]),
        )

    def digest(self) -> str:
        """Return the hexadecimal SHA-256 of what determines the int8 network."""
        parts = [[item.to_list() for item in self.maps], [layer.to_list() for layer in self.layers]]
        return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()
