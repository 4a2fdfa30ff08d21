"""The pages of `docs/reference/`, generated from the source: nothing on them is written by hand.

Start reading at `reference_pages`. `conf.py` writes the pages before each build; `tests/docs` checks them.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module, resources
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from refinenet.settings import Settings, list_settings

PACKAGES = (
    "training",
    "evaluation",
    "inference",
    "deployment",
    "labelling",
    "export",
    "datasets",
    "models",
    "io",
)
"""Packages with a page of their own, in the order of the contents."""
MODULES = ("labels", "outputs", "settings")
"""Single modules that share a page."""


def reference_pages() -> dict[str, str]:
    """Return the Markdown of every generated page by its name, without the suffix."""
    return {
        "index": index_page(),
        "commands": commands_page(),
        "settings": settings_page(),
        "recipes": recipes_page(),
        "metrics": metrics_page(),
        "datasets": datasets_page(),
        "tables": tables_page(),
        **api_pages(),
    }


def link_pages(text: str) -> str:
    """Link a page to the generated pages instead of `reference.md`, which stands for them in the repository.

    `reference.md#metrics` becomes `reference/metrics.md`, and `reference.md#metrics-depth`, a heading there, too,
    `reference/metrics.md#depth`.
    """

    def link(found: re.Match[str]) -> str:
        folder, page, anchor = found[1], found[2] or "index", f"#{found[3]}" if found[3] else ""
        return f"]({folder}reference/{page}.md{anchor})"

    return re.sub(r"\]\(((?:\.\./)*)reference\.md(?:#([a-z]+)(?:-([a-z-]+))?)?\)", link, text)


def write_pages(folder: Path) -> None:
    """Write all pages to a folder; files that would not change are left alone, so that Sphinx skips them."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{name}.md": text for name, text in reference_pages().items()}
    for old in {path.name for path in folder.glob("*.md")} - set(pages):
        (folder / old).unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def index_page() -> str:
    """Return the contents of the reference."""
    names = ["commands", "settings", "recipes", "metrics", "datasets", "tables", "api"]
    names += [f"api-{name}" for name in (*PACKAGES, "modules")]
    listed = "\n".join(names)
    return (
        "# Reference\n\nThese pages are generated from the source of the installed version, so they cannot disagree "
        "with it. The formats of files have [a page of their own](../formats.md).\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )


# ---------------------------------------------------------------------------------------------------- commands


def commands() -> dict[str, Any]:
    """Return the commands of the Typer application by their full names, such as "data check"."""
    from refinenet.cli import app

    return dict(_walk_commands(typer.main.get_command(app), ()))


def _walk_commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path), command
        return
    for name, child in children.items():
        yield from _walk_commands(child, (*path, name))


def commands_page() -> str:
    """Return the page of the command line."""
    parts = [
        "# Commands\n\nEvery command has `--help`, prints results on standard output and everything else on standard "
        "error, and exits with 0 (success), 1 (failed), 2 (invalid command line) or 130 (interrupted). "
        "`refinenet --version` prints the version; `--debug`, anywhere, shows the traceback of an error.",
    ]
    parts += [_describe_command(name, command) for name, command in commands().items()]
    return "\n\n".join(parts) + "\n"


def _describe_command(name: str, command: Any) -> str:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    hints = get_type_hints(inspect.unwrap(command.callback))
    usage = " ".join(["refinenet", name, "[OPTIONS]", *map(_argument_name, arguments)])
    parts = [
        f"## refinenet {name}",
        _escape(command.help),
        f"```text\n{usage}\n```",
        f"```{{program}} refinenet {name}\n```",
        *(
            f"{_argument_name(argument)}\n: {_with_default(argument, _escape(argument.help or ''))}"
            for argument in arguments
        ),
        *(_describe_option(option, hints[option.name]) for option in shown if option.param_type_name == "option"),
    ]
    return "\n\n".join(parts)


