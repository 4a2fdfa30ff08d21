"""What `refinenet train --list-recipes` and `--show-settings` print."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from refinenet.io.console import say
from refinenet.settings import SettingInfo, Settings, list_settings

WIDEST = 100
"""Largest width of paragraphs, in characters."""


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


def _fill(text: str, indent: str) -> str:
    width = min(WIDEST, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )


def show_training_settings(as_json: bool) -> None:
    """Print the settings of training with default, allowed values and meaning."""
    from refinenet.training.config import TrainConfig

    show_settings_of(TrainConfig, "--set 'crop_size=[360,480]' --set optimiser=sgd", as_json)


def show_settings_of(config: type[Settings], example: str, as_json: bool) -> None:
    """Print all fields of a configuration with default, allowed values and meaning, and how to pass them."""
    from refinenet.io.console import print_table

    settings = list(list_settings(config))
    if as_json:
        say([_to_dict(setting) for setting in settings])
        return
    for group, members in groupby(settings, lambda setting: setting.group):
        rows = [[s.name, json.dumps(s.default), f"{_join_lines(s.meaning)} Allowed: {s.allowed}."] for s in members]
        print_table(group, ["setting", "default", "meaning"], rows, is_of_text=True)
    say(f"Pass them as --set NAME=VALUE, with the value in JSON:\n  {example}")


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
