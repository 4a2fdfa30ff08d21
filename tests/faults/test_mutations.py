"""The short form of mutations.py: some of each kind of file."""

from __future__ import annotations

from mutations import run


def test_no_mutation_changes_anything_silently() -> None:
    table = run(40, 1)
    assert len(table) == 11
    for kind, found in table.items():
        assert sum(found.values()) == 40, kind
        assert set(found) <= {"equal", "refused"}, (kind, found)
