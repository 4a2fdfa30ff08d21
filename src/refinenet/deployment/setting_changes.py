"""What sets earlier results in a folder apart from new ones, in the words of the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_OF_MODEL = ("model_sha256", "label_set")
_FEW_CLASSES = 4
"""Number of classes of another model that a message names."""
_LONGEST = 60
"""Characters of a value that a message shows."""


Options = Mapping[str, Callable[[Any], str]]
"""How settings are given on the command line: functions that write a value, by the name of the setting."""


def find_setting_changes(
    recorded: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    is_whole: bool = True,
    options: Options | None = None,
) -> list[str]:
    """Describe how the settings of earlier results differ, in words that follow "made"; empty if they are the same.

    Args:
        recorded: Settings of the earlier results, as read from their file, which may be damaged.
        settings: The new settings, as JSON has them.
        is_whole: Whether these are all settings, so that options that only the earlier ones have are left out now.
        options: Options of the command; by default those of `deploy`.
    """
    known = _OPTIONS if options is None else options
    gone = [key for key in known if key in recorded and key not in settings] if is_whole else []
    differing = [key for key in (*settings, *gone) if not _is_same(key, recorded.get(key), settings.get(key), known)]
    return list(_describe_all(recorded, settings, differing, known))


def _describe_all(
    recorded: Mapping[str, Any], settings: Mapping[str, Any], differing: Sequence[str], options: Options
) -> Iterator[str]:
    is_other_model = any(key in _OF_MODEL for key in differing)
    if is_other_model:
        before, now = (_name_classes(each.get("label_set")) for each in (recorded, settings))
        if before != now:
            yield f"with another model, for {_count_classes(before)} instead of {_count_classes(now)}"
        elif "model_sha256" in differing:
            yield "with another model" + (" for the same classes" if now else "")
        else:
            yield "with other colours of the classes"
    for key in differing:
        if key in _OF_MODEL or (is_other_model and key in ("temperature", "outputs")):
            continue
        yield _describe(key, recorded.get(key), settings.get(key), options)


def _name_classes(label_set: object) -> list[str]:
    """Return the names in a recorded label set; none if there are none, or the record is damaged."""
    names = label_set.get("names") if isinstance(label_set, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _count_classes(names: Sequence[str]) -> str:
    shown = names if len(names) <= _FEW_CLASSES + 1 else names[:_FEW_CLASSES]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"{len(names)} classes ({', '.join(shown)}{more})" if names else "no classes"


def _describe(key: str, before: Any, now: Any, options: Options) -> str:
    """Return a changed setting, such as "with --opacity 0.3 instead of --opacity 0.5"."""
    if key not in options:
        return f"with {key} {_shorten(before)} instead of {_shorten(now)}"
    then, today = ("" if _is_unset(key, value) else _limit(options[key](value)) for value in (before, now))
    if then and today:
        return f"with {then} instead of {today}"
    option = (then or today).split(" ")[0]
    return f"with {then} instead of without {option}" if then else f"without {option} instead of with {today}"


def _is_same(key: str, before: object, now: object, options: Options) -> bool:
    return before == now or (key in options and _is_unset(key, before) and _is_unset(key, now))


def _is_unset(key: str, value: object) -> bool:
    return value is None or value is False or value == [] or (key == "abstain_below" and value == 0)


def _shorten(value: object) -> str:
    return _limit(value if isinstance(value, str) else json.dumps(value))


def _limit(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def write_value(option: str) -> Callable[[Any], str]:
    """Write an option with a value; parts of a value are separated by commas."""

    def write(value: Any) -> str:
        parts = value if isinstance(value, list) else [value]
        return f"{option} {','.join(str(part).removesuffix('.0') for part in parts)}"

    return write


def write_repeated(option: str) -> Callable[[Any], str]:
    """Write an option that is repeated for each of several values."""
    return lambda values: " ".join(
        f"{option} {shlex.quote(str(each))}" for each in (values if isinstance(values, list) else [values])
    )


def _write_windows(value: Any) -> str:
    found = value if isinstance(value, dict) else {}
    size, overlap = found.get("size"), found.get("overlap")
    height, width = size if isinstance(size, list) and len(size) == 2 else (None, None)
    words = [] if width is None else [f"--window {width}x{height}"]
    return " ".join(words + ([] if overlap is None else [f"--overlap {overlap}"])) or "--window"


_OPTIONS: Options = {
    "kinds": write_repeated("--kind"),
    "windows": _write_windows,
    "max_latency_ms": write_value("--max-latency"),
    "abstain_below": write_value("--abstain-below"),
    "bands": write_value("--bands"),
    "value_range": write_value("--value-range"),
    "scale": write_value("--scale"),
    "limits": write_value("--limits"),
    "intrinsics": write_value("--intrinsics"),
    "opacity": write_value("--opacity"),
    "outline": write_value("--outline"),
    "legend": lambda _: "--legend",
    "show": write_repeated("--show"),
    "hide": write_repeated("--hide"),
    "backend": write_value("--backend"),
    "precision": write_value("--precision"),
}
"""The options of `deploy`."""
