"""`refinenet deploy --engine ray`: what is asked for, and what is told of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from refinenet.cli.options import complain
from refinenet.io.console import progress_bar, say

if TYPE_CHECKING:
    from refinenet.deployment.ray.journal import RayResult

Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(help="ray works on all machines of a cluster (RAY_ADDRESS), or in several processes of this one."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With ray: how many hold the network; by default one for each GPU, or two cores."),
]


def deploy_with_ray(
    images: Sequence[str],
    output: str | None,
    kinds: Sequence[str],
    arguments: Mapping[str, Any],
    *,
    recursive: bool,
    workers: int | None,
    as_json: bool,
    announce: Callable[[], None],
) -> None:
    """Segment images with Ray and tell what became of them, of those that failed at the end.

    Args:
        images: Files and folders, as paths or URIs.
        output: Where results go: a file for one image, a folder for several.
        kinds: Which picture to write; one, or none for the usual one.
        arguments: Of the network: model, device, backend, precision, as for `ray_engine.segment_with_ray`.
        recursive: Whether folders in folders are meant, too.
        workers: How many hold the network.
        as_json: Whether to tell it to a machine.
        announce: Called with each result, to say which model is used.

    Raises:
        ValueError: some images could not be segmented, or as `segment_with_ray`.
    """
    from refinenet.deployment.ray.engine import segment_with_ray
    from refinenet.deployment.ray.journal import failed
    from refinenet.deployment.ray.storage import find_skipped, pair_places
    from refinenet.inference.backends import choose_backend
    from refinenet.inference.segmenter import OUTPUTS
    from refinenet.models.factory import choose_device

    kind = next((picture for picture in OUTPUTS if [picture] == list(kinds)), None)
    if kinds and kind is None:
        raise ValueError(f"With Ray, --kind is one of {', '.join(OUTPUTS)}, once, not {', '.join(kinds)}.")
    on = choose_device(arguments["device"]).type
    backend = choose_backend(arguments["backend"], on, arguments["precision"])
    settings: dict[str, Any] = {**arguments, "backend": backend}
    pairs, folder = pair_places(images, output, recursive=recursive)
    skipped = find_skipped(images, output, recursive=recursive)
    results: list[RayResult] = [failed(place, str(folder), problem) for place, problem in skipped.items()]
    # Ray tells of processes that died on standard output, which is for what was asked for.
    with redirect_stdout(sys.stderr), progress_bar(not as_json) as bar:
        task = bar.add_task("segment", total=len(pairs), status="")
        for result in segment_with_ray(pairs, record=folder, kind=kind, workers=workers, **settings):
            if result.error is None:
                announce()
            results.append(result)
            bar.update(task, advance=1)
    _tell(results, folder, as_json=as_json)


def _tell(results: Sequence[RayResult], folder: str | None, *, as_json: bool) -> None:
    failed = [result for result in results if result.error is not None]
    new = sum(result.is_new for result in results) - len(failed)
    old = len(results) - new - len(failed)
    if as_json:
        say([result.to_dict() for result in results])
    else:
        text = f"{new} of {len(results)} images segmented"
        text += f", {old} were done before, by the same model and settings" if old else ""
        say(f"{text}: {folder or results[0].output}.")
    for result in failed:
        complain(str(result.error))
    if failed:
        raise ValueError(f"{len(failed)} of {len(results)} images could not be segmented.")
