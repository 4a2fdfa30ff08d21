"""Streaming reader of JSON files with long lists.

The standard library's decoder reads one entry after another, so that only one of them is in memory. (Streaming parsers
are no alternative: the fast backend of ijson takes 25 GB for 100 kB of opening brackets.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

CHUNK = 2**20
"""Characters read at once."""
MAX_ENTRY = 2**26
"""Maximum length of an entry in characters."""

_DECODER = json.JSONDecoder()
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


def read_lists(json_file: Path, values: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Iterate over the entries of all lists in a file's top-level object, each with its list's key, in file order.

    Args:
        json_file: The file.
        values: Keys whose values are yielded as entries although they are not lists.

    Raises:
        ValueError: The file is not valid JSON, or not an object.
        OSError: The file cannot be read.
    """
    with json_file.open(encoding="utf-8-sig") as stream:
        text = _Text(stream)
        try:
            yield from _read_object(text, values)
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 text: {error.reason}.") from error


def _read_object(text: _Text, values: Collection[str]) -> Iterator[tuple[str, Any]]:
    text.expect("{")
    if not text.passes("}"):
        while True:
            key = text.value()
            if not isinstance(key, str):
                raise text.error("a key in quotes")
            text.expect(":")
            if text.passes("["):
                yield from ((key, entry) for entry in _read_list(text))
            elif key in values:
                yield key, text.value()
            else:
                text.value()
            if text.passes("}"):
                break
            text.expect(",")
    if text.peek():
        raise text.error("the end of the file")


def _read_list(text: _Text) -> Iterator[Any]:
    if text.passes("]"):
        return
    while True:
        yield text.value()
        if text.passes("]"):
            return
        text.expect(",")


class _Text:
    """A file's text, of which one piece at a time is in memory."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._piece = ""
        self._place = 0
        self._before = 0

    def peek(self) -> str:
        """Return the next character that is not white space, or an empty string at the end."""
        while True:
            found = _WHITE_SPACE.match(self._piece, self._place)
            self._place = found.end() if found else self._place
            if self._place < len(self._piece) or not self._read_on():
                return self._piece[self._place : self._place + 1]

    def passes(self, character: str) -> bool:
        """Skip a character if it is the next one, and return whether it was."""
        is_next = self.peek() == character
        self._place += is_next
        return is_next

    def expect(self, character: str) -> None:
        """Skip a character that must be the next one."""
        if not self.passes(character):
            raise self.error(repr(character))

    def value(self) -> Any:
        """Read the next value of any type."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._piece, self._place)
            except RecursionError as error:
                raise self.error("less deeply nested brackets") from error
            except json.JSONDecodeError as error:  # perhaps only cut off at the end of the piece
                if not self._read_on():
                    self._place = error.pos
                    raise self.error("a value") from error
                continue
            # A number at the end of the piece may continue in the next one: "12" could be the start of "123".
            if end < len(self._piece) or not self._read_on():
                self._place = end
                return value

    def error(self, wanted: str) -> ValueError:
        """Return the error for text that is not `wanted`."""
        found = self._piece[self._place : self._place + 20]
        place = self._before + self._place
        return ValueError(f"it is not valid JSON: after {place:,} characters, {found!r} was found instead of {wanted}.")

    def _read_on(self) -> bool:
        """Read another piece and return whether there was one; doubling the rest keeps long entries linear."""
        rest = self._piece[self._place :]
        if len(rest) > MAX_ENTRY:
            raise self.error(f"a value of at most {MAX_ENTRY:,} characters")
        more = self._stream.read(max(CHUNK, len(rest)))
        self._before += self._place
        self._piece, self._place = rest + more, 0
        return bool(more)
