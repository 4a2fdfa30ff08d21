"""`python -m refinenet` without importing PyTorch each time, which takes longer than most of what is tested.

A process that has imported the libraries, and nothing of ours, is forked for each command: it runs in a process of its
own, with its own folder, environment and streams, and imports all of `refinenet` anew. What is about starting itself,
such as that `--help` imports no PyTorch, and what is ended by a signal starts Python in the usual way.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision.transforms.v2", "lightning.fabric", "timm", "torch.utils.tensorboard", "typer")
"""What takes commands longest to import."""


class WarmStart:
    """Runs commands of the package, one after the other."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: list[str], folder: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with `capture_output`, and standard input that is empty."""
        with tempfile.TemporaryDirectory() as places:
            streams = {name: f"{places}/{name}" for name in ("stdout", "stderr")}
            job = {"arguments": arguments, "folder": str(folder), "environment": dict(os.environ), **streams}
            code = self._ask({**job, "timeout": timeout})
            out, err = (Path(streams[name]).read_text("utf-8") for name in ("stdout", "stderr"))
        if code is None:
            print(err)  # ends with where each thread was
            raise subprocess.TimeoutExpired(arguments, timeout, out, err)
        return subprocess.CompletedProcess(arguments, code, out, err)

    def close(self) -> None:
        """End the process that is forked."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)

    def _ask(self, job: dict[str, Any]) -> int | None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(job), file=self._server.stdin, flush=True)
        line = self._server.stdout.readline()
        assert line, f"the process that is forked has ended, with code {self._server.wait(30)}"
        answer: int | None = json.loads(line)
        return answer


def _serve() -> dict[str, Any] | None:
    """Fork for each job and tell its exit code, null where it took too long; the fork returns its job."""
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            return dict(job)
        print(json.dumps(_wait(child, job["timeout"])), flush=True)
    return None


def _wait(child: int, timeout: float) -> int | None:
    """The exit code of a child, as `subprocess` counts them."""

    def kill(*_: object) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself meanwhile
            os.kill(child, signal.SIGABRT)

    signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    _, status = os.waitpid(child, 0)
    is_late = signal.setitimer(signal.ITIMER_REAL, 0)[0] == 0
    return None if is_late else os.waitstatus_to_exitcode(status)


def _become(job: dict[str, Any]) -> None:
    """Take on a command's folder, environment and streams."""
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, job["stdout"], os.O_WRONLY | os.O_CREAT),
        (2, job["stderr"], os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags), descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the process's own, open to its end
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.enable(all_threads=True)  # writes where each thread is when SIGABRT ends a command that takes too long
    sys.path[0] = job["folder"]
    sys.argv = ["refinenet", *job["arguments"]]


def _run() -> int:
    """Run the command to its end, but for taking the interpreter apart, which takes a second; its exit code."""
    code: object = None
    try:
        runpy.run_module("refinenet", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - as Python itself does with what nobody caught
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # ends thread pools, then waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    assert "refinenet" not in sys.modules
    gc.freeze()  # what is there already is not looked through, and so not copied, by the forks
    work = _serve()
    if work is not None:
        _become(work)
        os._exit(_run())
