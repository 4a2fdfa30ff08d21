"""Recipes: reproducible training runs in TOML files.

Only the description of a recipe is required:

    description = "What is trained and how, and where the settings are from: the paper and its section."
    dataset = "nyu"                  # as for `refinenet train --dataset`: a name, a folder, or a list of these
    root = "/data/nyu"               # folder of a published dataset, the first one of a list

    [network]                        # network to start from
    model_type = "lightweight"       # a new network: arguments of the class RefineNet,
    num_layers = 50                  # or else encoder = "mobilenetv2_100", or size = "medium"
    encoder_weights = "imagenet"     # or a file; without it the encoder starts from random weights, too
    outputs = "classes,depth:0.5:80" # by default classes alone
    bands = "red,green,blue,nir"     # by default RGB of 8 bits
    seed = 42                        # seed of the random weights; by default that of [train]
    # model = "camvid"               # or, instead of all these, a model to start from: a name or a file

    [train]                          # fields of TrainConfig
    epochs = 100

    [[stages]]                       # consecutive runs, each from the best model of the previous one
    dataset = "coco"                 # by default the dataset above, with its root
    root = "/data/coco"
    epochs = 20                      # fields of TrainConfig that differ from [train]

Paths are relative to the folder of the file. Recipes that come with the package are in `recipes/` and have names.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from refinenet.datasets.catalog import PUBLISHED, TrainingSource, is_drawn
from refinenet.labels import shorten

LARGEST_FILE = 1 << 20
"""Largest size of a recipe in bytes."""

_KEYS = ("description", "dataset", "root", "network", "train", "stages")
_TABLES = (("network", dict, "[network]"), ("train", dict, "[train]"), ("stages", list, "[[stages]]"))
EXCLUDED: Mapping[str, tuple[str, ...]] = {
    "model_type": (),
    "num_layers": ("size", "encoder", "model"),
    "encoder": ("size", "num_layers", "model"),
    "size": ("num_layers", "encoder", "decoder", "model"),
    "encoder_weights": ("model",),
    "outputs": ("model",),
    "bands": (),
    "decoder": ("size", "model"),
    "input_scales": ("model",),
    "seed": ("model",),
    "model": (
        *("model_type", "size", "num_layers", "encoder", "encoder_weights"),
        *("outputs", "decoder", "input_scales", "seed"),
    ),
}
"""Keys of [network], each with those that it excludes."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ValueError: It is not in TOML, or too large for a recipe.
        OSError: It cannot be read.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"{path} is not a recipe: it is larger than {LARGEST_FILE:,} bytes.")
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    except OSError as error:
        raise type(error)(error.errno, f"Cannot read the recipe {path}: {error.strerror}") from error


