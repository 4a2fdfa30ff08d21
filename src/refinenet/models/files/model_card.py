"""Model card: description of the weights in the header of a model file or an exported file.

The format is described in `model_file`. Nothing here needs PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import safetensors

from refinenet._version import __version__
from refinenet.io.images.sample_values import ValueRange, check_value_range
from refinenet.labels import LabelSet
from refinenet.models.architecture import Architecture
from refinenet.models.files.file_checks import is_safetensors, printable
from refinenet.models.files.int8_record import Int8Record
from refinenet.models.files.licences import UNSTATED

if TYPE_CHECKING:
    from refinenet.models.network import Network

FORMAT_VERSION = 2
"""Format version of new model files of networks that it can describe."""
OUTPUTS_VERSION = 3
"""Format version of model files, and of headers in exported files, of other networks."""
UNSEALED_VERSION = 1
"""Format version without a hash of the header: of earlier model files, and of headers in exported files, which have
their own checksum (`export.loading.checksum`)."""
BUNDLED = ("camvid", "camvid_256", "streets")
"""Models that ship inside the package, by name. "camvid_256", with the published decoder of 256 channels, was "camvid"
in earlier versions. "streets" was trained on drawn scenes only, and may be used commercially."""

_DOMAINS: Mapping[str, str] = {
    **dict.fromkeys(BUNDLED, "urban street scenes seen from a car"),
    "streets": "drawn urban street scenes seen from a car",
}
"""Subject of the training images of the bundled models."""

HEADER_KEY = "refinenet"
CERTIFICATE_ENDING = ".certificate.json"
"""Suffix of the certificate, after the name of the exported file."""
_HEADER_TYPES: Mapping[str, type] = {
    "architecture": dict,
    "format_version": int,
    "label_set": dict,
    "licence": str,
    "package_version": str,
    "preprocessing": dict,
    "recipe": dict,
    "scores": dict,
    "weights_sha256": str,
}
SEAL = "header_sha256"
NO_HASH = "0" * 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SEALED_VERSIONS = (FORMAT_VERSION, OUTPUTS_VERSION)
_OPTIONAL_TYPES: Mapping[str, type] = {"temperature": float, "value_range": list, "longest_side": int, "int8": dict}
"""Entries that are written only if they differ from the default."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of the weights in a model file.

    Raises:
        ValueError: Architecture and label set differ in the number of classes, or the temperature is not above 0.
    """

    architecture: Architecture
    label_set: LabelSet
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Metrics and the protocol of their evaluation; empty if nothing was evaluated."""
    licence: str = UNSTATED
    """Terms under which the weights may be used."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Record of how the weights were trained."""
    weights_sha256: str = ""
    """Hexadecimal SHA-256 of the weights as stored (`digest`); empty if the weights were never saved."""
    temperature: float = 1.0
    """Divisor of the logits before softmax (`calibration.fit_temperature`); above 0."""
    value_range: ValueRange | None = None
    """Stored values of images that were black and white in training; None for the range of their type."""
    longest_side: int | None = None
    """Length, in pixels, to which the longer side of larger images was reduced in training; None for no limit."""
    int8: Int8Record | None = None
    """How the network runs in int8, if it was quantised; it is saved only with the weights that were."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"the temperature must be a number above 0, not {self.temperature!r}")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_value_range(self.value_range))
        if self.longest_side is not None and not (type(self.longest_side) is int and self.longest_side >= 1):
            raise ValueError(f"the longest side must be a whole number of at least 1, not {self.longest_side!r}")
        if self.value_range is not None and self.architecture.bands:
            raise ValueError("a network of named bands has a range for each of them, and no value range")
        if len(self.label_set) != self.architecture.num_classes:
            raise ValueError(
                f"the label set names {len(self.label_set)} classes, but the network has "
                f"{self.architecture.num_classes}"
            )


def bundled_path(name: str) -> Path:
    """Return the path of a model that ships inside the package."""
    return Path(str(resources.files("refinenet"))) / "models" / "pretrained" / f"{name}.safetensors"


def hash_header(header: Mapping[str, Any], stated: str) -> str:
    """Return the hexadecimal SHA-256 of a safetensors header, with zeros in place of the hash that it states."""
    metadata = header["__metadata__"]
    opened = metadata[HEADER_KEY].replace(f'"{SEAL}": "{stated}"', f'"{SEAL}": "{NO_HASH}"')
    content = {**header, "__metadata__": {**metadata, HEADER_KEY: opened}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()


def find_bundled(weights_sha256: str | None) -> str | None:
    """Return the name of the bundled model with the weights of a hash; None if there is none."""
    return next(
        (name for name in BUNDLED if _read_unchecked(bundled_path(name)).weights_sha256 == weights_sha256), None
    )


def describe_bundled(name: str) -> str:
    """Describe a bundled model: number of classes, kind of scenes, and class names."""
    labels = _read_unchecked(bundled_path(name)).label_set
    return f"{len(labels)} classes of {_DOMAINS[name]} ({', '.join(labels.names)})"


def read_card(model: str | os.PathLike[str]) -> ModelCard | None:
    """Read the card of a bundled model or a model file in milliseconds, without its weights and without checking them.

    It is used to refuse what does not fit the model before the model is loaded.

    Returns:
        The card; None for models of other kinds, and for files that loading refuses.

    Raises:
        ValueError: The file is empty or too large, or an export that is not opened here.
        OSError: It is missing, a folder, or not readable.
    """
    name = os.fspath(model)
    if "://" in name:
        return None
    try:
        if name not in BUNDLED and not is_safetensors(Path(name)):
            return None
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Bundled models: {', '.join(BUNDLED)}.") from error
    path = bundled_path(name) if name in BUNDLED else Path(name)
    if not (path.is_file() or path.with_suffix(".xml").is_file()):
        return None  # a bundled model that the small installation lacks
    try:
        return _read_unchecked(path)
    except (ValueError, TypeError, RecursionError, safetensors.SafetensorError):
        return None


def _read_unchecked(path: Path) -> ModelCard:
    """Read the card of a model file; its hash is checked when the model is loaded."""
    if path.is_file():
        with safetensors.safe_open(path, "numpy") as stream:
            metadata = stream.metadata() or {}
    else:  # the small installation has the graphs of bundled models alone
        metadata = read_graph_metadata(path.with_suffix(".xml").read_bytes())
    header = _parse_header(metadata, (UNSEALED_VERSION, *_SEALED_VERSIONS))
    header.pop(SEAL, None)
    card, _ = _read_entries(header)
    return card


def read_graph_metadata(graph: bytes) -> dict[str, str]:
    """Return the metadata of an OpenVINO graph of this package, which is not checked: the content of its `.xml`."""
    try:
        entries = ElementTree.fromstring(graph).iterfind("rt_info/*")
    except ElementTree.ParseError as error:
        raise ValueError(f"the graph is damaged: {error}") from error
    return {entry.tag: entry.get("value", "") for entry in entries}


def read_sealed_header(index: Mapping[str, Any]) -> tuple[ModelCard, dict[str, Any]]:
    """Read the header of a model file as `read_header` does, and check its own hash if it has one."""
    header = _parse_header(index.get("__metadata__") or {}, (UNSEALED_VERSION, *_SEALED_VERSIONS))
    if header["format_version"] in _SEALED_VERSIONS:
        stated = header.pop(SEAL, None)
        if not (isinstance(stated, str) and _SHA256.fullmatch(stated)):
            raise ValueError(f"its header has no {SEAL!r} of 64 hexadecimal digits: it is damaged")
        actual = hash_header(index, stated)
        if actual != stated:
            raise ValueError(
                f"it is damaged: its header has the SHA-256 {actual} and states {stated}. Copy or download it again, "
                "or save the model again with this package to change its header"
            )
    return _read_entries(header)


def make_header(network: Network, card: ModelCard, weights_sha256: str) -> dict[str, Any]:
    """Return the header of a file as JSON-ready values for `read_header`.

    Args:
        network: The network in the file.
        card: Description of the weights.
        weights_sha256: Hexadecimal SHA-256 of the weights.
    """
    return {
        "format_version": UNSEALED_VERSION if card.architecture.is_plain else OUTPUTS_VERSION,
        "architecture": card.architecture.to_dict(),
        "label_set": card.label_set.to_dict(),
        "preprocessing": describe_preprocessing(network),
        "scores": dict(card.scores),
        "licence": card.licence,
        "recipe": dict(card.recipe),
        "package_version": __version__,
        "weights_sha256": weights_sha256,
        **({"temperature": card.temperature} if card.temperature != 1 else {}),
        **({"value_range": list(card.value_range)} if card.value_range is not None else {}),
        **({"longest_side": card.longest_side} if card.longest_side is not None else {}),
    }


def describe_preprocessing(network: Network) -> dict[str, Any]:
    """Return the normalisation of images before the first layer: (value - mean) / std per channel."""
    return {
        "channel_order": list(network.architecture.band_names) if network.architecture.bands else "RGB",
        "range": [0.0, 1.0],
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
    }


def read_header(metadata: Mapping[str, str]) -> tuple[ModelCard, dict[str, Any]]:
    """Return the card and the preprocessing from the metadata of a file.

    Args:
        metadata: Metadata, with the JSON of `make_header` under "refinenet".

    Raises:
        ValueError, TypeError, RecursionError: They are missing, or a value is not allowed.
    """
    return _read_entries(_parse_header(metadata, (UNSEALED_VERSION, OUTPUTS_VERSION)))


def _parse_header(metadata: Mapping[str, str], versions: Sequence[int]) -> dict[str, Any]:
    if HEADER_KEY not in metadata:
        raise ValueError(f"its header has no entry {HEADER_KEY!r}")
    header = json.loads(metadata[HEADER_KEY], object_pairs_hook=refuse_doubled_keys, parse_constant=_refuse_constant)
    if not isinstance(header, dict):
        raise ValueError(f"its header's {HEADER_KEY!r} is not a JSON object")
    version = header.get("format_version")
    if (
        type(version) is not int or version not in versions
    ):  # checked first, because another version may have other entries
        raise ValueError(
            f"its format version is {printable(repr(version))}, this package reads "
            f"{', '.join(map(str, versions[:-1]))} and {versions[-1]}; a newer package may read it"
        )
    return header


def _read_entries(header: Mapping[str, Any]) -> tuple[ModelCard, dict[str, Any]]:
    if set(header) - set(_OPTIONAL_TYPES) != set(_HEADER_TYPES):
        optional = ", ".join(_OPTIONAL_TYPES)
        raise ValueError(
            f"its header should have exactly the entries {sorted(_HEADER_TYPES)}, and optionally {optional}"
        )
    for key, kind in {**_HEADER_TYPES, **_OPTIONAL_TYPES}.items():
        if key in header and not isinstance(header[key], kind):
            raise ValueError(f"its header's {key!r} is not a {kind.__name__}")
    architecture = Architecture(**header["architecture"])
    if header["format_version"] < OUTPUTS_VERSION and not architecture.is_plain:
        raise ValueError(f"its architecture has entries that format version {header['format_version']} does not know")
    card = ModelCard(
        architecture=architecture,
        label_set=LabelSet.from_dict(header["label_set"]),
        scores=header["scores"],
        licence=header["licence"],
        recipe=header["recipe"],
        weights_sha256=header["weights_sha256"],
        temperature=header.get("temperature", 1.0),
        value_range=header.get("value_range"),
        longest_side=header.get("longest_side"),
        int8=Int8Record.from_dict(header["int8"]) if "int8" in header else None,
    )
    return card, header["preprocessing"]


def refuse_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object from its pairs: an `object_pairs_hook` that raises ValueError for a repeated name."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return values


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
