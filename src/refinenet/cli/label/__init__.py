"""The commands `refinenet label ...`, one file per command: labels with a model's help."""

import typer

from refinenet.cli.examples import epilog
from refinenet.cli.label import errors, next_images

app = typer.Typer(
    help="Label with a model's help: propose labels, take corrected ones back.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The help lists the commands in this order.
app.command("next", epilog=epilog("label next"))(next_images.next_images)
app.command("errors", epilog=epilog("label errors"))(errors.errors)
