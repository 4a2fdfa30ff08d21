"""Ctrl-C and SIGTERM as a request to stop at the next point where the state can be saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C, termination by the system, and the end of the terminal that the process was started from."""
_STOPPING = b"\nStopping after this step and saving the run. Ctrl-C again ends at once.\n"
_SHOW_CURSOR = b"\x1b[?25h"
"""What a progress bar hides, and cannot show again if the next Ctrl-C ends the process."""


class StopRequest:
    """Context in which the first of `SIGNALS` only sets `asked_by`; a second Ctrl-C ends the process at once.

    Signals that the process ignores stay ignored. Outside the main thread, which receives all signals, it does nothing.
    """

    asked_by: signal.Signals | None = None
    """Signal that requested the stop, if any."""

    def __enter__(self) -> StopRequest:
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():
            # Signals that nohup or a shell's background job has set to be ignored stay ignored.
            handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        is_first, self.asked_by = self.asked_by is None, self.asked_by or signal.Signals(number)
        if signal.SIGINT in self._handlers:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if number == signal.SIGINT and is_first:
            # Not print, which the signal may have interrupted. The same Ctrl-C may have ended the reader of stderr.
            with suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), (_SHOW_CURSOR if sys.stderr.isatty() else b"") + _STOPPING)

    def stop(self, number: int) -> None:
        """Exit as the signal would have ended the process.

        Raises:
            KeyboardInterrupt: For Ctrl-C.
            SystemExit: For other signals, with the exit code that shells report for them, such as 143 for SIGTERM.
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
