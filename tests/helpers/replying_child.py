"""A child process for tests that replies as it is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from refinenet.io import answer_messages, open_replies, pack_message


def main(number: int) -> None:
    """Reply to each message with its facts, its files and a number, or with what `raw` in its facts asks for."""

    def answer(asked: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
        if asked.get("ends"):
            os._exit(1)
        print("what libraries print does not disturb the replies", flush=True)
        raw: str = asked.get("raw", "")
        return raw.encode() or pack_message({**asked, "number": number}, files)

    with open_replies() as replies:
        answer_messages(replies, answer)
