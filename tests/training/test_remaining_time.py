"""The remaining time of a run, compared with what the rest of it then takes."""

from __future__ import annotations

import pytest

from refinenet.io.console import in_words
from refinenet.training.engine.remaining_time import RunClock

STEP, VALIDATION, STEPS = 2.0, 30.0, 10


@pytest.mark.parametrize(("epochs", "every"), [(4, 1), (9, 3), (10, 4), (3, 5), (6, 6)])
def test_the_rest_of_a_steady_run_is_predicted(epochs: int, every: int) -> None:
    clock = RunClock(epochs, STEPS, every)
    measured = [epoch for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs]
    for epoch in range(1, epochs + 1):
        for step in range(STEPS):
            left = clock.remaining(epoch - 1, step)
            if left is not None:
                assert left.training == pytest.approx(STEP * (STEPS * (epochs - epoch + 1) - step))
                if left.validation is not None:
                    assert left.validation == VALIDATION * sum(other >= epoch for other in measured)
            clock.add_step(STEP)
        if epoch in measured:
            clock.add_validation(VALIDATION)
        left = clock.remaining(epoch, 0)
        assert left is not None
        assert (left.validation is None) == (epoch < measured[0])
    assert left is not None
    assert left.seconds == 0


def test_a_resumed_run_begins_with_the_time_of_its_steps_before() -> None:
    clock = RunClock(4, STEPS, 1, earlier_step=3.0)
    left = clock.remaining(2, 6)
    assert left is not None
    assert left.summarise() == "42 s left plus validation"  # 14 of 40 steps
    assert clock.advise(2) is None
    for _ in range(STEPS):
        clock.add_step(STEP)
    left = clock.remaining(3, 1)
    assert left is not None
    assert left.training == STEP * 9  # by its own steps, as soon as there are enough


def test_slow_steps_need_not_be_many() -> None:
    clock = RunClock(2, STEPS, 1)
    clock.add_step(29.0)
    assert clock.remaining(0, 1) is None
    clock.add_step(29.0)
    left = clock.remaining(0, 2)
    assert left is not None
    assert left.training == 29 * 18


def test_the_first_slow_steps_of_a_run_are_left_out() -> None:
    """Starting processes, filling caches and compiling take 70 seconds, which the other 995 steps do not."""
    clock = RunClock(20, 50, 1)
    for seconds in (60.0, 5.0, 3.0, 2.0, 1.0):
        clock.add_step(seconds)
    for _ in range(5):
        clock.add_step(0.5)
    left = clock.remaining(0, 10)
    assert left is not None
    assert left.training == pytest.approx(0.5 * 990)
    assert (left.summarise(), left.shorten()) == ("8 min left plus validation", "> 8 min")
    clock.add_validation(40.0)
    clock.add_validation(20.0)  # without the warm-up of the first
    left = clock.remaining(2, 0)
    assert left is not None
    assert left.validation == pytest.approx(20.0 * 18)


@pytest.mark.parametrize("steps", [4, 30, 50, 400])
def test_the_rate_follows_a_machine_that_becomes_slower(steps: int) -> None:
    clock = RunClock(1000, steps, 1)
    for _ in range(200 * steps):
        clock.add_step(1.0)
    for _ in range(13 * steps):
        clock.add_step(3.0)
    left = clock.remaining(213, 0)
    assert left is not None
    assert left.training == pytest.approx(3.0 * steps * (1000 - 213))


def test_a_few_slow_steps_among_fifty_have_only_their_share() -> None:
    """Epochs of 30 steps: two of them count, so that a disturbance in the last one weighs half as much."""
    clock = RunClock(10, 30, 1)
    for step in range(90):
        clock.add_step(7.0 if step >= 80 else 1.0)
    left = clock.remaining(3, 0)
    assert left is not None
    assert left.training == pytest.approx(7 * 30 * (50 * 1.0 + 10 * 7.0) / 60)


def test_the_slow_start_of_each_epoch_has_its_share() -> None:
    clock = RunClock(10, 60, 1)
    for _ in range(4):
        for step in range(60):
            clock.add_step(31.0 if step == 0 else 1.0)
    left = clock.remaining(4, 0)
    assert left is not None
    assert left.training == pytest.approx(6 * 90.0)


def test_slow_validation_is_reported_once_with_what_to_set() -> None:
    clock = RunClock(100, STEPS, 1)
    for _ in range(STEPS):
        clock.add_step(STEP)
    clock.add_validation(VALIDATION)
    advice = clock.advise(1)
    assert advice is not None
    assert "Validation takes 60 % of the time" in advice
    assert "validate_every=6" in advice  # 30 / (6 * 20 + 30) is a fifth
    assert clock.advise(2) is None


@pytest.mark.parametrize(("validation", "epochs"), [(9.9, 100), (30.0, 2)])
def test_quick_validation_and_short_runs_need_no_advice(validation: float, epochs: int) -> None:
    clock = RunClock(epochs, STEPS, 1)
    for _ in range(STEPS):
        clock.add_step(STEP)
    clock.add_validation(validation)
    assert clock.advise(1) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3599, "1 h"), (12000, "3 h 20 min"), (190_900, "2 d 5 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
