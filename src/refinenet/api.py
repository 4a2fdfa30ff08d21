"""The class `RefineNet`: a network with what its classes mean, and a method for each verb.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import torch

from refinenet.backends import BackendName, Precision, check_backend, open_backend
from refinenet.class_matching import check_same_classes
from refinenet.datasets import DatasetSource, TrainingSource
from refinenet.distributed import launch
from refinenet.evaluate import examine_model
from refinenet.evaluation import Evaluation
from refinenet.examination import examine, open_split
from refinenet.files import refuse_same_file
from refinenet.images import ImageSource, decode
from refinenet.inference import Protocol, choose_protocol
from refinenet.labels import LabelSet
from refinenet.large_images import OVERLAP, LargeSegmentation, segment_large
from refinenet.model_file import ModelCard, load, save
from refinenet.model_source import Start, choose_device
from refinenet.network import ModelType, Network
from refinenet.run_start import RunOptions
from refinenet.segmenter import Output, Segmentation, Segmenter, check_output
from refinenet.temperature import FittedTemperature, fit_temperature
from refinenet.tensors import digest
from refinenet.train import TrainResult, TrainRun
from refinenet.train_request import TrainRequest, prepare_runs


class RefineNet:
    """A network for semantic segmentation: make or load one, then `train`, `eval`, `deploy`.

    Args:
        model_type: "full" (RefineNet) or "lightweight" (Light-Weight RefineNet). By default the model file says it;
            without one it is "full", or "lightweight" where an `encoder` is named.
        num_layers: Depth of the ResNet encoder: 50 (the default), 101 or 152.
        encoder: Instead of a ResNet, any timm network with feature maps at strides 4, 8, 16 and 32, by timm's name.
            "mobilenetv2_100" gives the published light-weight MobileNetV2 network.
        num_classes: Number of classes. By default that of the model file, or of the dataset that `train` is given.
        model: A model to load: "camvid" (which ships inside the package), a file written by `save`, or a checkpoint
            published for an earlier PyTorch RefineNet.
        encoder_weights: Weights to start the encoder of a new network from: "imagenet" for timm's (fetched once, needs
            a network), or a file.
        seed: From which the random weights of a new network follow, whatever state PyTorch's generator is in; by
            default 42, as in training. Another one makes another network.
        device: "cpu", "cuda", "cuda:1", ...; by default a GPU where there is one.
        backend: What segments and measures: "pytorch", or "openvino", on CPUs two to three times as fast, which
            translates the network first, some ten seconds, and keeps that for the next time. Training is PyTorch's.
        precision: Of the backend's arithmetic: "float32", or in "openvino" also "bfloat16", faster where the processor
            computes in it; a label in a hundred may differ.

    Raises:
        ValueError: an argument is not allowed or contradicts the model file, or a file cannot be used.
        OSError: a file cannot be read.
    """

    network: Network
    """The `torch.nn.Module`: float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, H, W)`."""

    def __init__(
        self,
        model_type: ModelType | None = None,
        num_layers: int | None = None,
        encoder: str | None = None,
        num_classes: int | None = None,
        model: str | os.PathLike[str] | None = None,
        encoder_weights: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        seed: int | None = None,
        backend: BackendName = "pytorch",
        precision: Precision = "float32",
    ) -> None:
        check_backend(backend, precision)
        self._backend: BackendName = backend
        self._precision: Precision = precision
        start = Start(
            model_type=model_type,
            num_layers=num_layers,
            encoder=encoder,
            num_classes=num_classes,
            model=model,
            encoder_weights=encoder_weights,
            seed=seed,
        )
        self._classes_asked_for, self._origin = num_classes is not None, start.origin
        chosen = choose_device(device)
        network, card = start.open()
        self._adopt(network.to(chosen), card)

    def _adopt(self, network: Network, card: ModelCard) -> None:
        self.network = network.eval()
        self.card = card
        backend = open_backend(network, self._backend, self._precision)
        self._segmenter = Segmenter(backend, card.label_set, temperature=card.temperature)

    @property
    def label_set(self) -> LabelSet:
        """Names and colours of the classes, and the ignore index."""
        return self.card.label_set

    @label_set.setter
    def label_set(self, label_set: LabelSet) -> None:
        self._adopt(self.network, replace(self.card, label_set=label_set))

    def segment(
        self, image: ImageSource, *, channel_order: Literal["rgb", "bgr"] = "rgb", abstain_below: float = 0.0
    ) -> Segmentation:
        """Segment an image.

        Args:
            image: A path, the bytes of a file, a Pillow image, a NumPy array or a tensor; see `images.decode`.
            channel_order: "bgr" for arrays from OpenCV.
            abstain_below: Pixels of less confidence than this, in [0, 1], get no class, but the label set's ignore
                index.

        Returns:
            Labels, confidence, colours and areas, of the image's own size.

        Raises:
            ValueError, TypeError, OSError: the image cannot be read or used.
        """
        return self._segmenter.segment(decode(image, channel_order=channel_order), abstain_below)

    def deploy(
        self,
        image: ImageSource | None = None,
        image_file: str | os.PathLike[str] | None = None,
        output_file: str | os.PathLike[str] | None = None,
        output: Output | None = None,
        channel_order: Literal["rgb", "bgr"] = "rgb",
        abstain_below: float = 0.0,
    ) -> npt.NDArray[Any]:
        """Segment an image, draw the result, and write it where asked to.

        Args:
            image: What to segment: an array `(H, W, 3)` uint8 RGB, or anything else that `segment` takes.
            image_file: Or the path of an image file.
            output_file: Where to write the picture: `.png` or `.jpg`. Missing folders are made, an existing file is
                replaced, the image itself never.
            output: Which picture: "labels" (ids; `.png` only), "colour", "overlay" or "confidence". By default the
                colour image is returned, and a `.png` file gets label ids with a palette, a `.jpg` file the colours.
            channel_order: "bgr" for arrays from OpenCV.
            abstain_below: As for `segment`.

        Returns:
            The picture: `(H, W, 3)` uint8 RGB, or `(H, W)` for "labels" and "confidence".

        Raises:
            ValueError: not exactly one of `image` and `image_file` is given, the image cannot be used, or
                `output_file` does not fit `output` or is the image itself.
            OSError: a file cannot be read or written.
        """
        if (image is None) == (image_file is None):
            raise ValueError("Pass exactly one of image (an array or the like) and image_file (a path).")
        source = image if image is not None else image_file
        if output_file is not None:
            check_output(output_file, output)
            if isinstance(source, str | os.PathLike):
                refuse_same_file(source, output_file)
        assert source is not None
        segmentation = self.segment(source, channel_order=channel_order, abstain_below=abstain_below)
        picture = segmentation.render(output or "colour")
        if output_file is not None:
            segmentation.save(output_file, output)
        return picture

    def deploy_large(
        self,
        image_file: str | os.PathLike[str],
        output_file: str | os.PathLike[str],
        output: Output | None = None,
        *,
        window: tuple[int, int] | None = None,
        overlap: float = OVERLAP,
        abstain_below: float = 0.0,
        progress: bool = True,
    ) -> LargeSegmentation:
        """Segment an image file of any size in windows, in bounded memory; for large maps and scans.

        Args:
            image_file: TIFF (BigTIFF and GeoTIFF, too), PNG, JPEG or BMP.
            output_file: `.tif` (tiled, compressed) or `.png`; georeferencing is kept.
            output: As for `deploy`; by default label ids with a palette.
            window: Height and width of the windows, in pixels; by default 768 by 768.
            overlap: The least share of its side that a window has in common with the next one.
            abstain_below: As for `segment`.
            progress: Whether to show progress on standard error.

        Raises:
            ValueError, OSError: as `large_images.segment_large`.
        """
        return segment_large(
            self._segmenter,
            image_file,
            output_file,
            output,
            window=window,
            overlap=overlap,
            abstain_below=abstain_below,
            progress=progress,
        )

    def train(
        self,
        dataset: TrainingSource | None = None,
        root: str | os.PathLike[str] | None = None,
        output: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
        stages: str | os.PathLike[str] | Sequence[Mapping[str, Any]] | None = None,
        recipe: str | os.PathLike[str] | None = None,
        classes: str | None = None,
        check: bool = True,
        stop_after: int | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> TrainResult:
        """Train the network; afterwards it has the weights of the epoch with the best validation mIoU.

        A new network takes the dataset's classes. A trained one keeps, of its classifier, the classes that the dataset
        has too, by name, and learns the others anew. All that is drawn at random in training follows from the setting
        `seed`, and a new network's weights from that of `RefineNet`; PyTorch's own generator is afterwards as it was.

        Args:
            dataset: "camvid", "streets" and others by name, or a folder of one's own; see `datasets.open_dataset`. Or a
                list of such with the same classes: all are trained on, the first one is validated on.
            root: Where a named dataset lies; of a list, the first one.
            output: The folder for the results; by default a new one below `runs/`.
            resume: Instead of `dataset`, the folder of a run that was stopped: it goes on from where it was, as it was
                begun.
            stages: Instead of `dataset`, several trainings after each other, each of which begins with the best model
                of the one before: maps with the key "dataset", perhaps "root", and settings; or a YAML file with a list
                of such below the key "stages".
            recipe: A training written down, by the name of one that comes with the package or as a TOML file
                (`recipe.read_recipe`). It says what is trained on and how; arguments beside it take the place of what
                it says. What it says of the network is for whoever makes one: this one is trained as it is.
            classes: Which set of classes a published dataset is taken with, where it has two: "stuff" for COCO, "59"
                for PASCAL-Context. `dataset="coco:stuff"` says the same.
            check: Whether the doctor (`refinenet data check`) looks at the data before a new training, quickly, and
                refuses what it would fail on or learn something wrong from.
            stop_after: Steps after which to stop for now, as Ctrl-C would; the run goes on by `resume`. In a training
                in stages, steps of the stage that it is in.
            progress: Whether to show progress on standard error.
            settings: Fields of `train_config.TrainConfig`, such as `epochs`, `batch_size` and `learning_rate`; for all
                stages that do not say otherwise.

        Returns:
            Where the results are (of the last stage), and how good the best model is. After an interruption or an error
            the network has the weights that training had reached, and the run folder keeps its state.

        Raises:
            FileNotFoundError: the data are not there; says where to get them.
            ValueError: a setting, a file or the number of classes is not allowed; it is named.
        """
        request = TrainRequest(
            dataset=dataset,
            root=root,
            output=output,
            resume=resume,
            stages=stages,
            recipe=recipe,
            classes=classes,
            settings=settings,
        )
        options = RunOptions(
            classes_fixed=self._classes_asked_for,
            origin=self._origin,
            check=check,
            stop_after=stop_after,
            progress=progress,
        )
        with torch.random.fork_rng(range(torch.cuda.device_count()) if self.network.mean.is_cuda else ()):
            for run in prepare_runs(self.network, self.card, request, options):
                result = self._carry_out(run)
                if not result.is_over:
                    break
        return result

    def _carry_out(self, run: TrainRun) -> TrainResult:
        self._adopt(run.network, run.card)
        try:
            result = run.run()
        finally:
            self.network.eval()
        network, card = load(result.model)
        self._adopt(network.to(self.network.mean.device), card)
        self._origin = {"model": str(result.model.resolve())}
        return result

    def eval(
        self,
        dataset: DatasetSource,
        root: str | os.PathLike[str] | None = None,
        split: str = "val",
        output_file: str | os.PathLike[str] | None = None,
        classes: str | None = None,
        protocol: Protocol | Literal["plain", "paper"] = "plain",
        abstain_below: float = 0.0,
        report: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> Evaluation:
        """Measure the model on a dataset, print a table, and write the figures where asked to.

        Args:
            dataset: As for `train`.
            root: Where a named dataset lies.
            split: Which part of it.
            output_file: A JSON file for the figures.
            classes: As for `train`.
            protocol: How images are put before the network: "plain", whole and once, as all datasets' owners measure;
                "paper", as the network's paper does; or any other (`inference.Protocol`): several scales, mirrored,
                in windows.
            abstain_below: Pixels of less confidence get no class; they count as misses of the class they have.
            report: A folder for a page on the figures that opens in any browser, `report.html`: tables, curves, and the
                worst, best and most doubtful images. Its pictures lie beside it as PNG files.
            progress: Whether to show progress and the table.

        Returns:
            All figures, with the rules that they follow and how they were measured.

        Raises:
            FileNotFoundError: the data are not there; says where to get them.
            ValueError: a file cannot be used, a value is not allowed, or the model's classes are not the dataset's.
        """
        data, official = open_split(dataset, root, classes, split)
        check_same_classes(self.label_set, data)
        chosen = choose_protocol(protocol, data.name, self.card.architecture.model_type)
        weights = self.card.weights_sha256 or digest(self.network.state_dict())
        return examine(
            examine_model(self._segmenter.under(chosen), weights, abstain_below),
            data,
            official,
            output_file=output_file,
            report=report,
            progress=progress,
            processes=launch(self.network.mean.device).processes,
        )

    def calibrate(
        self,
        dataset: DatasetSource,
        root: str | os.PathLike[str] | None = None,
        split: str = "val",
        classes: str | None = None,
        progress: bool = True,
    ) -> FittedTemperature:
        """Make confidence mean what it says: of the pixels that are told with 80 %, 80 % are to be right.

        A temperature is fitted to images that the network has not learned from; labels stay as they are. `save` keeps
        it with the model.

        Args:
            dataset: As for `train`.
            root: Where a named dataset lies.
            split: Which part of it.
            classes: As for `train`.
            progress: Whether to show progress.

        Returns:
            The temperature, with the calibration error before and after on the pixels that it was fitted to.

        Raises:
            FileNotFoundError: the data are not there; says where to get them.
            ValueError: a file cannot be used, no pixel has a class, or the model's classes are not the dataset's.
        """
        data, _ = open_split(dataset, root, classes, split)
        check_same_classes(self.label_set, data)
        fitted = fit_temperature(self._segmenter, data, progress=progress)
        self._adopt(self.network, replace(self.card, temperature=fitted.value))
        return fitted

    def save(
        self,
        path: str | os.PathLike[str],
        dtype: Literal["float32", "float16"] = "float32",
        licence: str | None = None,
    ) -> Path:
        """Write the model to one file that `RefineNet(model=path)` loads anywhere, without further arguments.

        Args:
            path: Where; by custom it ends in `.safetensors`. Missing folders are made, an existing file is replaced.
            dtype: "float16" halves the file.
            licence: Terms for the file to state; by default those that the model came with.

        Raises:
            ValueError: a weight is not a finite number.
            OSError: the file cannot be written.
        """
        card = self.card if licence is None else replace(self.card, licence=licence)
        self.card = save(path, self.network, card, dtype)
        return Path(path)
