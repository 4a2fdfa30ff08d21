"""The command `refinenet label correct`."""

from pathlib import Path
from typing import Annotated

import typer

from refinenet.cli.serve import PREFIX, read_token
from refinenet.io.console import say


def correct(
    todo: Annotated[
        Path, typer.Argument(help="Output folder of `refinenet label next`, `label write` or `label errors`.")
    ],
    port: Annotated[int, typer.Option(help="Port; 0 chooses a free one.")] = 8001,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with a token that the page asks for; or set {PREFIX}_TOKEN.")
    ] = None,
) -> None:
    """Correct drafts in the browser, without an annotation tool; press Ctrl-C to stop.

    The page accepts connections from this machine only. Accepted masks are saved
    at once; rerun the same command to continue. No model is needed.
    """
    from refinenet.labelling import correct_labels

    found = correct_labels(todo, port=port, token=read_token(token_file))
    following = f" Next: refinenet label take {todo} --into DATASET" if found.reviewed else ""
    say(f"{found.reviewed} of {len(found.images)} reviewed.{following}")
