"""The newest checkpoint is damaged in every way at hand: training goes on from the one before, and says so."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from trials import Tally, contents, is_whole, newest

from refinenet.training.records.checkpoints import Checkpoints

STEPS = (10, 20, 30)
NEWEST, OLDER, OLDEST = "step-000030", "step-000020", "step-000010"

Damage = Callable[[Path], None]
"""Does something to the folder of a checkpoint, or to what lies beside it."""


def damage(seed: int, folder: Path, flips: int = 20) -> list[Tally]:
    """Damage the newest of three checkpoints, one way at a time, each time in a folder of its own."""
    chance = random.Random(seed)
    sizes = {name: len(content) for name, content in contents(STEPS[-1]).items()}
    files = [*sizes, "meta.json"]
    kinds: dict[str, list[tuple[Damage, int, str]]] = {
        "newest truncated": [(_truncated(name, part), 20, name) for name in files for part in _LENGTHS],
        "newest with a bit flipped": [(_flipped(name, chance), 20, name) for name in files for _ in range(flips)],
        "newest with a page of zeros": [(_zeroed(name), 20, name) for name in files],
        "a file of the newest missing or a folder": [
            case for name in files for case in ((_without(name), 20, name), (_with_a_folder(name), 20, name))
        ],
        "a file of the newest swapped with an older one's": [(_swapped_file(name), 10, NEWEST) for name in files],
        "newest deleted or emptied": [(_deleted, 20, "missing"), (_emptied, 20, "meta.json")],
        "newest swapped with an older one": [(_swapped(name), 30, "renamed") for name in (OLDER, OLDEST)],
        "latest.json damaged": [(_pointer(text), 30, "latest.json") for text in _BAD_POINTERS],
        "latest.json missing or old": [
            (lambda newest: (newest.parent / "latest.json").unlink(), 30, ""),
            (_pointer(b'{"checkpoint": "step-000020"}\n'), 30, ""),
        ],
    }
    tallies = []
    for kind, cases in kinds.items():
        tally = Tally(kind)
        for number, (do, step, word) in enumerate(cases):
            _try(do, step, word, folder / f"{kind}-{number}", tally)
        tallies.append(tally)
    return [*tallies, _all_broken(folder / "all-broken", chance)]


def _try(do: Damage, step: int, word: str, folder: Path, tally: Tally) -> None:
    """Damage, load, and go on: `step` is the newest good one, `word` has to be said, where there is anything to say."""
    tally.trials += 1
    _fill(folder)
    do(folder / NEWEST)
    try:
        found = newest(folder)
    except (ValueError, OSError) as error:
        tally.lost.append(f"{folder}: {error}")
        return
    if found.step != step or not is_whole(found):
        tally.lost.append(f"{folder}: step {found.step} instead of {step}, whole: {is_whole(found)}")
    if any(word in text for text in found.quarantined) != bool(word) or bool(found.quarantined) != bool(word):
        tally.silent.append(f"{folder}: said {found.quarantined}")
    Checkpoints(folder).save(found.step + 1, contents(found.step + 1))
    again = newest(folder)
    if again.step != found.step + 1 or again.quarantined:
        tally.other.append(f"{folder}: after the next save step {again.step} and {again.quarantined}")


def _fill(folder: Path) -> None:
    for step in STEPS:
        Checkpoints(folder).save(step, contents(step))


def _all_broken(folder: Path, chance: random.Random) -> Tally:
    """None is good: an error each time, never a start from zero."""
    tally = Tally("all of them broken or deleted")
    for number, do in enumerate((_flipped("weights.pt", chance), _deleted, _emptied, _truncated("meta.json", 0.5))):
        tally.trials += 1
        place = folder / str(number)
        _fill(place)
        for step in STEPS:
            do(place / f"step-{step:06d}")
        for attempt in ("first", "second"):
            try:
                found = Checkpoints(place).load_newest()
            except ValueError as error:
                if str(place) not in str(error):
                    tally.other.append(f"{place}: {error}")
            else:
                tally.silent.append(f"{place}: the {attempt} time {found}")
    return tally


_LENGTHS = (0.0, 0.001, 0.25, 0.5, 0.9, 0.999)
_BAD_POINTERS = (
    b"",
    b"{",
    b"\x00" * 30,
    b"\xff\xfe",
    b"[]",
    b"3",
    b"{}",
    b'{"checkpoint": 30}',
    b'{"checkpoint": null}',
    b'{"checkpoint": "step-000099"}',
    b'{"checkpoint": "../../x"}',
    b"[" * 100_000,
)


def _truncated(name: str, part: float) -> Damage:
    def do(checkpoint: Path) -> None:
        path = checkpoint / name
        path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])

    return do


def _flipped(name: str, chance: random.Random) -> Damage:
    def do(checkpoint: Path) -> None:
        path = checkpoint / name
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)

    return do


def _zeroed(name: str) -> Damage:
    def do(checkpoint: Path) -> None:
        path = checkpoint / name
        content = bytearray(path.read_bytes())
        length = min(4096, len(content) // 2)
        content[:length] = bytes(length)
        path.write_bytes(content)

    return do


def _without(name: str) -> Damage:
    return lambda checkpoint: (checkpoint / name).unlink()


def _with_a_folder(name: str) -> Damage:
    def do(checkpoint: Path) -> None:
        (checkpoint / name).unlink()
        (checkpoint / name).mkdir()

    return do


def _swapped_file(name: str) -> Damage:
    return lambda checkpoint: _swap(checkpoint / name, checkpoint.with_name(OLDER) / name)


def _swapped(name: str) -> Damage:
    return lambda checkpoint: _swap(checkpoint, checkpoint.with_name(name))


def _swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def _deleted(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)


def _emptied(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def _pointer(content: bytes) -> Damage:
    def do(checkpoint: Path) -> None:
        (checkpoint.parent / "latest.json").write_bytes(content)

    return do
