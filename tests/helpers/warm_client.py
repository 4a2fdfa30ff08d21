"""Asks the server of `warm_start` for a command; as a program it is the command, as for a shell that looks for it.

    python -S -E warm_client.py ADDRESS -m refinenet ARGUMENTS

ends as the command ends and passes on the signals that it gets.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def connect(address: str) -> socket.socket:
    """Return a connection to the server, which is kept from the programs that this process starts."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def ask(connection: socket.socket, job: dict[str, object], streams: list[int]) -> int:
    """Begin a command and return the identifier of its process.

    Args:
        connection: one for this command alone; its exit code arrives there as a line.
        job: what the server is to start.
        streams: descriptors that become its standard streams; of a stream that is closed, -1.
    """
    is_open = [descriptor >= 0 for descriptor in streams]
    line = json.dumps({**job, "streams": is_open}).encode() + b"\n"
    sent = socket.send_fds(connection, [line], [descriptor for descriptor in streams if descriptor >= 0])
    connection.sendall(line[sent:])
    return read_number(connection)


def read_number(connection: socket.socket) -> int:
    """Wait for a line with a number."""
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(1)
        if not part:
            raise EOFError("The server of warm starts has ended.")
        line += part
    return int(line)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _main() -> None:
    streams = [descriptor if _is_open(descriptor) else -1 for descriptor in range(3)]
    while os.open(os.devnull, os.O_RDWR) < 2:  # else the connection would become a standard stream
        pass
    connection = connect(sys.argv[1])
    folder = os.getcwd()  # noqa: PTH109 - pathlib takes longer to import than the rest to run
    job: dict[str, object] = {"words": sys.argv[2:], "folder": folder, "environment": dict(os.environ)}
    process = ask(connection, job, streams)
    for number in FORWARDED:
        signal.signal(number, lambda number, _: os.kill(process, number))
    code = read_number(connection)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    _main()
