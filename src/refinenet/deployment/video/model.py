"""A model that predicts for the frames of videos: to write them, to show them, or one by one for a program.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any

from refinenet.deployment.prediction_model import PredictionModel
from refinenet.deployment.video.frames import WAITING, PredictedFrame, predict_frames
from refinenet.deployment.video.reader import TIMEOUT
from refinenet.deployment.video.runner import RETRIES, VideoResult, open_renderers, plan_output, segment_video
from refinenet.deployment.video.steady import Steadier
from refinenet.inference.output_kinds import Kind
from refinenet.inference.prediction import Prediction
from refinenet.inference.rendering import Renderer, open_renderer, refuse_idle
from refinenet.inference.segmenter import check_abstention
from refinenet.inference.values.subject import RenderOptions
from refinenet.io.images.bands import name_bands
from refinenet.io.images.codec import ChannelOrder
from refinenet.io.images.sample_values import RGB


class VideoModel(PredictionModel):
    """A model with methods for videos, streams and cameras."""

    def open_renderer(self, kind: Kind, suffix: str, **rendering: Any) -> Renderer:
        """Open the renderer of a kind for this model; see `rendering.open_renderer`, and `deploy` for `rendering`.

        Raises:
            ValueError: as `rendering.open_renderer`, or an option has no effect.
        """
        options = RenderOptions.from_dict(rendering)
        renderer = open_renderer(kind, suffix, self.outputs, self.label_set, options)
        refuse_idle(options, [renderer])
        return renderer

    def deploy_video(
        self,
        source: str | os.PathLike[str],
        output: str | os.PathLike[str] | None = None,
        kind: Kind | None = None,
        abstain_below: float = 0.0,
        retries: int = RETRIES,
        progress: bool = True,
        on_prediction: Callable[[Prediction], object] | None = None,
        display: bool = False,
        steady: bool = False,
        **rendering: Any,
    ) -> VideoResult:
        """Segment a video, a stream or a camera frame by frame, and write a video or a folder of images.

        Args:
            source: A file, the address of a stream (`rtsp://`, `rtmp://`, `http://`, ...), or a camera (`camera:0`).
            output: A `.mp4`, `.m4v`, `.mov` or `.mkv` file (H.264, with the original timestamps and sound), or a
                folder for a PNG file per frame and their timestamps in `frames.jsonl`. May be left out with `display`.
            kind: Picture of each frame: "overlay" (default for files), "colour" or "confidence"; for folders also
                "labels" (their default). Of other outputs "depth_colour", "normals" and "values_colour", with the
                limits of the first frame unless `limits` are given; for folders also "depth" and "values".
            abstain_below: As for `segment`.
            retries: Number of consecutive attempts to reconnect to a stream.
            progress: Whether to show progress on standard error.
            on_prediction: Called with the prediction of each frame.
            display: Whether to show the frames in a window; Esc, Q or closing the window stops the run. Without an
                output a video is played at its own pace, and frames that the network is too slow for are dropped.
            steady: Whether to average class probabilities over frames, following the motion, so that labels flicker
                less; see `steady.Steadier`.
            rendering: As for `deploy`.

        Returns:
            What was written, with counts of skipped and damaged frames.

        Raises:
            ValueError: PyAV is not installed, the source is not a video or has no frames, the output does not fit,
                there is neither an output nor a window, or what these options need is not installed.
            OSError: a file cannot be read or written, a stream does not respond, or there is no display.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the output is playable and holds the frames up to then.
        """
        self._refuse_bands()
        self._warn_of_random_weights()
        if output is None and not display:
            raise ValueError("Specify an output for the video, such as overlay.mp4, or display=True to show it only.")
        plan = None if output is None else plan_output(source, output, kind, self.outputs)
        options = RenderOptions.from_dict(rendering)
        renderers = open_renderers(plan, kind, self.outputs, self.label_set, options, display=display)
        infer = self._open_predictor(abstain_below, steady=steady)

        def predict(frame: RGB) -> Prediction:
            found = infer(frame)
            if on_prediction is not None:
                on_prediction(found)
            return found

        return segment_video(predict, source, plan, renderers, retries=retries, progress=progress)

    def _open_predictor(
        self, abstain_below: float, channel_order: ChannelOrder = "rgb", *, steady: bool
    ) -> Callable[[RGB], Prediction]:
        """Return the function that predicts for the frames of one video, in order.

        Raises:
            ValueError: `abstain_below` is not in [0, 1]; or OpenCV, which `steady` needs, is not installed.
        """
        check_abstention(abstain_below)
        segmenter = self._segmenter
        if not steady:
            return lambda frame: segmenter.predict_outputs(frame, abstain_below, None, channel_order)
        steadier = Steadier(self.outputs, len(self.label_set))

        def predict(frame: RGB) -> Prediction:
            found = steadier.steady(frame, segmenter.predict_maps(frame))
            return segmenter.compose(frame, found, abstain_below, None, channel_order)

        return predict

    def frames(
        self,
        source: str | os.PathLike[str],
        *,
        abstain_below: float = 0.0,
        waiting: int = WAITING,
        live: bool | None = None,
        steady: bool = False,
        retries: int = RETRIES,
        timeout: float = TIMEOUT,
    ) -> Generator[PredictedFrame]:
        """Iterate over the frames of a video, a stream or a camera with their predictions.

            for image, seconds, segmentation in r.frames("camera:0"):
                ...

        Args:
            source: As for `deploy_video`.
            abstain_below: As for `segment`.
            waiting: Number of decoded frames that may wait. Of a live source the oldest one is dropped when a newer one
                arrives, which bounds the delay; of others no frame is dropped.
            live: Whether the source counts as live; by default cameras, `rtsp://` and the like do, and streams over
                HTTP that declare neither a length nor a size. A file is then played at its own pace.
            steady: As for `deploy_video`.
            retries: As for `deploy_video`.
            timeout: Seconds without data after which a stream or a camera counts as broken off.

        Returns:
            A generator of `PredictedFrame`, which closes the source when it ends, is closed or is deleted, as after
            `break` or an error in a loop. Images and pictures have the `channel_order` given to `RefineNet`.

        Raises:
            ValueError: PyAV is not installed, the source is not a video or has no frames, or an argument is not valid.
            OSError: a file cannot be read, or a stream does not respond.
        """
        self._refuse_bands()
        self._warn_of_random_weights()
        predict = self._open_predictor(abstain_below, self._channel_order, steady=steady)
        return predict_frames(predict, source, waiting=waiting, live=live, retries=retries, timeout=timeout)

    def _refuse_bands(self) -> None:
        """Refuse videos for models of named bands.

        Raises:
            ValueError: The model takes bands.
        """
        if self.card.architecture.bands:
            named = name_bands(self.card.architecture.bands)
            raise ValueError(f"Videos have RGB frames, but the model takes {named}. Deploy it on images.")