def _argument_name(argument: Any) -> str:
    name = str(argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _describe_option(option: Any, annotation: object) -> str:
    value = "" if option.is_flag else f" {option.metavar or _value_name(annotation)}"
    names = ", ".join(f"{name}{value}" for name in (*option.opts, *option.secondary_opts))
    notes = ["Required."] if option.required else []
    text = " ".join([_with_default(option, _escape(option.help or "")), *notes])
    return f"```{{option}} {names}\n{text}\n```"


def _value_name(annotation: object) -> str:
    """Return the word for an option's value, by the type that the command's function declares."""
    words = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
    kinds = [annotation, *get_args(annotation)]
    return next((word for kind, word in words.items() if kind in kinds), "TEXT")


def _with_default(parameter: Any, text: str) -> str:
    default = parameter.default
    # None, and the marker of newer versions of Click for a value that is not set, mean that there is no default.
    is_given = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
    return f"{text} Default: `{default}`." if is_given and "Default:" not in text else text


def _escape(text: str) -> str:
    """Escape what Markdown would take for markup, outside of code."""
    plain = inspect.cleandoc(text).replace("\\[", "[")  # as Rich wants brackets in the help
    parts = re.split(r"(`[^`]*`)", plain)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts)


# ---------------------------------------------------------------------------------------------------- settings


def settings_page() -> str:
    """Return the page of all settings of training, pre-training and decoders."""
    from refinenet.models.decoder_config import DECODER_PRESETS, DecoderConfig
    from refinenet.training.config import TrainConfig
    from refinenet.training.pretraining.config import PretrainConfig

    of_training = {setting.name: setting.default for setting in list_settings(TrainConfig)}
    own = [item.name for item in list_settings(PretrainConfig) if of_training.get(item.name, ...) != item.default]
    presets = "\n".join(
        f"`{name}`\n: " + ", ".join(f"`{key}={value!r}`" for key, value in options.items())
        for name, options in DECODER_PRESETS.items()
    )
    return (
        "\n\n".join(
            [
                "# Settings",
                "Pass them as keyword arguments of `RefineNet.train`, as `--set KEY=VALUE` of `refinenet train` (the "
                "value in JSON; text needs no quotes), or in the `[train]` section of a recipe. Values out of range, "
                "unknown names and settings that would have no effect are errors.",
                "## Training",
                *_describe_settings(TrainConfig),
                "## Pre-training of an encoder",
                "`refinenet pretrain` has these settings of its own, or with other defaults; those of optimiser, "
                "schedule, batch norm and loggers are as above.",
                *_describe_settings(PretrainConfig, own),
                "## Decoder",
                "Options of `RefineNet(decoder={...})` and `--decoder '{\"cascade\": [1, 1, 2, 2]}'`. These names "
                "stand for the papers' other networks:",
                presets,
                *_describe_settings(DecoderConfig),
            ]
        )
        + "\n"
    )


def _describe_settings(config: type[Settings], names: Sequence[str] | None = None) -> Iterator[str]:
    """Yield a section for each setting, or for those named, with a title for each group."""
    home: type[Settings] | None = None
    for setting in list_settings(config):
        if names is not None and setting.name not in names:
            continue
        if setting.home is not home:
            home = setting.home
            yield f"**{_escape(setting.group)}**"
        default = "Required" if setting.is_required else f"Default: `{_as_json(setting.default)}`"
        yield f"### `{setting.name}`\n\n{_upper(_escape(setting.allowed))}. {default}.\n\n{setting.meaning}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _as_json(value: object) -> str:
    return repr(list(value) if isinstance(value, tuple) else value).replace("'", '"')


# ---------------------------------------------------------------------------------------------------- tables


def recipes_page() -> str:
    """Return the page of the bundled recipes, each as it is."""
    parts = [
        "# Recipes\n\n`refinenet train --recipe NAME` trains with one of these. A copy of the file under another name "
        "is a recipe of your own: `--recipe mine.toml`. What a recipe leaves out has its "
        "[default](settings.md)."
    ]
    folder = resources.files("refinenet.training.recipes")
    for path in sorted(folder.iterdir(), key=lambda item: item.name):
        if path.name.endswith(".toml"):
            text = path.read_text("utf-8")
            described = _escape(" ".join(str(tomllib.loads(text)["description"]).split()))
            rest = text.partition('"""')[2].partition('"""')[2].strip()
            parts.append(f"## {path.name.removesuffix('.toml')}\n\n{described}\n\n```toml\n{rest}\n```")
    return "\n\n".join(parts) + "\n"


