"""Running the server of a model until it is asked to stop."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from refinenet.deployment.server.app import create_app
from refinenet.deployment.server.http.running import listen, run_app
from refinenet.deployment.server.memory import read_machine_bytes
from refinenet.deployment.server.service import Service
from refinenet.deployment.server.settings import ServerSettings
from refinenet.io.console import print_note
from refinenet.io.files import quote_controls

if TYPE_CHECKING:
    from refinenet.deployment.segmentation_model import SegmentationModel


def serve(model: SegmentationModel, settings: ServerSettings) -> bool:
    """Serve a model until Ctrl-C or SIGTERM; requests in flight are then finished.

    Args:
        model: A `RefineNet`.
        settings: Where to listen, and limits.

    Returns:
        Whether all work was finished in `drain_seconds`; otherwise a thread still computes.

    Raises:
        OSError: the address cannot be used.
        ValueError: a process of its own cannot load the model.
    """
    app = create_app(model, settings)
    service: Service = app.state.service

    def announce(port: int) -> None:
        for line in _describe(service, port):
            print(quote_controls(line), flush=True)
        for line in _warn(service):
            print_note(line)

    with listen(settings) as listener, warnings.catch_warnings(action="ignore"):
        service.warm_up()
        run_app(app, settings, listener, announce=announce, drain=service.drain)
    return service.queue.pending == 0


def _describe(service: Service, port: int) -> list[str]:
    settings, count = service.settings, len(service.model.label_set)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    outputs = ", ".join(spec.name for spec in service.model.outputs)
    memory = "" if service.needed_bytes is None else f"; up to {service.needed_bytes / 1e9:.1f} GB of memory"
    return [
        f"Serving {settings.name} ({outputs}; {count} classes) at http://{host}:{port}",
        f"Limits: {settings.max_bytes / 2**20:g} MiB and {settings.max_pixels:,} pixels per image, {settings.threads} "
        f"at a time, {settings.queue} waiting, {settings.request_seconds:g} s{memory}. Press Ctrl-C to stop.",
    ]


def _warn(service: Service) -> Iterator[str]:
    settings, needed, there = service.settings, service.needed_bytes, read_machine_bytes()
    if not settings.is_local and settings.token is None:
        yield (
            f"Warning: {settings.host} can be reached from other machines, and no token is set: anyone there "
            "may use this server. Set REFINENET_SERVE_TOKEN, or listen at 127.0.0.1."
        )
    if needed is not None and there is not None and needed > there:
        yield (
            f"Warning: the limits allow {needed / 1e9:.1f} GB of memory, but there are only {there / 1e9:.1f}: large "
            "images at the same time can bring the server down. Lower --max-pixels or --workers."
        )
