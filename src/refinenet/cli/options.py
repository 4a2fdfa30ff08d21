"""Options shared by several commands, and parsers for their values."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from refinenet.inference.backends import BACKENDS
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.io.files import quote_controls

STANDARD = "-"
"""Standard input or output, in place of a file."""

NETWORK = "New network"
DATA = "Data"
SETTINGS = "Settings and recipes"
MACHINE = "Device and speed"
REPORTS = "Reports"
OVERLAYS = "Overlays"
VIDEOS = "Videos"
INT8 = "Precision"
VALUES = "Bands, depths and other values"
"""Titles of groups of options in the help; options without one come first."""

_OF_PYTHON = {"True": True, "False": False, "None": None}
_FOR_PYTHON = re.compile(r" \(in Python [^()]*\)")

DATASET_HELP = "A dataset's name (see `refinenet data list`), or your own folder or YAML file."

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A model file, hf://owner/name on the Hugging Face Hub, an exported .onnx or .xml file, or a bundled "
        "model: camvid, streets (BSD-3) or camvid_256.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: a GPU if available.", rich_help_panel=MACHINE)
]
_BACKENDS = ", ".join(f"{name} ({spec.remark})" if spec.remark else name for name, spec in BACKENDS.items())
Backend = Annotated[
    Literal["auto", BackendName],
    typer.Option(
        metavar="BACKEND",
        help=f"Inference backend: {_BACKENDS}, or auto: OpenVINO on CPUs if installed, otherwise PyTorch.",
        rich_help_panel=MACHINE,
    ),
]
_NO_BFLOAT16 = ", ".join(name for name, spec in BACKENDS.items() if "bfloat16" not in spec.precisions)
Precision = Annotated[
    InferencePrecision,
    typer.Option(
        metavar="PRECISION",
        help=f"Numerical precision of the network: float32, bfloat16 (not with {_NO_BFLOAT16}), float16 (PyTorch on "
        "GPUs only), or int8 (OpenVINO only; for models prepared by `refinenet quantise`).",
        rich_help_panel=MACHINE,
    ),
]
AbstainBelow = Annotated[
    float, typer.Option(help="Assign no class to pixels with a confidence (0 to 1) below this value.")
]
Bands = Annotated[
    str | None,
    typer.Option(
        help="Band numbers for red, green and blue, such as 3,2,1, or a single one for grey. For a model with "
        "named bands: one number for each of them. Default: the bands that the file declares.",
        rich_help_panel=VALUES,
    ),
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="Stored values to map to black and white, such as 0,4095 for 12-bit images. Default: those the model "
        "was trained with, otherwise the range of the image's data type.",
        rich_help_panel=VALUES,
    ),
]
Root = Annotated[Path | None, typer.Option(help="Folder that holds the published dataset.", rich_help_panel=DATA)]
ClassSet = Annotated[
    str | None,
    typer.Option(
        help="Alternative class set of a published dataset: `stuff` (coco) or `59` (context).", rich_help_panel=DATA
    ),
]
RunOutput = Annotated[
    Path | None, typer.Option("--output", "-o", help="Run folder to create. Default: a new one in runs/.")
]
StopAfter = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Stop after N steps; --resume continues.", rich_help_panel=MACHINE),
]
CalibrationSplit = Annotated[str, typer.Option(help="Split of the dataset for int8 calibration.", rich_help_panel=INT8)]
MaxDrop = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Largest drop in mIoU allowed for int8; 0.005 is half a percentage point.",
        rich_help_panel=INT8,
    ),
]
MaxRise = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SHARE",
        help="Largest relative rise allowed for int8 in the RMSE of depth, normals and other values.",
        rich_help_panel=INT8,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text, and show no progress.")]


def join_settings(named: Mapping[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """Join settings that have options of their own with those given as KEY=VALUE, with values in JSON or plain text.

    Args:
        named: Settings that have options of their own; None if not given.
        settings: Others, as typed.

    Raises:
        typer.BadParameter: a setting is not KEY=VALUE, or its key is given twice.
    """
    chosen = {key: value for key, value in named.items() if value is not None}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"{setting!r} is not KEY=VALUE.", param_hint="--set")
        if key in chosen:
            raise typer.BadParameter(f"{key} is given twice.", param_hint="--set")
        chosen[key] = read_value(value)
    return chosen


def read_value(text: str) -> Any:
    """Parse a value as JSON, or as Python's True, False or None, which messages name; other text stays as it is."""
    if text in _OF_PYTHON:
        return _OF_PYTHON[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_size(text: str, option: str = "--window", example: str = "512x512") -> tuple[int, int]:
    """Parse WIDTHxHEIGHT into height and width.

    Args:
        text: As typed.
        option: Option that it is the value of, for the error message.
        example: A size, for the error message.

    Raises:
        typer.BadParameter: the text is not a size.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not a size such as {example} (width x height).", param_hint=option)
    return int(height), int(width)


def read_bands(text: str) -> tuple[int, ...]:
    """Parse band numbers, separated by commas.

    Raises:
        typer.BadParameter: the text is not a list of numbers from 1.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isascii() and part.isdecimal()]
    if len(numbers) != len(parts) or min(numbers) < 1:
        raise typer.BadParameter(
            f"{text!r} is not a list of bands such as 3,2,1 (or 1 for grey).", param_hint="--bands"
        )
    return tuple(numbers)


