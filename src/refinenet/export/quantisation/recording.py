"""From a network to its int8 record: quantised by NNCF, rebuilt from the record, and measured as it will run."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet._version import __version__
from refinenet.datasets.catalog import Dataset
from refinenet.export.defaults import MAX_DROP
from refinenet.export.parity import ParityTolerance
from refinenet.export.quantisation.bounds import DropBounds, Scores
from refinenet.export.quantisation.graph import find_quantisers
from refinenet.export.quantisation.int8 import Int8
from refinenet.inference.backends.int8 import (
    MAP_LEVELS,
    MOST,
    Signatures,
    apply_record,
    check_network,
    find_bias,
    measure_difference,
    quantise_graph,
    read_constants,
)
from refinenet.inference.backends.openvino import translate
from refinenet.inference.backends.translation.openvino_conversion import convert_program
from refinenet.io.processes.threads import TRACING
from refinenet.models.files.int8_record import Int8Record, QuantisedLayer, QuantisedMap
from refinenet.models.files.tensor_files import digest
from refinenet.models.inference_graph import fuse, network_to_deploy, trace
from refinenet.models.network import Network

_PACKAGES = ("openvino", "nncf", "torch")


def choose_int8(
    network: Network,
    record: Int8Record | None,
    measured_on: Dataset | None,
    open_split: Callable[[str], Dataset],
    splits: tuple[str, str],
    bounds: DropBounds,
    *,
    progress: bool = True,
) -> Int8 | RecordedInt8:
    """Return how to quantise an export: anew if there is a dataset, otherwise as the model file says.

    Args:
        network: The network to export.
        record: How it runs in int8, if its model file says so.
        measured_on: As for `Int8.open`, like the rest.
        open_split: Opens a split of the same dataset.
        splits: The split that is measured, and the one to calibrate on.
        bounds: Largest losses.
        progress: Whether to show progress.

    Raises:
        ValueError: as `Int8.open`.
    """
    if measured_on is None and record is not None:
        return RecordedInt8(network=network, record=record)
    return Int8.open(measured_on, open_split, splits, network.architecture.outputs, bounds, progress=progress)


def record_int8(network: Network, int8: Int8) -> Int8Record:
    """Quantise a network, and return what is needed to do so again without images.

    Args:
        network: The network, on any device; it is not changed.
        int8: Images and bounds.

    Raises:
        ValueError: As `quantise`; or the network rebuilt from the record does not meet the bounds.
    """
    deployed = network_to_deploy(network)
    model = convert_program(trace(deployed))
    model.reshape([-1, len(network.architecture.band_names), -1, -1])
    quantised, fused = int8.quantise(model), deployed.network
    maps, layers = read_quantisation(quantised.model, model, fused)
    record = Int8Record(
        network_sha256=digest(network.state_dict()), maps=maps, layers=layers, kept=quantised.kept, difference=0.0
    )
    after = int8.measure(apply_record(model, record, fused))
    if not int8.bounds_on_scores.allow(quantised.before, after):
        raise ValueError(f"{int8.bounds_on_scores.describe(quantised.before, after)}. Allow a larger drop.")
    with TRACING:
        graph = quantise_graph(translate(fused), record, fused)
    return replace(
        record,
        difference=measure_difference(fused, graph),
        scores=_describe(int8, quantised.before, after),
        made={"refinenet": __version__, **{name: importlib.metadata.version(name) for name in _PACKAGES}},
    )


@dataclass(frozen=True, kw_only=True)
class RecordedInt8:
    """Quantisation of an export by the record of its model file, which needs no images."""

    network: Network
    """The network to export."""
    record: Int8Record
    """How it runs in int8."""
    max_drop: float = MAX_DROP
    """Largest drop of the mIoU, if the export is measured on a dataset."""

    @property
    def kept(self) -> Sequence[str]:
        """Layers that stay in floating point, the most sensitive first."""
        return self.record.kept

    @property
    def bounds(self) -> ParityTolerance:
        """Bounds for accepting the export: on the drop of mIoU instead of each logit."""
        return ParityTolerance(
            least_agreement=None,
            least_agreement_of_a_case=None,
            largest_relative_difference=None,
            largest_miou_loss=self.max_drop,
        )

    def apply(self, model: Any) -> Any:
        """Quantise an `openvino.Model` of the network.

        Raises:
            ValueError: The weights have changed since the network was quantised, or as `apply_record`.
        """
        check_network(self.record, digest(self.network.state_dict()))
        return apply_record(model, self.record, fuse(self.network).cpu())


def _describe(int8: Int8, before: Scores, after: Scores) -> dict[str, Any]:
    """Return images and scores of a quantisation, JSON-ready."""
    measured, calibrated = int8.measured_on, int8.calibration
    return {
        "dataset": measured.name,
        "split": measured.split,
        "images": len(measured),
        "calibration_split": calibrated.split,
        "calibration_images": int8.count,
        "miou_before": before.miou,
        "miou_after": after.miou,
        "rmse_before": dict(before.rmse),
        "rmse_after": dict(after.rmse),
    }


def read_quantisation(
    quantised: Any, original: Any, fused: Network
) -> tuple[tuple[QuantisedMap, ...], tuple[QuantisedLayer, ...]]:
    """Return the feature maps and layers that are quantised in a graph.

    Args:
        quantised: An `openvino.Model` made by NNCF.
        original: The model in floating point, with the same names of operations.
        fused: The network that it was translated from.

    Raises:
        ValueError: It is quantised in a way that no record can describe.
    """
    signatures = Signatures.of(original, fused)
    nodes = {node.get_friendly_name(): node for node in quantised.get_ordered_ops()}
    known = {node.get_friendly_name(): node for node in original.get_ordered_ops()}
    maps = tuple(_read_map(node, known, signatures) for node in find_quantisers(quantised).values())
    biases = _read_biases(quantised), _read_biases(original)
    layers = []
    for name, weights in signatures.weights.items():
        rounded = _find_rounded(nodes[name])
        if rounded is not None:
            after, before = (found.get(name, np.zeros(1, np.float32)) for found in biases)
            stretch = 1 if np.abs(rounded.astype(np.int16)).max(initial=0) > MOST // 2 + 1 else 2
            layers.append(QuantisedLayer(weights=weights, stretch=stretch, correction=_flat(after - before)))
    return maps, tuple(layers)


def _read_map(quantiser: Any, known: Mapping[str, Any], signatures: Signatures) -> QuantisedMap:
    source = quantiser.input_value(0)
    node = source.get_node()
    if node.get_friendly_name() not in known:  # a bias that NNCF has added to a convolution without one
        source = node.input_value(0)
    name = source.get_node().get_friendly_name()
    low, high, *others = (quantiser.input_value(port).get_node().get_data() for port in (1, 2, 3, 4))
    by_channel = low.size == 1 or (low.ndim == 4 and low.size == low.shape[1])
    is_plain = by_channel and np.array_equal([low, high], others)
    if name not in known or source.get_index() or not is_plain or quantiser.get_attributes()["levels"] != MAP_LEVELS:
        raise ValueError(f"NNCF has quantised {name} in a way that a model file cannot describe: export the model.")
    readers = _list_readers(quantiser.output(0))
    is_whole = {*readers} == {*_list_readers(known[name].output(0))}
    chosen = () if is_whole else tuple((signatures.by_name[reader], port) for reader, port in readers)
    return QuantisedMap(
        node=signatures.by_name[name],
        low=tuple(low.flatten().tolist()),
        high=tuple(high.flatten().tolist()),
        readers=chosen,
    )


def _list_readers(output: Any) -> list[tuple[str, int]]:
    """Return the operations that read an output, with the number of their input, sorted."""
    return sorted((port.get_node().get_friendly_name(), port.get_index()) for port in output.get_target_inputs())


def _find_rounded(convolution: Any) -> npt.NDArray[np.int8] | None:
    """Return the int8 weights of a convolution; None if it is in floating point."""
    node = convolution.input_value(1).get_node()
    while node.inputs():
        node = node.input_value(0).get_node()
    values = node.get_data()
    return values if values.dtype == np.int8 else None


def _read_biases(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Return the bias of each convolution that has one, by the convolution's name in the graph."""
    nodes = [node for node in model.get_ops() if node.get_type_name() in ("Convolution", "GroupConvolution")]
    found = {node.get_friendly_name(): find_bias(node) for node in nodes}
    adds = {name: bias.get_friendly_name() for name, bias in found.items() if bias is not None}
    values = read_constants(model, [*adds.values()])
    return {name: values[add] for name, add in adds.items()}


def _flat(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(values.flatten().tolist()) if values.any() else ()
