"""Segmentation on many machines: Ray Data streams images to workers that hold the network.

Each image is read by a task, segmented and written by a worker, and reported once. When a process is killed or a
machine lost, Ray repeats its work elsewhere. That is safe: results are deterministic, and written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from refinenet.deployment.inputs import check_target
from refinenet.deployment.journal import GREY, LABEL_FILES
from refinenet.deployment.ray.journal import RayJournal, RayResult, failed
from refinenet.deployment.ray.reading import Deaths, read_row
from refinenet.deployment.ray.storage import as_place, is_here
from refinenet.deployment.ray.tasks import Worker, WorkerSettings
from refinenet.inference.backends import BACKENDS, check_backend
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.inference.output_kinds import OUTPUT_KINDS, Kind, Output, is_of_values, split_kind
from refinenet.inference.rendering import Renderer, check_suffix_of, open_renderer, refuse_idle
from refinenet.inference.segmentation import check_output
from refinenet.inference.values.subject import RenderOptions
from refinenet.io.console import print_note
from refinenet.io.files import refuse_blocked, sweep_leftovers_of
from refinenet.io.images.bands import name_bands
from refinenet.io.images.sample_values import Reading, ValueRange, choose_reading
from refinenet.io.raster.writer import TIFF_SUFFIXES
from refinenet.labels import LabelSet
from refinenet.models.factory import open_model
from refinenet.models.files.model_card import ModelCard, make_header
from refinenet.models.files.tensor_files import digest

_VALUE_SUFFIXES = {suffix for row in OUTPUT_KINDS.values() for suffix in row.contents}
"""Suffixes of files of values that are not pictures."""

RayDevice = Literal["cpu", "cuda"]

_IMAGES_PER_BLOCK = 16
"""Most images that Ray hands out at once; their results arrive together."""
_STORE_BYTES = 1 << 30
"""Shared memory for images in flight, if Ray is started here; what does not fit is spilled to the disk.

Where `/dev/shm` is smaller, such as the 64 MB of containers, Ray uses `/tmp` instead."""
_CONNECT_SECONDS = 20
"""Time in which a cluster must accept a connection."""
_CORES_PER_WORKER = 2
"""Cores of a worker, unless the number of workers is given."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The number of workers, and the resources of each."""

    workers: int
    cores: int
    gpus: float
    """Share of a GPU: at most 1, and 0 for work on CPUs."""


def segment_with_ray(
    pairs: Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    *,
    model: str | os.PathLike[str] = "camvid",
    backend: BackendName = "pytorch",
    precision: InferencePrecision = "float32",
    kind: Kind | None = None,
    device: RayDevice | None = None,
    workers: int | None = None,
    record: str | os.PathLike[str] | None = None,
    bands: Sequence[int] | None = None,
    value_range: ValueRange | None = None,
    **rendering: Any,
) -> Iterator[RayResult]:
    """Segment image files on all machines of a Ray cluster; results are bit for bit those of one process.

    The cluster is the one that Ray is connected to, else the one that RAY_ADDRESS names ("auto" on one of its
    machines), else one that is started on this machine for the duration of the run. All of its machines need access to
    the places and this version of the package; the model file is read here and sent to them.

    Notes on how images were read become `UserWarning`s, once for each kind of note. Images too large for memory fail:
    windows need a run on one machine.

    Args:
        pairs: Images and the places of their results: paths, `file://` or `s3://` URIs (see `storage`).
        model: As for `RefineNet`.
        backend: As for `RefineNet`.
        precision: As for `RefineNet`.
        kind: What to write, a key of `OUTPUT_KINDS`; see `RefineNet.deploy`.
        device: "cpu" or "cuda"; by default GPUs if the cluster has any.
        workers: How many processes hold the network at a time; they share the cores, or the GPUs, among them. By
            default one per GPU, or per two cores; for OpenVINO, which uses all cores of a machine, one per machine.
        record: The results folder, which then gets a journal: another run with the same model and settings skips
            finished images.
        bands: As for `RefineNet.segment`.
        value_range: As for `RefineNet.segment`.
        rendering: As for `RefineNet.deploy`.

    Returns:
        The outcome of each image: first of those done before, then of the others as they become ready. An image that
        fails does not stop the others.

    Raises:
        ValueError: Ray is not installed, an argument is not allowed, an output cannot hold the picture, another run is
            writing to `record`, or there are fewer cores than workers.
        OSError: the model or the journal cannot be read.
        RuntimeError: Ray fails.
    """
    require_ray()
    check_backend(backend, precision)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers!r}.")
    device = _check_device(device, backend)
    places = [(_absolute(image), _absolute(output)) for image, output in pairs]
    options = RenderOptions.from_dict(rendering)
    for output in {Path(output).suffix: output for _, output in places}.values():
        _check_output(output, kind)  # before the model is read, which takes longer
    network, card = open_model(model)
    if card.architecture.bands:
        raise ValueError(f"With Ray, models take RGB images; this one takes {name_bands(card.architecture.bands)}.")
    _check_suffixes({Path(output).suffix for _, output in places}, kind, card, options)
    reading, notes = choose_reading(card.value_range, bands, value_range)
    for note in notes:
        warnings.warn(note.text, stacklevel=2)
    header = make_header(network, card, card.weights_sha256 or digest(network.state_dict()))
    settings: dict[str, Any] = {"backend": backend, "precision": precision, "kind": kind, "device": device, **header}
    # Left out where not asked for, so that folders started before these settings existed can be resumed.
    settings |= {} if reading.bands is None else {"bands": list(reading.bands)}
    settings |= {} if value_range is None else {"reading_range": reading.value_range}
    settings |= options.to_dict()
    job = {"network": network, "card": card, "backend": backend, "precision": precision, "kind": kind}
    job |= {"rendering": options}
    journal = _make_journal(record, settings, card.label_set)
    return _segment(places, _RayRun(job=job, reading=reading, device=device, workers=workers, journal=journal))