def place_paths(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe with relative paths joined to a folder; names are unchanged."""
    placed = place_training(folder, values)
    placed |= {key: place_training(folder, values[key]) for key in ("network", "train") if key in values}
    placed |= {"stages": [place_training(folder, stage) for stage in values["stages"]]} if "stages" in values else {}
    return placed


def place_training(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return training arguments with relative paths joined to a folder; names of datasets and models are unchanged."""
    from refinenet.models.files.model_card import BUNDLED

    def place(part: Any, names: Collection[str] = ()) -> Any:
        return str(folder / part) if isinstance(part, str | os.PathLike) and str(part) not in names else part

    def place_dataset(part: Any) -> Any:
        return part if isinstance(part, str) and is_drawn(part) else place(part, PUBLISHED)

    placed = dict(values)
    if "dataset" in values:
        data = values["dataset"]
        placed["dataset"] = [place_dataset(part) for part in data] if _is_list(data) else place_dataset(data)
    names = {"root": (), "encoder_weights": ("imagenet", "random"), "model": BUNDLED, "teacher": BUNDLED}
    return placed | {key: place(values[key], names[key]) for key in names.keys() & values.keys()}


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def find_problems(values: Mapping[str, Any]) -> list[str]:
    """Describe structural errors of a recipe; the values of settings are checked elsewhere."""
    problems = [
        f"{key} is not one of its keys, which are {', '.join(_KEYS)}" for key in sorted(values.keys() - set(_KEYS))
    ]
    description = values.get("description")
    if not isinstance(description, str) or not description.strip():
        problems.append(
            f"description must be a string that states the purpose of the recipe, not {shorten(description)}"
        )
    problems += _data_problems(values, "")
    for name, kind, syntax in _TABLES:
        if not isinstance(values.get(name, kind()), kind):
            problems.append(f"{name} must be written as {syntax}, not as {shorten(values[name])}")
    if isinstance(values.get("network"), dict):
        problems += _network_problems(values["network"])
    for number, stage in enumerate(values["stages"] if isinstance(values.get("stages"), list) else [], start=1):
        if isinstance(stage, dict):
            problems += _data_problems(stage, f"in stage {number}, ")
        else:
            problems.append(f"stage {number} must be written as [[stages]], not as {shorten(stage)}")
    return problems


def _data_problems(values: Mapping[str, Any], where: str) -> list[str]:
    problems = []
    dataset = values.get("dataset", "none")
    parts = dataset if isinstance(dataset, list) else [dataset]
    if not parts or not all(isinstance(part, str) and part for part in parts):
        problems.append(f"{where}dataset must be a name, a folder, or a list of these, not {shorten(dataset)}")
    if not isinstance(values.get("root", ""), str):
        problems.append(f"{where}root must be a folder, not {shorten(values['root'])}")
    return problems


def _network_problems(network: Mapping[str, Any]) -> list[str]:
    from refinenet.models.architecture import ModelType
    from refinenet.models.encoders.feature_info import PUBLISHED_RESNETS
    from refinenet.models.model_spec import SizeName

    problems = []
    choices: Mapping[str, Sequence[Any]] = {
        "model_type": get_args(ModelType),
        "size": get_args(SizeName),
        "num_layers": PUBLISHED_RESNETS,
    }
    for key, value in network.items():
        if key not in EXCLUDED:
            problems.append(f"[network] may have the keys {', '.join(EXCLUDED)}, not {key}")
        elif key in choices and (isinstance(value, bool) or value not in choices[key]):
            problems.append(f"[network] {key} must be one of {', '.join(map(str, choices[key]))}, not {shorten(value)}")
        elif key == "seed" and type(value) is not int:
            problems.append(f"[network] seed must be a whole number, not {shorten(value)}")
        elif key == "input_scales" and not isinstance(value, list):
            problems.append(f"[network] input_scales must be a list of numbers, not {shorten(value)}")
        elif key == "decoder" and isinstance(value, dict):
            continue  # its options are checked where the network is made
        elif key not in (*choices, "seed", "input_scales") and (not isinstance(value, str) or not value):
            problems.append(f"[network] {key} must be a string, not {shorten(value)}")
        beside = [other for other in EXCLUDED.get(key, ()) if other in network]
        if beside:
            problems.append(f"[network] {key} cannot be combined with {' and '.join(beside)}")
    return problems


PACKAGED = Path(__file__).parents[1] / "recipes"
"""Folder of the recipes that come with the package."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run as a recipe describes it."""

    name: str
    """Name of a packaged recipe, or else the path of the file."""
    description: str
    """What is trained and how, and where the settings are from."""
    dataset: TrainingSource | None = None
    """Dataset, also of the stages that name none."""
    root: str | os.PathLike[str] | None = None
    """Folder of the (first) dataset, if it is a published one."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `RefineNet`."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`, for all stages that do not override them."""
    stages: tuple[Mapping[str, Any], ...] = ()
    """Consecutive runs: maps with optional "dataset" and "root", and fields of `TrainConfig`."""

    @property
    def whole_stages(self) -> list[dict[str, Any]]:
        """Stages with their datasets and all of their settings.

        Raises:
            ValueError: A stage has no dataset, and the recipe names none for all.
        """
        whole = []
        for number, stage in enumerate(self.stages, start=1):
            if "dataset" not in stage and self.dataset is None:
                raise ValueError(f"Stage {number} of the recipe {self.name} has no dataset: add one to the stage.")
            root = {} if self.root is None else {"root": self.root}
            data = {} if "dataset" in stage else {"dataset": self.dataset, **root}
            whole.append({**data, **self.train, **stage})
        return whole


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in PACKAGED.glob("*.toml"))


def recipe_descriptions() -> dict[str, str]:
    """Return the description of each recipe that comes with the package, by name."""
    return {name: read_toml(PACKAGED / f"{name}.toml")["description"] for name in recipe_names()}


