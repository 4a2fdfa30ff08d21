"""The command line: one file per command, which parses its options, calls one function and prints.

Begin with `train`, `eval` or `deploy`. Heavy modules are imported only when a command runs. Modules with commands do
not postpone annotations (`from __future__ import annotations`), because Typer would compile each of them twice at every
start.
"""

import sys
import warnings
from typing import Annotated, NoReturn

import typer

from refinenet._version import __version__
from refinenet.cli import convert, data, demo, deploy, export, hub, info, label, pretrain, quantise, serve, train
from refinenet.cli import eval as eval_command
from refinenet.cli.examples import Commands, epilog
from refinenet.cli.options import complain
from refinenet.io.console import check_output, describe_error, print_note, secure_streams
from refinenet.io.files import quote_controls

__all__ = ["main"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="RefineNet: train, evaluate and deploy networks for high-resolution semantic segmentation.",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(label.app, name="label")


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


# The help lists the commands in this order.
app.command(epilog=epilog("train"))(train.train)
app.command(epilog=epilog("pretrain"))(pretrain.pretrain)
app.command("eval", epilog=epilog("eval"))(eval_command.evaluate)
app.command(epilog=epilog("calibrate"))(eval_command.calibrate)
app.command(epilog=epilog("deploy"))(deploy.deploy)
app.command(epilog=epilog("serve"), context_settings={"auto_envvar_prefix": serve.PREFIX})(serve.serve)
app.command(epilog=epilog("export"))(export.export)
app.command(epilog=epilog("quantise"))(quantise.quantise)
app.command(epilog=epilog("convert"))(convert.convert)
app.command(epilog=epilog("info"))(info.info)
app.command(epilog=epilog("push"))(hub.push)
app.command(epilog=epilog("pull"))(hub.pull)
app.command(epilog=epilog("demo"))(demo.demo)


def main() -> NoReturn:
    """Run the command line; exit codes: 0 success, 1 failure, 2 invalid usage, 130 interrupted."""
    # Taken out here, as Typer accepts an option of the whole program before the command only.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    secure_streams()
    warnings.showwarning = lambda message, *_, **__: _print_warning(message)
    try:
        app(arguments)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print_note("Interrupted.")
        if not end.code:
            _end()
        raise
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if len(arguments) < len(sys.argv) - 1 or missing in ("", "refinenet"):
            raise
        from refinenet.distributed.environment import INSTALL

        name = "PyTorch" if missing == "torch" else missing
        complain(f"This needs {name}, which this installation lacks: {INSTALL}")
        sys.exit(FAILED)
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
