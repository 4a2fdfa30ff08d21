"""A process that has imported the libraries, and nothing of ours, and is forked for each command (see `warm_start`).

    python warm_server.py DESCRIPTOR

listens at the socket of that descriptor until nobody is connected any more, and removes its folder.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import threading
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = (
    *("numpy", "torch", "torchvision.transforms.v2", "lightning.fabric", "timm", "torch.utils.tensorboard", "typer"),
    *("torch.export", "openvino", "onnxruntime", "onnx", "safetensors.torch", "pydantic.type_adapter"),
    *("pydantic.json_schema", "matplotlib.backends.backend_agg", "tomli_w"),
)
"""What takes commands longest to import."""

_THREADS = "OMP_NUM_THREADS"


class _Command(NamedTuple):
    """A process that runs, and who waits for it."""

    process: int
    client: socket.socket


def _serve(listener: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork for each job and tell its exit code; the fork returns its job and its standard streams."""
    watched = selectors.DefaultSelector()
    watched.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in watched.select():
            if key.fileobj is listener:
                client, _ = listener.accept()
                watched.register(client, selectors.EVENT_READ)
            elif isinstance(key.data, _Command):
                _tell_end(watched, key.data, key.fd)
            elif (job := _read_job(key.fileobj)) is None:  # type: ignore[arg-type]
                _hang_up(watched, key)
            elif (process := os.fork()) == 0:
                _close_all(watched)
                return job
            else:
                _begin(watched, key, process, job[1])
        if len(watched.get_map()) == 1:
            return None


def _read_job(client: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A job and the descriptors that came with it; nothing where the client has gone."""
    line, descriptors, _, _ = socket.recv_fds(client, 1 << 16, 3)
    while line and not line.endswith(b"\n"):
        part = client.recv(1 << 16)
        line = line + part if part else b""
    return (json.loads(line), descriptors) if line else None


def _begin(watched: selectors.BaseSelector, key: selectors.SelectorKey, process: int, streams: list[int]) -> None:
    for descriptor in streams:
        os.close(descriptor)
    client = key.fileobj
    assert isinstance(client, socket.socket)
    watched.modify(client, selectors.EVENT_READ, process)
    watched.register(os.pidfd_open(process), selectors.EVENT_READ, _Command(process, client))
    with suppress(OSError):
        client.sendall(f"{process}\n".encode())


def _tell_end(watched: selectors.BaseSelector, command: _Command, descriptor: int) -> None:
    _, status = os.waitpid(command.process, 0)
    watched.unregister(descriptor)
    os.close(descriptor)
    with suppress(OSError):
        command.client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    with suppress(KeyError, ValueError):  # it has gone before
        watched.modify(command.client, selectors.EVENT_READ)


def _hang_up(watched: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Forget a client, and end what it has begun and does not wait for."""
    if key.data is not None:
        os.kill(key.data, signal.SIGKILL)
    watched.unregister(key.fileobj)
    assert isinstance(key.fileobj, socket.socket)
    key.fileobj.close()


def _close_all(watched: selectors.BaseSelector) -> None:
    """Close what is the server's own."""
    for key in list(watched.get_map().values()):
        os.close(key.fd)
        if isinstance(key.fileobj, socket.socket):
            key.fileobj.detach()
    watched.close()


def _become(job: dict[str, Any], descriptors: list[int], libraries: list[str]) -> None:
    """Take on a command's streams, folder, environment and threads."""
    before = os.environ.get(_THREADS)
    os.environ.clear()
    os.environ.update(job["environment"])
    if job.get("new_session"):
        os.setsid()
    _open_streams(descriptors, job["streams"])
    os.chdir(job["folder"])
    search = os.environ.get("PYTHONPATH", "")
    sys.path[:] = ["", *filter(None, search.split(os.pathsep)), *libraries]
    importlib.invalidate_caches()
    faulthandler.enable(all_threads=True) if sys.stderr else None  # tells where each thread is when SIGABRT comes
    importlib.import_module("numpy").random.seed()
    if (threads := os.environ.get(_THREADS)) != before:
        importlib.import_module("torch").set_num_threads(int(threads) if threads else len(os.sched_getaffinity(0)))


def _open_streams(descriptors: list[int], are_open: list[bool]) -> None:
    """Make the descriptors standard streams, in the encoding that the environment asks for or that of the server."""
    given = iter(descriptors)
    coding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for number, (name, is_open) in enumerate(zip(("stdin", "stdout", "stderr"), are_open, strict=True)):
        theirs, stream = getattr(sys, name), None
        if is_open:
            descriptor = next(given)
            os.dup2(descriptor, number)
            os.close(descriptor)
            stream = open(  # noqa: SIM115 - the process's own, open to its end
                number,
                "w" if number else "r",
                1 if number == 2 or os.isatty(number) else -1,
                encoding=coding or theirs.encoding,
                errors="backslashreplace" if number == 2 else errors or ("strict" if coding else theirs.errors),
                closefd=False,
            )
        else:
            os.close(number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _run(words: list[str]) -> int:
    """Run a command to its end, but for taking the interpreter apart, which takes a second; its exit code."""
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    sys.orig_argv = [sys.executable, *words]
    code: object = None
    try:
        if words[0] == "-m":
            sys.path[0], sys.argv = str(Path.cwd()), words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), main.__dict__)
        else:
            sys.path[0], sys.argv = str(Path(words[0]).resolve().parent), words
            main.__file__ = words[0]
            exec(compile(Path(words[0]).read_bytes(), words[0], "exec"), main.__dict__)
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:  # noqa: BLE001 - as Python itself does with what nobody caught
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # ends thread pools, then waits for threads
    atexit._run_exitfuncs()
    return _flush(code if isinstance(code, int) else int(code is not None))


def _flush(code: int) -> int:
    """Write what is still to be written; the exit code, which is Python's own where that cannot be."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError as error:
            with suppress(OSError, AttributeError):
                print(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}", file=sys.__stderr__)
            code = 120
    return code


def _main() -> None:
    search = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    libraries = [folder for folder in sys.path[1:] if folder not in search]
    is_known = "CI" in os.environ
    os.environ.setdefault("CI", "true")  # as our own code imports OpenVINO: without a process that sends usage data
    for library in LIBRARIES:
        with suppress(ModuleNotFoundError):  # one that comes with another package, or not
            importlib.import_module(library)
    if not is_known:
        del os.environ["CI"]
    assert "refinenet" not in sys.modules
    gc.freeze()  # what is there already is not looked through, and so not copied, by the forks
    listener = socket.socket(fileno=int(sys.argv[1]))
    address, code = listener.getsockname(), 1
    try:
        work = _serve(listener)
        if work is None:
            shutil.rmtree(Path(address).parent, ignore_errors=True)
        else:
            _become(*work, libraries)
            code = _run(work[0]["words"])
    finally:  # without taking the interpreter apart
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


if __name__ == "__main__":
    _main()
