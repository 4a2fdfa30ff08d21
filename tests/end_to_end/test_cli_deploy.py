"""The options of `refinenet deploy`: each is marked with the modes that it serves, and rejected in the others."""

from __future__ import annotations

import inspect

import pytest
from typer.testing import CliRunner

from refinenet.cli import app
from refinenet.cli.deploy import Mode, deploy, options_of

MODES = {
    Mode.RAY: ["in", "-o", "out", "--engine", "ray"],
    Mode.VIDEO: ["in.mp4", "-o", "out.mp4"],
    Mode.STDOUT: ["a.png", "-o", "-"],
    Mode.STDIN: ["-", "-o", "out.png"],
}
OPTIONS = {
    "recursive": ["--recursive"],
    "overwrite": ["--overwrite"],
    "window": ["--window", "64x64"],
    "overlap": ["--overlap", "0.5"],
    "max_latency": ["--max-latency", "9"],
    "abstain_below": ["--abstain-below", "0.5"],
    "bands": ["--bands", "1"],
    "value_range": ["--value-range", "0,9"],
    "json_lines": ["--json-lines", "out.jsonl"],
}
ALLOWED = {
    Mode.RAY: {"recursive", "bands", "value_range"},
    Mode.VIDEO: {"overwrite", "abstain_below"},
    Mode.STDOUT: {"abstain_below", "bands", "value_range"},
    Mode.STDIN: {"max_latency", "abstain_below", "bands", "value_range", "json_lines"},
}


def test_every_option_is_marked_with_its_modes() -> None:
    parameters = set(inspect.signature(deploy).parameters) - {"context"}
    assert set().union(*(options_of(deploy, mode) for mode in Mode)) == parameters
    assert options_of(deploy, Mode.FILES) == parameters - {"workers", "display", "steady"}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode.name))
@pytest.mark.parametrize("option", OPTIONS)
def test_options_without_effect_are_rejected(mode: Mode, option: str) -> None:
    assert (option in options_of(deploy, mode)) == (option in ALLOWED[mode])
    if option in ALLOWED[mode]:
        return
    result = CliRunner().invoke(app, ["deploy", *MODES[mode], *OPTIONS[option]])
    assert result.exit_code == 2
    assert f"{OPTIONS[option][0]} would have no effect" in " ".join(result.output.replace("│", "").split())
