"""Bands of an image: the channels that a network takes, by name, and the stored values that become 0 and 1.

A network without named bands takes RGB of 8 bits. With bands, an image is `(H, W, B)` float32 in [0, 1]: the stored
values of each band scaled by its range and clipped to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refinenet.settings import is_within

MAX_BANDS = 32
COLOURS = ("red", "green", "blue")
"""Names of the bands of colour."""
GREY = "grey"
"""Name of a band of grey, which counts as colour, too."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Band:
    """A band of an image.

    Raises:
        ValueError: A value is not allowed.
    """

    name: str
    """Lower-case letters, digits and "_"; see `COLOURS` and `GREY`."""
    range: tuple[float, float] | None = None
    """Stored values that become 0 and 1. None for the range of the stored type: 0 to 255 or 65535 for integers of 8 or
    16 bits, 0 to 1 for floating-point numbers."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or _NAME.fullmatch(self.name) is None:
            raise ValueError(f"The name of a band must have 1 to 40 letters a-z, digits and _, unlike {self.name!r}.")
        if self.range is None:
            return
        values = tuple(self.range) if isinstance(self.range, Sequence) and not isinstance(self.range, str) else ()
        if len(values) != 2 or not all(is_within(v, -math.inf, math.inf) and math.isfinite(v) for v in values):
            raise ValueError(
                f"The range of the band {self.name} must be low and high, two numbers, not {self.range!r}."
            )
        if not values[0] < values[1]:
            raise ValueError(f"The range of the band {self.name} must ascend, unlike {values[0]!r} to {values[1]!r}.")
        object.__setattr__(self, "range", (float(values[0]), float(values[1])))

    @property
    def is_colour(self) -> bool:
        """Whether it is a band of colour, or grey."""
        return self.name in (*COLOURS, GREY)

    def to_text(self) -> str:
        """Return the band as a text for `read_bands`."""
        return self.name if self.range is None else f"{self.name}:{self.range[0]!r}:{self.range[1]!r}"

    def to_dict(self) -> dict[str, Any]:
        """Return the band as JSON-ready values for `read_bands`."""
        return {"name": self.name} | ({} if self.range is None else {"range": list(self.range)})


BandsSource = str | Iterable[str | Band | Mapping[str, Any]]
"""Bands as users name them; see `read_bands`."""


def read_bands(bands: BandsSource) -> tuple[Band, ...]:
    """Return the bands that a user names, in the order of the channels.

    Args:
        bands: A text such as "red,green,blue,nir:0:4095,height:-5:60": for each band its name, and perhaps the stored
            values that become 0 and 1. Or a sequence of such texts, of `Band`s and of their JSON values.

    Raises:
        ValueError: There are none or too many, a name occurs twice, or a band is not allowed.
    """
    parts = bands.split(",") if isinstance(bands, str) else bands
    if not isinstance(parts, Iterable):
        raise ValueError(f"Bands must be text such as red,green,blue,nir:0:4095, or a list, not {bands!r}.")
    found = tuple(map(_read_band, parts))
    if not 1 <= len(found) <= MAX_BANDS:
        raise ValueError(f"An image must have 1 to {MAX_BANDS} bands, not {len(found)}.")
    names = [band.name for band in found]
    if len(set(names)) < len(names):
        raise ValueError(f"Each band needs its own name, but the names are {', '.join(names)}.")
    return found


def _read_band(band: str | Band | Mapping[str, Any]) -> Band:
    if isinstance(band, Band):
        return band
    if isinstance(band, Mapping):
        if not {"name"} <= set(band) <= {"name", "range"}:
            raise ValueError(f"A band must have a name, and may have a range, unlike {dict(band)!r}.")
        return Band(name=band["name"], range=band.get("range"))
    name, *limits = band.split(":") if isinstance(band, str) else ("",)
    try:
        values = tuple(map(float, limits))
    except ValueError:
        values = (math.nan,)
    if len(values) not in (0, 2):
        raise ValueError(f"A band must be NAME or NAME:LOW:HIGH, such as nir or nir:0:4095, not {band!r}.")
    return Band(name=name.strip(), range=(values[0], values[1]) if values else None)


def name_bands(bands: Sequence[Band]) -> str:
    """Return the names of bands in words: "5 bands: red, green, blue, nir, height"."""
    return f"{len(bands)} band{'s' if len(bands) > 1 else ''}: {', '.join(band.name for band in bands)}"


def find_colour(bands: Sequence[Band]) -> tuple[int, int, int] | None:
    """Return the channels of red, green and blue, or three times that of grey; None if bands have no colour."""
    names = [band.name for band in bands]
    if set(COLOURS) <= set(names):
        return names.index("red"), names.index("green"), names.index("blue")
    return (names.index(GREY),) * 3 if GREY in names else None


def choose_shown(bands: Sequence[Band]) -> tuple[int, int, int]:
    """Return the three channels that pictures for people show: colour, or else the first band or the first three."""
    first = (0, 1, 2) if len(bands) >= 3 else (0, 0, 0)
    return find_colour(bands) or first
