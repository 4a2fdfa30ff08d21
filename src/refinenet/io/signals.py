"""Ctrl-C and SIGTERM as a request to stop where everything can be kept."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C, what systems end a process by, and the end of the terminal that it was started from."""
_TOLD = b"\nStopping after this step, whose state is kept. Ctrl-C again ends at once.\n"


class StopRequest:
    """While the context lasts, the first of `SIGNALS` only sets `asked_by`; a second Ctrl-C ends the process at once.

    Signals that the process ignores stay ignored.

    Outside the main thread Python gives signals to others, and this does nothing.
    """

    asked_by: signal.Signals | None = None
    """The signal that asked to stop, if any."""

    def __enter__(self) -> StopRequest:
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():
            # What the process was told to ignore, by nohup or as a script's background job, it goes on ignoring.
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._take) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        is_first, self.asked_by = self.asked_by is None, self.asked_by or signal.Signals(number)
        if signal.SIGINT in self._handlers:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if number == signal.SIGINT and is_first:
            # Not by print, which this may have interrupted; whoever read it may be gone by the same Ctrl-C.
            with suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), _TOLD)

    def stop(self, number: int) -> None:
        """End as a signal would have ended the process.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for another, with the exit code that shells give to a process that it ended: 143 for SIGTERM.
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
