"""Results of the benchmark of label next: how many labels reach the goal, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from active_results import ActiveResults, Curves, needed

CURVES = Curves(
    title="validation split",
    arms={"ours": [[0.40, 0.50, 0.60], [0.40, 0.56]], "random": [[0.40, 0.45, 0.55], []]},
    whole=[0.58, 0.62],
)
RESULTS = ActiveResults(trained="200 steps", counts=(8, 16, 32), seeds=(3, 5), measures=(CURVES,))


def test_labels_are_counted_between_rounds() -> None:
    assert needed((8, 16, 32), [0.40, 0.50, 0.60], 0.55) == pytest.approx(24)
    assert needed((8, 16, 32), [0.40, 0.50, 0.60], 0.40) == 8
    assert needed((8, 16, 32), [0.40, 0.50, 0.60], 0.61) is None
    assert CURVES.goal == pytest.approx(0.95 * 0.60)
    assert CURVES.mean("ours") == pytest.approx([0.40, 0.53]), "a round counts once all seeds have finished it"


def test_the_tables_say_who_reaches_the_goal(capsys: pytest.CaptureFixture[str]) -> None:
    RESULTS.print()
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["16", "53.0", "(50.0", "to", "56.0)", "45.0"] in rows
    assert ["seed", "3", "27", "not", "reached"] in rows
    assert ["seed", "5"] in rows, "what unfinished rounds would reach is not known"


def test_results_can_be_stored_and_drawn(tmp_path: Path) -> None:
    RESULTS.write(tmp_path / "results.json")
    found = ActiveResults.read(tmp_path / "results.json")
    assert found == RESULTS
    found.draw(tmp_path / "curves.svg")
    found.draw(tmp_path / "again.svg")
    assert "chosen by label next" in (tmp_path / "curves.svg").read_text()
    assert (tmp_path / "curves.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
