"""Options of overlays on the command line, in Python, in videos and in windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CommandLine
from PIL import Image
from video_samples import read_video, write_video

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street

STREET = draw_street(5, 72, 96)[0]


@pytest.fixture
def street(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    Image.fromarray(STREET).save(path)
    return path


def test_the_command_line_and_python_draw_alike(
    call_refinenet: CommandLine, camvid_model: RefineNet, street: Path
) -> None:
    out = street.with_name("out.png")
    ended = call_refinenet(
        *("deploy", street, "-o", out, "--kind", "overlay", "--opacity", 0.8, "--outline", 2, "--legend"),
        *("--hide", "Sky", "--hide", "Road"),
    )
    assert ended.returncode == 0, ended.stderr
    written = np.asarray(Image.open(out))
    hide = ("Sky", "Road")
    options: dict[str, Any] = {"opacity": 0.8, "outline": 2, "legend": True, "hide": hide}
    found = camvid_model.segment(street)
    np.testing.assert_array_equal(written, found.draw(**options))
    np.testing.assert_array_equal(written, camvid_model.deploy(image_file=street, output="overlay", **options))
    hidden = np.isin(found.labels, [camvid_model.label_set.names.index(name) for name in hide])
    assert hidden.any()
    assert (written[:72][hidden] == STREET[hidden]).all()
    bgr = camvid_model.segment(STREET[..., ::-1], channel_order="bgr").draw(**options)
    np.testing.assert_array_equal(bgr[..., ::-1], written)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ("--legend", "", "with --legend instead of without --legend"),
        ("", "--legend", "without --legend instead of with --legend"),
        ("--opacity 0.25", "--opacity 0.75", "with --opacity 0.25 instead of --opacity 0.75"),
        ("--opacity 0.3000001", "--opacity 0.3", "with --opacity 0.3000001 instead of --opacity 0.3."),
        ("--hide Sky --hide Road", "--hide Sky", "with --hide Sky --hide Road instead of --hide Sky"),
        ("--abstain-below 0.5", "", "with --abstain-below 0.5 instead of without --abstain-below"),
        ("--overlap 0.5", "--window 64x48", "with --overlap 0.5 instead of --window 64x48 --overlap 0.75"),
    ],
)
def test_results_of_other_options_are_told_apart_in_the_words_of_the_command_line(
    call_refinenet: CommandLine, street: Path, before: str, now: str, words: str
) -> None:
    (street.parent / "in").mkdir()
    street.rename(street.parent / "in" / "street.png")
    deploy = ("deploy", "in", "-o", "out", "--kind", "overlay", "--device", "cpu")
    ended = call_refinenet(*deploy, *before.split())
    assert ended.returncode == 0, ended.stderr
    refused = call_refinenet(*deploy, *now.split())
    assert refused.returncode == 1
    assert f"The results in out were made {words}" in refused.stderr
    assert call_refinenet(*deploy, *before.split()).stdout.count("already done") == 1


@pytest.mark.parametrize("off", [{"legend": False}, {"show": ()}, {"show": [], "hide": [], "abstain_below": 0}])
def test_options_of_python_that_are_off_are_as_options_left_out(
    camvid_model: RefineNet, street: Path, off: dict[str, Any]
) -> None:
    (street.parent / "in").mkdir()
    street.rename(street.parent / "in" / "street.png")
    unset: dict[str, Any] = {}
    for name, before, now in (("with", off, unset), ("without", unset, off)):
        paths = (street.parent / "in", street.parent / name)
        camvid_model.deploy_files(*paths, kinds="overlay", progress=False, **before)
        camvid_model.deploy_files(*paths, kinds="overlay", progress=False, **now)
    with pytest.raises(ValueError, match="were made without --legend instead of with --legend"):
        camvid_model.deploy_files(*paths, kinds="overlay", progress=False, legend=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opacity", 0.8], "opacity (--opacity) has no effect on labels (.png): leave it out. It is for overlay"),
        (["--kind", "overlay", "--show", "Dog"], "no class 'Dog' to show or hide. Its classes are Sky, Building"),
        (["--kind", "overlay", "--opacity", 80], "opacity must be a number from 0 to 1 or None, not 80"),
        (["--kind", "overlay", "--window", "64x64", "--legend"], "without outlines or legends"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_refused(
    call_refinenet: CommandLine, street: Path, arguments: list[object], message: str
) -> None:
    ended = call_refinenet("deploy", street, "-o", street.with_name("out.png"), *arguments)
    assert ended.returncode == 1
    assert message in " ".join(ended.stderr.split())
    assert not street.with_name("out.png").exists()


def test_frames_of_a_video_with_a_legend_have_one_size(camvid_model: RefineNet, tmp_path: Path) -> None:
    pictures = [STREET, np.full_like(STREET, 200)]
    video, out = write_video(tmp_path / "in.mkv", pictures, codec="ffv1", pixels="bgr0"), tmp_path / "out.mp4"
    camvid_model.deploy_video(video, out, legend=True, show=("Road", "Car"), progress=False)
    shown, _ = read_video(out)
    assert len(shown) == 2
    assert shown[0].shape == camvid_model.segment(STREET).draw(legend=True, show=("Road", "Car")).shape
