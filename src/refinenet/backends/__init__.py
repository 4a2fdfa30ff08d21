"""Ways to run a network, one file for each: prepared images in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from refinenet.backends.openvino import OpenVINOBackend
    from refinenet.backends.pytorch import PyTorchBackend
    from refinenet.network import Network

BackendName = Literal["pytorch", "openvino"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
Precision = Literal["float32", "bfloat16"]


def check_backend(name: str, precision: str) -> None:
    """Refuse what no backend is, or does.

    Raises:
        ValueError: there is no such backend, it does not compute in that precision, or it is not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend is one of {', '.join(BACKENDS)}, not {name!r}.")
    if precision not in get_args(Precision):
        raise ValueError(f"precision is one of {', '.join(get_args(Precision))}, not {precision!r}.")
    if name == "pytorch" and precision != "float32":
        raise ValueError(f"The backend pytorch computes in float32 here; backend='openvino' in {precision}.")
    if name == "openvino":
        from refinenet.backends.openvino import require_openvino

        require_openvino()


def open_backend(network: Network, name: BackendName, precision: Precision) -> OpenVINOBackend | PyTorchBackend:
    """The backend of a name for a network.

    Raises:
        ValueError: as `check_backend`, or the backend cannot run where the network is.
    """
    check_backend(name, precision)
    if name == "openvino":
        from refinenet.backends.openvino import OpenVINOBackend

        return OpenVINOBackend(network, precision)
    from refinenet.backends.pytorch import PyTorchBackend

    return PyTorchBackend(network)
