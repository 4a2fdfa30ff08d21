"""What `refinenet train --list-recipes` and `--show-settings` print."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from refinenet.io.console import say
from refinenet.settings import SettingInfo, Settings, list_settings

WIDEST = 100
"""Largest width of paragraphs, in characters."""
_INDENT = 30
"""Column at which the meanings of settings begin; longer settings push theirs."""
_CITATION = re.compile(r" \([^()]*[12][0-9]{3}\)")
_END_OF_GIST = re.compile(r"[.;:] |\.$")
_CHOICES = "one of "


def show_recipes(as_json: bool) -> None:
    """Print the bundled recipes: name, description and what each sets; as JSON the descriptions by name."""
    from refinenet.training.records.recipes import recipe_descriptions, recipe_settings

    described = recipe_descriptions()
    if as_json:
        say(described)
        return
    parts = recipe_settings()
    blocks = [
        "\n".join([name, _fill(text, "    "), *(_fill(f"{title}: {_join(v)}", "    - ") for title, v in parts[name])])
        for name, text in described.items()
    ]
    say("\n\n".join(blocks))
    say("\nUse one with refinenet train --recipe NAME --dataset DATASET. NAME can also be a TOML file of your own.")


def _join(values: Mapping[str, Any]) -> str:
    # Spaces within a value would be taken for its end, and lines broken there.
    return ", ".join(f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in values.items())


def _fill(text: str, indent: str, hanging: str | None = None) -> str:
    width = min(WIDEST, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=" " * len(indent) if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def show_training_settings(as_json: bool) -> None:
    """Print the settings of training with their defaults and meanings."""
    from refinenet.training.config import TrainConfig

    show_settings_of(TrainConfig, "--set 'crop_size=[360,480]' --set optimiser=sgd", as_json)


def show_settings_of(config: type[Settings], example: str, as_json: bool) -> None:
    """Print all fields of a configuration with default and gist, and how to pass them; as JSON with all details."""
    settings = list(list_settings(config))
    if as_json:
        say([_to_dict(setting) for setting in settings])
        return
    for group, members in groupby(settings, lambda setting: setting.group):
        say("\n".join([_fill(group, ""), *map(_describe, members), ""]))
    say(_fill("Each is shown with its default. Pass others as --set NAME=VALUE, with the value in JSON:", ""))
    say(f"  {example}")
    say(_fill("Details and allowed values: --json, or the page Settings of the reference.", ""))


def _describe(setting: SettingInfo) -> str:
    """Return a setting with its default and the gist of its meaning, in a line if the terminal is wide enough."""
    default = f"{setting.default:.4g}" if isinstance(setting.default, float) else _to_json(setting.default)
    head = f"  {setting.name}={default}".ljust(_INDENT - 1)
    return _fill(_shorten(setting), f"{head} ", " " * _INDENT)


def _to_json(value: Any) -> str:
    if isinstance(value, tuple):
        value = [round(each, 4) if isinstance(each, float) else each for each in value]
    return json.dumps(value, separators=(",", ":"))


def _shorten(setting: SettingInfo) -> str:
    """Return the beginning of a meaning, without sources, and the choices that it does not name."""
    text = _CITATION.sub("", _join_lines(setting.meaning))
    gist = _END_OF_GIST.split(text, maxsplit=1)[0]
    choices = setting.allowed.removeprefix(_CHOICES).split(", ") if setting.allowed.startswith(_CHOICES) else []
    return gist if all(choice in gist for choice in choices) else f"{gist}: {', '.join(choices)}"


def _to_dict(setting: SettingInfo) -> dict[str, Any]:
    return {
        "name": setting.name,
        "group": setting.group,
        "default": setting.default,
        "allowed": setting.allowed,
        "meaning": _join_lines(setting.meaning),
    }


def _join_lines(text: str) -> str:
    return " ".join(text.split())
