"""Training processes that know of each other, as `torchrun` starts them, without importing PyTorch each time."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import warm_start

LIMIT = 300
"""Seconds that a busy machine may take for what takes a few."""


def start_ranks(command: list[str], processes: int = 2, **options: Any) -> Iterator[warm_start.Process]:
    """Start a command in several processes of this machine that know of each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together: dict[str, object] = {
        "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "GROUP_RANK": 0,
        "GROUP_WORLD_SIZE": 1,
    }
    together |= {"OMP_NUM_THREADS": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    for number in range(processes):
        own = {**together, "RANK": number, "LOCAL_RANK": number}
        environment = os.environ | {name: str(value) for name, value in own.items()}
        yield warm_start.Process(command, env=environment, stdout=subprocess.DEVNULL, **options)


def run_ranks(command: list[str], processes: int = 2) -> None:
    """Run a command in several processes of this machine; where one fails the others are killed, as torchrun does."""
    ranks: list[warm_start.Process] = []
    try:
        ranks.extend(start_ranks(command, processes))
        deadline = time.monotonic() + LIMIT
        while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
            assert time.monotonic() < deadline, "the processes wait for each other"
            time.sleep(0.02)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    codes = [rank.returncode for rank in ranks]
    assert codes == [0] * processes
