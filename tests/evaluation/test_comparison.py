"""Two results files side by side: the statistics in simulation, the words, and what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import CommandLine
from significance import WAYS, Population, simulate

from refinenet.evaluation.comparison import compare
from refinenet.evaluation.metrics import MetricAccumulator, compare_counts, compute_metrics
from refinenet.evaluation.metrics.significance import correct_p_values
from refinenet.evaluation.results import MAX_BYTES, RESULTS_VERSION, Evaluation, Seconds
from refinenet.labels import LabelSet

Counts = npt.NDArray[np.int64]
LABELS = LabelSet.numbered(3)


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(4000)


@pytest.mark.parametrize("way", WAYS)
def test_five_in_a_hundred_are_false_alarms(population: Population, way: str) -> None:
    """Within 3 to 7 %; 600 simulations at 5 % are outside of it by chance in 2 of 100 cases, and the seed is fixed."""
    found = simulate(population.segment(WAYS[way], 0.0), images=60, simulations=600, draws=99)
    assert 0.03 <= np.mean([one.summary[0].is_significant for _, one in found]) <= 0.07


def test_a_clear_difference_is_found(population: Population) -> None:
    found = simulate(population.segment(WAYS["alike"], 0.03), images=100, simulations=100, draws=199)
    assert np.mean([one.summary[0].is_significant for _, one in found]) > 0.7
    assert all((one.summary[0].value or 0) > 0 for _, one in found if one.summary[0].is_significant)


def test_two_tenths_of_a_point_are_found_with_close_models_and_many_images() -> None:
    counts = Population(4000, own=0.05).segment(WAYS["alike"], 0.002)
    few = simulate(counts, images=30, simulations=50, draws=199)
    many = simulate(counts, images=2000, simulations=20, draws=199)
    assert np.mean([one.summary[0].is_significant for _, one in few]) < 0.5
    assert np.mean([one.summary[0].is_significant for _, one in many]) > 0.9


def test_intervals_leave_zero_out_where_p_is_small(population: Population) -> None:
    for _, found in simulate(population.segment(WAYS["alike"], 0.02), images=25, simulations=60, draws=99):
        for one in (*found.summary, *found.classes):
            if one.interval is not None and one.value is not None:
                low, high = one.interval
                assert low <= one.value <= high
                assert one.is_significant == (not low <= 0 <= high)


def test_the_standard_error_is_that_of_a_naive_bootstrap(population: Population) -> None:
    """The figures of draws, one image after the other, by the definition; the interval is t times the error wide."""
    counts = population.segment(WAYS["alike"], 0.0)[:400]
    found = compare_counts(counts[:, 0], counts[:, 1], 999).summary[0]
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(500):
        sums = counts[random.integers(0, 400, 400)].sum(0)
        both = [np.mean([h / (t + p - h) for h, t, p in model.T]) for model in sums]
        drawn.append(both[1] - both[0])
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * 2.0 * np.std(drawn), rel=0.2)


def test_holm_by_hand() -> None:
    """Of three known ones: 0.01 * 3; 0.04 * 2; then 0.03 * 2 comes before it, and 0.04 * 1 may not be below that."""
    assert correct_p_values([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert correct_p_values([0.9, 0.8]) == (1.0, 1.0)
    assert correct_p_values([]) == ()


def test_a_class_in_one_image_says_nothing_of_others() -> None:
    counts = np.zeros((20, 3, 2), np.int64)
    counts[:, :, 0] = [90, 100, 95]
    counts[:, 0, 0] += np.arange(20) % 5
    counts[3, :, 1] = [5, 10, 8]
    other = counts.copy()
    other[3, 0, 1] = 7
    found = compare_counts(counts, other)
    assert found.classes[1].value == pytest.approx(7 / 11 - 5 / 13)
    assert (found.classes[1].p, found.classes[1].interval, found.p_corrected[1]) == (None, None, None)
    assert (found.classes[0].value, found.classes[0].p, found.classes[0].interval) == (0, 1, (0, 0))


def save(path: Path, seed: int, images: int = 12, noise: float = 0.2, classes: int = 3) -> Path:
    """An evaluation of label maps that are right but for noise, written as `refinenet eval` writes it."""
    truths, random = np.random.default_rng(0), np.random.default_rng(seed)
    tally = MetricAccumulator(3, 255, images)
    for index in range(images):
        truth = truths.integers(0, classes, (6, 8)).astype(np.uint8)
        wrong = random.random(truth.shape) < noise
        tally.add(index, truth, np.where(wrong, (truth + 1) % classes, truth).astype(np.uint8))
    evaluation = Evaluation(
        dataset="mine",
        split="val",
        label_set=LABELS,
        metrics=compute_metrics(tally, has_confidence=False),
        names=[f"image {index}" for index in range(images)],
        seconds=1.0,
        parts=Seconds(load=0, network=0, metrics=0),
        protocol="whole images, once",
        official="",
        model_sha256="ab" * 32,
        package_version="1",
    )
    return evaluation.save(path)


def test_files_are_compared_in_words_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = save(tmp_path / "bad.json", 1, noise=0.4), save(tmp_path / "good.json", 2, noise=0.1)
    found = compare(bad, good)
    told = found.to_dict()
    json.dumps(told, allow_nan=False)
    for key in ("miou", "pixel_accuracy", "mean_accuracy"):
        assert told[key]["first"] == pytest.approx(json.loads(bad.read_text())[key], abs=1e-12)
        assert told[key]["second"] == pytest.approx(json.loads(good.read_text())[key], abs=1e-12)
        assert told[key]["difference"] == pytest.approx(told[key]["second"] - told[key]["first"])
    for name, value in json.loads(good.read_text())["class_iou"].items():
        assert told["class_iou"][name]["second"] == pytest.approx(value)
        assert told["class_iou"][name]["p"] <= told["class_iou"][name]["p_corrected"]
    assert found.verdict.startswith(f"{good} is better than {bad} by ")
    assert "significant at 5 % (p = 0.0005)" in found.verdict
    back = compare(good, bad)
    assert back.verdict == found.verdict
    assert back.to_dict()["miou"]["p"] == told["miou"]["p"]
    found.print()
    printed = capsys.readouterr().out
    assert "Holm" in printed
    assert "class 2" in printed


def test_a_small_difference_may_be_chance(tmp_path: Path) -> None:
    found = compare(save(tmp_path / "a.json", 1), save(tmp_path / "b.json", 2))
    assert "not significant at 5 %" in found.verdict


def test_the_same_file_twice(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", 1, classes=2)
    found = compare(path, path)
    assert [(one.difference.value, one.difference.p) for one in found.summary] == [(0, 1)] * 3
    assert found.verdict == "Both have the same mIoU (p = 1.00)."
    assert found.absent == ("class 2",)


def test_one_image_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(save(tmp_path / "a.json", 1, images=1), save(tmp_path / "b.json", 2, images=1))
    assert all(one.difference.p is None and one.difference.interval is None for one in found.summary)
    assert "from one image no conclusion about other images" in found.verdict
    found.print()
    assert "no conclusion about other images" in " ".join(capsys.readouterr().out.split())


def test_a_class_that_only_one_predicts_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "a.json", 1, classes=2)
    values = json.loads(path.read_text())
    both, truth, predicted = values["per_image"][0]["pixels"]["class 0"]
    values["per_image"][0]["pixels"]["class 0"] = [both - 1, truth, predicted - 1]
    values["per_image"][0]["pixels"]["class 2"] = [0, 0, 1]
    other = tmp_path / "b.json"
    other.write_text(json.dumps(values))
    found = compare(path, other)
    assert (found.classes[2].first, found.classes[2].second, found.classes[2].difference.value) == (None, 0, None)
    found.print()
    assert "no such class in ground truth or prediction: class 2" in " ".join(capsys.readouterr().out.split())


def test_images_in_another_order_are_the_same_images(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.json", 1), save(tmp_path / "b.json", 2)
    expected = compare(first, second).to_dict()
    values = json.loads(second.read_text())
    values["per_image"].reverse()
    second.write_text(json.dumps(values))
    assert compare(first, second).to_dict() == expected


def pixels_of(values: dict[str, Any]) -> dict[str, Any]:
    return values["per_image"][0]["pixels"]  # type: ignore[no-any-return]


def move_truth(values: dict[str, Any]) -> None:
    for pixels in (pixels_of(values)["class 0"], pixels_of(values)["class 1"]):
        pixels[:] = [0, pixels[1], 0]
    pixels_of(values)["class 0"][1] += 1


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no version": (lambda v: v.pop("version"), "'version': it is from an earlier package"),
    "a newer version": (lambda v: v.update(version=99), f"'version' is 99; .* {RESULTS_VERSION}"),
    "version true": (lambda v: v.update(version=True), "'version' is True"),
    "another dataset": (lambda v: v.update(dataset="yours"), "'dataset' is 'mine' and 'yours'"),
    "another split": (lambda v: v.update(split="test"), "'split' is 'val' and 'test'"),
    "dataset of no text": (lambda v: v.update(dataset=[1]), r"'dataset' is \[1\], not a string"),
    "a terminal's commands": (lambda v: v.update(dataset="\x1b[2J"), "not printable"),
    "a lone surrogate": (lambda v: v.update(protocol="\ud800"), "'protocol' is .*ud800"),
    "no images": (lambda v: v.update(images=0, per_image=[]), "'per_image' has 0"),
    "images miscounted": (lambda v: v.update(images=7), "'images' is 7, but its 'per_image' has 12"),
    "images of no list": (lambda v: v.update(per_image={}), "'per_image' is {}, not a list"),
    "image of no object": (lambda v: v["per_image"].__setitem__(0, 5), r"'per_image'\[0\] is 5"),
    "image without name": (lambda v: v["per_image"][0].pop("name"), r"\['name'\] is None"),
    "image twice": (lambda v: v["per_image"][1].update(name="image 0"), "name of 'per_image'"),
    "other images": (lambda v: v["per_image"][0].update(name="x"), "first has 'image 0', only the second 'x'"),
    "pixels of no object": (lambda v: v["per_image"][0].update(pixels=[]), r"\['pixels'\] is \[\]"),
    "other classes": (lambda v: v["class_iou"].update(tree=0.5), "only the second 'tree'"),
    "classes in another order": (
        lambda v: v.update(class_iou=dict(reversed(v["class_iou"].items()))),
        "in another order",
    ),
    "class of no name": (lambda v: v["class_iou"].update({"": 0.5}), "printable characters"),
    "an unknown class": (lambda v: pixels_of(v).update(x=[0, 0, 0]), "'x', which is not a class"),
    "negative": (lambda v: pixels_of(v).update({"class 0": [-1, 5, 5]}), "none can be negative"),
    "a fraction": (lambda v: pixels_of(v).update({"class 0": [1.0, 5, 5]}), "three whole numbers"),
    "true": (lambda v: pixels_of(v).update({"class 0": [True, 5, 5]}), "three whole numbers"),
    "two numbers": (lambda v: pixels_of(v).update({"class 0": [5, 5]}), "three whole numbers"),
    "more in both": (lambda v: pixels_of(v).update({"class 0": [6, 5, 7]}), "cannot exceed"),
    "too many predicted": (lambda v: pixels_of(v)["class 0"].__setitem__(2, 500), "contradict each other"),
    "beyond all images": (lambda v: pixels_of(v).update({"class 0": [1, 10**30, 1]}), "no image has so many"),
    "another truth": (move_truth, "truth of image 'image 0'.*1 of 12 images differ"),
    "nothing of it": (lambda v: v.clear(), "not a results file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, damage: str) -> None:
    first, second = save(tmp_path / "a.json", 1), tmp_path / "b.json"
    values = copy.deepcopy(json.loads(first.read_text()))
    change, words = DAMAGES[damage]
    change(values)
    second.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=words) as caught:
        compare(first, second)
    assert "b.json" in str(caught.value)
    assert str(caught.value).isprintable()
    assert "easure " in str(caught.value)  # what to do


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b'{"version": 2, "per_im', "not valid JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"[]", "not a results file"),
        (b'{"miou": NaN}', "NaN, which is not a JSON number"),
        (b'{"miou": -Infinity}', "-Infinity"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be used"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        compare(path, path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="eval --dataset"):
        compare(tmp_path / "a.json", tmp_path / "a.json")
    with pytest.raises(ValueError, match="a folder"):
        compare(tmp_path, tmp_path)


def test_a_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_BYTES <= 512 * 2**20
    monkeypatch.setattr("refinenet.evaluation.results.MAX_BYTES", 100)
    with pytest.raises(ValueError, match="MiB"):
        compare(save(tmp_path / "a.json", 1), tmp_path / "a.json")


def test_the_command(call_refinenet: CommandLine, tmp_path: Path) -> None:
    save(tmp_path / "a.json", 1)
    save(tmp_path / "b.json", 2)
    shown = call_refinenet("eval", "--compare", "a.json", "b.json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "significant at 5 %" in shown.stdout
    told = call_refinenet("eval", "--compare", "a.json", "b.json", "--json")
    assert json.loads(told.stdout)["images"] == 12
    for idle in (["--dataset", "mine"], ["--split", "val"], ["-o", "c.json"], ["--flip"], ["--model", "camvid"]):
        refused = call_refinenet("eval", "--compare", "a.json", "b.json", *idle)
        assert refused.returncode == 2
        assert "would have no effect" in " ".join(refused.stderr.replace("│", "").split())
    (tmp_path / "b.json").write_text("{")
    damaged = call_refinenet("eval", "--compare", "a.json", "b.json")
    assert damaged.returncode == 1
    assert damaged.stderr.startswith("Error: b.json cannot be used")


def test_comparing_needs_no_torch(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", 1)
    code = (
        "import sys\nfrom refinenet.cli import app\n"
        f"app(['eval', '--compare', {str(path)!r}, {str(path)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
