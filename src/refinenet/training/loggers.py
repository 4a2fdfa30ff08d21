"""Where a run's figures go besides its log: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from refinenet.io.files import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Logger = Literal["tensorboard", "wandb", "mlflow"]
Row = Mapping[str, str | float | None]
"""The figures of an epoch by name, as text or number; None and "" stand for what was not measured."""

PROJECT = "refinenet"
"""What runs are filed under, where WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME say nothing."""
_IDENTITIES = "loggers.json"
_NOT_OF_MLFLOW = re.compile("[^a-zA-Z0-9_/. -]")
_Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class LoggerConfig:
    """Where the figures of a run go.

    Raises:
        ValueError: a value that is not allowed.
    """

    loggers: tuple[Logger, ...] = ("tensorboard",)
    """Where figures go besides log.csv: "tensorboard" (a folder in the run's), "wandb" and "mlflow", each of which asks
    the environment for the place (WANDB_MODE, MLFLOW_TRACKING_URI) and has to be installed."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        names = self.loggers
        if isinstance(names, tuple) and all(name in get_args(Logger) for name in names) and len({*names}) == len(names):
            return []
        return [f"loggers are some of {', '.join(get_args(Logger))}, each once, not {names!r}"]


@dataclass(frozen=True)
class _Sink:
    """One place that figures go to."""

    log: Callable[[_Figures, int], None]
    close: Callable[[], None]


class MetricLoggers:
    """Loggers that are open, to be closed at the end; see `open_loggers`."""

    def __init__(self, sinks: Sequence[_Sink]) -> None:
        self._sinks = sinks

    def log(self, row: Row, step: int) -> None:
        """Hand on the figures of a step; what was not measured, and what is no number, is left out.

        Raises:
            OSError: a logger could not write; the others have.
        """
        numbers = {name: read_number(value) for name, value in row.items()}
        figures = {name: number for name, number in numbers.items() if number is not None}
        _call_all([partial(sink.log, figures, step) for sink in self._sinks])

    def close(self) -> None:
        """End the run at each logger.

        Raises:
            OSError: a logger could not write; the others are closed.
        """
        _call_all([sink.close for sink in self._sinks])


def check_installed(names: Sequence[Logger]) -> None:
    """Make sure, before a run begins, that its loggers can be opened.

    Raises:
        ValueError: one needs a package that is not installed; says how to.
    """
    for name in names:
        missing = [module for module in _needed(name) if not _is_installed(module)]
        if missing:
            told = " and ".join(missing)
            raise ValueError(
                f"The logger {name} needs {told}, not installed here: pip install {name}. Or leave it out."
            )


def open_loggers(
    names: Sequence[Logger], folder: Path, config: Mapping[str, Any], first_step: int = 0
) -> MetricLoggers:
    """Open loggers for a run, or go on with those that it had before it was stopped.

    Args:
        names: Which.
        folder: The run's; TensorBoard's files go to `tensorboard/` in it, and those of the others, too, unless their
            environment variables name a server.
        config: The settings of the run, to be shown beside its figures.
        first_step: The first step that is going to be logged; what is there of it and of later ones is dropped.

    Raises:
        ValueError: a logger is not installed; says how to.
        OSError: a logger cannot write, or cannot reach its server.
    """
    check_installed(names)
    openers: Mapping[str, Callable[[Path, Mapping[str, Any]], _Sink]] = {
        "tensorboard": partial(_open_tensorboard, first_step=first_step),
        "wandb": _open_wandb,
        "mlflow": _open_mlflow,
    }
    return MetricLoggers([openers[name](folder, config) for name in names])


def read_number(value: str | float | None) -> float | None:
    """A figure of a row as a number; None where there is none."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    failed = None
    for call in calls:
        try:
            call()
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed


def _open_tensorboard(folder: Path, config: Mapping[str, Any], first_step: int) -> _Sink:
    place = _TensorBoard(folder / "tensorboard", first_step)
    place.show("".join(f"    {key} = {value!r}\n" for key, value in config.items()), first_step)
    return _Sink(place.log, place.close)


class _TensorBoard:
    """A writer that failed once stays broken, so after a failure the next figures get a new one."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = self._open(first_step)

    def _open(self, first_step: int) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self._folder, purge_step=first_step)

    def show(self, settings: str, step: int) -> None:
        self._use(step, lambda writer: writer.add_text("settings", settings, step))

    def log(self, figures: _Figures, step: int) -> None:
        def add(writer: SummaryWriter) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

        self._use(step, add)

    def _use(self, step: int, add: Callable[[SummaryWriter], None]) -> None:
        writer, self._writer = self._writer or self._open(step), None
        add(writer)
        writer.flush()
        self._writer = writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _open_wandb(folder: Path, config: Mapping[str, Any]) -> _Sink:
    from lightning.pytorch.loggers import WandbLogger

    guarded = _os_error_for("wandb", "Error")
    identity = _read_identities(folder).get("wandb") or secrets.token_hex(8)
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    logger = WandbLogger(name=folder.name, project=project, save_dir=folder, version=identity)
    with guarded():
        logger.log_hyperparams(dict(config))
    _keep_identity(folder, "wandb", identity)

    def log(figures: _Figures, step: int) -> None:
        with guarded():
            logger.log_metrics(figures, step)

    def close() -> None:
        with guarded():
            logger.experiment.finish()

    return _Sink(log, close)


def _open_mlflow(folder: Path, config: Mapping[str, Any]) -> _Sink:
    from lightning.pytorch.loggers import MLFlowLogger

    guarded = _os_error_for("mlflow.exceptions", "MlflowException")
    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    identity = _read_identities(folder).get("mlflow")
    with guarded():
        logger = MLFlowLogger(project, run_name=folder.name, tracking_uri=place, run_id=identity)
        if identity is None:
            logger.log_hyperparams(dict(config))
            _keep_identity(folder, "mlflow", str(logger.run_id))

    def log(figures: _Figures, step: int) -> None:
        with guarded():
            logger.log_metrics({_NOT_OF_MLFLOW.sub("_", name): value for name, value in figures.items()}, step)

    def close() -> None:
        with guarded():
            logger.finalize("success")

    return _Sink(log, close)


def _needed(name: Logger) -> tuple[str, ...]:
    """The modules without which a logger cannot work."""
    has_server = name != "mlflow" or bool(os.environ.get("MLFLOW_TRACKING_URI"))
    return (name,) if has_server else (name, "sqlalchemy", "alembic")


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # a folder of the logger's in the working directory has none


def _os_error_for(module: str, name: str) -> Callable[[], AbstractContextManager[None]]:
    """What turns the errors of a logger's own kind into OSError."""
    kind: type[Exception] = getattr(import_module(module), name)

    @contextmanager
    def guarded() -> Iterator[None]:
        try:
            yield
        except kind as error:
            raise OSError(f"{module.partition('.')[0]} failed: {error}") from error

    return guarded


def _read_identities(folder: Path) -> dict[str, str]:
    """By which names the loggers know the run, by logger."""
    path = folder / _IDENTITIES
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Without it the loggers begin anew.") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"{path} is damaged: it holds a name for each logger. Without it the loggers begin anew.")
    return found


def _keep_identity(folder: Path, name: Logger, identity: str) -> None:
    kept = _read_identities(folder) | {name: identity}
    write_atomically(folder / _IDENTITIES, (json.dumps(kept, indent=2) + "\n").encode())
