"""The frontier benchmark: a run is trained once and finished, and its table says what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import frontier
import peers
import pytest
import torch
from frontier_results import Results
from frontier_speed import Speed, summarise, time_rounds, write_speeds
from safetensors.torch import load_file
from torch import Tensor

NETWORK = "LRASPP"


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> frontier.Plan:
    words = ["train", "--output", str(tmp_path), "--dataset", "streets:2:64x64", "--random", "--epochs", "1"]
    words += ["--size", "64", "64", "--crop", "32", "32", "--batch", "2", "--workers", "0"]
    monkeypatch.setattr("sys.argv", ["frontier.py", *words])
    return frontier.make_plan(frontier.parse_arguments())


def test_a_run_is_trained_to_its_end_and_then_skipped(plan: frontier.Plan, capsys: pytest.CaptureFixture[str]) -> None:
    frontier.train(plan, NETWORK, 0)
    found = plan.read_result(NETWORK, 0)
    assert found is not None
    assert 0 <= found["miou"] <= 1
    assert found["conditions"]["epochs"] == "1"
    assert found["conditions"]["network"] == "make_lraspp on tf_efficientnet_lite0"
    start = peers.Start(classes=11, weights=None)
    network = peers.CONTENDERS[NETWORK].make(start)
    before = network.state_dict()["decode.head.low_classifier.weight"].clone()
    network.load_state_dict(load_file(plan.run(NETWORK, 0) / "last.safetensors"), strict=True)
    assert not torch.equal(before, network.state_dict()["decode.head.low_classifier.weight"])
    capsys.readouterr()
    frontier.train_all(plan, [NETWORK], 1)
    assert not capsys.readouterr().out
    longer = replace(plan, settings={**plan.settings, "epochs": 2})
    with pytest.raises(SystemExit, match="lraspp-0 was trained with another epochs: pass the same"):
        frontier.train_all(longer, [NETWORK], 1)


def test_the_table_has_the_mean_of_the_seeds_and_the_times(plan: frontier.Plan) -> None:
    for seed, miou in enumerate((0.40, 0.44)):
        folder = plan.run("medium", seed)
        folder.mkdir(parents=True)
        values = {"miou": miou, "conditions": plan.conditions("medium")}
        (folder / frontier.RESULT).write_text(json.dumps(values))
    speed = Speed(
        parameters=3_346_315,
        multiply_adds=3_719_094_272,
        milliseconds={"float32": 60.04, "int8": 20.0},
        ratios={"float32": 2.0, "int8": 6.0},
    )
    write_speeds({"medium": speed}, "512x512, 2 CPU threads", plan.output / frontier.SPEEDS)
    medium, fpn = frontier.collect(plan, ["medium", "FPN"], 3).tabulate(frontier.PRECISIONS)
    assert medium[:2] == ["ours, medium", "tf_efficientnet_lite0"]
    assert medium[2:] == ["3.35 M", "3.72 G", "42.0 ±2.0", "60.0", "", "20.0", "2.00x"]
    assert fpn == ["FPN", "tf_efficientnet_lite0", *[""] * 7]
    frontier.draw(plan, ["medium", "FPN"], 3)
    assert "512x512, 2 CPU threads" in (plan.output / "frontier.json").read_text()
    assert "medium" in (plan.output / "frontier.svg").read_text()
    assert Results.read(plan.output / "frontier.json") == frontier.collect(plan, ["medium", "FPN"], 3)
    assert (plan.output / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_times_are_medians_and_ratios_those_of_each_round() -> None:
    times = {("a", "float32"): [10.0, 20.0, 90.0], ("b", "float32"): [5.0, 20.0, 30.0]}
    milliseconds, ratios = summarise(times, "b", ("a", "float32"))
    assert milliseconds == {"float32": 20.0}
    assert ratios == {"float32": 2.0}  # of 2, 1 and 3


def test_the_first_round_warms_up() -> None:
    calls = []

    def find(name: str) -> Callable[[Tensor], Tensor]:
        def logits(images: Tensor) -> Tensor:
            calls.append(name)
            return torch.zeros(1, 3, images.shape[2] // 4, images.shape[3] // 4)

        return logits

    found = time_rounds({("a", "float32"): find("a"), ("b", "float32"): find("b")}, 32, 2)
    assert calls == ["a", "b"] * 3
    assert [len(values) for values in found.values()] == [2, 2]
