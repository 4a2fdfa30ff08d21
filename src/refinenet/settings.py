"""Base class of all configurations, and checks of single values.

A configuration is a frozen dataclass beside the code that it configures. Its annotations define the allowed values:

    @dataclass(frozen=True, kw_only=True)
    class BlurConfig(Settings):
        blur: Annotated[float, Range(0, 1)] = 0.0
        kernel: Literal["box", "gaussian"] = "box"
        size: Annotated[int, Range(1)] | Literal["auto"] = "auto"
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

DEFAULT_SEED = 42
"""Default seed of training runs and new networks, unless the user passes one."""


def is_number(value: object) -> bool:
    """Whether a value is a finite number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_within(value: object, low: float, high: float) -> bool:
    """Whether a value is a number from `low` to `high`."""
    return isinstance(value, int | float) and is_number(value) and low <= value <= high


@dataclass(frozen=True)
class Range:
    """Allowed range of an annotated number: `Annotated[float, Range(0, 180)]`."""

    low: float = -math.inf
    """Least value."""
    high: float = math.inf
    """Greatest value."""
    above: float = -math.inf
    """Values have to be greater than this."""
    below: float = math.inf
    """Values have to be less than this."""

    def allows(self, value: float) -> bool:
        """Whether a number is in the range."""
        return self.low <= value <= self.high and self.above < value < self.below

    def describe(self, kind: str) -> str:
        """Return the range in words, after those for the kind of number."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{kind} from {self.low} to {self.high}"
        limits = (("of at least", self.low), ("above", self.above), ("of at most", self.high), ("below", self.below))
        return f"{kind} " + " and ".join(f"{word} {limit}" for word, limit in limits if math.isfinite(limit))


@dataclass(frozen=True)
class Rule:
    """Any other rule for an annotated value: `Annotated[str, Rule(bool, "the path of a model file")]`."""

    allows: Callable[[Any], bool]
    """Whether a value, already of the annotated type, keeps the rule."""
    description: str
    """What is allowed, to follow "must be"."""

    def describe(self, kind: str) -> str:  # noqa: ARG002 - the rule says all of it
        """Return what is allowed."""
        return self.description


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class of configurations: values are checked against the annotations, and unknown names are rejected.

    Fields may be numbers, text, True or False, None, `Literal`, tuples and unions of these, annotated with `Range` or
    `Rule` (from `typing.Annotated`). Subclasses report settings that do not go together in `_conflicts`.

    Raises:
        ValueError: Values of the wrong type or out of range, or settings that do not go together; all are reported.
    """

    _title: ClassVar[str] = "settings"
    """Name of the settings in messages."""
    _listing: ClassVar[str] = ""
    """Command that lists the settings, for messages about unknown ones; without one, the message lists them."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """Describe every invalid value, or, if all values are valid by themselves, every conflict between them."""
        invalid = [
            f"{name} must be {_describe(kind)}, not {getattr(self, name)!r}"
            for name, kind in _field_types(type(self)).items()  # type: ignore[arg-type] # takes classes for instances
            if not _accepts(kind, getattr(self, name))
        ]
        return invalid or self._conflicts()

    def _conflicts(self) -> list[str]:
        """Describe settings that do not go together or have no effect; called only if each value is valid by itself.

        Subclasses add theirs to those of `super()`, which may be another part of the same configuration.
        """
        return []

    def _unused(self, names: tuple[str, ...], reason: str) -> list[str]:
        """Describe settings that differ from their defaults although, for the given reason, they have no effect."""
        defaults = {field.name: field.default for field in fields(self)}
        return [
            f"{name}={getattr(self, name)!r} has no effect because {reason}: leave it at {defaults[name]!r}"
            for name in names
            if getattr(self, name) != defaults[name]
        ]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from a mapping, such as one read from JSON or TOML; lists become tuples.

        Raises:
            ValueError: A name is unknown, or a value is not allowed.
        """
        known = sorted(field.name for field in fields(cls))
        unknown = sorted(set(values) - set(known))
        if unknown:
            rest = f"`{cls._listing}` lists them all." if cls._listing else f"Known settings are {', '.join(known)}."
            raise ValueError(f"Unknown {cls._title}: {', '.join(unknown)}.{hint_at(unknown, known)} {rest}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def find_near(name: str, known: Sequence[str]) -> list[str]:
    """Return the known names that a user may have meant, at most three: misspelt, abbreviated ("lr") or in part."""
    plain = name.casefold().replace("-", "_")
    folded = {each.casefold().replace("-", "_"): each for each in known}
    close = get_close_matches(plain, folded, n=1, cutoff=0.75)
    close = close or [each for each in folded if "".join(word[:1] for word in each.split("_")) == plain]
    close = close or [each for each in folded if len(plain) > 2 and plain in each]
    return [folded[each] for each in (close or get_close_matches(plain, folded, n=1))[:3]]


def hint_at(names: Iterable[str], known: Sequence[str]) -> str:
    """Return the question " Did you mean ...?" with known names that a user may have meant; empty if there is none."""
    near = dict.fromkeys(match for name in names for match in find_near(name, known))
    return f" Did you mean {' or '.join(near)}?" if near else ""


@dataclass(frozen=True, kw_only=True)
class SettingInfo:
    """What is known about a field of a configuration."""

    name: str
    home: type[Settings]
    """The class that defines it."""
    default: Any
    """Its default; None also if it is required."""
    is_required: bool
    allowed: str
    """The allowed values in words."""
    meaning: str
    """The text under the field in the source."""

    @property
    def group(self) -> str:
        """The first line of the docstring of its class."""
        return inspect.cleandoc(self.home.__doc__ or "").splitlines()[0].rstrip(".")


def list_settings(config: type[Settings]) -> Iterator[SettingInfo]:
    """Yield the fields of a configuration, its own first, then those of its bases that it does not define again."""
    listed: set[str] = set()
    types = _field_types(config)  # type: ignore[arg-type] # as above
    defaults = {field.name: field.default for field in fields(config)}
    for home in config.__mro__:
        if home is Settings or not issubclass(home, Settings):
            continue
        meanings = _field_meanings(home)
        for name in home.__annotations__:
            if not name.startswith("_") and name not in listed:
                listed.add(name)
                is_required = defaults[name] is MISSING
                yield SettingInfo(
                    name=name,
                    home=home,
                    default=None if is_required else defaults[name],
                    is_required=is_required,
                    allowed=_describe(types[name]),
                    meaning=meanings[name],
                )


def _field_meanings(config: type) -> dict[str, str]:
    """Return the text under each field of a class, as its source has it."""
    tree = ast.parse(Path(inspect.getfile(config)).read_text("utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == config.__name__).body
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


@cache  # because requests to the server have settings, and resolving annotations takes a millisecond
def _field_types(settings: type[Settings]) -> Mapping[str, Any]:
    hints = get_type_hints(settings, include_extras=True)
    return {field.name: hints[field.name] for field in fields(settings)}


def _accepts(kind: Any, value: Any) -> bool:
    """Whether a value has an annotated type and keeps the rules in the annotation."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _accepts(parts[0], value) and all(rule.allows(value) for rule in parts[1:])
    if origin in (Union, UnionType):
        return any(_accepts(part, value) for part in parts)
    if origin is Literal:
        # The types are compared first because 1 == True, and because arrays have no single truth value.
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(kinds) == len(value) and all(map(_accepts, kinds, value))
    if kind is float:
        return is_number(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


_NAMES: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    bool: "True or False",
    str: "text",
    type(None): "None",
}


def _describe(kind: Any) -> str:
    """Return what an annotated type allows, to follow "must be"."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        description = _describe(parts[0])
        for rule in parts[1:]:
            description = rule.describe(description)
        return description
    if origin in (Union, UnionType):
        return " or ".join(map(_describe, parts))
    if origin is Literal:
        return f'"{parts[0]}"' if len(parts) == 1 else f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        size = "values" if parts[-1] is Ellipsis else f"{len(parts)} values"
        return f"a tuple of {size}, each {_describe(parts[0])}"
    return _NAMES[kind] if kind in _NAMES else str(kind.__name__)
