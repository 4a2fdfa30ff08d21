"""Opening what a user describes: a network, new or from a model file, or an exported graph."""

from __future__ import annotations

from pathlib import Path

import torch

from refinenet.datasets import street_scenes
from refinenet.export.loading.loader import choose_engine, graph_kind, open_exported
from refinenet.inference.backends import AUTO, choose_backend
from refinenet.inference.backends.graph import ExportedModel
from refinenet.models.factory import ModelSpec, choose_device
from refinenet.models.model_file import ModelCard
from refinenet.models.network import Network


def choose_backend_of(spec: ModelSpec, backend: str, device: str | torch.device | None, precision: str) -> str:
    """Choose the backend for the network or the exported file of a specification."""
    if spec.model is not None and graph_kind(spec.model) is not None:
        return choose_engine(spec.model, None if backend == AUTO else backend)
    return choose_backend(backend, choose_device(device).type, precision)


def open_described(
    spec: ModelSpec, backend: str, device: str | torch.device | None
) -> tuple[Network | ExportedModel, ModelCard]:
    """Open the network or the exported file of a specification."""
    if spec.model is None or graph_kind(spec.model) is None:
        return spec.open(device, _draw_calibration_images)
    if device is not None and choose_device(device).type != "cpu":
        raise ValueError(f"{spec.model} is an exported graph, which runs on the CPU here, not on {device}.")
    exported, card = open_exported(Path(spec.model), choose_engine(spec.model, None if backend == AUTO else backend))
    spec.check(card)
    return exported, card


def _draw_calibration_images() -> torch.Tensor:
    """Draw the street scenes that re-estimate the statistics of folded batch norms: `(16, 3, 240, 320)` in [0, 1]."""
    return torch.stack(
        [torch.from_numpy(street_scenes.draw_street(seed, 240, 320)[0]).permute(2, 0, 1) / 255 for seed in range(16)]
    )
