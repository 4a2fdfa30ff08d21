"""The commands `refinenet label ...`, one file per command: model-assisted labelling."""

import typer

from refinenet.cli.examples import epilog
from refinenet.cli.label import correct, errors, next_images, take, write

app = typer.Typer(
    help="Model-assisted labelling: choose images, draft labels, import corrected labels, find label errors.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The help lists the commands in this order.
app.command("next", epilog=epilog("label next"))(next_images.next_images)
app.command(epilog=epilog("label write"))(write.write)
app.command(epilog=epilog("label correct"))(correct.correct)
app.command(epilog=epilog("label take"))(take.take)
app.command("errors", epilog=epilog("label errors"))(errors.errors)
