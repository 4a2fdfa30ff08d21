"""Opening what a user describes: a network, new or from a model file, or an exported graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from refinenet import models
from refinenet.distributed.environment import INSTALL, has_pytorch, require_pytorch
from refinenet.export.loading.loader import choose_engine, graph_kind, open_bundled, open_exported
from refinenet.inference.backends import AUTO, choose_backend
from refinenet.inference.backends.base import CPU
from refinenet.inference.backends.graph import ExportedModel
from refinenet.models.model_card import BUNDLED, ModelCard
from refinenet.models.model_spec import ModelSpec

if TYPE_CHECKING:
    import torch


def choose_backend_of(spec: ModelSpec, backend: str, device: str | torch.device | None, precision: str) -> str:
    """Choose the backend for the network or the exported file of a specification.

    Raises:
        ValueError: The backend cannot run the file, or the network needs PyTorch, which is not installed.
    """
    asked = None if backend == AUTO else backend
    if spec.model is not None and graph_kind(spec.model) is not None:
        return choose_engine(spec.model, asked)
    if _uses_translation(spec):
        return choose_engine(f"{spec.model}.xml", asked)
    if spec.model is not None:
        models.read_card(spec.model)  # refuses a missing file before PyTorch is imported, which takes seconds
    _require_pytorch(spec.model)
    return choose_backend(backend, models.choose_device(device).type, precision)


def open_described(
    spec: ModelSpec, backend: str, device: str | torch.device | None
) -> tuple[models.Network | ExportedModel, ModelCard]:
    """Open the network or the exported file of a specification; without PyTorch, the translation of a bundled model."""
    is_exported = spec.model is not None and graph_kind(spec.model) is not None
    if not is_exported and not _uses_translation(spec):
        return models.open_network(spec, device, _draw_calibration_images)
    assert spec.model is not None
    if device is not None and str(device).partition(":")[0] != CPU:
        raise ValueError(f"{spec.model} is an exported graph, which runs on the CPU here, not on {device}.")
    if is_exported:
        engine = choose_engine(spec.model, None if backend == AUTO else backend)
        exported, card = open_exported(Path(spec.model), engine)
    else:
        exported, card = open_bundled(str(spec.model))
    spec.check(card)
    return exported, card


def _uses_translation(spec: ModelSpec) -> bool:
    """Whether a bundled model is run as the graph that is bundled with it, since there is no PyTorch."""
    return str(spec.model) in BUNDLED and not has_pytorch()


def _require_pytorch(model: str | os.PathLike[str] | None) -> None:
    if model is None:
        require_pytorch("A new network")
    elif not has_pytorch():
        name = os.fspath(model)
        raise ValueError(
            f"{name} is a network of PyTorch, which this small installation lacks. Export it where PyTorch is "
            f"(`refinenet export {Path(name).stem}.xml --model {name}`) and use that file, or {INSTALL}"
        )


def _draw_calibration_images() -> torch.Tensor:
    """Draw the street scenes that re-estimate the statistics of folded batch norms: `(16, 3, 240, 320)` in [0, 1]."""
    import torch

    from refinenet.datasets import street_scenes

    return torch.stack(
        [torch.from_numpy(street_scenes.draw_street(seed, 240, 320)[0]).permute(2, 0, 1) / 255 for seed in range(16)]
    )