def read_numbers(text: str, count: int, option: str, example: str) -> tuple[float, ...]:
    """Parse numbers, separated by commas.

    Raises:
        typer.BadParameter: the text is not `count` numbers.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise typer.BadParameter(f"{text!r} is not {count} numbers such as {example}.", param_hint=option)
    return numbers


def read_value_range(text: str) -> tuple[float, float]:
    """Parse LOW,HIGH.

    Raises:
        typer.BadParameter: the text is not a range.
    """
    from refinenet.io.images.sample_values import check_value_range

    try:
        return check_value_range([float(part) for part in text.split(",")])
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a pair of numbers, the lower one first, such as 0,4095.", param_hint="--value-range"
        ) from None


def refuse_early(
    what: str, dataset: str, root: Path | None = None, classes: str | None = None, split: str | None = None
) -> None:
    """Refuse what names and folders show, before PyTorch is imported and a model is loaded, which takes seconds.

    Args:
        what: The work, as the beginning of a sentence: "Training".
        dataset: As for `refinenet.datasets.check_dataset`.
        root: As for `check_dataset`.
        classes: As for `check_dataset`.
        split: As for `check_dataset`.

    Raises:
        ValueError, OSError: PyTorch is missing, or as `check_dataset`.
    """
    from refinenet.datasets.catalog import check_dataset
    from refinenet.distributed.environment import require_pytorch

    require_pytorch(what)
    check_dataset(dataset, root, classes, split)


def check_table_name(path: str | os.PathLike[str]) -> None:
    """Check that `--table` can be written, by its suffix.

    Raises:
        typer.BadParameter: it cannot.
    """
    from refinenet.io.tables import check_table

    try:
        check_table(path)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--table") from None


def complain(message: str) -> None:
    """Print an error message on standard error, without the parts that are advice for Python."""
    typer.echo(f"Error: {quote_controls(_FOR_PYTHON.sub('', message), keep_lines=True)}", err=True)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the command line, or an environment variable, has a parameter of this name."""
    # By name, as newer versions of Typer bring a copy of Click with an enumeration of its own.
    return getattr(context.get_parameter_source(name), "name", "") in ("COMMANDLINE", "ENVIRONMENT")


def default_model_notice(context: typer.Context, model: str) -> Callable[[], None]:
    """Make a function that reports once, on standard error, that the bundled model is used, and its classes.

    Call it with the first result, so that a command that fails at once prints its error alone. If the command line
    names a model, the function does nothing.
    """
    waiting = [] if is_given(context, "model") else [model]

    def announce() -> None:
        if not waiting:
            return
        from refinenet.io.console import print_note
        from refinenet.models.files.model_card import describe_bundled

        name = waiting.pop()
        print_note(
            f"No --model given: using the bundled model {name}. It predicts only {describe_bundled(name)}. For other "
            "images pass --model FILE."
        )

    return announce


def refuse_idle_options(context: typer.Context, of_use: set[str], beside: str, why: str) -> None:
    """Reject options on the command line that would have no effect.

    Args:
        context: The context of the command.
        of_use: Names of the parameters that have an effect.
        beside: The option that disables the others.
        why: The reason, as the beginning of a message.

    Raises:
        typer.BadParameter: the command line has such options.
    """
    idle = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None and parameter.name not in of_use and is_given(context, parameter.name)
    ]
    if idle:
        raise typer.BadParameter(f"{why}; {', '.join(idle)} would have no effect.", param_hint=beside)
