"""Outputs of a network: what it predicts for each pixel, in which unit, and how a user names it.

An output is a name, a kind and its channels. `KINDS` lists the kinds; what a kind does in a network, a loss, an
augmentation, a metric and a picture is a row of a table in the package of each.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refinenet.settings import is_within


@dataclass(frozen=True, kw_only=True)
class KindInfo:
    """Description of a kind of outputs."""

    meaning: str
    """Its values, for users."""
    channels: int | None = None
    """Number of its channels; None if the label set or the output's quantities determine it."""
    unit: str = ""
    """Unit of its values; "" for none, and for quantities, which have their own."""
    names_quantities: bool = False
    """Whether an output of this kind names quantities and their units."""
    has_range: bool = False
    """Whether an output of this kind has a range, to which predictions are clipped."""
    mirrored_channels: tuple[int, ...] = ()
    """Channels whose sign changes where the image is mirrored from left to right."""
    rotated_channels: tuple[int, int] | None = None
    """Channels that are the x and y (down) of a direction in the image, which turns with it."""
    shrinks_with_zoom: bool = False
    """Whether values are divided by the factor by which an image is enlarged: what looks larger is nearer."""
    is_scaled: bool = False
    """Whether its head predicts values standardised by the mean and deviation of the training data. Such a head can
    also predict the scale of its errors."""


CLASS_KIND = "classes"
KINDS: dict[str, KindInfo] = {
    CLASS_KIND: KindInfo(meaning="logits of the classes of a label set"),
    "depth": KindInfo(
        meaning="metres along the optical axis",
        channels=1,
        unit="m",
        has_range=True,
        shrinks_with_zoom=True,
        is_scaled=True,
    ),
    "normals": KindInfo(
        meaning=(
            "unit vectors in the frame of the camera: x right, y down, z into the scene, so that a surface that faces "
            "the camera has z = -1"
        ),
        channels=3,
        mirrored_channels=(0,),
        rotated_channels=(0, 1),
    ),
    "regression": KindInfo(meaning="quantities in their units", names_quantities=True, is_scaled=True),
}

LIKELIHOODS: Mapping[str, float] = {"laplace": math.sqrt(2), "gaussian": 1.0}
"""Distributions of errors by name, with the standard deviation of one whose scale is 1."""

