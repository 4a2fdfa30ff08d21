"""PyTorch with a compiler: steps fused into fewer, for processors without OpenVINO and for GPUs.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.io.console import print_note
from refinenet.models.network import Network


class CompiledBackend(PyTorchBackend):
    """Runs a fused copy of a network through `torch.compile`.

    The first image takes up to a minute, as does the first of another size; then any size runs. PyTorch keeps what it
    compiled on the disk (`TORCHINDUCTOR_CACHE_DIR`).

    Args:
        network: Stays as it is.
        precision: As for `PyTorchBackend`.

    Raises:
        ValueError: as `PyTorchBackend`.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling; dropout off, batch norm fixed.

        Raises:
            BackendError: PyTorch cannot compile the network here.
        """
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InductorError

        try:
            return super().__call__(images)
        except (BackendCompilerFailed, InductorError) as error:
            raise BackendError(
                f"PyTorch cannot compile the network here ({str(error).strip().splitlines()[0]}). On CPUs it needs a "
                "C++ compiler (g++ or clang++); backend='pytorch' needs none."
            ) from error

    def _make_run(self, fused: Network) -> Callable[[Tensor], Tensor]:
        print_note("PyTorch compiles the network, up to a minute for the first image and the first of another size.")
        # Weights are constants to the compiler: the fused copy is never changed, but made anew.
        run: Callable[[Tensor], Tensor] = torch.compile(fused.logits, options={"freezing": True})
        return run
