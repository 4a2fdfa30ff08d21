"""Options that several commands have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from refinenet.io.files import quote_controls

DATASET_HELP = "A name (see `refinenet data list`), or a folder or YAML file of your own."

Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help='A model file, an exported .onnx or .xml, or "camvid", which ships inside the package.'
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU where there is one.")]
Backend = Annotated[
    Literal["auto", "pytorch", "compiled", "openvino", "onnxruntime"],
    typer.Option(
        help="What runs the network. auto: OpenVINO on CPUs, where it is installed, after a translation that is kept; "
        "else PyTorch. compiled: PyTorch with a compiler, minutes at the start."
    ),
]
Precision = Annotated[
    Literal["float32", "bfloat16", "float16"],
    typer.Option(help="Of its arithmetic: bfloat16 by all but onnxruntime, float16 by PyTorch on GPUs."),
]
AbstainBelow = Annotated[float, typer.Option(help="Pixels of less confidence (0 to 1) get no class.")]
Bands = Annotated[
    str | None,
    typer.Option(
        help="Numbers of the bands for red, green and blue, such as 3,2,1, or of one for grey; by default those that "
        "the file declares."
    ),
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        help="The stored values for black and white, such as 0,4095 for 12 bits; by default those that the model was "
        "trained with, or else those of the image's type."
    ),
]
Root = Annotated[Path | None, typer.Option(help="Where a dataset known by name lies.")]
ClassSet = Annotated[
    str | None, typer.Option(help="Set of classes of a dataset that has two: stuff for coco, 59 for context.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines, and no progress.")]


def parse_settings(settings: list[str], taken: set[str]) -> dict[str, Any]:
    """Settings given as KEY=VALUE, the values in JSON or else texts.

    Args:
        settings: As they were typed.
        taken: Keys that other options have set.

    Raises:
        typer.BadParameter: one is no KEY=VALUE, or its key is given twice.
    """
    chosen = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"{setting!r} is not KEY=VALUE.", param_hint="--set")
        if key in taken or key in chosen:
            raise typer.BadParameter(f"{key} is given twice.", param_hint="--set")
        chosen[key] = read_value(value)
    return chosen


def read_value(text: str) -> Any:
    """A value in JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_window(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT as it was typed, to height and width.

    Raises:
        typer.BadParameter: it is no such size.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is no size such as 512x512 (width x height).", param_hint="--window")
    return int(height), int(width)


def read_bands(text: str | None) -> tuple[int, ...] | None:
    """Band numbers as they were typed.

    Raises:
        typer.BadParameter: they are none.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isascii() and part.isdecimal()]
    if len(numbers) != len(parts) or len(parts) not in (1, 3) or min(numbers) < 1:
        raise typer.BadParameter(f"{text!r} is not like 3,2,1 (or 1 for grey).", param_hint="--bands")
    return tuple(numbers)


def read_value_range(text: str | None) -> tuple[float, float] | None:
    """LOW,HIGH as it was typed.

    Raises:
        typer.BadParameter: it is no such range.
    """
    if text is None:
        return None
    from refinenet.io.sample_values import check_value_range

    try:
        return check_value_range([float(part) for part in text.split(",")])
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not two numbers, the lower one first, such as 0,4095.", param_hint="--value-range"
        ) from None


def complain(message: str) -> None:
    """Say on standard error what went wrong."""
    typer.echo(f"Error: {quote_controls(message, keep_lines=True)}", err=True)


def default_model_notice(context: typer.Context, model: str) -> Callable[[], None]:
    """A function that says once, on standard error, which bundled model is used and what it knows.

    It is called with the first result, so that what fails at once has its error alone. Where a model was named it says
    nothing.
    """
    waiting = [model] if getattr(context.get_parameter_source("model"), "name", "") != "COMMANDLINE" else []

    def announce() -> None:
        if not waiting:
            return
        from refinenet.io.console import print_note
        from refinenet.models.model_file import describe_bundled

        name = waiting.pop()
        print_note(
            f"No --model was named, so the bundled model {name} is used. It knows {describe_bundled(name)} "
            "and no others: for other images name one with --model FILE."
        )

    return announce


def refuse_idle_options(context: typer.Context, of_use: set[str], beside: str, why: str) -> None:
    """Refuse options that were given and would do nothing.

    Args:
        context: Of the command.
        of_use: Names of the parameters that do something here.
        beside: The option because of which the others do not.
        why: The reason, in words.

    Raises:
        typer.BadParameter: there are such.
    """
    idle = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in of_use
        and getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    ]
    if idle:
        raise typer.BadParameter(f"{why}; {', '.join(idle)} would do nothing.", param_hint=beside)
