"""The subject of a file of values: channels of an output, and what the user chose for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

from refinenet.inference.output_kinds import NAME_MARK, OUTPUT_KINDS, OVERLAY_OPTIONS, Kind, OutputKind, split_kind
from refinenet.io.drawing.overlay import OverlayStyle
from refinenet.outputs import OutputSpec, class_output, find_quantity, list_quantities
from refinenet.settings import Range, Settings

Intrinsics = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class RenderOptions(Settings):
    """Choices of the user for overlays and for files of values.

    Raises:
        ValueError: a value is not allowed.
    """

    scale: Annotated[float, Range(above=0)] | None = None
    """Stored value of one unit in files of integers, above 0; None for 1000 for depths: millimetres."""
    limits: tuple[float, float] | None = None
    """Values at both ends of the colours; None for those between which 96 % of an image's values lie."""
    intrinsics: Intrinsics | None = None
    """fx, fy, cx, cy of the camera in pixels, those of the centre of the first pixel being (0, 0), as in OpenCV."""
    opacity: Annotated[float, Range(0, 1)] | None = None
    """Share of the class colours in overlays, from 0 to 1; None for 0.5."""
    outline: Annotated[int, Range(0, 100)] | None = None
    """Width of the outlines of regions in overlays, in pixels; None for no outlines."""
    legend: bool | None = None
    """Whether overlays have a legend; None for no legend."""
    show: tuple[str, ...] | None = None
    """Names of the classes that overlays show; None for all except those coloured black."""
    hide: tuple[str, ...] | None = None
    """Names of classes that overlays do not show; None for none."""

    _title: ClassVar[str] = "options of pictures and files"

    def _conflicts(self) -> list[str]:
        found = []
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            found.append(f"the first of the limits (--limits) must be below the second, not {self.limits!r}")
        if self.intrinsics is not None and min(self.intrinsics[:2]) <= 0:
            found.append(
                "intrinsics (--intrinsics) must be fx, fy, cx, cy in pixels, with fx and fy above 0, not "
                f"{self.intrinsics!r}"
            )
        return found

    def only(self, names: Sequence[str]) -> RenderOptions:
        """Return the options with only these fields set, by their names."""
        return RenderOptions(**{name: getattr(self, name) for name in names})

    @property
    def style(self) -> OverlayStyle:
        """How overlays are drawn."""
        return OverlayStyle.from_dict({name: value for name, value in self._chosen() if name in OVERLAY_OPTIONS})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that were chosen, as JSON-ready values for journals."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._chosen()}

    def _chosen(self) -> Iterator[tuple[str, Any]]:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                yield each.name, value


AS_USUAL = RenderOptions()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Channels of an output, and how they are drawn."""

    spec: OutputSpec
    channels: slice = field(default_factory=lambda: slice(None))
    """The channels that are shown."""
    kind: Kind
    """The kind, for messages."""
    row: OutputKind
    """The row of the kind."""
    scale: float | None = None
    """Stored value of one unit in files of integers; None if nobody has chosen one."""
    limits: tuple[float, float] | None = None
    """Values at both ends of the colours."""
    intrinsics: Intrinsics | None = None

    @property
    def quantities(self) -> tuple[tuple[str, str], ...]:
        """Name and unit of each quantity shown."""
        found = self.spec.quantities
        return found[self.channels] if self.spec.info.names_quantities else found

    @property
    def title(self) -> str:
        """What is shown of the first quantity, with its unit."""
        name, unit = self.quantities[0]
        return f"{self.row.prefix}{name} ({unit})" if unit else f"{self.row.prefix}{name}"


def find_subject(kind: Kind, outputs: Sequence[OutputSpec], options: RenderOptions = AS_USUAL) -> Subject:
    """Find what a kind of files of values shows of a network.

    Args:
        kind: A key of `OUTPUT_KINDS`, for the first output of its kind; with ":NAME" for another one, or for one
            quantity of a regression, which is OUTPUT.NAME if several outputs have one of this name.
        outputs: Outputs of the network.
        options: Choices of the user.

    Raises:
        ValueError: the network has no such output, or the kind needs other options.
    """
    row = OUTPUT_KINDS[split_kind(kind)[0]]
    fitting = [spec for spec in outputs if spec.kind == row.of]
    if not fitting:
        raise ValueError(f"{kind} shows an output of {row.of}, but the network has none: {describe_outputs(outputs)}.")
    spec, channels = _find_place(kind, fitting)
    subject = Subject(
        spec=spec,
        channels=channels,
        kind=kind,
        row=row,
        scale=options.scale or row.scale,
        limits=options.limits,
        intrinsics=options.intrinsics,
    )
    row.check(subject)
    return subject


def _find_place(kind: Kind, outputs: Sequence[OutputSpec]) -> tuple[OutputSpec, slice]:
    """Return the output of a kind of files, one of `outputs`, and its channels that are shown."""
    key, name = split_kind(kind)
    whole = next((spec for spec in outputs if spec.name == (name or outputs[0].name)), None)
    if whole is not None:
        return whole, slice(None)
    place = find_quantity(name, outputs, prefix=f"{key}{NAME_MARK}")
    if place is None:
        names = dict.fromkeys((*list_quantities(outputs), *(spec.name for spec in outputs)))
        choices = ", ".join(f"{key}{NAME_MARK}{each}" for each in names)
        raise ValueError(f"{kind}: the network has no {name!r} of this kind. Choose {key}, or one of {choices}.")
    spec, channel = place
    return spec, slice(channel, channel + 1)


def describe_outputs(outputs: Sequence[OutputSpec]) -> str:
    """Return the outputs of a network in words."""
    return f"its outputs are {', '.join(f'{spec.name} ({spec.kind})' for spec in outputs)}"


def usual_kind(outputs: Sequence[OutputSpec]) -> Kind | None:
    """Return the kind that is written for a network without classes if nothing is chosen: a picture.

    It shows the first output, and of several quantities the first one. None for networks with classes, and for outputs
    without such a kind.
    """
    if class_output(outputs) is not None:
        return None
    first = outputs[0]
    usual = next((kind for kind, row in OUTPUT_KINDS.items() if row.of == first.kind and row.is_usual), None)
    if usual is None or len(first.channels) < 2:
        return usual
    name = first.channels[0]
    is_clear = name in list_quantities(outputs) and all(spec.name != name for spec in outputs)
    return f"{usual}{NAME_MARK}{name if is_clear else f'{first.name}.{name}'}"


def kinds_of(outputs: Sequence[OutputSpec]) -> list[Kind]:
    """Return all kinds that show an output of a network."""
    return [kind for kind, row in OUTPUT_KINDS.items() if any(spec.kind == row.of for spec in outputs)]
