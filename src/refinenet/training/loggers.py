"""Loggers of a run, in addition to log.csv: TensorBoard, Weights & Biases, MLflow."""

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
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from refinenet.io.files import write_atomically
from refinenet.settings import Rule, Settings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Logger = Literal["tensorboard", "wandb", "mlflow"]
Row = Mapping[str, str | float | None]
"""Metrics of an epoch by name, as text or number; None and "" if not measured."""

PROJECT = "refinenet"
"""Project of the runs, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME is set."""
_IDENTITIES = "loggers.json"
_FORBIDDEN_IN_MLFLOW = re.compile("[^a-zA-Z0-9_/. -]")
_Metrics = dict[str, float]


def _are_different(names: Sequence[str]) -> bool:
    return len({*names}) == len(names)


_ALLOWED = f"some of {', '.join(get_args(Logger))}, each once"


@dataclass(frozen=True, kw_only=True)
class LoggerConfig(Settings):
    """Loggers of a run.

    Raises:
        ValueError: A value is not allowed.
    """

    loggers: Annotated[tuple[Logger, ...], Rule(_are_different, _ALLOWED)] = ("tensorboard",)
    """Loggers that get the metrics besides log.csv: "tensorboard" (a folder in the run folder), "wandb" and "mlflow".
    The last two have to be installed, and are configured by the environment (WANDB_MODE, MLFLOW_TRACKING_URI)."""


@dataclass(frozen=True)
class _OpenLogger:
    """One logger that is open."""

    log: Callable[[_Metrics, int], None]
    close: Callable[[], None]


class MetricLoggers:
    """Open loggers, to be closed at the end; see `open_loggers`."""

    def __init__(self, opened: Sequence[_OpenLogger]) -> None:
        self._open = opened

    def log(self, row: Row, step: int) -> None:
        """Log the metrics of a step, except those that were not measured or are not numbers.

        Raises:
            OSError: A logger could not write; the others have.
        """
        numbers = {name: read_number(value) for name, value in row.items()}
        metrics = {name: number for name, number in numbers.items() if number is not None}
        _call_all([partial(logger.log, metrics, step) for logger in self._open])

    def close(self) -> None:
        """End the run at each logger.

        Raises:
            OSError: A logger could not write; the others are closed.
        """
        _call_all([logger.close for logger in self._open])


def check_installed(names: Sequence[Logger]) -> None:
    """Make sure, before a run starts, that its loggers can be opened.

    Raises:
        ValueError: A logger needs a package that is not installed; says how to install it.
    """
    for name in names:
        missing = [module for module in _needed(name) if not _is_installed(module)]
        if missing:
            packages = " and ".join(missing)
            raise ValueError(
                f"The logger {name} needs {packages}, which is not installed: pip install {name}. Or leave it out."
            )


def open_loggers(
    names: Sequence[Logger], folder: Path, config: Mapping[str, Any], first_step: int = 0
) -> MetricLoggers:
    """Open loggers for a run, or continue those that it had before it was stopped.

    Args:
        names: Names of the loggers.
        folder: Folder of the run; TensorBoard's files go to `tensorboard/` in it, and those of the others, unless their
            environment variables name a server.
        config: Settings of the run, to be shown beside its metrics.
        first_step: First step that will be logged; what was logged for it and later steps is dropped.

    Raises:
        ValueError: A logger is not installed; says how to install it.
        OSError: A logger cannot write, or cannot reach its server.
    """
    check_installed(names)
    openers: Mapping[str, Callable[[Path, Mapping[str, Any]], _OpenLogger]] = {
        "tensorboard": partial(_open_tensorboard, first_step=first_step),
        "wandb": _open_wandb,
        "mlflow": _open_mlflow,
    }
    return MetricLoggers([openers[name](folder, config) for name in names])


def read_number(value: str | float | None) -> float | None:
    """Return a value of a row as a number; None if it is not one."""
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


