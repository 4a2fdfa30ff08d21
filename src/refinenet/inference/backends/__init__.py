"""Ways to run a network, one file for each: prepared images in, logits out."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from refinenet.inference.backends.base import PRECISIONS, BackendName, InferencePrecision

if TYPE_CHECKING:
    from refinenet.inference.backends.graph import ExportedModel
    from refinenet.inference.backends.pytorch import PyTorchBackend
    from refinenet.inference.backends.translated import AutoBackend, GraphBackend, TranslatedBackend
    from refinenet.models.network import Network


BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
OF_PYTORCH: tuple[BackendName, ...] = ("pytorch", "compiled")
"""Those that run PyTorch's own network, on any device; the others run a translation on the CPU."""
AUTO = "auto"
DEFAULT_BACKEND = "REFINENET_BACKEND"
"""An environment variable: what "auto" means, where it is set."""


def choose_backend(asked: str, device: str, precision: str) -> str:
    """What "auto" is on a kind of device: the fastest that is installed; anything else is itself.

    On CPUs that is OpenVINO, on others PyTorch; unless the environment variable `REFINENET_BACKEND` says another.

    Args:
        asked: "auto", or a backend's name.
        device: "cpu", "cuda", ...
        precision: Of the arithmetic, as it was asked for.
    """
    if asked != AUTO:
        return asked
    named = os.environ.get(DEFAULT_BACKEND)
    if named and precision == "float32":
        return named
    if precision == "float16":
        return "pytorch"
    return "openvino" if device == "cpu" and importlib.util.find_spec("openvino") is not None else "pytorch"


def check_backend(name: str, precision: str) -> BackendName:
    """The name of a backend, where there is such a one and it computes in that precision.

    Raises:
        ValueError: there is no such backend, or it does not compute in that precision.
    """
    chosen = next((known for known in BACKENDS if known == name), None)
    if chosen is None:
        raise ValueError(f"backend is one of {AUTO}, {', '.join(BACKENDS)}, not {name!r}.")
    if precision not in get_args(InferencePrecision):
        raise ValueError(f"precision is one of {', '.join(get_args(InferencePrecision))}, not {precision!r}.")
    if precision not in PRECISIONS[chosen]:
        able = ", ".join(f"{known} ({', '.join(PRECISIONS[known])})" for known in BACKENDS)
        raise ValueError(f"The backend {name} does not compute in {precision}; these do: {able}.")
    return chosen


def list_backends(
    model: Network | ExportedModel, chosen: BackendName
) -> Iterator[tuple[BackendName, InferencePrecision]]:
    """What can run a model here, beside the backend chosen for it; that comes first, in float32."""
    from refinenet.inference.backends.graph import ExportedModel

    first = chosen
    yield chosen, "float32"
    on_cpu = isinstance(model, ExportedModel) or model.mean.device.type == "cpu"
    if not on_cpu or (isinstance(model, ExportedModel) and chosen != "openvino"):
        return
    if chosen != "openvino" and not os.environ.get(DEFAULT_BACKEND) and importlib.util.find_spec("openvino"):
        yield "openvino", "float32"
        chosen = "openvino"
    if chosen == "openvino":
        from refinenet.inference.backends.graph import computes_in_bfloat16

        if computes_in_bfloat16():
            yield "openvino", "bfloat16"
        if first != "pytorch" and not isinstance(model, ExportedModel):
            yield "pytorch", "float32"


def open_backend(
    model: Network | ExportedModel, name: BackendName, precision: InferencePrecision, *, or_pytorch: bool = False
) -> PyTorchBackend | TranslatedBackend | GraphBackend | AutoBackend:
    """The backend of a name for a network, or for a graph that it can run.

    Args:
        model: What to run.
        name: Of the backend.
        precision: Of its arithmetic.
        or_pytorch: Whether PyTorch may run a network that the backend turns out not to be able to.

    Raises:
        ValueError: as `check_backend`, it is not installed, or it cannot run where the network is.
    """
    from refinenet.inference.backends.graph import ExportedModel

    check_backend(name, precision)
    if isinstance(model, ExportedModel):
        from refinenet.inference.backends.translated import GraphBackend

        assert name in ("openvino", "onnxruntime")
        return GraphBackend(model.graph, name, precision, model.classes, str(model.path))
    if name == "pytorch":
        from refinenet.inference.backends.pytorch import PyTorchBackend

        return PyTorchBackend(model, precision)
    if name == "compiled":
        from refinenet.inference.backends.pytorch import CompiledBackend

        return CompiledBackend(model, precision)
    from refinenet.inference.backends.translated import TranslatedBackend

    wanted = TranslatedBackend(model, name, precision)
    if not or_pytorch:
        return wanted
    from refinenet.inference.backends.translated import AutoBackend

    return AutoBackend(model, wanted)