def _check_output(output: str, kind: Kind | None) -> None:
    """Check that a file can hold a kind, of whatever network; None for what is usual."""
    suffix = Path(output).suffix
    if suffix.lower() in TIFF_SUFFIXES:
        raise ValueError(f"With Ray, {kind or 'a result'} cannot be written as {suffix}: leave out --engine ray.")
    if kind is not None and is_of_values(kind):
        check_suffix_of(kind, suffix)
    elif kind is not None or suffix.lower() not in _VALUE_SUFFIXES:
        check_output(output, cast("Output | None", kind))


def _check_suffixes(suffixes: Iterable[str], kind: Kind | None, card: ModelCard, options: RenderOptions) -> None:
    """Check that a network can be written as a kind, in files of some suffixes."""
    outputs = card.architecture.outputs
    renderers: list[Renderer] = []
    for suffix in suffixes:
        chosen = check_target(Path(f"image{suffix}"), kind, outputs)
        row = OUTPUT_KINDS[split_kind(chosen)[0]]
        if not (row.is_picture or row.shows_values):
            able = ", ".join(name for name, row in OUTPUT_KINDS.items() if row.is_picture or row.shows_values)
            raise ValueError(f"With Ray, {chosen} cannot be written; {able} can.")
        renderers.append(open_renderer(chosen, suffix, outputs, card.label_set, options))
    refuse_idle(options, renderers)


def _check_device(device: RayDevice | None, backend: BackendName) -> RayDevice | None:
    """Return the device that workers use, None for GPUs if there are any."""
    if device is not None and device not in get_args(RayDevice):
        raise ValueError(f"With Ray, which assigns GPUs itself, device must be cpu or cuda, not {device!r}.")
    if BACKENDS[backend].any_device:
        return device
    if device == "cuda":
        raise ValueError(f"The backend {backend} works on CPUs here, not on {device}: leave device out.")
    return "cpu"


def _make_journal(
    record: str | os.PathLike[str] | None, settings: Mapping[str, Any], label_set: LabelSet
) -> RayJournal:
    folder = None if record is None else _absolute(record)
    key = _hash_settings(settings)
    if settings["kind"] in (None, "labels") and label_set.ignore_index == 255:
        return RayJournal(folder, _hash_settings({**settings, LABEL_FILES: GREY}), label_set.names, key)
    return RayJournal(folder, key, label_set.names)


