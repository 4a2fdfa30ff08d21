"""Backends: ways to run a network, from prepared images to the maps of its outputs.

`BACKENDS` lists them, `choose_backend` resolves "auto", and `open_backend` opens the result. A new backend is a module
here, a function below that opens it, a row of that table, and its name in `base.BackendName`. `graph` runs graphs of
OpenVINO and ONNX Runtime; `translation` makes such graphs of networks and keeps them; `isolated` runs graphs of
unknown memory use in a process with limited memory; `fallback` replaces what cannot run a network.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, get_args

from refinenet.inference.backends.base import CPU, INT8, BackendError, BackendName, InferencePrecision
from refinenet.io.extras import install_extra

if TYPE_CHECKING:
    from refinenet.inference.backends.graph import Engine, ExportedModel
    from refinenet.inference.segmenter import Backend
    from refinenet.models.files.int8_record import Int8Record
    from refinenet.models.network import Network

AUTO = "auto"
FALLBACK: BackendName = "pytorch"
"""The backend that runs every network on every device."""
DEFAULT_BACKEND = "REFINENET_BACKEND"
"""Environment variable that overrides the choice of "auto"."""


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """Capabilities of a backend, and the function that opens it."""

    precisions: tuple[InferencePrecision, ...]
    """Precisions of its arithmetic; float16 in PyTorch on GPUs only."""
    any_device: bool = False
    """Whether it runs on any device of PyTorch; otherwise on the CPU only."""
    package: str
    """Package that must be installed; for all but exported files also PyTorch."""
    is_fast_on_cpu: bool = False
    """Whether it is faster than PyTorch on CPUs, so that "auto" and latency budgets choose it there if installed."""
    find_faster_precisions: Callable[[], Sequence[InferencePrecision]] = tuple
    """Returns the precisions in which it is faster on this processor than in float32."""
    remark: str = ""
    """Remark beside its name in the help of the command line."""
    extra: str | None = None
    """Optional part of this installation that has the package; None for packages that pip installs by their name."""
    open: Callable[[Network, InferencePrecision, Int8Record | None], Backend]
    """Raises ValueError if another package or the record for int8 is missing."""

    @property
    def is_installed(self) -> bool:
        """Whether its package is installed."""
        return importlib.util.find_spec(self.package) is not None

    def check(self, name: str, device: str) -> None:
        """Check that it can be opened here.

        Args:
            name: Its name.
            device: Type of the network's device.

        Raises:
            ValueError: its package is not installed, or it does not run on the device.
        """
        if not self.is_installed:
            install = f"pip install {self.package}" if self.extra is None else install_extra(self.extra)
            raise ValueError(f"The backend {name} needs {self.package}, which is not installed: {install}")
        if not self.any_device and device != CPU:
            raise ValueError(
                f"The backend {name} runs on the CPU, but the network is on {device}: choose device='cpu'."
            )


# The modules are imported when a backend is opened: each needs PyTorch, and some a package that may be missing.
def _open_pytorch(network: Network, precision: InferencePrecision, _: Int8Record | None) -> Backend:
    from refinenet.inference.backends.pytorch import PyTorchBackend

    return PyTorchBackend(network, precision)


def _open_compiled(network: Network, precision: InferencePrecision, _: Int8Record | None) -> Backend:
    from refinenet.inference.backends.pytorch import CompiledBackend

    return CompiledBackend(network, precision)


def _open_translated(
    engine: Engine, network: Network, precision: InferencePrecision, record: Int8Record | None
) -> Backend:
    from refinenet.inference.backends.translation.translated import TranslatedBackend

    return TranslatedBackend(network, engine, precision, record)


def _find_faster_in_openvino() -> Sequence[InferencePrecision]:
    from refinenet.inference.backends.graph import computes_in_bfloat16

    return ("bfloat16",) if computes_in_bfloat16() else ()


BACKENDS: Mapping[BackendName, BackendSpec] = MappingProxyType(
    {
        "pytorch": BackendSpec(
            precisions=("float32", "bfloat16", "float16"), package="torch", any_device=True, open=_open_pytorch
        ),
        "compiled": BackendSpec(
            package="torch",
            precisions=("float32", "bfloat16", "float16"),
            any_device=True,
            remark="torch.compile; takes minutes to start",
            open=_open_compiled,
        ),
        "openvino": BackendSpec(
            precisions=("float32", "bfloat16", INT8),
            package="openvino",
            extra="openvino",
            is_fast_on_cpu=True,
            find_faster_precisions=_find_faster_in_openvino,
            open=partial(_open_translated, "openvino"),
        ),
        "onnxruntime": BackendSpec(
            precisions=("float32",),
            package="onnxruntime",
            extra="export",
            open=partial(_open_translated, "onnxruntime"),
        ),
    }
)
"""All backends by name."""


def choose_backend(requested: str, device: str, precision: str) -> str:
    """Resolve "auto" to the fastest installed backend: OpenVINO on CPUs, PyTorch on other devices.

    The environment variable `REFINENET_BACKEND` overrides the choice.

    Args:
        requested: "auto", or the name of a backend, which is returned unchanged.
        device: Type of the device: "cpu", "cuda", ...
        precision: Requested precision of the arithmetic.
    """
    if requested != AUTO:
        return requested
    named = os.environ.get(DEFAULT_BACKEND)
    if named and precision == "float32":
        return named
    if device != "cpu" or precision == "float16":
        return FALLBACK
    return next(_find_fast_on_cpu(), FALLBACK)


def _find_fast_on_cpu() -> Iterator[BackendName]:
    return (name for name, spec in BACKENDS.items() if spec.is_fast_on_cpu and spec.is_installed)


def check_backend(name: str, precision: str) -> BackendName:
    """Return the name of a backend that supports a precision.

    Raises:
        ValueError: there is no such backend or precision, or the backend does not support it.
    """
    chosen = next((known for known in BACKENDS if known == name), None)
    if chosen is None:
        raise ValueError(f"backend must be one of {AUTO}, {', '.join(BACKENDS)}, not {name!r}.")
    if precision not in get_args(InferencePrecision):
        raise ValueError(f"precision must be one of {', '.join(get_args(InferencePrecision))}, not {precision!r}.")
    if precision not in BACKENDS[chosen].precisions:
        able = ", ".join(f"{known} ({', '.join(spec.precisions)})" for known, spec in BACKENDS.items())
        raise ValueError(f"The backend {name} does not support {precision}. Backends with their precisions: {able}.")
    return chosen


def list_backends(
    model: Network | ExportedModel, chosen: BackendName, *, has_int8: bool = False
) -> Iterator[tuple[BackendName, InferencePrecision]]:
    """Yield the backends and precisions that can run a model on this machine; the chosen one first, in float32.

    Args:
        model: The network or exported graph.
        chosen: Its usual backend.
        has_int8: Whether there is a record for int8.
    """
    from refinenet.inference.backends.graph import ExportedModel

    names = [chosen]
    if not isinstance(model, ExportedModel):
        if model.mean.device.type != "cpu":
            yield chosen, "float32"
            return
        if not os.environ.get(DEFAULT_BACKEND):
            names += _find_fast_on_cpu()
        if any(BACKENDS[name].is_fast_on_cpu for name in names):
            names.append(FALLBACK)  # the fast ones can turn out not to be able to run the network
    for name in dict.fromkeys(names):
        yield name, "float32"
        for precision in BACKENDS[name].find_faster_precisions():
            yield name, precision
        if has_int8 and INT8 in BACKENDS[name].precisions and not isinstance(model, ExportedModel):
            yield name, INT8


def open_backend(
    model: Network | ExportedModel,
    name: BackendName,
    precision: InferencePrecision,
    *,
    record: Int8Record | None = None,
    or_pytorch: bool = False,
    translation: Backend | None = None,
) -> Backend:
    """Open a backend for a network or an exported graph.

    Args:
        model: Network or exported graph to run.
        name: Name of the backend.
        precision: Precision of its arithmetic.
        record: How to run the network in int8, from its model file.
        or_pytorch: Whether PyTorch replaces a backend that turns out not to be able to run the network, now or at the
            first image; in int8 none does.
        translation: What runs a translation of the network with its present weights, if that is at hand.

    Raises:
        ValueError: as `check_backend`; or the backend is not installed, or does not run on the network's device; or
            int8 is asked of an exported graph, or of a network without a record.
    """
    from refinenet.inference.backends.graph import ExportedModel

    check_backend(name, precision)
    if isinstance(model, ExportedModel):
        from refinenet.inference.backends.exported import GraphBackend

        if precision == INT8 and not model.is_translation:
            raise ValueError(
                f"{model.path} is an exported file, whose precision is fixed: leave precision out (export --precision "
                "int8 makes one in int8)."
            )
        assert name in ("openvino", "onnxruntime")
        return GraphBackend(model.graph, name, precision, model.channels, str(model.path))
    if not or_pytorch or precision == INT8 or name == FALLBACK:
        return _open_for_network(model, name, precision, record, translation)
    from refinenet.inference.backends.fallback import AutoBackend, replace_by_pytorch

    try:
        # Some fail when they are opened; others, such as a translation, at the first image.
        return AutoBackend(model, _open_for_network(model, name, precision, record, translation))
    except BackendError as error:
        return replace_by_pytorch(model, error)


def _open_for_network(
    network: Network,
    name: BackendName,
    precision: InferencePrecision,
    record: Int8Record | None,
    translation: Backend | None,
) -> Backend:
    from refinenet.inference.backends.translation.translated import TranslatedBackend

    BACKENDS[name].check(name, network.mean.device.type)
    backend = BACKENDS[name].open(network, precision, record)
    if isinstance(backend, TranslatedBackend):
        backend.adopt(translation)
    return backend
