"""What `refinenet deploy` does with a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refinenet.terminal import say


def has_video(sources: Sequence[str]) -> bool:
    """Whether one of them is taken for a video, a stream or a camera."""
    from refinenet.video_source import is_video

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

    Raises:
        ValueError, OSError: as `RefineNet.deploy_video`, or several sources.
    """
    from refinenet.files import refuse_to_replace
    from refinenet.segmenter import OUTPUTS
    from refinenet.video import choose_output, plan_output

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

    result = RefineNet(**network).deploy_video(sources[0], target, kind, abstain_below, progress=not as_json)
    if as_json:
        say({key: str(value) if isinstance(value, Path) else value for key, value in asdict(result).items()})
    else:
        say(result.describe())