def _hash_settings(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def require_ray() -> Any:
    """Import `ray` with Ray Data.

    Raises:
        ValueError: it is not installed.
    """
    # By default Ray sends usage statistics to its makers and logs internals on the terminal.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("Ray is not installed: pip install 'refinenet-torch[ray]'") from error
    return ray


def share_out(nodes: Sequence[Mapping[str, float]], workers: int | None, device: RayDevice | None) -> Shares:
    """Share the machines among the workers.

    Args:
        nodes: Resources of each machine: "CPU", "GPU".
        workers: Number of workers asked for.
        device: Device to use; None uses GPUs if there are any.

    Raises:
        ValueError: there are fewer cores than workers, or there is no GPU for "cuda".
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if device != "cpu" else 0
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if device == "cuda" and gpus == 0:
        raise ValueError("device is cuda, but the Ray cluster has no GPU. Leave device out, or pass cpu.")
    if gpus:
        count = workers or gpus
        return Shares(workers=count, cores=1, gpus=1 / -(-count // gpus))
    count = workers or max(1, sum(cores) // _CORES_PER_WORKER)
    # The cores of a worker are on one machine, so the largest share that fits all workers may be smaller than the cores
    # divided by the workers: three workers on two machines of four cores get two cores each.
    for share in range(max(cores, default=0), 0, -1):
        if sum(own // share for own in cores) >= count:
            return Shares(workers=count, cores=share, gpus=0)
    raise ValueError(
        f"{count} workers need as many cores, but the Ray cluster has {sum(cores)}. Ask for fewer workers."
    )


def _absolute(place: str | os.PathLike[str]) -> str:
    """Return a place that is valid in workers, whose working directories differ."""
    named = as_place(place)
    return str(Path(named).absolute()) if is_here(named) else named


def _find_blocked(places: Sequence[tuple[str, str]], *, is_folder: bool) -> dict[int, ValueError | OSError]:
    """Return the images to skip, with the reason: a result that cannot be written or would replace another one."""
    blocked: dict[int, ValueError | OSError] = {}
    taken: dict[str, str] = {}
    for index, (image, output) in enumerate(places):
        try:
            _check_place(image, output, taken.setdefault(output, image), is_folder=is_folder)
        except (ValueError, OSError) as error:
            blocked[index] = error
    return blocked


def _check_place(image: str, output: str, first: str, *, is_folder: bool) -> None:
    if first != image:
        raise ValueError(f"{image}: its result would be {output}, which is also that of {first}. Rename one of them.")
    if any("\ud800" <= character <= "\udfff" for character in image + output):
        raise ValueError(f"{image!r} is not a valid UTF-8 name, which Ray needs. Rename it, or leave out --engine ray.")
    if is_folder and is_here(output):
        refuse_blocked(Path(output))


@dataclass(frozen=True, kw_only=True)
class _RayRun:
    """Settings of a run, without its images."""

    job: Mapping[str, Any]
    """Fields of `WorkerSettings`, without device and threads."""
    reading: Reading
    device: RayDevice | None
    workers: int | None
    journal: RayJournal


def _segment(places: Sequence[tuple[str, str]], run: _RayRun) -> Iterator[RayResult]:
    journal = run.journal
    with journal.locked():
        done = journal.find_done(places)
        yield from (result for result in done if result is not None)
        waiting = {index: places[index] for index, result in enumerate(done) if result is None}
        for index, problem in _find_blocked(places, is_folder=journal.is_kept).items():
            if waiting.pop(index, None) is not None:
                yield failed(*places[index], problem)
        if not waiting:
            return
        if journal.has_palettes:
            print_note("The label files in this folder have a palette; new ones get one, too.")
            run = replace(run, job={**run.job, "kind": "palette"})
        with _cluster(run.workers) as ray:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            wanted = run.workers or (None if BACKENDS[run.job["backend"]].any_device else len(nodes))
            reported: set[str] = set()
            for index, outcome in _stream(ray, waiting, run, share_out(nodes, wanted, run.device)):
                _report(outcome.pop("notes", ()), reported, is_single=len(places) == 1)
                # Ray may repeat an image whose worker died after it was written: only the first outcome counts.
                pair = waiting.pop(index, None)
                if pair is not None:
                    yield journal.add(*pair, outcome)
        sweep_leftovers_of(Path(output) for _, output in places if is_here(output))
    assert not waiting, f"Ray returned no result for {list(waiting.values())[:3]}"


def _report(notes: Sequence[Sequence[str]], reported: set[str], *, is_single: bool) -> None:
    """Warn about how an image was read, once for each kind of note, as a run on one machine does."""
    suffix = "" if is_single else " This is reported for the first such image only."
    for kind, text in notes:
        if kind not in reported:
            reported.add(kind)
            warnings.warn(f"{text}{suffix}", stacklevel=2)


def _stream(
    ray: Any, waiting: Mapping[int, tuple[str, str]], run: _RayRun, shares: Shares
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield indices of images with their outcomes from the workers, in the order in which they become ready."""
    settings = WorkerSettings(**run.job, device="cuda" if shares.gpus else "cpu", threads=shares.cores)
    deaths = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Deaths).remote()
    rows = [{"index": index, "image": image, "output": output} for index, (image, output) in waiting.items()]
    per_block = max(1, min(_IMAGES_PER_BLOCK, len(rows) // (8 * shares.workers)))
    # On CPUs the workers have all cores, and reading is light compared with their work; a GPU may need many readers.
    resources = {"num_cpus": 1} if shares.gpus else {"num_cpus": 0, "concurrency": shares.workers}
    one = {"batch_size": 1, "batch_format": "pyarrow"}
    outcomes = (
        ray.data.from_items(rows, override_num_blocks=-(-len(rows) // per_block))
        .map_batches(read_row, fn_kwargs={"deaths": deaths, "reading": run.reading}, **resources, **one)
        .map_batches(
            Worker,
            fn_constructor_kwargs={"settings": ray.put(settings), "deaths": deaths},
            num_cpus=shares.cores,
            num_gpus=shares.gpus or None,
            concurrency=shares.workers,
            **one,
        )
    )
    try:
        for batch in outcomes.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                yield row["index"], json.loads(row["outcome"])
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"Ray failed: {str(error).strip().splitlines()[-1]}") from error


@contextmanager
def _cluster(workers: int | None) -> Iterator[Any]:
    """Connect to Ray: an open connection, RAY_ADDRESS, or an instance that is started here and stopped afterwards."""
    ray = require_ray()
    was_connected = ray.is_initialized()
    if not was_connected:
        _start(ray, workers)
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before
        logger.setLevel(level)
        if not was_connected:
            ray.shutdown()


def _start(ray: Any, workers: int | None) -> None:
    """Start Ray, or connect to it.

    Raises:
        OSError: it does not start, or does not answer at RAY_ADDRESS.
    """
    options = _address(workers)
    try:
        _check_answers(options["address"])
        with _silent_stderr():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises Exception itself for a node that does not start in time
        lines = str(error).strip().splitlines() or [type(error).__name__]
        where = "here" if options["address"] == "local" else f"at RAY_ADDRESS={options['address']}"
        raise OSError(
            f"Ray could not be started or reached {where}: {lines[0]:.300} Nothing was segmented. Check memory, the "
            "space in /tmp and /dev/shm, and RAY_ADDRESS; or run without --engine ray."
        ) from error


def _check_answers(address: str) -> None:
    """Raise OSError if nothing listens at `HOST:PORT` or `ray://HOST:PORT`, which Ray itself would keep waiting for."""
    match = re.fullmatch(r"(?:ray://)?(?P<host>[^/]+):(?P<port>[0-9]+)", address)
    if match is not None:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=_CONNECT_SECONDS).close()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silence file descriptor 2, where Ray's C++ core logs even if logging is disabled."""
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(original, 2)
        os.close(original)


def _address(workers: int | None) -> dict[str, Any]:
    """Return the arguments of `ray.init`: an address, or the resources of an instance here."""
    address, path = os.environ.get("RAY_ADDRESS", "local"), os.environ.get("PYTHONPATH")
    if address == "local":
        cores = max(_cores(), workers or 1)
        return {"address": address, "num_cpus": cores, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    # Processes started here inherit the environment; those of a cluster get only what is passed.
    return {"address": address, "runtime_env": {"env_vars": {"PYTHONPATH": path}} if path else None}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
