"""Exporter: traces a network, writes it to a temporary folder, compares it, and only then moves it to its path."""

from __future__ import annotations

import copy
import importlib.metadata
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from refinenet.datasets import street_scenes
from refinenet.datasets.catalog import Dataset
from refinenet.distributed.environment import describe_run
from refinenet.export.certificate import Certificate, describe_files, time_both
from refinenet.export.defaults import SIZES
from refinenet.export.formats.table import Format, find_format
from refinenet.export.formats.targets import ExportPrecision, Shape, check_path
from refinenet.export.metadata import GraphMetadata, Runner, describe
from refinenet.export.parity import (
    CASES,
    ParityCase,
    ParityReport,
    ParityTolerance,
    compare_on_dataset,
    compare_on_streets,
    draw,
    run_in_pytorch,
)
from refinenet.export.quantisation.int8 import Int8
from refinenet.export.quantisation.recording import RecordedInt8
from refinenet.io.console import print_note
from refinenet.io.files import write_atomically
from refinenet.models.files.model_card import ModelCard
from refinenet.models.inference_graph import (
    INPUT,
    DeployedNetwork,
    GraphResult,
    list_results,
    network_to_deploy,
    trace,
)
from refinenet.models.network import Network


def check_target(
    path: str | os.PathLike[str], precision: ExportPrecision = "float32", shape: Shape | None = None
) -> Format:
    """Return the format of an export by its path, after checking both before any work is done.

    Args:
        path: Path of the export.
        precision: Precision of its arithmetic.
        shape: Fixed shape of its images.

    Raises:
        ValueError, OSError: A package that the format needs is not installed, or as `targets.check_path`.
    """
    check_path(path, precision, shape)
    found = find_format(path)
    found.require()
    return found


def export_model(
    path: str | os.PathLike[str],
    network: Network,
    card: ModelCard,
    *,
    dataset: Dataset | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    shape: Shape | None = None,
    bounds: ParityTolerance | None = None,
    int8: Int8 | RecordedInt8 | None = None,
    progress: bool = True,
) -> Certificate:
    """Write a network in the format of another program, if its output there equals that of PyTorch.

    Args:
        path: `.onnx`, `.xml` (OpenVINO, with a `.bin` beside it), `.pt2`, `.triton` (a folder) or `.engine` (TensorRT).
            The certificate is written beside it, under the same name with `.certificate.json` after it.
        network: What to export.
        card: Its model card.
        dataset: Additional images to compare and to measure mIoU on; with the network's classes.
        sizes: Heights and widths of additional images to compare on, and to time; not of an engine.
        shape: Shape `(N, 3, H, W)` of the images of an engine.
        bounds: Tolerance of the comparison; by default that of the precision.
        int8: Quantisation, for `.xml` only.
        progress: Whether to show progress and the certificate's tables.

    Raises:
        ValueError: No format has this suffix, a package that it needs is not installed, a size is not valid, the
            network cannot be traced, or its export is out of tolerance. A file at `path` stays unchanged.
        OSError: The export cannot be written.
    """
    chosen = check_target(path, "int8" if int8 is not None else "float32", shape)
    list_results(card.architecture.outputs, len(card.label_set))  # refuses names that graphs use for something else
    _check_sizes(sizes)
    cases = CASES if shape is None else [_find_case(shape, card, dataset)]
    sizes = sizes if shape is None else [shape[2:]] if shape[0] == 1 else []
    allowed = bounds or (ParityTolerance() if int8 is None else int8.bounds)
    # The graph is made of a copy with fused layers, and compared with the network as its users have it.
    published, deployed = DeployedNetwork(copy.deepcopy(network).cpu()).eval(), network_to_deploy(network)
    if chosen.has_fixed_shape:
        published.label_type = deployed.label_type = torch.int32
    # Broken weights are reported before the export.
    run_in_pytorch(published, draw((1, 33, 47), 0, len(network.architecture.band_names)))
    metadata = describe(published.network, card)
    print_note(f"Writing {os.fspath(path)}: {chosen.name}; this takes about half a minute.", enabled=progress)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        draft = Path(folder) / Path(path).name
        _write(chosen, deployed, metadata, draft, shape, int8)
        run = chosen.open(draft)
        streets = list(compare_on_streets(published, run, sizes, cases))
        comparison = _add_dataset(streets, published, run, dataset, metadata, progress=progress)
        _refuse(comparison, allowed, path)
        contents = _read(draft)
        certificate = Certificate(
            path=Path(path),
            format=chosen.name,
            precision="float32" if int8 is None else "int8",
            kept_in_float=() if int8 is None else tuple(int8.kept),
            model={**card.architecture.to_dict(), "weights_sha256": metadata.card.weights_sha256},
            graph=_describe_graph(metadata, chosen, shape),
            files=describe_files(contents),
            bounds=allowed,
            comparison=comparison,
            latency=time_both(deployed, run, card.label_set, sizes),
            made=_describe_making(chosen),
        )
    _keep(contents, certificate)
    if progress:
        certificate.print()
    return certificate


