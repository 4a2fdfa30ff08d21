"""The runs of `refinenet deploy` over videos, and over images with Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refinenet.cli.options import complain
from refinenet.inference.output_kinds import OUTPUT_KINDS, Kind, OutputKind, split_kind
from refinenet.io.console import progress_bar, say
from refinenet.outputs import CLASSES, OutputSpec

if TYPE_CHECKING:
    from refinenet.deployment.ray.journal import RayResult


@dataclass(frozen=True, kw_only=True)
class Request:
    """Arguments that all modes of `deploy` share."""

    images: list[str]
    """Files, folders, patterns and lists, or URIs for Ray."""
    output: str | None
    kinds: list[str]
    network: Mapping[str, Any]
    """Arguments of `RefineNet`: model, device, backend, precision."""
    as_json: bool
    """Whether to print JSON and no progress."""
    announce: Callable[[], None]
    """Reports the model in use; called with the first result."""
    suffix: str | None = None
    """Suffix of the results in a folder."""

    def single_kind(self, where: str, allows: Callable[[OutputKind], bool]) -> Kind | None:
        """Return the one kind to write, or None for the default.

        Args:
            where: The mode, to begin the error message with.
            allows: Whether a kind can be written there.

        Raises:
            ValueError: several kinds were chosen, or one that is not allowed.
        """
        able = [name for name, row in OUTPUT_KINDS.items() if allows(row)]
        if self.kinds and not (len(self.kinds) == 1 and split_kind(self.kinds[0])[0] in able):
            raise ValueError(f"{where}, --kind must be exactly one of {', '.join(able)}, not {', '.join(self.kinds)}.")
        return self.kinds[0] if self.kinds else None


def deploy_with_ray(request: Request, *, recursive: bool, workers: int | None, **reading: Any) -> None:
    """Segment images with Ray and report the results, failures last.

    Args:
        request: What to segment.
        recursive: Whether to include subfolders.
        workers: How many processes hold the network; by default one for each GPU, or for two cores.
        reading: Bands, value range and choices for values, as for `segment_with_ray`.

    Raises:
        ValueError: some images could not be segmented, or as `segment_with_ray`.
    """
    from refinenet.deployment.ray.engine import segment_with_ray
    from refinenet.deployment.ray.journal import failed
    from refinenet.deployment.ray.storage import find_skipped, pair_places
    from refinenet.inference.backends import choose_backend
    from refinenet.models.factory import choose_device

    kind = request.single_kind("With Ray", lambda row: row.is_picture or row.shows_values)
    network = request.network
    device_type = choose_device(network["device"]).type
    backend = choose_backend(network["backend"], device_type, network["precision"])
    settings: dict[str, Any] = {**network, **reading, "backend": backend}
    suffix = ".png" if kind is None else OUTPUT_KINDS[split_kind(kind)[0]].suffix
    pairs, folder = pair_places(request.images, request.output, recursive=recursive, suffix=suffix)
    skipped = find_skipped(request.images, request.output, recursive=recursive)
    results: list[RayResult] = [failed(place, str(folder), problem) for place, problem in skipped.items()]
    # Ray reports dead processes on standard output, which is reserved for results.
    with redirect_stdout(sys.stderr), progress_bar(not request.as_json) as bar:
        task = bar.add_task("Segmenting", total=len(pairs), status="", unit="images")
        for result in segment_with_ray(pairs, record=folder, kind=kind, workers=workers, **settings):
            if result.error is None:
                request.announce()
            results.append(result)
            bar.update(task, advance=1)
    _report_ray(results, folder, as_json=request.as_json)


def _report_ray(results: Sequence[RayResult], folder: str | None, *, as_json: bool) -> None:
    failed = [result for result in results if result.error is not None]
    new = sum(result.is_new for result in results) - len(failed)
    old = len(results) - new - len(failed)
    if as_json:
        say([result.to_dict() for result in results])
    else:
        text = f"{new} of {len(results)} images segmented"
        text += f", {old} were already done, with the same model and settings" if old else ""
        say(f"{text}: {folder or results[0].output}.")
    for result in failed:
        complain(str(result.error))
    if failed:
        raise ValueError(f"{len(failed)} of {len(results)} images could not be segmented.")


def deploy_video(
    request: Request, rendering: Mapping[str, Any], *, overwrite: bool, display: bool = False, **options: Any
) -> None:
    """Segment one video and report what was written.

    Args:
        request: The video, and where its result goes; by default, for a file, `NAME_overlay.mp4` (or another kind's
            name) next to it.
        rendering: As for `RefineNet.deploy`.
        overwrite: Whether to replace an existing video that `--output` does not name.
        display: Whether to show the frames in a window; then nothing is written by default.
        options: Other options of `RefineNet.deploy_video`.

    Raises:
        ValueError, OSError: as `RefineNet.deploy_video`, or there are several inputs.
    """
    from refinenet.api import RefineNet

    video, *others = request.images
    if others:
        raise ValueError(f"Pass a single video and no other inputs: {', '.join(request.images)}.")
    kind = request.single_kind("For a video", lambda row: row.is_picture or bool(row.forms))

    choose_target = partial(_choose_video, request, kind, overwrite=overwrite, display=display)
    _check_video(request, kind, choose_target, rendering, display=display)
    model = RefineNet(**request.network)
    result = model.deploy_video(
        video,
        choose_target(model.outputs),
        kind,
        progress=not request.as_json,
        on_prediction=lambda _: request.announce(),
        display=display,
        **options,
        **rendering,
    )
    if request.as_json:
        say({key: str(value) if isinstance(value, Path) else value for key, value in asdict(result).items()})
    else:
        say(result.describe())


def _choose_video(
    request: Request, kind: Kind | None, outputs: Sequence[OutputSpec], *, overwrite: bool, display: bool
) -> Path | None:
    """Return where the result of a video goes; None if it is only shown.

    Raises:
        FileExistsError: There is a video which `--output` does not name.
    """
    from refinenet.deployment.video.runner import choose_output
    from refinenet.io.files import refuse_to_replace

    if display and not request.output:
        return None
    target = Path(request.output) if request.output else choose_output(request.images[0], kind, outputs)
    if not (request.output or overwrite):
        refuse_to_replace([target])
    return target


def _check_video(
    request: Request,
    kind: Kind | None,
    choose_target: Callable[[Sequence[OutputSpec]], Path | None],
    rendering: Mapping[str, Any],
    *,
    display: bool,
) -> None:
    """Check, before the model is loaded, what a video needs.

    Raises:
        ValueError, OSError: as `deploy_video`.
    """
    from refinenet.deployment.video.reader import find_source
    from refinenet.deployment.video.runner import open_renderers, plan_output
    from refinenet.deployment.video.window import check_display
    from refinenet.inference.values.subject import RenderOptions
    from refinenet.models.files.model_card import read_card

    if display:
        check_display()
    video, card = request.images[0], read_card(request.network["model"])
    outputs = (CLASSES,) if card is None else card.architecture.outputs
    if (target := choose_target(outputs)) is None:
        find_source(video)
    plan = None if target is None else plan_output(video, target, kind, outputs)
    if card is not None:
        open_renderers(plan, kind, outputs, card.label_set, RenderOptions.from_dict(rendering), display=display)
