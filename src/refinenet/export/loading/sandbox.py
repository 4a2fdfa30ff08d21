"""Sandbox for untrusted exported files: a process that parses, checks and tests them with limited memory and time.

A file that needs more, or crashes the engine, ends this process and not its parent. It cannot write files.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

import numpy as np

from refinenet.export.loading.schema import Checked
from refinenet.inference.backends.graph import OPENVINO_FILES, Engine, Graph, start_engine
from refinenet.inference.backends.isolated import SIZE_FACTOR, SPARE_BYTES, load_engine
from refinenet.io.processes.child_process import open_replies, pack_message, set_limit, unpack_message, used_addresses

SECONDS = 120
"""CPU time of reading and trying a file."""
TRIALS = ((1, 128, 128), (2, 33, 47))
"""Number, height and width of the images that the graph is tried on; one number for each pair of pixels of the first is
a gigabyte."""


def main() -> None:
    """Read files from standard input; write the facts about them, or the reason of a refusal, to standard output."""
    with open_replies() as answer:  # engines print to standard output, too
        asked, files = unpack_message(sys.stdin.buffer.read())
        engine: Engine = asked["engine"]
        _load_libraries(engine, is_onnx=len(files) == 1)
        _limit(sum(map(len, files.values())))
        try:
            checked = check_files(files)
            _try(checked, engine)
            answer.write(pack_message(checked.facts(), checked.files))
        except (ValueError, MemoryError) as error:
            answer.write(pack_message({"refused": str(error) or "it needs too much memory"}, {}))


def _load_libraries(engine: Engine, *, is_onnx: bool) -> None:
    """Import what checks and runs the file, before memory is limited, so that it is not counted."""
    importlib.import_module(f"refinenet.export.loading.{'onnx' if is_onnx else 'openvino'}")
    load_engine(engine)


def _limit(size: int) -> None:
    """Limit computing time, memory and files; `size` is that of the exported file in bytes."""
    taken = used_addresses()
    set_limit("RLIMIT_CPU", SECONDS)
    set_limit("RLIMIT_FSIZE", 0)
    set_limit("RLIMIT_CORE", 0)
    if taken:
        set_limit("RLIMIT_AS", taken + SPARE_BYTES + SIZE_FACTOR * size)


def check_files(files: Mapping[str, bytes]) -> Checked:
    """Check the content of an exported file, or of OpenVINO's two, without running the graph.

    Raises:
        ValueError: It is not allowed.
    """
    if len(files) == 1:
        from refinenet.export.loading.onnx import check_onnx

        return check_onnx(*files.values())
    from refinenet.export.loading.openvino import check_openvino

    return check_openvino(*(files[name] for name in OPENVINO_FILES))


def _try(checked: Checked, engine: Engine) -> None:
    run = start_engine(Graph(checked.files), engine, threads=1)
    for count, height, width in TRIALS:
        shape = count, checked.bands, height, width
        images = np.random.default_rng(0).random(shape, np.float32)
        logits = run(images)
        expected = (count, checked.channels, -(-height // 4), -(-width // 4))
        if logits.shape != expected or logits.dtype != np.float32:
            raise ValueError(
                f"for images of shape {shape} it returns {logits.dtype} of shape {logits.shape}, not float32 {expected}"
            )
