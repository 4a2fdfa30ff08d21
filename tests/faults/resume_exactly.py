"""Stop trainings after k steps, go on, and compare every tensor with a training that was never stopped.

    python tests/faults/resume_exactly.py

prints a table: at the first step, in the middle of an epoch, at its end, before the last step; 0 and 2 loading
processes; 1 and 2 training processes. Averaged weights, accumulation and warm-up are on. Exit code 1 if a bit differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

EPOCHS, STEPS_PER_EPOCH = 3, 4
STEPS = EPOCHS * STEPS_PER_EPOCH
STOPS = {"first step": 1, "mid-epoch": 6, "end of an epoch": 2 * STEPS_PER_EPOCH, "before the last": STEPS - 1}
VERB = ["-m", "refinenet", "train"]
SETTINGS = {
    "crop_size": "[64,64]",
    "batch_size": "8",
    "epochs": str(EPOCHS),
    "ema_decay": "0.95",
    "accumulation": "2",
    "warm_up": "0.5",
    "paste_classes": "0.5",
    "loggers": "[]",
}


def train(arguments: list[str], processes: int) -> None:
    """Run the command line, in several processes under torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), *VERB, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")


def begin(output: Path, workers: int, processes: int, *more: str) -> None:
    """A training from its first step."""
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    data = ["--dataset", f"streets:{8 * STEPS_PER_EPOCH}:96x64", "--encoder", "test_resnet", "--no-check"]
    train([*data, *settings, "--set", f"workers={workers}", "--output", str(output), *more], processes)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All that the last checkpoint and the final models hold."""
    checkpoint = max((folder / "checkpoints").glob(f"step-{STEPS:06d}*"))  # saved again, it is called step-000012.2
    files = {name: checkpoint / f"{name}.safetensors" for name in ("weights", "average")}
    files |= {name: folder / f"{name}.safetensors" for name in ("best", "last")}
    found = {f"{kind} {name}": tensor for kind, path in files.items() for name, tensor in load_file(path).items()}
    learning = torch.load(checkpoint / "learning.pt", weights_only=True)
    for number, values in learning["optimiser"]["state"].items():
        found |= {f"optimiser {number} {name}": torch.as_tensor(value) for name, value in values.items()}
    return found | {f"random {rank}": value for rank, value in enumerate(learning["random"])}


def count_different(folder: Path, whole: Path) -> tuple[int, int]:
    """How many tensors are not bit-equal, and how many there are."""
    ours, expected = tensors(folder), tensors(whole)
    different = sum(not torch.equal(ours[name], tensor) for name, tensor in expected.items())
    return different + len(ours.keys() ^ expected.keys()), len(expected)


def main() -> int:
    """Print the table; 1 where a bit differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    print(f"{'processes':>9} {'workers':>7}  {'stopped at':<16} {'after steps':>11} {'tensors':>7} {'different':>9}")
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        for processes in options.processes:
            whole = Path(scratch) / f"whole-{processes}"
            begin(whole, 0, processes)
            for workers in options.workers:
                for where, steps in STOPS.items():
                    folder = Path(scratch) / f"{processes}-{workers}-{steps}"
                    begin(folder, workers, processes, "--stop-after", str(steps))
                    train(["--resume", str(folder)], processes)
                    different, total = count_different(folder, whole)
                    print(f"{processes:>9} {workers:>7}  {where:<16} {steps:>11} {total:>7} {different:>9}", flush=True)
                    bad += different
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