def _write(
    chosen: Format,
    network: DeployedNetwork,
    metadata: GraphMetadata,
    draft: Path,
    shape: Shape | None,
    int8: Int8 | RecordedInt8 | None,
) -> None:
    """Trace a network, and write it to a path in a format, quantised if that is asked for."""
    if int8 is None:
        chosen.write(_trace(network, shape), metadata, draft)
    else:
        assert chosen.write_int8 is not None  # `check_target`
        chosen.write_int8(_trace(network), metadata, draft, int8.apply)


def _find_case(shape: Shape, card: ModelCard, dataset: Dataset | None) -> tuple[int, int, int]:
    """Return batch, height and width of the images to compare an engine on.

    Raises:
        ValueError: The network takes other bands, or there is a dataset, whose images have other shapes.
    """
    bands = card.architecture.band_names
    if shape[1] != len(bands):
        raise ValueError(
            f"The second number of the shape must be {len(bands)}, for {', '.join(bands)}, not {shape[1]}."
        )
    if dataset is not None:
        raise ValueError(
            "An engine takes images of one shape and cannot be compared on a dataset: leave the dataset out."
        )
    return shape[0], shape[2], shape[3]


def _check_sizes(sizes: Sequence[tuple[int, int]]) -> None:
    for size in sizes:
        if len(size) != 2 or not all(type(side) is int and 1 <= side <= street_scenes.LARGEST for side in size):
            raise ValueError(
                f"A size must be a height and a width from 1 to {street_scenes.LARGEST} pixels, not {size!r}."
            )


def _trace(deployed: DeployedNetwork, shape: Shape | None = None) -> torch.export.ExportedProgram:
    try:
        return trace(deployed, shape)
    except RuntimeError as error:
        encoder = deployed.network.architecture.encoder
        raise ValueError(
            f"A network on the encoder {encoder!r} cannot be traced for any image size: {error}"
        ) from error


def _add_dataset(
    streets: Sequence[ParityCase],
    published: DeployedNetwork,
    run: Runner,
    dataset: Dataset | None,
    metadata: GraphMetadata,
    *,
    progress: bool,
) -> ParityReport:
    if dataset is None:
        return ParityReport(cases=streets, scored=None)
    cases, scored = compare_on_dataset(published, run, dataset, metadata.card.label_set, progress=progress)
    return ParityReport(cases=[*streets, *cases], scored=scored)


def _refuse(comparison: ParityReport, bounds: ParityTolerance, path: str | os.PathLike[str]) -> None:
    problems = comparison.problems(bounds)
    if problems:
        raise ValueError(
            f"The export to {os.fspath(path)} was not kept, because its predictions differ from the network's: "
            + "; ".join(problems)
            + "."
        )


def _read(draft: Path) -> dict[str, bytes]:
    """Read the files of an export by their paths relative to its folder, with slashes."""
    folder = draft.parent
    # The file that is opened comes last: it may name others, as OpenVINO's XML does its weights.
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file == draft)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _keep(contents: Mapping[str, bytes], certificate: Certificate) -> None:
    """Write each file atomically; last the certificate, whose hashes identify the files that belong together."""
    for name, content in contents.items():
        write_atomically(certificate.path.parent / name, content)
    certificate.save()


def _describe_graph(metadata: GraphMetadata, chosen: Format, fixed: Shape | None) -> dict[str, Any]:
    architecture = metadata.card.architecture
    values = f"{', '.join(architecture.band_names)} in [0, 1]" if architecture.bands else "RGB in [0, 1]"
    shape = ["N", len(architecture.band_names), "H", "W"] if fixed is None else list(fixed)
    return {
        "input": {"name": INPUT, "type": "float32", "shape": shape, "values": values},
        "outputs": [_describe_result(result, fixed) for result in metadata.results],
        "opset": chosen.opset,
    }


def _describe_result(result: GraphResult, fixed: Shape | None) -> dict[str, Any]:
    # In an engine labels are int32, and sizes follow from those of the images.
    kind = result.type if fixed is None or result.type == "float32" else "int32"
    described: dict[str, Any] = {"name": result.name, "type": kind, "shape": list(result.shape)}
    if result.spec is not None:
        described |= {"kind": result.spec.kind, "values": result.meaning}
        described |= {"quantities": [{"name": name, "unit": unit} for name, unit in result.spec.quantities]}
    return described


def _describe_making(chosen: Format) -> dict[str, Any]:
    made = describe_run()
    made["packages"] |= {name: importlib.metadata.version(name) for name in chosen.packages}
    return made
