"""OpenVINO: the network translated once for this machine's CPU, two to three times the speed of PyTorch there.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refinenet import __version__
from refinenet.network import Network
from refinenet.tensors import digest
from refinenet.terminal import print_note

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_EXAMPLE = (2, 3, 65, 97)
"""Shape of the images that the network is traced with: none of its sides has a special size."""


def cache_folder() -> Path:
    """Where translated networks lie: `REFINENET_CACHE`, or the system's place for caches, below `refinenet`."""
    named = os.environ.get("REFINENET_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refinenet"


class OpenVINOBackend:
    """Runs a network by OpenVINO; when its weights change, by training or by hand, it is translated anew.

    The translation takes some ten seconds, once for each network: it is kept in `cache_folder`, under a hash of the
    weights and of the versions that made it.

    Args:
        network: On the CPU.
        precision: Of the arithmetic: "float32", or "bfloat16" on processors that compute in it.

    Raises:
        ValueError: OpenVINO is not installed, the precision is not one of these, or the network is not on the CPU.
    """

    def __init__(self, network: Network, precision: str = "float32") -> None:
        if precision not in _HINTS:
            raise ValueError(f"OpenVINO computes in {' or '.join(_HINTS)} here, not in {precision!r}.")
        if network.mean.device.type != "cpu":
            raise ValueError(f"OpenVINO runs on the CPU here, the network is on {network.mean.device}.")
        self.network, self.precision = network, precision
        self._openvino = require_openvino()
        self._stamp: tuple[int, ...] = ()
        self._run: Any = None

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return torch.device("cpu")

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, H, W)`; dropout off, batch norm fixed."""
        stamp = self._find_stamp()
        if stamp != self._stamp:
            self._run, self._stamp = self._compile(), stamp
        answer = self._run.infer([np.ascontiguousarray(images.numpy())], share_inputs=True)
        return torch.from_numpy(next(iter(answer.values())).copy())

    def _find_stamp(self) -> tuple[int, ...]:
        """Changes with every change of a weight in place, and with every new tensor."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        return tuple(number for tensor in tensors for number in (id(tensor), tensor._version))

    def _compile(self) -> Any:
        core = self._openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": _HINTS[self.precision], "PERFORMANCE_HINT": "LATENCY"}
        return core.compile_model(self._translated(core), "CPU", settings).create_infer_request()

    def _translated(self, core: Any) -> Any:
        """The network as an OpenVINO model, from the cache where it is there."""
        folder = cache_folder() / "openvino" / self._key()
        if folder.is_dir():
            try:
                return core.read_model(folder / "network.xml")
            except RuntimeError:
                print_note(f"{folder} is damaged; the network is translated anew.")
                shutil.rmtree(folder)
        print_note("Translating the network for OpenVINO, once; it is kept for the next time.")
        model = self._translate()
        self._keep(model, folder)
        return model

    def _key(self) -> str:
        facts = {
            "weights": digest(self.network.state_dict()),
            "architecture": self.network.architecture.to_dict(),
            "refinenet": __version__,
            "torch": torch.__version__,
            "openvino": importlib.metadata.version("openvino"),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _translate(self) -> Any:
        was_training = self.network.training
        free = torch.export.Dim.DYNAMIC
        try:
            program = torch.export.export(
                self.network.eval(), (torch.zeros(_EXAMPLE),), dynamic_shapes={"images": {0: free, 2: free, 3: free}}
            )
        finally:
            self.network.train(was_training)
        return self._openvino.convert_model(program)

    def _keep(self, model: Any, folder: Path) -> None:
        """Put a model into the cache, whole or not at all; where that fails, it is translated again next time."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                self._openvino.save_model(model, Path(temporary) / "model" / "network.xml", compress_to_fp16=False)
                (Path(temporary) / "model").rename(folder)
        except (OSError, RuntimeError) as error:
            print_note(f"Warning: the translated network cannot be kept in {folder}: {error}")


def require_openvino() -> Any:
    """The module `openvino`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise ValueError("OpenVINO is not installed: pip install 'refinenet[openvino]'") from error
    return openvino
