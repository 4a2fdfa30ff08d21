"""Segmentation past one machine: Ray Data streams images to workers that hold the network.

Each image is read by a task, segmented and written by a worker, and told of once. Where a process is killed, or a
machine lost, Ray begins its work again elsewhere; as results are written whole or not at all, and always alike, what is
done twice is none the worse for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from refinenet.deployment.journal import GREY, LABEL_FILES
from refinenet.deployment.ray.journal import RayResult, Record, failed
from refinenet.deployment.ray.storage import as_place, is_here
from refinenet.deployment.ray.tasks import Deaths, Job, Worker, read_image
from refinenet.inference.backends import OF_PYTORCH, check_backend
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.inference.segmentation import Output, check_output
from refinenet.io.console import print_note
from refinenet.io.files import refuse_blocked, sweep_leftovers_of
from refinenet.models.factory import open_model
from refinenet.models.model_file import make_header
from refinenet.models.tensor_files import digest

RayDevice = Literal["cpu", "cuda"]

_IMAGES_PER_BLOCK = 16
"""The most images that Ray hands out at once; what they become is told of together."""
_STORE_BYTES = 1 << 30
"""Shared memory for images on their way, where Ray is started here; what does not fit goes to the disk."""
_CORES_PER_WORKER = 2
"""Where nobody says how many workers there are to be."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many workers there are, and what of the machines each has."""

    workers: int
    cores: int
    gpus: float
    """At most 1, and 0 where they work on CPUs."""


def segment_with_ray(
    pairs: Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    *,
    model: str | os.PathLike[str] = "camvid",
    backend: BackendName = "pytorch",
    precision: InferencePrecision = "float32",
    kind: Output | None = None,
    device: RayDevice | None = None,
    workers: int | None = None,
    record: str | os.PathLike[str] | None = None,
) -> Iterator[RayResult]:
    """Segment image files on all machines of a Ray cluster and write the results, bit for bit those of one process.

    The cluster is the one that Ray is connected to already, or the one that RAY_ADDRESS names ("auto" on a machine of
    it), or else one that is started on this machine for as long as this lasts. All of its machines have to reach the
    places, and have this version of the package; the model's file is read here and travels by itself.

    Args:
        pairs: Images and where their results go: paths, `file://` or `s3://` URIs (see `storage`).
        model: As for `RefineNet`.
        backend: As for `RefineNet`.
        precision: As for `RefineNet`.
        kind: Which picture to write; see `Segmentation.save`.
        device: "cpu" or "cuda"; by default GPUs where the cluster has some.
        workers: How many hold the network at a time; they share the cores, or the GPUs, among them. By default one for
            each GPU, or for every two cores; of OpenVINO, which takes all cores of a machine, one for each machine.
        record: The folder of the results, which then holds a record of what is done: another run with the same model
            and settings leaves that as it is, and begins with the rest.

    Returns:
        What became of each image: first of those that were done before, then of the others, in the order in which they
        are ready. An image that cannot be segmented is told of, and does not stop the others.

    Raises:
        ValueError: Ray is not installed, an argument is not allowed, an output cannot hold the picture, another run is
            writing to `record`, or there are not so many cores as workers.
        OSError: the model or the record cannot be read.
        RuntimeError: Ray fails.
    """
    require_ray()
    check_backend(backend, precision)
    if workers is not None and workers < 1:
        raise ValueError(f"workers is a number from 1 up, not {workers!r}.")
    if device is not None and device not in get_args(RayDevice):
        raise ValueError(f"With Ray, which hands GPUs out, device is cpu or cuda, not {device!r}.")
    if backend not in OF_PYTORCH:
        if device == "cuda":
            raise ValueError(f"The backend {backend} works on CPUs here, not on {device}: leave device out.")
        device = "cpu"
    places = [(_everywhere(image), _everywhere(output)) for image, output in pairs]
    _check_outputs(places, kind)
    network, card = open_model(model)
    header = make_header(network, card, card.weights_sha256 or digest(network.state_dict()))
    settings = {"backend": backend, "precision": precision, "kind": kind, "device": device, **header}
    is_grey = kind in (None, "labels") and card.label_set.ignore_index == 255
    before = _shorten(settings)
    key = _shorten({**settings, LABEL_FILES: GREY}) if is_grey else before
    job = {"network": network, "card": card, "backend": backend, "precision": precision, "kind": kind}
    book = Record(
        None if record is None else _everywhere(record), key, card.label_set.names, before if is_grey else None
    )
    return _segment(places, job, device, workers, book)


