"""Licences of weights: their restrictions, as far as their wording shows, and which licence may replace which.

Identifiers are those of model cards on the Hugging Face Hub (https://huggingface.co/docs/hub/repositories-licenses).
Checking words is not legal advice: it catches a licence that plainly permits what the original forbids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

Restriction = Literal["non-commercial use only", "same licence for derivatives", "no derivatives"]

UNSTATED = "not stated"
"""Licence of a model file that states none."""

_NON_COMMERCIAL: Restriction = "non-commercial use only"
_SHARE_ALIKE: Restriction = "same licence for derivatives"
_NO_DERIVATIVES: Restriction = "no derivatives"

KNOWN: Mapping[str, frozenset[Restriction]] = {
    "apache-2.0": frozenset(),
    "bsd-2-clause": frozenset(),
    "bsd-3-clause": frozenset(),
    "cc0-1.0": frozenset(),
    "cc-by-4.0": frozenset(),
    "mit": frozenset(),
    "agpl-3.0": frozenset({_SHARE_ALIKE}),
    "gpl-3.0": frozenset({_SHARE_ALIKE}),
    "cc-by-sa-4.0": frozenset({_SHARE_ALIKE}),
    "cc-by-nc-4.0": frozenset({_NON_COMMERCIAL}),
    "cc-by-nc-sa-4.0": frozenset({_NON_COMMERCIAL, _SHARE_ALIKE}),
    "cc-by-nc-nd-4.0": frozenset({_NON_COMMERCIAL, _NO_DERIVATIVES}),
    "cc-by-nd-4.0": frozenset({_NO_DERIVATIVES}),
}
"""Restrictions of the licences that a model can be shared under, besides the words of its own file."""

_WORDS: Mapping[Restriction, re.Pattern[str]] = {
    _NON_COMMERCIAL: re.compile(
        r"non[- ]?commercial|\bNC\b|\bacademic (use|purposes)|\bresearch (only|use|purposes)", re.IGNORECASE
    ),
    _SHARE_ALIKE: re.compile(r"share[- ]?alike|\bSA\b|\bA?GPL", re.IGNORECASE),
    _NO_DERIVATIVES: re.compile(r"no[- ]?deriv|\bND\b", re.IGNORECASE),
}


def find_restrictions(licence: str) -> frozenset[Restriction]:
    """Return what a licence restricts: of an identifier in `KNOWN`, or by the words of a text."""
    known = KNOWN.get(licence.strip().lower())
    if known is not None:
        return known
    return frozenset(kind for kind, words in _WORDS.items() if words.search(licence))


def choose_licence(asked: str | None, stated: str, origins: Iterable[str] = ()) -> str:
    """Return the licence to share a model under: an identifier in `KNOWN`, or the licence text of its file.

    Args:
        asked: An identifier, or None for what the model file states.
        stated: Licence in the model file.
        origins: Licences of what the model was trained from, such as its images.

    Raises:
        ValueError: No licence is stated or asked for, the one asked for is unknown, or it is less strict than that of
            the model file or of an origin.
    """
    choices = f"Choose one of {', '.join(KNOWN)}."
    if asked is None and stated.strip() in ("", UNSTATED):
        raise ValueError(f"The model file states no licence. {choices}")
    chosen = stated if asked is None else asked.strip().lower()
    if asked is not None and chosen not in KNOWN:
        raise ValueError(
            f"The licence {asked!r} is unknown. {choices} Without one, the licence text of the model file is used."
        )
    for origin in (stated, *origins):
        missing = find_restrictions(origin) - find_restrictions(chosen)
        if missing:
            raise ValueError(
                f"The licence {chosen!r} is less strict than that of the model or its training data, {origin!r}: "
                f"it lacks {', '.join(sorted(missing))}. Choose one of {_at_least(find_restrictions(origin))}."
            )
    return chosen


def _at_least(needed: frozenset[Restriction]) -> str:
    return ", ".join(name for name, found in KNOWN.items() if needed <= found) or "none: ask the owner of the origin"
