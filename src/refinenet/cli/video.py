"""What `refinenet deploy` does with a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refinenet.io.console import say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from refinenet.inference.segmenter import Segmentation


def has_video(sources: Sequence[str]) -> bool:
    """Whether one of them is taken for a video, a stream or a camera."""
    from refinenet.deployment.video.reader import is_video

    return any(is_video(source) for source in sources)


def deploy_video(
    sources: Sequence[str],
    output: str | None,
    kinds: Sequence[str],
    network: Mapping[str, Any],
    *,
    abstain_below: float,
    overwrite: bool,
    as_json: bool,
    announce: Callable[[], None],
) -> None:
    """Segment one video and say what was written.

    Args:
        sources: The video, alone.
        output: As for `RefineNet.deploy_video`; by default, for a file, `NAME_overlay.mp4` (or the kind's name) beside
            it.
        kinds: Which picture of each frame; one, or none for the usual one.
        network: Arguments for `RefineNet`.
        abstain_below: As for `RefineNet.segment`.
        overwrite: Whether a video may be replaced whose name nobody said.
        as_json: Whether to print for machines, and no progress.
        announce: Called with the first frame, to say which model is used.

    Raises:
        ValueError, OSError: as `RefineNet.deploy_video`, or several sources.
    """
    from refinenet.deployment.video.runner import choose_output, plan_output, segment_video
    from refinenet.inference.segmenter import OUTPUTS
    from refinenet.io.files import refuse_to_replace

    if len(sources) > 1:
        raise ValueError(f"One video at a time, and without images beside it: {', '.join(map(str, sources))}.")
    kind = next((picture for picture in OUTPUTS if [picture] == list(kinds)), None)
    if kinds and kind is None:
        raise ValueError(f"Of a video, --kind is one of {', '.join(OUTPUTS)}, once, not {', '.join(kinds)}.")
    target = Path(output) if output else choose_output(sources[0], kind)
    if not (output or overwrite):
        refuse_to_replace([target])
    plan_output(sources[0], target, kind)  # what is wrong with it is said before the model is loaded
    from refinenet.api import RefineNet

    model = RefineNet(**network)

    def segment(frame: npt.NDArray[np.uint8]) -> Segmentation:
        announce()
        return model.segment(frame, channel_order="rgb", abstain_below=abstain_below)

    result = segment_video(segment, sources[0], target, kind, progress=not as_json)
    if as_json:
        say({key: str(value) if isinstance(value, Path) else value for key, value in asdict(result).items()})
    else:
        say(result.describe())