def recipe_settings() -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Return what each recipe that comes with the package sets, by name: the titles of its parts with their values."""
    return {name: _list_parts(read_toml(PACKAGED / f"{name}.toml")) for name in recipe_names()}


def _list_parts(values: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    parts = [("data", {key: values[key] for key in ("dataset", "root") if key in values})]
    parts += [(key, values[key]) for key in ("network", "train") if key in values]
    parts += [(f"stage {number}", stage) for number, stage in enumerate(values.get("stages", ()), start=1)]
    return [(title, part) for title, part in parts if part]


def read_recipe(source: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Args:
        source: Name of a recipe that comes with the package, or a TOML file.

    Raises:
        ValueError: There is no recipe of this name, the file is not a recipe, or a key or value is not allowed; says
            which, and what is allowed.
        OSError: The file cannot be read.
    """
    packaged = source in recipe_names()
    path = PACKAGED / f"{source}.toml" if packaged else Path(source)
    if not packaged and not path.suffix and not path.exists():
        names = ", ".join(recipe_names())
        raise ValueError(f"There is no recipe {os.fspath(source)!r}. There are {names}; or pass a TOML file.")
    values = read_toml(path)
    problems = find_problems(values)
    if problems:
        raise ValueError(f"The recipe in {path} cannot be used: {'; '.join(problems)}.")
    placed = values if packaged else place_paths(path.parent, values)
    _check_settings(path, placed)
    return Recipe(
        name=path.stem if packaged else str(path),
        description=placed["description"],
        dataset=placed.get("dataset"),
        root=placed.get("root"),
        network=placed.get("network", {}),
        train=placed.get("train", {}),
        stages=tuple(placed.get("stages", ())),
    )


def merge(
    recipe: Recipe,
    *,
    dataset: TrainingSource | None = None,
    root: str | os.PathLike[str] | None = None,
    network: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return a recipe whose values are overridden by those of the user.

    Args:
        recipe: Recipe to start from.
        dataset: Overrides the recipe's dataset and root; stages with their own dataset keep it.
        root: Folder of the (first) dataset.
        network: Arguments of `RefineNet`; None if not given. Each also removes the recipe's arguments that it excludes:
            an `encoder` replaces `num_layers`.
        train: Fields of `TrainConfig`, for all stages.

    Raises:
        ValueError: A dataset or root is given, but each stage has its own.
    """
    have_datasets = bool(recipe.stages) and all("dataset" in stage for stage in recipe.stages)
    if have_datasets and (dataset is not None or root is not None):
        raise ValueError(
            f"Each stage of the recipe {recipe.name} has its own dataset: pass neither dataset nor root. To train "
            "on other data, write a similar recipe."
        )
    chosen = {key: value for key, value in (network or {}).items() if value is not None}
    excluded = {other for key in chosen for other in EXCLUDED[key]}
    return replace(
        recipe,
        dataset=recipe.dataset if dataset is None else dataset,
        root=recipe.root if dataset is None and root is None else root,
        network={key: value for key, value in recipe.network.items() if key not in excluded} | chosen,
        train={**recipe.train, **(train or {})},
        stages=tuple({**stage, **(train or {})} for stage in recipe.stages),
    )


def write_recipe(recipe: Recipe) -> str:
    """Return the text of a recipe file that works from any folder: its paths are absolute.

    Settings of None are left out, because TOML has no null, and None is their default wherever it is allowed. Datasets
    that are functions are left out too.
    """
    import tomli_w

    stages = [_without_none({**recipe.train, **stage}) for stage in recipe.stages]
    common = _shared(stages) if stages else _without_none(recipe.train)
    parts = {
        "description": recipe.description,
        "dataset": recipe.dataset,
        "root": recipe.root,
        "network": _without_none(recipe.network),
        "train": common,
        "stages": [{key: value for key, value in stage.items() if key not in common} for stage in stages],
    }
    plain: dict[str, Any] = _plain(place_paths(Path.cwd(), _without_none(parts)))
    return tomli_w.dumps({key: value for key, value in plain.items() if value not in ({}, [])})


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _shared(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that are the same in all stages."""
    alike = {key: value for key, value in stages[0].items() if all(stage.get(key) == value for stage in stages[1:])}
    return {key: value for key, value in alike.items() if key not in ("dataset", "root")}


def _plain(values: Any) -> Any:
    """Convert values for TOML: tuples to lists, paths to texts; values that contain functions are left out."""
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items() if not _has_function(value)}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return os.fspath(values) if isinstance(values, os.PathLike) else values


def _has_function(value: Any) -> bool:
    return any(map(callable, value)) if isinstance(value, list | tuple) else callable(value)


def _check_settings(path: Path, values: Mapping[str, Any]) -> None:
    """Check the settings of all stages with `TrainConfig`.

    Raises:
        ValueError: A setting is unknown or out of its range.
    """
    from refinenet.training.config import TrainConfig

    common = values.get("train", {})
    parts = [] if values.get("stages") else [("[train]", common)]
    for number, stage in enumerate(values.get("stages", ()), start=1):
        own = {key: value for key, value in stage.items() if key not in ("dataset", "root")}
        parts.append((f"stage {number}", {**common, **own}))
    for where, settings in parts:
        try:
            TrainConfig.from_dict(settings)
        except ValueError as error:
            raise ValueError(f"The recipe in {path} cannot be used: {where}: {error}") from error