MAX_CHANNELS = 64
"""Largest number of channels of a regression output."""
MAX_UNIT_LENGTH = 40
DEFAULT_RANGE = (0.0, 1000.0)
"""Range of depths unless a user passes one, in metres."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TEXT = re.compile(
    r"(?:(?P<name>[^=\[\]:~]+)=)?(?P<kind>[^=\[\]:~]+)(?:~(?P<likelihood>[^=\[\]:~]+))?"
    r"(?:\[(?P<channels>[^\]]*)\])?(?::(?P<low>[^:]+):(?P<high>[^:]+))?"
)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """Specification of an output.

    Raises:
        ValueError: A value is not allowed, or does not go with the kind.
    """

    name: str
    """Name in results and files: lower-case letters, digits and "_"."""
    kind: str
    """One of `KINDS`."""
    channels: tuple[str, ...] = ()
    """Names of the quantities of a regression."""
    units: tuple[str, ...] = ()
    """Their units; "" for none."""
    range: tuple[float, float] | None = None
    """Least and largest value of a depth, in metres, to which predictions are clipped."""
    likelihood: str | None = None
    """Distribution of the errors, one of `LIKELIHOODS`, if the head predicts their scale besides the values."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"The kind of an output must be one of {', '.join(KINDS)}, not {self.kind!r}.")
        if not _is_name(self.name):
            raise ValueError(
                f"The name of an output must have 1 to 40 letters a-z, digits and _, unlike {self.name!r}."
            )
        if self.info.names_quantities:
            self._check_quantities()
        elif self.channels or self.units:
            raise ValueError(f"The output {self.name!r} ({self.kind}) has no named quantities: {self.channels!r}.")
        if self.info.has_range:
            self._check_range()
        elif self.range is not None:
            raise ValueError(f"The output {self.name!r} ({self.kind}) has no range: leave {self.range!r} out.")
        self._check_likelihood()

    @property
    def info(self) -> KindInfo:
        """Description of the kind."""
        return KINDS[self.kind]

    def count_channels(self, num_classes: int) -> int:
        """Return the number of channels of its values, given the number of classes."""
        if self.info.names_quantities:
            return len(self.channels)
        return num_classes if self.info.channels is None else self.info.channels

    @property
    def quantities(self) -> tuple[tuple[str, str], ...]:
        """Name and unit of each quantity that the output has values of; of a depth or normals one."""
        return tuple(zip(self.channels, self.units, strict=True)) or ((self.name, self.info.unit),)

    def count_maps(self, num_classes: int) -> int:
        """Return the number of channels of its maps: with a likelihood, the log scales follow the values."""
        return self.count_channels(num_classes) * (1 if self.likelihood is None else 2)

    def _check_likelihood(self) -> None:
        if self.likelihood is None:
            return
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(
                f"The likelihood of an output must be one of {', '.join(LIKELIHOODS)}, as in depth~laplace, not "
                f"{self.likelihood!r}."
            )
        if not self.info.is_scaled:
            raise ValueError(f"The output {self.name!r} ({self.kind}) has no likelihood: leave {self.likelihood} out.")

    def _check_quantities(self) -> None:
        names = self.channels
        if not 1 <= len(names) <= MAX_CHANNELS or len(set(names)) < len(names):
            raise ValueError(
                f"The output {self.name!r} ({self.kind}) must name 1 to {MAX_CHANNELS} different quantities, such as "
                f"{self.name}={self.kind}[height:m], not {list(names)!r}."
            )
        for name in names:
            if not _is_name(name):
                raise ValueError(
                    f"The name of a quantity must have 1 to 40 letters a-z, digits and _, unlike {name!r}."
                )
        if not self.units:
            object.__setattr__(self, "units", ("",) * len(names))
        if len(self.units) != len(names):
            raise ValueError(f"The output {self.name!r} has {len(names)} quantities, but {len(self.units)} units.")
        for unit in self.units:
            is_text = isinstance(unit, str) and len(unit) <= MAX_UNIT_LENGTH and unit.isprintable()
            if not is_text or unit != unit.strip() or any(mark in unit for mark in "[],"):
                raise ValueError(
                    f"A unit must have up to {MAX_UNIT_LENGTH} printable characters, without brackets or commas, "
                    f"unlike {unit!r}."
                )

    def _check_range(self) -> None:
        if self.range is None:
            object.__setattr__(self, "range", DEFAULT_RANGE)
        low, high = self.range or DEFAULT_RANGE
        if not (is_within(low, 0, math.inf) and is_within(high, 0, math.inf) and low < high):
            raise ValueError(f"A range must be two numbers of metres, 0 <= low < high, not {low!r} and {high!r}.")

    def to_text(self) -> str:
        """Return the specification as a text for `read_outputs`."""
        name = "" if self.name == self.kind else f"{self.name}="
        quantities = ",".join(
            f"{channel}:{unit}" if unit else channel for channel, unit in zip(self.channels, self.units, strict=True)
        )
        limits = "" if self.range is None else f":{self.range[0]!r}:{self.range[1]!r}"
        likelihood = "" if self.likelihood is None else f"~{self.likelihood}"
        return f"{name}{self.kind}{likelihood}{f'[{quantities}]' if quantities else ''}{limits}"

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values for `from_dict`, without what is empty."""
        values: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.channels:
            values |= {"channels": list(self.channels), "units": list(self.units)}
        if self.range is not None:
            values["range"] = list(self.range)
        if self.likelihood is not None:
            values["likelihood"] = self.likelihood
        return values

    @classmethod
    def from_dict(cls, values: Any) -> OutputSpec:
        """Build a specification from the values that `to_dict` returns.

        Raises:
            ValueError: A key is unknown, or a value is not allowed.
        """
        known = {"name", "kind", "channels", "units", "range", "likelihood"}
        if not isinstance(values, Mapping) or not {"name", "kind"} <= set(values) <= known:
            raise ValueError(
                "An output must have a name and a kind, and may have channels, units, a range and a likelihood, "
                f"unlike {values!r}."
            )
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        for key in ("channels", "units", "range"):
            if not isinstance(given.get(key, ()), tuple):
                raise ValueError(f"The {key} of an output must be a list, not {values[key]!r}.")
        if len(given.get("range", (0, 1))) != 2:
            raise ValueError(f"The range of an output must be two numbers, not {values['range']!r}.")
        return cls(**given)


CLASSES = OutputSpec(name="classes", kind=CLASS_KIND)
"""The only output of a segmentation network."""


def read_outputs(outputs: str | Iterable[str | OutputSpec | Mapping[str, Any]]) -> tuple[OutputSpec, ...]:
    """Return the outputs that a user names.

    Args:
        outputs: A text such as "classes,depth:0.5:80,normals,soil=regression[height:m,moisture:%]": for each output an
            optional name, the kind, for a regression its quantities with their units, for a depth its range in metres.
            "depth~laplace" also predicts the scale of the errors, under one of `LIKELIHOODS`.
            Or a sequence of such texts, of `OutputSpec`s and of their JSON values.

    Raises:
        ValueError: There is none, a name occurs twice, or an output is not allowed.
    """
    parts = _split(outputs) if isinstance(outputs, str) else outputs
    specs = tuple(map(_read_output, parts))
    if not specs:
        raise ValueError("A network needs at least one output, such as classes.")
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise ValueError(f"Each output needs its own name, but the names are {', '.join(names)}: write NAME=KIND.")
    if sum(spec.kind == CLASS_KIND for spec in specs) > 1:
        raise ValueError("A network can have only one output of classes.")
    return specs


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text)]


def _read_output(output: str | OutputSpec | Mapping[str, Any]) -> OutputSpec:
    if isinstance(output, OutputSpec):
        return output
    if not isinstance(output, str):
        return OutputSpec.from_dict(output)
    match = _TEXT.fullmatch(output)
    if match is None:
        raise ValueError(
            f"{output!r} is not an output: write KIND or NAME=KIND with one of {', '.join(KINDS)}, such as "
            "depth:0.5:80 or soil=regression[height:m,moisture:%]."
        )
    kind = match["kind"].strip()
    channels = [part.strip().partition(":") for part in (match["channels"] or "").split(",") if part.strip()]
    return OutputSpec(
        name=(match["name"] or kind).strip(),
        kind=kind,
        channels=tuple(name.strip() for name, _, _ in channels),
        units=tuple(unit.strip() for _, _, unit in channels),
        likelihood=None if match["likelihood"] is None else match["likelihood"].strip(),
        range=None if match["low"] is None else (_read_number(match["low"]), _read_number(match["high"])),
    )


def _read_number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"A range must be two numbers, such as depth:0.5:80, not {text!r}.") from error


def class_output(outputs: Sequence[OutputSpec]) -> OutputSpec | None:
    """Return the output of classes, if there is one."""
    return next((spec for spec in outputs if spec.kind == CLASS_KIND), None)


def has_only_classes(outputs: Sequence[OutputSpec]) -> bool:
    """Return whether a network predicts classes alone, under whatever name."""
    return [spec.kind for spec in outputs] == [CLASS_KIND]


def list_quantities(outputs: Sequence[OutputSpec]) -> dict[str, tuple[OutputSpec, int]]:
    """Return the quantities of all regressions, by name with their output and their channel.

    One whose name occurs in several outputs is OUTPUT.NAME.
    """
    counts = Counter(name for spec in outputs for name in spec.channels)
    return {
        name if counts[name] == 1 else f"{spec.name}.{name}": (spec, channel)
        for spec in outputs
        for channel, name in enumerate(spec.channels)
    }


def find_quantity(name: str, outputs: Sequence[OutputSpec], prefix: str = "") -> tuple[OutputSpec, int] | None:
    """Return the output and the channel of a quantity; None if there is none of this name.

    Args:
        name: Its name, or OUTPUT.NAME.
        outputs: Outputs of the network.
        prefix: What stands before a name where the user writes it, for messages.

    Raises:
        ValueError: several outputs have a quantity of this name.
    """
    fitting = [
        (spec, k) for spec in outputs for k, own in enumerate(spec.channels) if name in (own, f"{spec.name}.{own}")
    ]
    if len(fitting) > 1:
        choices = " or ".join(f"{prefix}{spec.name}.{name}" for spec, _ in fitting)
        raise ValueError(f"{name!r} is a quantity of {len(fitting)} outputs: choose {choices}.")
    return fitting[0] if fitting else None
