"""The command line: parse, call one function, print. Nothing heavy is imported before a command runs."""

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
    help="RefineNet: high-resolution semantic segmentation to train, evaluate and deploy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # read by main
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the package's version.")
    ] = False,
) -> None:
    """RefineNet: high-resolution semantic segmentation to train, evaluate and deploy."""


app.command()(train.train)
app.command()(pretrain.pretrain)


app.command("eval")(eval_command.evaluate)
app.command()(eval_command.calibrate)


app.command()(deploy.deploy)
app.command()(export.export)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint of an earlier PyTorch RefineNet, or a model file.")],
    target: Annotated[Path, typer.Argument(help="The model file to write, by custom ending in .safetensors.")],
    half: Annotated[bool, typer.Option("--half", help="Store the weights in float16.")] = False,
    licence: Annotated[
        str | None, typer.Option(help="Terms for the new file to state; by default the old ones.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names for the classes: those of a dataset known by name, or a classes.yaml.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a published checkpoint into a model file."""
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
    model: Annotated[str, typer.Argument(help='A model file, or "camvid".')] = "camvid",
    as_json: AsJson = False,
) -> None:
    """Show what a model is: architecture, classes, scores, licence, recipe."""
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
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("demo.png"),
    seed: Annotated[int, typer.Option(min=0, help="Which street to draw.")] = 8,
    model: Model = "camvid",
    as_json: AsJson = False,
) -> None:
    """Draw a street, segment it, and write picture, label map and overlay side by side."""
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
        f"A drawn street, segmented by {model!r}",
        ["class", "area %"],
        [[n, f"{100 * a:.1f}"] for n, a in areas],
    )
    say(
        f"Look at {output}. Next:\n"
        "  refinenet deploy YOUR_IMAGE.jpg --output overlay.jpg --kind overlay\n"
        "  refinenet data check YOUR_FOLDER                         (it has images/, masks/, classes.yaml)\n"
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
    """Run the command line; exit code 0 for success, 1 for a failure, 2 for wrong usage, 130 for an interruption."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    secure_streams()
    warnings.showwarning = lambda message, *_, **__: _complain_softly(message)
    try:
        app(arguments)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            complain("interrupted.")
        if not end.code:
            _end()
        raise
    except (ValueError, OSError, RuntimeError) as error:  # PyTorch tells of a full memory by RuntimeError
        if len(arguments) < len(sys.argv) - 1:
            raise
        told = describe_error(error)
        told = f"{told.splitlines()[0]} (--debug shows more)" if isinstance(error, RuntimeError) else told
        complain(_quote_arguments(told))
        sys.exit(FAILED)
    _end()


def _end() -> NoReturn:
    """End in success, unless what was printed is lost."""
    try:
        check_output()
    except OSError as error:
        complain(f"{describe_error(error)}. The command itself has ended well.")
        sys.exit(FAILED)
    sys.exit(0)


def _quote_arguments(told: str) -> str:
    """A message in which names given on the command line keep to their line."""
    for argument in sys.argv[1:]:
        told = told.replace(argument, quote_controls(argument)) if not argument.isprintable() else told
    return told


def _complain_softly(message: Warning | str) -> None:
    typer.echo(f"Warning: {quote_controls(message, keep_lines=True)}", err=True)