def _open_tensorboard(folder: Path, config: Mapping[str, Any], first_step: int) -> _OpenLogger:
    writer = _TensorBoard(folder / "tensorboard", first_step)
    writer.show("".join(f"    {key} = {value!r}\n" for key, value in config.items()), first_step)
    return _OpenLogger(writer.log, writer.close)


class _TensorBoard:
    """TensorBoard's writer, replaced after a failure: one that failed stays broken."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = self._open(first_step)

    def _open(self, first_step: int) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self._folder, purge_step=first_step)

    def show(self, settings: str, step: int) -> None:
        self._use(step, lambda writer: writer.add_text("settings", settings, step))

    def log(self, metrics: _Metrics, step: int) -> None:
        def add(writer: SummaryWriter) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)

        self._use(step, add)

    def _use(self, step: int, add: Callable[[SummaryWriter], None]) -> None:
        # Put back only if nothing fails, so that the next use opens a new one.
        writer, self._writer = self._writer or self._open(step), None
        add(writer)
        writer.flush()
        self._writer = writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _open_wandb(folder: Path, config: Mapping[str, Any]) -> _OpenLogger:
    from lightning.pytorch.loggers import WandbLogger

    guarded = _os_error_for("wandb", "Error")
    identity = _read_identities(folder).get("wandb") or secrets.token_hex(8)
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    logger = WandbLogger(name=folder.name, project=project, save_dir=folder, version=identity)
    with guarded():
        logger.log_hyperparams(dict(config))
    _save_identity(folder, "wandb", identity)

    def log(metrics: _Metrics, step: int) -> None:
        with guarded():
            logger.log_metrics(metrics, step)

    def close() -> None:
        with guarded():
            logger.experiment.finish()

    return _OpenLogger(log, close)


def _open_mlflow(folder: Path, config: Mapping[str, Any]) -> _OpenLogger:
    from lightning.pytorch.loggers import MLFlowLogger

    guarded = _os_error_for("mlflow.exceptions", "MlflowException")
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    identity = _read_identities(folder).get("mlflow")
    with guarded():
        logger = MLFlowLogger(project, run_name=folder.name, tracking_uri=tracking_uri, run_id=identity)
        if identity is None:
            logger.log_hyperparams(dict(config))
            _save_identity(folder, "mlflow", str(logger.run_id))

    def log(metrics: _Metrics, step: int) -> None:
        with guarded():
            logger.log_metrics({_FORBIDDEN_IN_MLFLOW.sub("_", name): value for name, value in metrics.items()}, step)

    def close() -> None:
        with guarded():
            logger.finalize("success")

    return _OpenLogger(log, close)


def _needed(name: Logger) -> tuple[str, ...]:
    """Return the modules that a logger needs."""
    has_server = name != "mlflow" or bool(os.environ.get("MLFLOW_TRACKING_URI"))
    return (name,) if has_server else (name, "sqlalchemy", "alembic")


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # a folder of that name in the working directory has none


def _os_error_for(module: str, name: str) -> Callable[[], AbstractContextManager[None]]:
    """Return a context manager that turns the errors of a logger's own type into OSError."""
    kind: type[Exception] = getattr(import_module(module), name)

    @contextmanager
    def guarded() -> Iterator[None]:
        try:
            yield
        except kind as error:
            raise OSError(f"{module.partition('.')[0]} failed: {error}") from error

    return guarded


def _read_identities(folder: Path) -> dict[str, str]:
    """Return the run's ids, by logger."""
    path = folder / _IDENTITIES
    if not path.exists():
        return {}
    try:
        identities = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Remove it, so that the loggers start new runs.") from error
    if not isinstance(identities, dict) or not all(isinstance(value, str) for value in identities.values()):
        raise ValueError(
            f"{path} is damaged: it must hold an id for each logger. Remove it, so that they start new runs."
        )
    return identities


def _save_identity(folder: Path, name: Logger, identity: str) -> None:
    identities = _read_identities(folder) | {name: identity}
    write_atomically(folder / _IDENTITIES, (json.dumps(identities, indent=2) + "\n").encode())
