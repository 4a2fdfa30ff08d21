"""A window that shows frames while they are segmented, by Tk, which comes with most Pythons.

Shape letters: H height, W width.
"""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet.deployment.video.reader import Frame, Sound
from refinenet.inference.prediction import Prediction
from refinenet.inference.rendering import Renderer

if TYPE_CHECKING:
    import tkinter

_SHARE_OF_SCREEN = 0.9
_TIMED = 30
"""Frames over which the rate in the title is measured."""


def open_tk() -> tkinter.Tk:
    """Open an empty, hidden window.

    Raises:
        ValueError: Python has no Tk.
        OSError: there is no display.
    """
    try:
        import tkinter

        from PIL import ImageTk  # noqa: F401 - Debian packages it apart from Pillow
    except ImportError as error:
        raise ValueError(
            f"A window needs Tk, which this Python lacks ({error}). On Debian and Ubuntu: sudo apt install python3-tk "
            "python3-pil.imagetk; or leave out --display."
        ) from error
    try:
        window = tkinter.Tk(className="refinenet")
    except tkinter.TclError as error:
        raise OSError(f"There is no display for a window ({error}): leave out --display, or set DISPLAY.") from error
    window.withdraw()
    return window


def check_display() -> None:
    """Check that a window can be opened.

    Raises:
        ValueError, OSError: as `open_tk`.
    """
    open_tk().destroy()


class LiveWindow:
    """A destination of frames that shows each as it comes; Esc, Q or closing the window asks for the end.

    Args:
        title: What is shown; the rate of frames is added.
        renderer: Renderer of the pictures. Colours without limits get those of the first frame.

    Raises:
        ValueError, OSError: as `open_tk`.
    """

    def __init__(self, title: str, renderer: Renderer) -> None:
        self._title, self._renderer = title, renderer.with_all_classes()
        self.is_closed = False
        """Whether the user has asked for the end."""
        self._window = open_tk()
        self._window.title(title)
        self._window.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("<Escape>", "q", "Q"):
            self._window.bind(key, self._close)
        self._label = self._make_label()
        self._label.pack()
        self._photo: Any = None
        self._times: deque[float] = deque(maxlen=_TIMED)

    def _make_label(self) -> tkinter.Label:
        from tkinter import Label

        return Label(self._window, borderwidth=0)

    def _close(self, _: object = None) -> None:
        self.is_closed = True

    def write(self, frame: Frame, prediction: Prediction) -> None:  # noqa: ARG002 - as other destinations
        """Show the picture of a frame."""
        self._renderer = self._renderer.with_limits(prediction)
        self._show(self._renderer.picture(prediction))
        self._times.append(time.monotonic())
        if len(self._times) > 1:
            rate = (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
            self._window.title(f"{self._title} - {rate:.1f} frames/s")
        self.update()

    def _show(self, picture: npt.NDArray[np.uint8]) -> None:
        from PIL import ImageTk

        screen = self._window.winfo_screenwidth(), self._window.winfo_screenheight()
        image = Image.fromarray(picture).convert("RGB")
        image.thumbnail((int(screen[0] * _SHARE_OF_SCREEN), int(screen[1] * _SHARE_OF_SCREEN)))
        if self._photo is None or (self._photo.width(), self._photo.height()) != image.size:
            self._photo = ImageTk.PhotoImage(image, master=self._window)
            self._label.configure(image=self._photo)
            self._window.deiconify()
        else:
            self._photo.paste(image)

    def write_sound(self, sound: Sound) -> None:
        """Ignore sound, which is not played."""

    def update(self) -> None:
        """Draw the window anew, and notice keys; called between frames, and ten times a second while none is there."""
        self._window.update()

    def __enter__(self) -> LiveWindow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._window.destroy()
