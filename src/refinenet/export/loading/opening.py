"""Opening what a user describes: a network, new or from a model file, or an exported graph.

Importing PyTorch and building a network takes several times as long as predicting for an image. So a model file is not
loaded at first where its translation is at hand, in the package or in the cache: the graph predicts, and the network is
loaded when somebody asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from refinenet import models
from refinenet.distributed.environment import INSTALL, has_pytorch, may_have_gpu, require_pytorch
from refinenet.export.loading.loader import choose_engine, graph_kind, open_bundled, open_exported
from refinenet.inference.backends import AUTO, check_backend, choose_backend
from refinenet.inference.backends.base import CPU, INT8, BackendName
from refinenet.inference.backends.graph import ENGINES, Engine, ExportedModel
from refinenet.inference.backends.translation.cached_translations import find_folder, read_translation
from refinenet.io.console import print_note
from refinenet.models.files.model_card import BUNDLED, ModelCard, bundled_path, read_card
from refinenet.models.model_spec import ModelSpec
from refinenet.models.recognition import recognise

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A model that can predict, and what else is known of it."""

    model: models.Network | ExportedModel
    card: ModelCard
    backend: BackendName
    """Name of the backend that is to run it."""
    load_network: Callable[[], tuple[models.Network, ModelCard]] | None = None
    """Loads the network that `model` is the translation of; None where `model` is the network, or has none."""


def open_described(
    spec: ModelSpec, backend: str, device: str | torch.device | None, precision: str = "float32"
) -> OpenedModel:
    """Open the network or the exported file of a specification.

    Args:
        spec: What is requested.
        backend: Name of a backend, or "auto".
        device: As for `RefineNet`.
        precision: Precision of the backend's arithmetic.

    Raises:
        ValueError: An argument contradicts the file, a file cannot be used, the backend cannot run it, or the network
            needs PyTorch, which is not installed.
        OSError: A file cannot be read.
    """
    is_graph = spec.model is not None and graph_kind(spec.model) is not None
    if is_graph or (str(spec.model) in BUNDLED and not has_pytorch()):
        return _open_graph(spec, None if backend == AUTO else backend, device, precision)
    if spec.model is not None:
        read_card(spec.model)  # refuses a missing file before PyTorch is imported, which takes seconds
    if not has_pytorch():
        _refuse_without_pytorch(spec.model)
    translated = _open_translated(spec, backend, device, precision)
    if translated is not None:
        return translated
    chosen = check_backend(choose_backend(backend, models.choose_device(device).type, precision), precision)
    network, card = _load_network(spec, device)
    return OpenedModel(model=network, card=card, backend=chosen)


def _open_graph(spec: ModelSpec, backend: str | None, device: str | torch.device | None, precision: str) -> OpenedModel:
    """Open an exported file, or without PyTorch the translation of a bundled model."""
    assert spec.model is not None
    is_bundled = graph_kind(spec.model) is None
    engine = choose_engine(f"{spec.model}.xml" if is_bundled else spec.model, backend)
    check_backend(engine, precision)
    if device is not None and str(device).partition(":")[0] != CPU:
        raise ValueError(f"{spec.model} is an exported graph, which runs on the CPU here, not on {device}.")
    found, card = open_bundled(str(spec.model)) if is_bundled else open_exported(Path(spec.model), engine)
    spec.check(card)
    return OpenedModel(model=found, card=card, backend=engine)


def _open_translated(
    spec: ModelSpec, backend: str, device: str | torch.device | None, precision: str
) -> OpenedModel | None:
    """Open the translation of a model file; None where it has to be loaded, on the CPU or elsewhere."""
    on_cpu = not may_have_gpu() if device is None else str(device) == CPU
    if spec.model is None or spec.outputs is not None or spec.bands is not None or not on_cpu:
        return None
    chosen = check_backend(choose_backend(backend, CPU, precision), precision)
    found = _find_translation(str(spec.model), chosen, precision) if chosen in ENGINES["onnx"] else None
    if found is None:
        return None
    exported, card = found
    spec.check(card)
    # The network may be loaded much later, from another working folder.
    spec = spec if str(spec.model) in BUNDLED else replace(spec, model=Path(spec.model).absolute())
    return OpenedModel(model=exported, card=card, backend=chosen, load_network=partial(_load_network, spec, device))


def _find_translation(model: str, engine: Engine, precision: str) -> tuple[ExportedModel, ModelCard] | None:
    is_bundled, is_int8 = model in BUNDLED, precision == INT8
    path = bundled_path(model) if is_bundled else Path(model)
    if is_bundled and engine == "openvino" and not is_int8 and path.with_suffix(".xml").is_file():
        try:
            exported, translated = open_bundled(model)
        except ValueError as error:
            print_note(f"{error} The model file is used instead.")
        else:
            card = read_card(model)
            # The graph has a hash over everything, so a card like its own, which lacks int8, is not damaged.
            if card is not None and replace(card, int8=None) == translated:
                return replace(exported, sha256=card.weights_sha256, is_translation=True), card
    recognised = recognise(path)
    if recognised is None:
        return None
    card, weights = recognised
    if is_int8 and card.int8 is None:
        return None
    graph = read_translation(find_folder(engine, weights, card.architecture, card.int8 if is_int8 else None))
    if graph is None:
        return None
    channels = card.architecture.num_channels
    exported = ExportedModel(path=path, graph=graph, channels=channels, sha256=card.weights_sha256, is_translation=True)
    return exported, card


def _load_network(spec: ModelSpec, device: str | torch.device | None) -> tuple[models.Network, ModelCard]:
    return models.open_network(spec, device, _draw_calibration_images)


def _refuse_without_pytorch(model: str | os.PathLike[str] | None) -> None:
    if model is None:
        require_pytorch("A new network")
    else:
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