def metrics_page() -> str:
    """Return the rules of all metrics."""
    from refinenet.evaluation.metrics import METRICS, RULES
    from refinenet.evaluation.metrics.depth import ALIGNMENT_RULES, CROP_RULES
    from refinenet.evaluation.metrics.targets import TARGET_METRICS

    parts = [
        "# Metrics\n\n`results.json` contains these rules too, so that a number can be traced to its definition "
        "wherever it is quoted.",
        "## Classes",
        _definitions(RULES),
        "The numbers over all classes, with their keys in `results.json`:",
        _definitions({metric.key: metric.title + _interval(metric.has_interval) for metric in METRICS}),
    ]
    for kind, accumulator in TARGET_METRICS.items():
        parts += [f"## {_upper(kind)}", _definitions(accumulator.rules)]
        if kind == "depth":
            parts += ["### Crops", _definitions(CROP_RULES), "### Alignment", _definitions(ALIGNMENT_RULES)]
    return "\n\n".join(parts) + "\n"


def _interval(has_interval: bool) -> str:
    return ", with a 95 % interval" if has_interval else ""


def _definitions(rows: Mapping[Any, str]) -> str:
    return "\n\n".join(
        ", ".join(f"`{key.strip()}`" for key in keys.split(",")) + f"\n: {_escape(text)}" for keys, text in rows.items()
    )


def datasets_page() -> str:
    """Return the page of the published datasets."""
    from refinenet.datasets import PUBLISHED

    parts = [
        "# Datasets by name\n\n`streets` needs no files: it is drawn by the package, with CamVid's classes and exact "
        "depth and normals; `streets:500:640x480` has 500 images of 640x480 in each split. All others are read in "
        "the layouts of their owners. `refinenet data list` says which are on this machine, and "
        "`refinenet data prepare NAME` downloads one, or explains how to get it. Their licences are their owners'."
    ]
    for name, published in PUBLISHED.items():
        info = published.info
        images = ", ".join(f"{split} {count:,}" for split, count in info.images.items())
        parts += [
            f"## {name}",
            f"{_escape(info.title)}: <{info.page}>",
            _definitions(
                {
                    "images": f"{images} ({info.size})",
                    "licence": info.licence,
                    "evaluation": info.protocol,
                    "how to get it": info.how_to_get,
                    f"{len(info.label_set)} classes": ", ".join(info.label_set.names),
                }
            ).replace("`", ""),
        ]
    return "\n\n".join(parts) + "\n"


def tables_page() -> str:
    """Return the names that options and arguments accept: outputs, results, backends, exports, losses."""
    from refinenet.export.formats.table import FORMATS
    from refinenet.inference import BACKENDS, OUTPUT_KINDS
    from refinenet.outputs import KINDS
    from refinenet.training.losses.targets import TARGET_LOSSES

    results = {
        name: f"of {spec.of}: {', '.join(f'`{suffix}`' for suffix in {spec.suffix: 0, **spec.forms, **spec.contents})}"
        + (f", {spec.channels} channels" if spec.channels > 1 else "")
        + (f" ({spec.remark})" if spec.remark and spec.remark != spec.suffix else "")
        for name, spec in OUTPUT_KINDS.items()
    }
    backends = {
        name: f"{', '.join(spec.precisions)}; {'any device' if spec.any_device else 'CPU'}"
        + (f"; needs {spec.package}" if spec.package else "")
        for name, spec in BACKENDS.items()
    }
    formats = {suffix: spec.name + (", also int8" if spec.write_int8 else "") for suffix, spec in FORMATS.items()}
    losses = {kind: ", ".join(rows) + "; the first is the default" for kind, rows in TARGET_LOSSES.items()}
    tables: dict[str, tuple[str, Mapping[Any, str]]] = {
        "Outputs of a network": ("`--outputs`, `RefineNet(outputs=...)`", {k: v.meaning for k, v in KINDS.items()}),
        "Kinds of results": ("`refinenet deploy --kind`", results),
        "Backends": ("`--backend`, `RefineNet(backend=...)`, with their precisions", backends),
        "Export formats": ("`refinenet export`, `RefineNet.export`", formats),
        "Losses of other outputs": ("the setting `output_losses`", losses),
    }
    parts = ["# Names that options accept"]
    parts += [f"## {title}\n\nFor {where}.\n\n{_definitions(rows)}" for title, (where, rows) in tables.items()]
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------------------------------------------- Python


