"""The commands `refinenet label ...`, one file per command: labels with a model's help."""

import typer

app = typer.Typer(
    help="Label with a model's help: propose labels, take corrected ones back.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
