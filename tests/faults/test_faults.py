"""The short form of lose_nothing.py: a few of each of its trials."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from damage import damage
from failing_disk import sweep, sweep_loading
from kills import kill
from lose_nothing import QUICK_DISK
from lost_power import lose_power
from small_disk import full_disk
from trials import Tally

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL and no limits on files")


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    with TemporaryDirectory(dir=QUICK_DISK) as folder:
        yield Path(folder).resolve()


def check(tally: Tally, at_least: int) -> None:
    assert tally.failures == []
    assert tally.trials >= at_least


def test_no_kill_loses_a_checkpoint(quick_folder: Path) -> None:
    check(kill(10, 8, quick_folder), 10)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_no_failing_file_operation_loses_a_checkpoint(error: int, quick_folder: Path) -> None:
    check(sweep(error, quick_folder), 100)


def test_no_disk_that_fails_from_then_on_loses_a_checkpoint(quick_folder: Path) -> None:
    check(sweep(errno.EROFS, quick_folder, lasting=True), 100)


def test_trouble_while_loading_is_no_damage(quick_folder: Path) -> None:
    check(sweep_loading(quick_folder), 10)


def test_a_loss_of_power_loses_no_checkpoint(quick_folder: Path) -> None:
    check(lose_power(8, quick_folder), 100)


def test_a_full_disk_leaves_the_last_good_checkpoint(quick_folder: Path) -> None:
    for tally in full_disk(quick_folder):
        check(tally, 0 if tally.remarks else 5)


def test_damage_is_said_and_the_newest_good_checkpoint_taken(quick_folder: Path) -> None:
    for tally in damage(8, quick_folder):
        check(tally, 1)
