"""The doctor compares files of quantities with each other: units, undeclared missing values, exchanged channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from target_folders import HEIGHT, WIDTH, save

from refinenet.datasets import doctor
from refinenet.datasets.doctor.targets.value_rules import find_exchanged, find_shifts

Array = npt.NDArray[Any]
FILES = 12
ODD = (2, 7, 9)
DECLARED = "values: {name: soil, quantities: [{name: height, unit: m}, {name: moisture, unit: '%'}]}\n"


def measure(seed: int) -> Array:
    """Heights of 0.4 to 3 metres and moistures of 5 to 95 %, with noise, `(H, W, 2)`."""
    dice = np.random.default_rng(seed)
    slope = np.linspace(0, 1, WIDTH)[np.newaxis] * dice.uniform(0.8, 1.2) + np.zeros((HEIGHT, 1))
    heights = 0.5 + 2 * slope + dice.uniform(-0.1, 0.1, slope.shape)
    moisture = 8 + 65 * slope[:, ::-1] + dice.uniform(-3, 3, slope.shape)
    return np.stack([heights, moisture], 2).astype(np.float32)


def write(root: Path, change: Callable[[Array], Array] = lambda values: values, *, odd: tuple[int, ...] = ODD) -> Path:
    """Write a folder whose odd files are changed."""
    for seed in range(FILES):
        dice = np.random.default_rng(seed)
        name = f"{'val' if seed % 4 == 3 else 'train'}/s{seed}"
        save(root / f"images/{name}.png", dice.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
        values = measure(seed)
        save(root / f"values/{name}.npy", change(values) if seed in odd else values)
    (root / "targets.yaml").write_text(DECLARED)
    return root


def check(root: Path) -> dict[str, doctor.Finding]:
    report = doctor.check(root, workers=0, progress=False)
    return {finding.kind: finding for finding in report.findings}


def put(value: float, channel: int = 1) -> Callable[[Array], Array]:
    """Return a function that puts a value into a block of a channel."""

    def change(values: Array) -> Array:
        values[20:40, 30:60, channel] = value
        return values

    return change


ODD_FILES = {"values/train/s2.npy", "values/train/s9.npy", "values/val/s7.npy"}


@pytest.mark.parametrize(
    ("change", "kind", "words", "stops"),
    [
        (lambda values: values * np.array([1000, 1]), "values-scale-mixed", "the first one, in height", True),
        (lambda values: values * np.array([1, 0.1]), "values-scale-mixed", "the first one, in moisture", True),
        (lambda values: values[..., ::-1], "values-exchanged", "height and moisture in the first one", True),
        (put(0), "values-edge", "0 in the first one, in moisture", False),
        (put(0, 0), "values-edge", "0 in the first one, in height", False),
        (put(-1), "values-edge", "-1 in the first one, in moisture", False),
        (np.int16, "values-whole-units", "1 is 1 m of height, 1 is 1 % of moisture", False),
    ],
)
def test_files_unlike_the_others_are_named(
    tmp_path: Path, change: Callable[[Array], Array], kind: str, words: str, stops: bool
) -> None:
    found = check(write(tmp_path, change))
    assert set(found) == {kind}
    assert set(found[kind].examples) == ODD_FILES
    assert words in found[kind].meaning
    assert found[kind].stops == stops


def test_nothing_is_found_where_values_are_sound(tmp_path: Path) -> None:
    def flatten(values: Array) -> Array:
        """Heights above a ground of exactly 0, with noise that reaches it."""
        heights: Array = np.maximum(values - np.array([1.2, 0], np.float32), 0)
        return heights

    assert check(write(tmp_path, flatten, odd=tuple(range(FILES)))) == {}


@pytest.mark.parametrize("low", [(), (2,), (2, 7)])
def test_heights_of_a_flat_ground_are_doubted_only_if_nothing_is_low(tmp_path: Path, low: tuple[int, ...]) -> None:
    """Houses of 4 metres and more on a ground of exactly 0, and files with bushes of 0.05 to 1 metre besides."""
    root = write(tmp_path)
    for path in sorted(root.rglob("*.npy")):
        values = np.load(path)
        heights = np.where(values[..., 0] > 1.5, 4 * values[..., 0], 0)
        if int(path.stem[1:]) in low:
            heights[:20, :15] = np.linspace(0.05, 1, 300).reshape(20, 15)
        np.save(path, np.stack([heights, values[..., 1]], 2))
    found = check(root)
    assert {kind: finding.count for kind, finding in found.items()} == (
        {} if len(low) > 1 else {"values-edge": FILES - len(low)}
    )


def test_a_quantity_of_one_value_is_named(tmp_path: Path) -> None:
    found = check(write(tmp_path, lambda values: values * [0, 1] + [2, 0], odd=tuple(range(FILES))))
    assert {kind: finding.examples for kind, finding in found.items()} == {"values-constant": ("height",)}


def spread_out(middles: Array) -> Array:
    """Quantiles of 90 % of values around the middles, `(N, 3)`."""
    quantiles: Array = middles[:, np.newaxis] * np.array([0.6, 1, 1.5])
    return quantiles


# What is said of a folder


def test_values_that_nothing_names_stop_training_if_there_is_no_other_ground_truth(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "targets.yaml").unlink()
    found = check(root)
    assert {kind: finding.stops for kind, finding in found.items()} == {"values-alone-undeclared": True}
    assert "quantities: [{name: height, unit: m}]" in found["values-alone-undeclared"].advice


def test_folders_of_measurements_that_nothing_declares_are_named(tmp_path: Path) -> None:
    root = write(tmp_path)
    for path in sorted(root.rglob("values/*/*.npy")):
        place, values = path.relative_to(root / "values"), np.load(path)
        save(root / "height" / place.with_suffix(".tif"), values[..., 0])
        save(root / "wet" / place.with_suffix(".png"), np.rint(values[..., 1]).astype(np.uint8))
        save(root / "previews" / place.with_suffix(".png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        save(root / "masks" / place.with_suffix(".png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    (root / "classes.yaml").write_text("names: [all]\n")
    found = check(root)
    assert found["target-folder-unread"].examples == ("height", "wet")
    assert found["target-folder-unread"].advice.endswith("in targets.yaml, for example:\nheight: {unit: m}")
    (root / "targets.yaml").write_text(DECLARED + "height: {unit: m}\nwet: {unit: '%', scale: 1}\n")
    assert "target-folder-unread" not in check(root)
    report = doctor.check(root, targets=["soil"], workers=0, progress=False)
    assert "target-folder-unread" not in {finding.kind for finding in report.findings}


def test_tables_are_named_as_not_read(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "values/train/all.csv").write_text("image,height\ns0,3\n")
    found = check(root)
    assert found["target-kind-unread"].examples == ("values/train/all.csv",)
    assert "tables (.csv) are not maps" in found["target-kind-unread"].meaning


def test_channels_before_height_and_width_are_recognised(tmp_path: Path) -> None:
    found = check(write(tmp_path, lambda values: np.moveaxis(values, -1, 0)))
    assert set(found) == {"target-channels"}
    meaning = found["target-channels"].meaning
    assert f"(2, {HEIGHT}, {WIDTH}) seems to have the channels first: save it as ({HEIGHT}, {WIDTH}, 2)" in meaning


def test_the_report_names_the_folders_that_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path)
    (root / "bands.yaml").write_text("images: [red, green, blue]\nnir: nir\n")
    (root / "nir").mkdir()
    report = doctor.check(root, workers=0, progress=False)
    report.print()
    assert "Ground truth besides classes: values/\nBands beside the images, which are" in capsys.readouterr().out
    assert report.to_dict()["others"][1].endswith(": nir/")


def test_a_percent_sign_without_quotes_is_explained(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "targets.yaml").write_text("values: {quantities: [{name: moisture, unit: %}]}\n")
    assert 'Put such a character in quotes: "%"' in check(root)["targets-file"].meaning


DICE = np.random.default_rng(0)
SOUND = {
    "alike": spread_out(DICE.uniform(1, 3, 40)),
    "of many magnitudes": spread_out(10 ** DICE.normal(0, 1, 40)),
    "both signs": DICE.normal(0, 1, (40, 1)) + np.array([-3, 0, 3]) * 10 ** DICE.normal(0, 0.7, (40, 1)),
    "around zero": np.where(np.arange(40)[:, np.newaxis] < 4, 1000, 1) * np.array([-1.0, 0.01, 1.1]),
    "nothing in some": np.where(np.arange(40)[:, np.newaxis] < 8, 0, spread_out(DICE.uniform(1, 3, 40))),
    "few": spread_out(np.array([1, 1, 1, 1, 1, 1, 1000.0])),
    "half and half": spread_out(np.repeat([1, 1000.0], 20)),
}


@pytest.mark.parametrize("name", SOUND)
def test_units_are_not_doubted_without_reason(name: str) -> None:
    assert not find_shifts(SOUND[name]).any()


@pytest.mark.parametrize("factor", [1000, 10, 0.1, 0.001, -1000])
def test_factors_of_units_are_found(factor: float) -> None:
    middles = np.where(np.arange(40) % 5 == 2, abs(factor), 1) * DICE.uniform(0.9, 1.1, 40)
    quantiles = spread_out(middles) if factor > 0 else -spread_out(middles)[:, ::-1]
    expected = np.where(np.arange(40) % 5 == 2, np.log10(abs(factor)), 0)
    np.testing.assert_allclose(find_shifts(quantiles), expected, atol=0.1)


def test_quantities_of_the_same_values_are_not_exchanged() -> None:
    alike = DICE.normal(0, 1, (40, 2, 1)) + np.array([-2, 0, 2])
    assert list(find_exchanged(alike)) == []
    apart = alike + np.array([[0.0], [50]])
    apart[[3, 8]] = apart[[3, 8], ::-1]
    assert list(find_exchanged(apart)) == [(3, 0, 1), (8, 0, 1)]