def api_pages() -> dict[str, str]:
    """Return a page for the package, for each of its packages with what its `__init__.py` lists, and for modules."""
    homes = import_module("refinenet")._HOMES
    pages = {"api": _api_page("refinenet", "Python: `refinenet`", {name: homes[name] for name in homes}, set())}
    seen = {f"{home}.{name}" for name, home in homes.items()}
    for package in PACKAGES:
        name = f"refinenet.{package}"
        pages[f"api-{package}"] = _api_page(name, f"Python: `{name}`", listed_names(name), seen)
    parts = ["# Python: single modules"]
    for module in MODULES:
        name = f"refinenet.{module}"
        members = [
            member for member in _top_level(name) if not member.startswith("_") and f"{name}.{member}" not in seen
        ]
        parts += [f"## `{name}`", _escape(ast.get_docstring(_tree(name)) or "")]
        parts += [_directive(name, member) for member in members]
    pages["api-modules"] = "\n\n".join(parts) + "\n"
    return pages


def _api_page(name: str, title: str, homes: Mapping[str, str], seen: set[str]) -> str:
    parts = [f"# {title}", _escape(ast.get_docstring(_tree(name)) or "").partition("\n    ")[0]]
    for member, home in sorted(
        homes.items(), key=lambda item: (item[0] != "RefineNet", item[0].isupper(), item[0].lower())
    ):
        if f"{home}.{member}" not in seen and member in _top_level(home):
            seen.add(f"{home}.{member}")
            parts.append(_directive(home, member))
    return "\n\n".join(parts) + "\n"


def listed_names(package: str) -> dict[str, str]:
    """Return the names that the `__init__.py` of a package lists, with the module that defines each."""
    imports = [node for node in ast.walk(_tree(package)) if isinstance(node, ast.ImportFrom) and node.module]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}
    return {name: _find_home(homes[name], name) for name in import_module(package).__all__ if name in homes}


def _find_home(module: str, name: str) -> str:
    """Follow a name that a module only imports to the module that defines it."""
    if name in _top_level(module):
        return module
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return _find_home(str(node.module), name) if str(node.module).startswith("refinenet") else module
    return module


def _directive(module: str, name: str) -> str:
    kind = _top_level(module)[name]
    if kind == "data" and name not in _data_meanings(module):  # autodoc would print the docstring of its type
        return f"```{{eval-rst}}\n.. py:data:: {module}.{name}\n```"
    options = {"class": ":members:\n", "function": "", "data": ":no-value:\n"}[kind]
    inherited = ":inherited-members:\n" if name == "RefineNet" else ""
    return (
        f"```{{eval-rst}}\n.. auto{kind}:: {module}.{name}\n"
        + "".join(f"   {line}\n" for line in (options + inherited).splitlines())
        + "```"
    )


def _data_meanings(module: str) -> set[str]:
    """Return the constants of a module that have a text under them."""
    body = _tree(module).body
    return {
        target.id
        for node, text in pairwise(body)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(text, ast.Expr)
        for target in ([node.target] if isinstance(node, ast.AnnAssign) else node.targets)
        if isinstance(target, ast.Name)
    }


def _top_level(module: str) -> dict[str, str]:
    """Return the names that a module defines, each with the directive's kind: class, function or data."""
    found = {}
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = "class"
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = "function"
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            found |= {target.id: "data" for target in targets if isinstance(target, ast.Name)}
    return found


@cache
def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text("utf-8"))
