"""Exported programs of PyTorch: the writer, and the runner by PyTorch without this package."""

from __future__ import annotations

from pathlib import Path

import torch

from refinenet.export.metadata import GraphMetadata, GraphOutput, Images, Runner


def write(program: torch.export.ExportedProgram, metadata: GraphMetadata, path: Path) -> None:
    """Write a traced network, its metadata as extra files in the archive."""
    torch.export.save(program, path, extra_files=dict(metadata.text_entries()))


def open_file(path: Path) -> Runner:
    """Load an exported program."""
    module = torch.export.load(path).module()

    def run(images: Images) -> GraphOutput:
        try:
            with torch.inference_mode():
                results = module(torch.from_numpy(images))
        except AssertionError as error:  # a condition of the trace that does not hold
            raise RuntimeError(str(error)) from error
        return tuple(result.numpy() for result in results)

    return run
