"""Child processes behind a pipe: a reply belongs to its message, whatever interrupted the one before."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_trouble import InterruptedByTestError, called_after, no_new_files, no_new_threads, raised_after, run_fresh

from refinenet.io import ChildEndedError, ChildProcess, pack_message

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops and limits processes as Linux does")


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    process = ChildProcess("replying_child", 7)
    yield process
    process.end()
    assert not Path(f"/proc/{process.identifier}").exists()


def message(name: str, content: bytes = b"") -> bytes:
    return pack_message({"name": name}, {"content": content})


def test_replies_are_those_of_their_messages(child: ChildProcess) -> None:
    for k in range(3):
        facts, files = child.ask(message(f"{k}", bytes([k]) * 100_000), seconds=100)
        assert facts == {"name": f"{k}", "number": 7}
        assert files == {"content": bytes([k]) * 100_000}
    assert child.is_ready


@pytest.mark.parametrize("error", [InterruptedByTestError, KeyboardInterrupt, TimeoutError, MemoryError])
def test_an_exception_ends_the_process_and_is_raised(child: ChildProcess, error: type[BaseException]) -> None:
    child.ask(message("first"))
    os.kill(child.identifier, signal.SIGSTOP)
    with pytest.raises(error), raised_after(0.2, error):
        child.ask(message("second"))
    assert not child.is_ready
    assert not Path(f"/proc/{child.identifier}").exists()
    with pytest.raises(ChildEndedError, match="has ended"):
        child.ask(message("third"))


def test_a_process_whose_reply_is_still_to_come_cannot_be_asked(child: ChildProcess) -> None:
    """As by a handler of a signal, which would read the reply of the call that it interrupts."""
    os.kill(child.identifier, signal.SIGSTOP)
    with pytest.raises(ChildEndedError, match="has ended"), called_after(0.2, lambda: child.ask(message("handler's"))):
        child.ask(message("first"))


_LARGE_REPLY = """
from child_trouble import limited
from refinenet.io import ChildProcess, pack_message, used_addresses
child = ChildProcess("replying_child", 7)
asked = pack_message({}, {"content": bytes(60_000_000)})
with limited("RLIMIT_AS", used_addresses() + 2**25):
    try:
        child.ask(asked)
    except MemoryError:
        print("ready" if child.is_ready else "ended")
"""


def test_too_little_memory_for_a_reply_ends_the_process() -> None:
    assert run_fresh(_LARGE_REPLY) == "ended\n"


def test_a_time_limit_that_cannot_be_set_ends_the_process(child: ChildProcess) -> None:
    with pytest.raises(RuntimeError, match="can't start new thread"), no_new_threads():
        child.ask(message("first"), seconds=100)
    assert not child.is_ready


def test_time_is_limited(child: ChildProcess) -> None:
    child.ask(message("first"), seconds=100)
    os.kill(child.identifier, signal.SIGSTOP)
    with pytest.raises(ChildEndedError, match=r"took longer than 0\.2 s") as caught:
        child.ask(message("second"), seconds=0.2)
    assert caught.value.is_timeout
    assert not child.is_ready


@pytest.mark.parametrize(
    "raw",
    ["no message", '{"facts": {}, "sizes": []}\n', '{"facts": {}}\n', "[]\n", '{"facts": {}, "sizes": {"a": 9}}\n'],
)
def test_what_is_no_reply_ends_the_process(child: ChildProcess, raw: str) -> None:
    with pytest.raises(ChildEndedError, match="has ended") as caught:
        child.ask(pack_message({"raw": raw}, {}))
    assert not caught.value.is_timeout
    assert not child.is_ready


def test_a_reply_that_is_too_large_ends_the_process(child: ChildProcess) -> None:
    with pytest.raises(ChildEndedError, match="has ended"):
        child.ask(message("large", bytes(2000)), largest=1000)
    assert not child.is_ready


def test_a_process_that_ends_by_itself_or_by_another_thread(child: ChildProcess) -> None:
    with pytest.raises(ChildEndedError, match="has ended") as caught:
        child.ask(pack_message({"ends": True}, {}))
    assert not caught.value.is_timeout
    other = ChildProcess("replying_child", 8)
    os.kill(other.identifier, signal.SIGSTOP)
    threading.Timer(0.2, other.end).start()
    with pytest.raises(ChildEndedError, match="has ended"):
        other.ask(message("first"), seconds=100)


def test_a_process_that_cannot_be_started() -> None:
    with pytest.raises(ChildEndedError, match=r"cannot be started \(Too many open files\)"), no_new_files():
        ChildProcess("replying_child", 7)


_UNSENT = """
import os, signal, threading
from refinenet.io import ChildEndedError, ChildProcess, pack_message
child = ChildProcess("replying_child", 7)
os.kill(child.identifier, signal.SIGSTOP)
threading.Timer(0.3, child.end).start()
try:
    child.ask(pack_message({}, {"content": bytes(2**16 + 3000)}))  # more than a pipe holds, the rest in a buffer
except ChildEndedError as error:
    print(error)
"""


def test_what_was_not_sent_is_not_sent_later() -> None:
    """Newer versions of Python report errors of streams that are never closed, older ones do in this mode."""
    assert run_fresh(_UNSENT, "-X", "dev", "-W", "ignore") == "has ended\n"
