"""Ways to run a network, one file for each: prepared images in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from refinenet.backends.graph import ExportedModel
    from refinenet.backends.pytorch import PyTorchBackend
    from refinenet.backends.translated import GraphBackend, TranslatedBackend
    from refinenet.network import Network

BackendName = Literal["pytorch", "openvino", "onnxruntime"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
Precision = Literal["float32", "bfloat16"]


def check_backend(name: str, precision: str) -> BackendName:
    """The name of a backend, where there is such a one and it computes in that precision.

    Raises:
        ValueError: there is no such backend, or it does not compute in that precision.
    """
    chosen = next((known for known in BACKENDS if known == name), None)
    if chosen is None:
        raise ValueError(f"backend is one of {', '.join(BACKENDS)}, not {name!r}.")
    if precision not in get_args(Precision):
        raise ValueError(f"precision is one of {', '.join(get_args(Precision))}, not {precision!r}.")
    if name != "openvino" and precision != "float32":
        raise ValueError(f"The backend {name} computes in float32 here; backend='openvino' in {precision}.")
    return chosen


def open_backend(
    model: Network | ExportedModel, name: BackendName, precision: Precision
) -> PyTorchBackend | TranslatedBackend | GraphBackend:
    """The backend of a name for a network, or for a graph that it can run.

    Raises:
        ValueError: as `check_backend`, it is not installed, or it cannot run where the network is.
    """
    from refinenet.backends.graph import ExportedModel

    check_backend(name, precision)
    if isinstance(model, ExportedModel):
        from refinenet.backends.translated import GraphBackend

        assert name != "pytorch"
        return GraphBackend(model.graph, name, precision, model.classes, str(model.path))
    if name == "pytorch":
        from refinenet.backends.pytorch import PyTorchBackend

        return PyTorchBackend(model)
    from refinenet.backends.translated import TranslatedBackend

    return TranslatedBackend(model, name, precision)
