"""The runs of `refinenet deploy` over videos: those of the API, with what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from video_samples import read_video, write_video

from refinenet import RefineNet
from refinenet.cli.deploy_runs import Request, deploy_video


def request(model: Path, video: Path | str, output: Path, announced: list[int]) -> Request:
    return Request(
        images=[str(video)],
        output=str(output),
        kinds=[],
        network={"model": model, "device": "cpu", "backend": "pytorch"},
        as_json=True,
        announce=lambda: announced.append(1),
    )


@pytest.mark.parametrize(
    ("outputs", "bands", "options", "words"),
    [
        ("classes", "red,green,blue,nir", {}, "Videos have RGB frames, but the model takes 4 bands"),
        ("depth", None, {"scale": 5.0}, r"scale \(--scale\) has no effect on depth_colour"),
    ],
)
def test_refusals_come_before_the_video_is_opened(
    tmp_path: Path, outputs: str, bands: str | None, options: dict[str, Any], words: str
) -> None:
    classes = 3 if outputs == "classes" else None
    r = RefineNet(encoder="test_resnet", outputs=outputs, num_classes=classes, bands=bands, device="cpu")
    model, announced = r.save(tmp_path / "m.safetensors"), list[int]()
    with pytest.raises(ValueError, match=words):
        deploy_video(
            request(model, "missing.mp4", tmp_path / "out.mp4", announced),
            options,
            abstain_below=0.0,
            overwrite=False,
        )
    assert not announced


def test_a_video_is_that_of_the_api(
    tmp_path: Path, street: npt.NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    r = RefineNet(encoder="test_resnet", outputs="depth", device="cpu", backend="pytorch")
    model, announced = r.save(tmp_path / "m.safetensors"), list[int]()
    video = write_video(tmp_path / "in.mkv", [street[:32, :48]] * 2, codec="ffv1", pixels="bgr0")
    deploy_video(request(model, video, tmp_path / "cli.mkv", announced), {}, abstain_below=0.0, overwrite=False)
    assert '"frames": 2' in capsys.readouterr().out
    assert announced == [1, 1]
    other = RefineNet(model=model, device="cpu", backend="pytorch")
    other.deploy_video(video, tmp_path / "api.mkv", progress=False)
    for one, two in zip(read_video(tmp_path / "cli.mkv")[0], read_video(tmp_path / "api.mkv")[0], strict=True):
        assert np.array_equal(one, two)
