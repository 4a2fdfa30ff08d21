"""The command `refinenet serve`."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from refinenet.cli.options import Backend, Device, Model, Precision, default_model_notice

PREFIX = "REFINENET_SERVE"
"""Beginning of the environment variables that Typer reads for the options: `REFINENET_SERVE_PORT` for `--port`."""


def serve(
    context: typer.Context,
    model: Model = "camvid",
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default accepts connections from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 chooses a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Name of the model in responses. Default: the file's name.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"File with a token that requests must send as Authorization: Bearer TOKEN; or set {PREFIX}_TOKEN."
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Host name by which clients reach the server; may be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Number of images processed at the same time.")] = 2,
    model_processes: Annotated[
        int,
        typer.Option(
            help="Processes for the network, replaced if they crash or hang; 0 runs the network in the server process."
        ),
    ] = 0,
    model_seconds: Annotated[
        float, typer.Option(help="Time limit for the network in a model process (--model-processes).")
    ] = 20.0,
    queue: Annotated[int, typer.Option(help="Maximum number of waiting requests; further ones get 503.")] = 32,
    max_bytes: Annotated[int, typer.Option(help="Largest request, in bytes.")] = 20 * 2**20,
    total_bytes: Annotated[
        int, typer.Option(help="Limit on the total bytes of requests held in memory; requests beyond it get 503.")
    ] = 64 * 2**20,
    max_pixels: Annotated[int, typer.Option(help="Largest image, in pixels (width times height).")] = 12_500_000,
    window_pixels: Annotated[
        int, typer.Option(help="Largest image, in pixels, to segment as a whole; larger ones are segmented in windows.")
    ] = 1_000_000,
    header_seconds: Annotated[float, typer.Option(help="Time limit for receiving the headers of a request.")] = 5.0,
    body_seconds: Annotated[float, typer.Option(help="Time limit for an upload.")] = 10.0,
    decode_seconds: Annotated[float, typer.Option(help="Time limit for decoding an image.")] = 10.0,
    request_seconds: Annotated[float, typer.Option(help="Time limit for queueing and computing.")] = 30.0,
    write_seconds: Annotated[float, typer.Option(help="How long a response may stay unread.")] = 30.0,
    keep_alive_seconds: Annotated[int, typer.Option(help="How long an idle connection is kept open.")] = 10,
    drain_seconds: Annotated[int, typer.Option(help="Time limit for requests in flight at shutdown.")] = 10,
    connections: Annotated[
        int,
        typer.Option(
            help="Maximum number of open connections. A further one replaces the connection that has been idle "
            "longest; if all are in use, its requests get 503."
        ),
    ] = 512,
    connections_per_address: Annotated[
        int, typer.Option(help="Maximum number of open connections from one remote address.")
    ] = 20,
    device: Device = None,
    backend: Backend = "auto",
    precision: Precision = "float32",
) -> None:
    """Serve a model over HTTP, with a page for browsers, until Ctrl-C or SIGTERM."""
    from refinenet.api import RefineNet

    network = RefineNet(model=model, device=device, backend=backend, precision=precision)
    default_model_notice(context, model)()
    is_finished = network.serve(
        host=host,
        port=port,
        name=name or _name_of(model),
        token=read_token(token_file),
        allowed_hosts=tuple(allowed_host or ()),
        workers=workers,
        model_processes=model_processes,
        model_seconds=model_seconds,
        queue=queue,
        max_bytes=max_bytes,
        total_bytes=total_bytes,
        max_pixels=max_pixels,
        window_pixels=window_pixels,
        body_seconds=body_seconds,
        decode_seconds=decode_seconds,
        request_seconds=request_seconds,
        header_seconds=header_seconds,
        write_seconds=write_seconds,
        keep_alive_seconds=keep_alive_seconds,
        connections_per_address=connections_per_address,
        drain_seconds=drain_seconds,
        connections=connections,
    )
    if not is_finished:
        # Python would wait for the thread that still computes.
        sys.stdout.flush()
        os._exit(0)


def _name_of(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", Path(model).stem)[:100] or "refinenet"


def read_token(path: Path | None) -> str | None:
    """Return the token from a file, or else from the environment; None if there is none.

    Raises:
        ValueError: The file is empty.
        OSError: The file cannot be read.
    """
    text = os.environ.get(f"{PREFIX}_TOKEN", "") if path is None else path.read_text("utf-8")
    if path is not None and not text.strip():
        raise ValueError(f"{path} is empty: write the token into it.")
    return text.strip() or None
