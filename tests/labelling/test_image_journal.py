"""The journal of a pass over images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refinenet.labelling.image_journal import open_image_journal


def test_entries_are_found_again_while_their_image_is_unchanged(tmp_path: Path) -> None:
    with open_image_journal(tmp_path / "out", "measured", {"model": "a"}) as journal:
        journal.add("one", {"bytes": 3, "value": 0.5})
    with open_image_journal(tmp_path / "out", "measured", {"model": "a"}) as journal:
        found = journal.find("one", {"bytes": 3})
        assert found is not None
        assert found["value"] == 0.5
        assert journal.find("one", {"bytes": 4}) is None
        assert journal.find("two", {"bytes": 3}) is None


def test_a_torn_line_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    with open_image_journal(tmp_path, "measured", {}) as journal:
        journal.add("one", {"bytes": 1})
    with (tmp_path / "measured.jsonl").open("a") as stream:
        stream.write('{"name": "two", "by')
    with open_image_journal(tmp_path, "measured", {}) as journal:
        assert len(journal) == 1
        journal.add("three", {"bytes": 1})
    lines = (tmp_path / "measured.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["one", "three"]


def test_results_of_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    before = {
        "folds": 3,
        "group": None,
        "settings": {"epochs": 2, "flip": False, "patience": None},
        "model_sha256": "a",
        "format": 1,
    }
    after = {"folds": 5, "group": "(.*)_", "settings": {}, "model_sha256": "b", "format": 1}
    with open_image_journal(tmp_path, "measured", before):
        pass
    with pytest.raises(ValueError, match="Choose another folder") as refused:
        open_image_journal(tmp_path, "measured", after).__enter__()
    assert (
        "were made with another model and with --folds 3 instead of --folds 5 and without --group instead of with "
        "--group '(.*)_' and with --set epochs=2 instead of without --set and with --set flip=false instead of without "
        "--set and with --set patience=null instead of without --set. "
    ) in str(refused.value)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        open_image_journal(tmp_path, "measured", {}),
        pytest.raises(ValueError, match="being written"),
        open_image_journal(tmp_path, "measured", {}),
    ):
        pass