def _shorten(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def require_ray() -> Any:
    """The module `ray`, with Ray Data.

    Raises:
        ValueError: it is not installed.
    """
    # Ray would else report to its makers how it is used, and say on the terminal what is of no use there.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("Ray is not installed: pip install 'refinenet[ray]'") from error
    return ray


def share_out(nodes: Sequence[Mapping[str, float]], workers: int | None, device: RayDevice | None) -> Shares:
    """What each worker has of the machines.

    Args:
        nodes: What each machine has: "CPU", "GPU".
        workers: How many are asked for.
        device: What they are to work on; None takes GPUs where there are any.

    Raises:
        ValueError: there are not so many cores, or no GPU for "cuda".
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if device != "cpu" else 0
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if device == "cuda" and gpus == 0:
        raise ValueError("device is cuda, but Ray finds no GPU in its cluster. Leave device out, or say cpu.")
    if gpus:
        count = workers or gpus
        return Shares(workers=count, cores=1, gpus=1 / -(-count // gpus))
    count = workers or max(1, sum(cores) // _CORES_PER_WORKER)
    # The cores of a worker are on one machine, so that the largest share with which all find a place may be less than
    # all cores divided by workers: three workers on two machines of four cores have two each.
    for share in range(max(cores, default=0), 0, -1):
        if sum(own // share for own in cores) >= count:
            return Shares(workers=count, cores=share, gpus=0)
    raise ValueError(f"{count} workers need as many cores, and Ray's cluster has {sum(cores)}. Ask for fewer workers.")


def _everywhere(place: str | os.PathLike[str]) -> str:
    """A place as workers find it, which have working folders of their own."""
    named = as_place(place)
    return str(Path(named).absolute()) if is_here(named) else named


def _check_outputs(places: Sequence[tuple[str, str]], kind: Output | None) -> None:
    """Refuse before anything is done what cannot be done."""
    for _, output in places:
        check_output(output, kind)


def _find_blocked(places: Sequence[tuple[str, str]], *, is_folder: bool) -> dict[int, ValueError | OSError]:
    """Which images are skipped, and why: their results cannot be written, or would replace another image's."""
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
        raise ValueError(f"{image}: its result would be {output}, as that of {first}. Rename one of them.")
    if any("\ud800" <= character <= "\udfff" for character in image + output):
        raise ValueError(f"{image!r} is not in UTF-8, which Ray needs. Rename it, or leave out --engine ray.")
    if is_folder and is_here(output):
        refuse_blocked(Path(output))


def _segment(
    places: Sequence[tuple[str, str]],
    job: Mapping[str, Any],
    device: RayDevice | None,
    workers: int | None,
    record: Record,
) -> Iterator[RayResult]:
    with record.held():
        done = record.find_done(places)
        yield from (result for result in done if result is not None)
        waiting = {index: places[index] for index, result in enumerate(done) if result is None}
        for index, problem in _find_blocked(places, is_folder=record.is_kept).items():
            if waiting.pop(index, None) is not None:
                yield failed(*places[index], problem)
        if not waiting:
            return
        if record.has_palettes:
            print_note("The label files in this folder have a palette, and those that are added get one, too.")
            job = {**job, "kind": "palette"}
        with _cluster(workers) as ray:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            wanted = workers or (None if job["backend"] in OF_PYTORCH else len(nodes))
            for index, answer in _stream(ray, waiting, job, share_out(nodes, wanted, device)):
                pair = waiting.pop(index, None)
                if pair is not None:
                    yield record.add(*pair, answer)
        sweep_leftovers_of(Path(output) for _, output in places if is_here(output))
    assert not waiting, f"Ray has told nothing of {list(waiting.values())[:3]}"


def _stream(
    ray: Any, waiting: Mapping[int, tuple[str, str]], job: Mapping[str, Any], shares: Shares
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Indices of images and what the workers say of them, in the order in which they are ready."""
    full = Job(**job, device="cuda" if shares.gpus else "cpu", threads=shares.cores)
    deaths = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Deaths).remote()
    rows = [{"index": index, "image": image, "output": output} for index, (image, output) in waiting.items()]
    per_block = max(1, min(_IMAGES_PER_BLOCK, len(rows) // (8 * shares.workers)))
    # On CPUs the workers have all cores, and reading is little beside their work; a GPU may need many readers.
    reading = {"num_cpus": 1} if shares.gpus else {"num_cpus": 0, "concurrency": shares.workers}
    one = {"batch_size": 1, "batch_format": "pyarrow"}
    answers = (
        ray.data.from_items(rows, override_num_blocks=-(-len(rows) // per_block))
        .map_batches(read_image, fn_kwargs={"deaths": deaths}, **reading, **one)
        .map_batches(
            Worker,
            fn_constructor_kwargs={"job": ray.put(full), "deaths": deaths},
            num_cpus=shares.cores,
            num_gpus=shares.gpus or None,
            concurrency=shares.workers,
            **one,
        )
    )
    try:
        for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                yield row["index"], json.loads(row["answer"])
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error


@contextmanager
def _cluster(workers: int | None) -> Iterator[Any]:
    """Ray, connected to where it was already, or to RAY_ADDRESS, or started here and ended afterwards."""
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
        OSError: it does not start, or does not answer where RAY_ADDRESS says that it is.
    """
    options = _address(workers)
    try:
        with _silent_stderr():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises Exception itself for a node that does not start in time
        lines = str(error).strip().splitlines() or [type(error).__name__]
        where = "here" if options["address"] == "local" else f"at RAY_ADDRESS={options['address']}"
        raise OSError(
            f"Ray could not be started or reached {where}: {lines[0]:.300} Nothing was segmented. Check memory, the "
            "space in /tmp and /dev/shm, and RAY_ADDRESS; or run without --engine ray."
        ) from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's core tells on standard error, past Python, that it was asked to be silent."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _address(workers: int | None) -> dict[str, Any]:
    """Where Ray is, or what it is to have here, in the words of `ray.init`."""
    address, path = os.environ.get("RAY_ADDRESS", "local"), os.environ.get("PYTHONPATH")
    if address == "local":
        cores = max(_cores(), workers or 1)
        return {"address": address, "num_cpus": cores, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    # Processes that are started here have the environment of this one; a cluster's have it only if told.
    return {"address": address, "runtime_env": {"env_vars": {"PYTHONPATH": path}} if path else None}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
