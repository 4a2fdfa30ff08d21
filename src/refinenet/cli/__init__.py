"""The command line: one file per command, each parses its options, calls one function and prints.

Begin with `train`, `eval` or `deploy`. Heavy modules are imported only when a command runs.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from refinenet._version import __version__
from refinenet.cli import data, deploy, export, train
from refinenet.cli import eval as eval_command
from refinenet.cli import train as pretrain
from refinenet.cli.options import AsJson, Model, complain
from refinenet.io.console import check_output, describe_error, say, secure_streams
from refinenet.io.files import quote_controls

if TYPE_CHECKING:
    from refinenet.api import RefineNet

__all__ = ["main"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="RefineNet: train, evaluate and deploy networks for high-resolution semantic segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,  # read by main
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """RefineNet: train, evaluate and deploy networks for high-resolution semantic segmentation."""


app.command()(train.train)
app.command()(pretrain.pretrain)


app.command("eval")(eval_command.evaluate)
app.command()(eval_command.calibrate)


app.command()(deploy.deploy)
app.command()(export.export)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published checkpoint of a PyTorch RefineNet, or a model file.")],
    target: Annotated[Path, typer.Argument(help="The model file to write, usually named .safetensors.")],
    half: Annotated[bool, typer.Option("--half", help="Store the weights in float16.")] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence to record in the new file. Default: the old one.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes: the name of a dataset, or a classes.yaml file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a published checkpoint to a model file."""
    from refinenet.io.files import refuse_same_file

    refuse_same_file(source, target)
    network = _make(model=str(source), device="cpu")
    if classes is not None:
        from refinenet.datasets.catalog import read_classes

        network.label_set = read_classes(classes)
    network.save(target, "float16" if half else "float32", licence)
    facts = {"model": str(target), **network.card.architecture.to_dict()}
    say(facts if as_json else ", ".join(f"{key} {value}" for key, value in facts.items()))


@app.command()
def info(
    model: Annotated[str, typer.Argument(help='A model file, or "camvid", the bundled model.')] = "camvid",
    as_json: AsJson = False,
) -> None:
    """Show the architecture, classes, scores, licence and recipe of a model."""
    network = _make(model=model, device="cpu")
    card = network.card
    facts = {
        **card.architecture.to_dict(),
        **({} if network.parameters is None else {"parameters": network.parameters}),
        "classes": list(card.label_set.names),
        "scores": dict(card.scores),
        "licence": card.licence,
        "recipe": dict(card.recipe),
        "temperature": card.temperature,
        **({} if card.value_range is None else {"value_range": list(card.value_range)}),
        "weights_sha256": card.weights_sha256,
    }
    if as_json:
        say(facts)
        return
    from refinenet.io.console import print_table

    print_table(model, ["", ""], [[key, _show(value)] for key, value in facts.items()])


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The image to write.")] = Path("demo.png"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the street scene.")] = 8,
    model: Model = "camvid",
    as_json: AsJson = False,
) -> None:
    """Draw a street scene, segment it, and write image, label map and overlay side by side."""
    from refinenet.cli.demo import draw_demo
    from refinenet.io.images import write

    picture, segmentation = draw_demo(_make(model=model).segment, seed)
    write(output, picture)
    if as_json:
        say({"output": str(output), "areas": dict(segmentation.areas)})
        return
    from refinenet.io.console import print_table

    areas = sorted(segmentation.areas.items(), key=lambda item: -item[1])
    print_table(
        f"A synthetic street scene, segmented by {model!r}",
        ["class", "area %"],
        [[n, f"{100 * a:.1f}"] for n, a in areas],
    )
    say(
        f"Open {output}. Next:\n"
        "  refinenet deploy YOUR_IMAGE.jpg --output overlay.jpg --kind overlay\n"
        "  refinenet data check YOUR_FOLDER                         (with images/, masks/, classes.yaml)\n"
        "  refinenet train --dataset YOUR_FOLDER --model camvid\n"
        "  refinenet --help"
    )


def _make(**arguments: Any) -> RefineNet:
    from refinenet.api import RefineNet

    return RefineNet(**arguments)


def _show(value: Any) -> str:
    from refinenet.models.tensor_files import printable

    if isinstance(value, dict):
        return "\n".join(f"{printable(key)}: {_show(item)}" for key, item in value.items()) or "none"
    return ", ".join(map(_show, value)) if isinstance(value, list) else printable(str(value), limit=10_000)


def main() -> NoReturn:
    """Run the command line; exit codes: 0 success, 1 failure, 2 invalid usage, 130 interrupted."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    secure_streams()
    warnings.showwarning = lambda message, *_, **__: _print_warning(message)
    try:
        app(arguments)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            complain("interrupted.")
        if not end.code:
            _end()
        raise
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError is what PyTorch raises when memory is full
        if len(arguments) < len(sys.argv) - 1:
            raise
        message = describe_error(error)
        message = f"{message.splitlines()[0]} (--debug shows more)" if isinstance(error, RuntimeError) else message
        complain(_quote_arguments(message))
        sys.exit(FAILED)
    _end()


def _end() -> NoReturn:
    """Exit with success, unless standard output could not be written."""
    try:
        check_output()
    except OSError as error:
        complain(f"{describe_error(error)}. The command itself succeeded.")
        sys.exit(FAILED)
    sys.exit(0)


def _quote_arguments(message: str) -> str:
    """Quote control characters of command-line arguments in a message, so that they cannot break its lines."""
    for argument in sys.argv[1:]:
        message = message.replace(argument, quote_controls(argument)) if not argument.isprintable() else message
    return message


def _print_warning(message: Warning | str) -> None:
    typer.echo(f"Warning: {quote_controls(message, keep_lines=True)}", err=True)
