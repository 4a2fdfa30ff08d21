"""Running the corrector until it is asked to stop."""

from __future__ import annotations

import os

from refinenet.deployment import ServerSettings, check_libraries, listen, run_app
from refinenet.io.files import quote_controls
from refinenet.labelling.corrector.corrections import Corrections, open_corrections

PORT = 8001
_MAX_BYTES = 128 * 2**20
"""Size of a mask: of the largest image in 16 bits where nothing can be compressed, and some."""


def correct_labels(todo: str | os.PathLike[str], *, port: int = PORT, token: str | None = None) -> Corrections:
    """Serve a page for correcting drafts to browsers on this machine, until Ctrl-C or SIGTERM.

    Accepted masks are written at once, and a later call continues from there. `take_labels(todo, into)` imports them
    into a dataset.

    Args:
        todo: Output folder of `write_labels`, `rank_images` or `find_label_errors`.
        port: Port to listen at; 0 for any free one.
        token: Secret that the page asks for; None for none.

    Returns:
        The images with what was accepted.

    Raises:
        FileNotFoundError: The folder has no drafts.
        ValueError: The record of the drafts is damaged, the masks accepted earlier have other classes, or FastAPI or
            uvicorn is not installed.
        OSError: A file cannot be read, or the port cannot be used.
    """
    check_libraries()
    from refinenet.labelling.corrector.app import create_corrector

    corrections = open_corrections(todo)
    settings = ServerSettings(
        port=port, token=token, max_bytes=_MAX_BYTES, total_bytes=2 * _MAX_BYTES, body_seconds=60.0
    )

    def announce(found: int) -> None:
        count = len(corrections.images)
        print(f"{count} images, {corrections.reviewed} reviewed: http://{settings.host}:{found}", flush=True)
        print(quote_controls(f"Accepted masks are saved in {corrections.folder}. Press Ctrl-C to stop."), flush=True)

    with listen(settings) as listener:
        run_app(create_corrector(corrections, settings), settings, listener, announce=announce)
    return corrections
