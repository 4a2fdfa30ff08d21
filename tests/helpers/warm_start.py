"""Python without importing PyTorch each time, which takes longer than most of what is tested.

`Process` and `run` are used as `subprocess.Popen` and `subprocess.run` are. What they start is forked from a server
(`warm_server`) that has imported the libraries, and nothing of ours: a process of its own, with its own folder,
environment and streams, that imports all of `refinenet` anew. One server is shared by all processes of a test session
and ends with them.

What is about starting itself, such as that `--help` imports no PyTorch, and what depends on how the interpreter or C
libraries are set up (locales, memory allocation, limits) starts Python in the usual way.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import warm_client

ADDRESS = "REFINENET_WARM_START"
"""The environment variable that names the server's socket."""

_SESSION = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
os.environ.setdefault(ADDRESS, f"{tempfile.gettempdir()}/refinenet-{_SESSION[:16]}/server")

_lifelines: dict[int, int] = {}
"""The connection that keeps the server alive as long as this process, by its number: a fork makes its own."""
_start_lock = threading.Lock()
_server: subprocess.Popen[bytes] | None = None


class Process(subprocess.Popen[Any]):
    """A Python process, from a command whose first word is `sys.executable`: -m MODULE, -c CODE or a script."""

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Any,
        close_fds: Any,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        startupinfo: Any,
        creationflags: Any,
        shell: Any,
        *pipes_and_more: Any,
    ) -> None:
        """Start it; the method of `subprocess.Popen` that does so."""
        pipes, more = pipes_and_more[:6], pipes_and_more[6:]
        assert not any((executable, preexec_fn, pass_fds, shell)), "a fork cannot do that"
        assert args[0] == sys.executable
        words = [os.fspath(word) for word in args[1:]]
        job = {"words": words, "folder": os.fspath(cwd or Path.cwd()), "environment": dict(env or os.environ)}
        start()
        self._connection = warm_client.connect(os.environ[ADDRESS])
        self._lock = threading.Lock()
        ours = [pipes[0], pipes[3], pipes[5]]
        streams = [number if given == -1 else given for number, given in enumerate(ours)]
        self.pid = warm_client.ask(self._connection, {**job, "new_session": bool(more[-2])}, streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        try:
            if self.returncode is None:
                self._connection.settimeout(None if deadline is None else max(0, deadline - time.monotonic()))
                self.returncode = warm_client.read_number(self._connection)
                self._connection.close()
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
        finally:
            self._lock.release()
        return self.returncode


def run(
    command: list[Any],
    *,
    input: Any = None,  # noqa: A002 - as subprocess calls it
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end; one that takes too long says on standard error where its threads are."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Process(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired as late:
            process.send_signal(signal.SIGABRT)
            out, err = process.communicate()
            print(err)
            raise subprocess.TimeoutExpired(command, late.timeout, out, err) from None
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def start() -> None:
    """Start the server, where no process of this session has done so."""
    with _start_lock:
        if os.getpid() in _lifelines:
            return
        address = Path(os.environ[ADDRESS])
        address.parent.mkdir(mode=0o700, exist_ok=True)
        with (address.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                lifeline = warm_client.connect(str(address))
            except (FileNotFoundError, ConnectionRefusedError):
                _start_server(address)
                lifeline = warm_client.connect(str(address))
            _lifelines[os.getpid()] = lifeline.detach()


def _start_server(address: Path) -> None:
    global _server
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(address))
        listener.listen(100)
        descriptor = listener.fileno()
        server = Path(warm_client.__file__).with_name("warm_server.py")
        _server = subprocess.Popen(
            [sys.executable, server, str(descriptor)],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


def words_for_a_shell(command: list[str]) -> list[str]:
    """Return the command that a shell, or another program, has to start so that this one is run."""
    start()
    client = [sys.executable, "-S", "-E", warm_client.__file__, os.environ[ADDRESS]]
    return [*client, *command[1:]]
