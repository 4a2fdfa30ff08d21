"""Signals that ask a training to stop, and the messages on them."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from refinenet.io.processes.signals import StopRequest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the test needs signals")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Start with a usual process's handlers (under nohup SIGHUP is ignored), and restore those of the test process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as interruption:
        assert interruption.asked_by is None
        send(number)
        send(signal.SIGTERM)
        assert interruption.asked_by is number
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_what_nohup_or_a_script_s_background_ignores_stays_ignored(ignored: signal.Signals) -> None:
    signal.signal(ignored, signal.SIG_IGN)
    with StopRequest() as interruption:
        send(ignored)
        assert interruption.asked_by is None
        send(signal.SIGTERM)
        send(ignored)
        assert interruption.asked_by is signal.SIGTERM
    assert signal.getsignal(ignored) is signal.SIG_IGN


def test_nobody_has_to_be_there_to_read_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends `tee` as well, before the training that writes to it."""
    reader, writer = os.pipe()
    os.close(reader)
    for stream in (os.fdopen(writer, "w"), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with StopRequest() as interruption:
            send(signal.SIGINT)
        assert interruption.asked_by is signal.SIGINT


def test_a_first_ctrl_c_says_what_follows(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(2), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with StopRequest():
            send(signal.SIGINT)
    assert capfd.readouterr().err == "\nStopping after this step and saving the run. Ctrl-C again ends at once.\n"
