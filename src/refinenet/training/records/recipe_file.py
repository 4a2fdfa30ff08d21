"""The file of a recipe: its TOML, what may stand in it, and where its paths start."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from refinenet.datasets.catalog import PUBLISHED, is_drawn

LARGEST_FILE = 1 << 20
"""Bytes."""

_KEYS = ("description", "dataset", "root", "network", "train", "stages")
_TABLES = (("network", dict, "[network]"), ("train", dict, "[train]"), ("stages", list, "[[stages]]"))
EXCLUDED: Mapping[str, tuple[str, ...]] = {
    "model_type": (),
    "num_layers": ("encoder", "model"),
    "encoder": ("num_layers", "model"),
    "encoder_weights": ("model",),
    "seed": ("model",),
    "model": ("model_type", "num_layers", "encoder", "encoder_weights", "seed"),
}
"""What a network can be made from, and what else cannot be said beside it."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file as it stands.

    Raises:
        ValueError: it is not in TOML, or too large for a recipe.
        OSError: it cannot be read.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"{path} is no recipe: it is larger than {LARGEST_FILE:,} bytes.")
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read the recipe {path}: {error.strerror}") from error


def place_paths(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe, whose paths start at a folder; names are left as they are."""
    placed = place_training(folder, values)
    placed |= {key: place_training(folder, values[key]) for key in ("network", "train") if key in values}
    placed |= {"stages": [place_training(folder, stage) for stage in values["stages"]]} if "stages" in values else {}
    return placed


def place_training(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a training is told, whose paths start at a folder; names of datasets, models and weights are left."""
    from refinenet.models.model_file import BUNDLED

    def place(part: Any, names: Collection[str] = ()) -> Any:
        return str(folder / part) if isinstance(part, str | os.PathLike) and str(part) not in names else part

    def place_dataset(part: Any) -> Any:
        return part if isinstance(part, str) and is_drawn(part) else place(part, PUBLISHED)

    placed = dict(values)
    if "dataset" in values:
        data = values["dataset"]
        placed["dataset"] = [place_dataset(part) for part in data] if _is_list(data) else place_dataset(data)
    names = {"root": (), "encoder_weights": ("imagenet",), "model": BUNDLED, "teacher": BUNDLED}
    return placed | {key: place(values[key], names[key]) for key in names.keys() & values.keys()}


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def find_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the form of a recipe file, its settings aside."""
    problems = [
        f"{key} is none of its keys, which are {', '.join(_KEYS)}" for key in sorted(values.keys() - set(_KEYS))
    ]
    description = values.get("description")
    if not isinstance(description, str) or not description.strip():
        problems.append(f"description is a text that says what the recipe is for, not {_shorten(description)}")
    problems += _data_problems(values, "")
    for name, kind, told in _TABLES:
        if not isinstance(values.get(name, kind()), kind):
            problems.append(f"{name} is written as {told}, not as {_shorten(values[name])}")
    if isinstance(values.get("network"), dict):
        problems += _network_problems(values["network"])
    for number, stage in enumerate(values["stages"] if isinstance(values.get("stages"), list) else [], start=1):
        if isinstance(stage, dict):
            problems += _data_problems(stage, f"in stage {number}, ")
        else:
            problems.append(f"stage {number} is written as [[stages]], not as {_shorten(stage)}")
    return problems


def _data_problems(values: Mapping[str, Any], where: str) -> list[str]:
    problems = []
    dataset = values.get("dataset", "none")
    parts = dataset if isinstance(dataset, list) else [dataset]
    if not parts or not all(isinstance(part, str) and part for part in parts):
        problems.append(f"{where}dataset is a name, a folder, or a list of such, not {_shorten(dataset)}")
    if not isinstance(values.get("root", ""), str):
        problems.append(f"{where}root is a folder, not {_shorten(values['root'])}")
    return problems


def _network_problems(network: Mapping[str, Any]) -> list[str]:
    from refinenet.models.encoders.encoder import PUBLISHED_RESNETS
    from refinenet.models.network import ModelType

    problems = []
    choices: Mapping[str, Sequence[Any]] = {"model_type": get_args(ModelType), "num_layers": PUBLISHED_RESNETS}
    for key, value in network.items():
        if key not in EXCLUDED:
            problems.append(f"[network] has the keys {', '.join(EXCLUDED)}, not {key}")
        elif key in choices and (isinstance(value, bool) or value not in choices[key]):
            problems.append(f"[network] {key} is one of {', '.join(map(str, choices[key]))}, not {_shorten(value)}")
        elif key == "seed" and type(value) is not int:
            problems.append(f"[network] seed is a whole number, not {_shorten(value)}")
        elif key not in (*choices, "seed") and (not isinstance(value, str) or not value):
            problems.append(f"[network] {key} is a text, not {_shorten(value)}")
        beside = [other for other in EXCLUDED.get(key, ()) if other in network]
        if beside:
            problems.append(f"[network] {key} leaves nothing for {' and '.join(beside)} to say")
    return problems


def _shorten(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."
