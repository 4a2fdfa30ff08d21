"""Ctrl-C and SIGTERM as a request to stop where everything can be kept."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While the context lasts, the first Ctrl-C or SIGTERM only sets `asked_by`; a second one ends the process at once.

    Outside the main thread Python gives signals to others, and this does nothing.
    """

    asked_by: signal.Signals | None = None
    """The signal that asked to stop, if any."""

    def __enter__(self) -> Interruption:
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.asked_by = signal.Signals(number)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def stop(self) -> None:
        """End as the signal would have ended the process.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for SIGTERM, with the code 143, which shells give to a process that it ended.
        """
        if self.asked_by is signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
