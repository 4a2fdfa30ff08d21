"""Cache of translated networks on disk, shared by all processes of a user."""

from __future__ import annotations

from collections.abc import Callable

import torch

from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.graph import Engine, Graph, start_engine
from refinenet.inference.backends.int8 import check_difference, check_network, quantise_graph
from refinenet.inference.backends.translation.cached_translations import find_folder, read_translation
from refinenet.inference.backends.translation.private_cache import write_cached
from refinenet.io.console import print_note
from refinenet.models.files.int8_record import Int8Record
from refinenet.models.files.tensor_files import digest
from refinenet.models.inference_graph import fuse, without_changes_in_place
from refinenet.models.network import Network

ALLOWED_DIFFERENCE = 1e-3
"""Largest allowed difference from PyTorch's logits, as a fraction of their range."""
_TEST_SIZE = (79, 113)
"""Size of the two random images on which a new translation is compared with PyTorch."""


def read_or_translate(
    network: Network,
    translate: Callable[[Network], Graph],
    engine: Engine,
    title: str,
    record: Int8Record | None = None,
) -> Graph:
    """Translate a network to a graph, or read it from the cache; a new translation is first compared with PyTorch.

    Args:
        network: Network to translate; it is not modified, since a fused copy is translated.
        translate: Function that translates the fused network.
        engine: Engine that runs the graph.
        title: Name of the engine in messages.
        record: How to run the network in int8, with OpenVINO only; None for floating point.

    Raises:
        BackendError: the network cannot be translated, or the translation disagrees with PyTorch; or it is not the one
            that was quantised.
    """
    weights = digest(network.state_dict())
    if record is not None:
        check_network(record, weights)
    folder = find_folder(engine, weights, network.architecture, record)
    cached = read_translation(folder)
    if cached is not None:
        return cached
    kept = "" if folder is None else " The result is cached for later runs."
    print_note(f"Preparing the network for {title}; this takes a few seconds.{kept}")
    fused = without_changes_in_place(fuse(network))
    try:
        graph = translate(fused)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise BackendError(f"The network cannot be translated for {title} ({reason}).") from error
    _compare(fused, graph, engine, title)
    if record is not None:
        graph = quantise_graph(graph, record, fused)
        check_difference(fused, graph, record)
    if folder is not None:
        write_cached(graph.files, folder)
    return graph


def _compare(network: Network, graph: Graph, engine: Engine, title: str) -> None:
    """Reject a graph whose logits differ from the network's."""
    images = torch.rand(
        (2, len(network.architecture.band_names), *_TEST_SIZE), generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        expected = network.maps(images)
    actual = torch.from_numpy(start_engine(graph, engine)(images.numpy()))
    difference = float((actual - expected).abs().max() / (expected.max() - expected.min()).clamp(min=1e-12))
    if not difference <= ALLOWED_DIFFERENCE and bool(expected.isfinite().all()):
        raise BackendError(
            f"{title} disagrees with PyTorch here: its logits differ by {difference:.2g} of their range; "
            f"{ALLOWED_DIFFERENCE:g} is allowed."
        )
