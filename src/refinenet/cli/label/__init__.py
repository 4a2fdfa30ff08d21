"""The commands `refinenet label ...`, one file per command: labels with a model's help."""

import typer

from refinenet.cli.examples import epilog
from refinenet.cli.label import take, write

app = typer.Typer(
    help="Label with a model's help: propose labels, take corrected ones back.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=epilog("label write"))(write.write)
app.command(epilog=epilog("label take"))(take.take)
