"""The class `RefineNet`: a network with what its classes mean, and a method for each verb.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
import torch

from refinenet._version import __version__
from refinenet.datasets.catalog import DatasetSource, TrainingSource, open_dataset, with_value_range
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.files import DeployOptions, FileResult, segment_files, take_all
from refinenet.deployment.inputs import JobList, choose_reading, plan_work
from refinenet.deployment.large_images import OVERLAP, LargeSegmentation, Windows, segment_large
from refinenet.deployment.latency_budget import LatencyTuner
from refinenet.deployment.outputs import Kind
from refinenet.deployment.video.runner import RETRIES, VideoResult, segment_video
from refinenet.distributed import launch
from refinenet.evaluation.calibration import FittedTemperature, fit_temperature
from refinenet.evaluation.evaluator import model_predictor
from refinenet.evaluation.pipeline import check_masks, examine, open_split
from refinenet.evaluation.results import Evaluation
from refinenet.evaluation.submission import Submission, plan_submission, write_submission
from refinenet.export.certificate import SIZES, Certificate
from refinenet.export.exporter import ExportPrecision, check_target, export_model
from refinenet.export.loading.loader import choose_engine, graph_kind, open_exported
from refinenet.export.quantisation import MAX_DROP, Int8
from refinenet.inference.backends import AUTO, check_backend, choose_backend, open_backend
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.inference.backends.graph import ExportedModel
from refinenet.inference.protocol import Protocol, choose_protocol
from refinenet.inference.segmentation import Output, Segmentation, check_output
from refinenet.inference.segmenter import Segmenter
from refinenet.io.console import print_note
from refinenet.io.files import refuse_same_file
from refinenet.io.images import ChannelOrder, ImageSource, check_channel_order, knows_its_order, read_image
from refinenet.io.sample_values import Decoded, Note, Reading, ValueRange
from refinenet.labels import LabelSet
from refinenet.models.class_mapping import check_same_classes
from refinenet.models.factory import ModelSpec, choose_device, told_as_exported
from refinenet.models.inference_graph import Weights, note_weights
from refinenet.models.model_file import ModelCard, load, save
from refinenet.models.network import ModelType, Network
from refinenet.models.tensor_files import digest
from refinenet.training.run import TrainResult

if TYPE_CHECKING:
    from refinenet.training.run import TrainRun


class RefineNet:
    """A network for semantic segmentation: make or load one, then `train`, `eval`, `deploy`.

    Args:
        model_type: "full" (RefineNet) or "lightweight" (Light-Weight RefineNet). By default the model file says it;
            without one it is "full", or "lightweight" where an `encoder` is named.
        num_layers: Depth of the ResNet encoder: 50 (the default), 101 or 152.
        encoder: Instead of a ResNet, any timm network with feature maps at strides 4, 8, 16 and 32, by timm's name.
            "mobilenetv2_100" gives the published light-weight MobileNetV2 network.
        num_classes: Number of classes. By default that of the model file, or of the dataset that `train` is given.
        model: A model to load: "camvid" (which ships inside the package), a file written by `save`, a checkpoint
            published for an earlier PyTorch RefineNet, or an exported file (`.onnx`, or OpenVINO's `.xml` with its
            `.bin` beside), which runs on the CPU and cannot be trained or saved.
        encoder_weights: Weights to start the encoder of a new network from: "imagenet" for timm's (fetched once, needs
            a network), or a file.
        seed: From which the random weights of a new network follow, whatever state PyTorch's generator is in; by
            default 42, as in training. Another one makes another network.
        device: "cpu", "cuda", "cuda:1", ...; by default a GPU where there is one.
        backend: What segments and measures: "pytorch"; "compiled", which is PyTorch with a compiler (a minute for the
            first image); "openvino", on CPUs as fast or faster; "onnxruntime". The last two translate the network
            first, some ten seconds, and keep that for the next time (`REFINENET_CACHE`). "auto" is OpenVINO on CPUs
            where it is installed, else PyTorch, or what the environment variable `REFINENET_BACKEND` says; for an
            exported file, what it was made for. Training is PyTorch's.
        channel_order: How the channels of arrays and tensors follow each other that `segment` and `deploy` are given:
            "rgb", or "bgr" for what OpenCV reads (`cv2.imread`). Pictures of them come back in the same order. Files
            and Pillow images know theirs: they are read, and their pictures come back, as RGB.
        precision: Of the backend's arithmetic: "float32"; "bfloat16" (OpenVINO, PyTorch) or "float16" (PyTorch on
            GPUs), faster where the processor computes in it; one or two labels in a hundred may differ.

    Predictions may be asked for from any number of threads at once, with images of any sizes, by every backend; copies
    (`copy.deepcopy`), unpickled and forked ones predict the same. In a forked process PyTorch computes with one thread.

    Raises:
        ValueError: an argument is not allowed or contradicts the model file, or a file cannot be used.
        OSError: a file cannot be read.
    """

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
        backend: BackendName | Literal["auto"] = "auto",
        precision: InferencePrecision = "float32",
        channel_order: ChannelOrder = "rgb",
    ) -> None:
        check_channel_order(channel_order)
        self._channel_order: ChannelOrder = channel_order
        start = ModelSpec(
            model_type=model_type,
            num_layers=num_layers,
            encoder=encoder,
            num_classes=num_classes,
            model=model,
            encoder_weights=encoder_weights,
            seed=seed,
        )
        self._precision: InferencePrecision = precision
        self._chooses = backend == AUTO
        self._backend = check_backend(_choose_backend(start, backend, device, precision), precision)
        self._classes_asked_for, self._origin = num_classes is not None, start.origin
        self._adopt(*_open(start, backend, device))
        self._untrained = self._noted if model is None else None

    def __getstate__(self) -> dict[str, Any]:
        card = self.card  # of weights that were changed by hand, before their copies are new tensors
        state = {key: value for key, value in self.__dict__.items() if key not in _MADE_ANEW}
        return {**state, "_card": card}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._adopt(self._model, self._card)

    @property
    def network(self) -> Network:
        """The `torch.nn.Module`: float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, H, W)`.

        Its weights may be changed in place, under `torch.no_grad()`; changes through `.data` nobody can notice.

        Raises:
            ValueError: the model is an exported graph, which has none.
        """
        if isinstance(self._model, Network):
            return self._model
        raise ValueError(told_as_exported(self._model.path))

    @property
    def parameters(self) -> int | None:
        """Numbers that training changes; None for exported graphs."""
        if isinstance(self._model, ExportedModel):
            return None
        return sum(parameter.numel() for parameter in self._model.parameters())

    def _adopt(self, model: Network | ExportedModel, card: ModelCard) -> None:
        self._model, self._card, self._noted = model, card, _note(model)
        backend = open_backend(model, self._backend, self._precision, or_pytorch=self._chooses)
        self._choices = LatencyTuner(model, self._backend, card.label_set, card.temperature)
        self._segmenter = Segmenter(backend, card.label_set, temperature=card.temperature)

    def _warn_of_random_weights(self) -> None:
        """Say once that a new network predicts nothing of use before it is trained or given weights."""
        if self._untrained is not None and self._untrained == _note(self._model):
            warnings.warn(
                "This network is untrained: its weights are random, and so are the labels that it predicts. Train it, "
                'or load a model: RefineNet(model="FILE"), or model="camvid" for street scenes.',
                stacklevel=3,
            )
        self._untrained = None

    @property
    def card(self) -> ModelCard:
        """What is known of the model; of parameters that were changed by hand neither a score nor the hash."""
        if _note(self._model) != self._noted:
            self._card, self._noted = replace(self._card, scores={}, weights_sha256=""), _note(self._model)
        return self._card

    @property
    def label_set(self) -> LabelSet:
        """Names and colours of the classes, and the ignore index."""
        return self.card.label_set

    @label_set.setter
    def label_set(self, label_set: LabelSet) -> None:
        self._adopt(self._model, replace(self.card, label_set=label_set))

    def segment(
        self,
        image: ImageSource,
        *,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Segmentation:
        """Segment an image.

        Args:
            image: A path, the bytes of a file, a binary file object, a Pillow image, a NumPy array or a tensor; see
                `images.decode`.
            channel_order: "bgr" for an array from OpenCV; by default what `RefineNet` was told. The pictures of the
                result have the same order.
            abstain_below: Pixels of less confidence than this, in [0, 1], get no class, but the label set's ignore
                index.
            max_latency_ms: Milliseconds that an image of this size may take from memory to labels: backend, precision
                and scale are chosen by measuring them on the first such image (`latency.choose`), and what was chosen
                is said, with what it costs.
            bands: Numbers of the bands for red, green and blue, or of one for grey, from 1; see `images.decode`.
            value_range: The stored values that become black and white, such as (0, 4095) for 12 bits; by default those
                that the model was trained with (`card.value_range`), or else those of the image's type.

        Returns:
            Labels, confidence, probabilities, colours and areas, of the image's own size. Where the image has no data,
            by its alpha, mask or value for no data, there is no class.

        Raises:
            ValueError, TypeError, OSError: the image cannot be read or used.
        """
        self._warn_of_random_weights()
        reading, notes = self._read_as(bands, value_range)
        order = channel_order
        if order is None:
            order = "rgb" if knows_its_order(image) else self._channel_order
        decoded = read_image(image, channel_order=order, reading=reading)
        for note in (*notes, *decoded.notes):
            warnings.warn(note.text, stacklevel=2)
        return self._segment(decoded, order, abstain_below=abstain_below, max_latency_ms=max_latency_ms)

    def _segment(
        self,
        decoded: Decoded,
        channel_order: ChannelOrder = "rgb",
        *,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
    ) -> Segmentation:
        segmenter = self._segmenter
        if max_latency_ms is not None:
            segmenter = self._choices.within(decoded.pixels, max_latency_ms).segmenter
        return segmenter.segment(decoded.pixels, abstain_below, decoded.valid, channel_order)

    def _read_as(self, bands: Sequence[int] | None, value_range: ValueRange | None) -> tuple[Reading, tuple[Note, ...]]:
        """How images are read, and what is to be reported of that."""
        return choose_reading(self.card.value_range, bands, value_range)

    def deploy(
        self,
        image: ImageSource | None = None,
        image_file: str | os.PathLike[str] | None = None,
        output_file: str | os.PathLike[str] | None = None,
        output: Output | None = None,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> npt.NDArray[Any]:
        """Segment an image, draw the result, and write it where asked to.

        Args:
            image: What to segment: an array `(H, W, 3)` uint8 RGB, or anything else that `segment` takes.
            image_file: Or the path of an image file.
            output_file: Where to write the picture: `.png` or `.jpg`. Missing folders are made, an existing file is
                replaced, the image itself never.
            output: Which picture: "labels" (ids; `.png` only), "palette" (ids, and in the file the classes' colours),
                "colour", "overlay" or "confidence". By default the colour image is returned, and a `.png` file gets
                the label ids, a `.jpg` file the colours.
            channel_order: As for `segment`.
            abstain_below: As for `segment`.
            max_latency_ms: As for `segment`.
            bands: As for `segment`.
            value_range: As for `segment`.

        Returns:
            The picture: `(H, W, 3)` uint8, RGB or, of an array in BGR, BGR; `(H, W)` for "labels", "palette" and
            "confidence". What is written to `output_file` has the right colours in either case.

        Raises:
            ValueError: not exactly one of `image` and `image_file` is given, the image cannot be used, or
                `output_file` does not fit `output` or is the image itself.
            OSError: a file cannot be read or written.
        """
        if (image is None) == (image_file is None):
            raise ValueError("Pass exactly one of image (an array or the like) and image_file (a path).")
        source = image if image is not None else image_file
        if image_file is not None and not isinstance(image_file, str | os.PathLike):
            raise ValueError(f"image_file is a path, not {type(image_file).__name__}: pass it as image.")
        if output_file is not None:
            check_output(output_file, output)
            if isinstance(source, str | os.PathLike):
                refuse_same_file(source, output_file)
        assert source is not None
        segmentation = self.segment(
            source,
            channel_order=channel_order,
            abstain_below=abstain_below,
            max_latency_ms=max_latency_ms,
            bands=bands,
            value_range=value_range,
        )
        picture = segmentation.render(output or "colour")
        if output_file is not None:
            segmentation.save(output_file, output)
        return picture

    def deploy_files(
        self,
        sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        output: str | os.PathLike[str] | None = None,
        kinds: Kind | Sequence[str] = (),
        recursive: bool = False,
        overwrite: bool = False,
        abstain_below: float = 0.0,
        progress: bool = True,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> list[FileResult]:
        """Segment many image files and write the results; those that cannot be read are passed over and told of.

        A folder of results keeps a record (`deploy.json`, `deploy.jsonl`): what a stopped run has written already, by
        the same model and settings from files that have not changed, is not made again.

        Args:
            sources: Image files, folders, patterns such as `"photos/**/*.jpg"`, and `"@list.txt"` for a text file of
                such; see `sources.find_images`.
            output: A folder, by default `segmented`; for one image file a file, by default beside it.
            kinds: What to write: "labels", "palette" (labels, with the classes' colours beside them), "colour",
                "overlay", "confidence", "probabilities" (`.npz`), "coco" (COCO json with run lengths), "geojson", or
                "polygons" for the last two. Several get a folder each.
            recursive: Whether folders in folders are meant, too; results keep them.
            overwrite: Whether to make results anew that are there, and to replace files that are in the way.
            abstain_below: As for `segment`.
            progress: Whether to show progress on standard error.
            bands: As for `segment`.
            value_range: As for `segment`.

        Returns:
            For each image, in order, the files written or the error.

        Raises:
            ValueError: no image is found, the output cannot hold the results, or holds others; says what to do.
            OSError: the folder of results cannot be used.
        """
        named = [sources] if isinstance(sources, str | os.PathLike) else sources
        chosen = [kinds] if isinstance(kinds, str) else kinds
        work = plan_work(named, None if output is None else Path(output), chosen, recursive=recursive)
        found: list[FileResult] = []
        results = self.deploy_work(
            work, overwrite, abstain_below=abstain_below, progress=progress, bands=bands, value_range=value_range
        )
        take_all(results, len(work.items), found.append, progress=progress)
        return found

    def deploy_work(
        self,
        work: JobList,
        overwrite: bool = False,
        windows: Windows | None = None,
        max_latency_ms: float | None = None,
        abstain_below: float = 0.0,
        progress: bool = True,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Generator[FileResult]:
        """Segment what `work_plan.plan_work` has planned; results are made as they are taken, in order.

        Args:
            work: The plan.
            overwrite: As for `deploy_files`.
            windows: Those to see all images in, as `deploy_large` does; by default only such as are too large for
                memory.
            max_latency_ms: As for `segment`; not together with windows.
            abstain_below: As for `segment`.
            progress: Whether to show progress on standard error for an image that is alone and seen in windows.
            bands: As for `segment`.
            value_range: As for `segment`. What is to be reported of how images are read is reported by a
                `UserWarning`, once of each kind.

        Raises:
            ValueError, OSError: as `deploy_files`.
        """
        reading, notes = self._read_as(bands, value_range)
        options = DeployOptions(
            reading=reading,
            abstain_below=abstain_below,
            windows=windows,
            max_latency_ms=max_latency_ms,
            overwrite=overwrite,
            progress=progress,
        )
        self._warn_of_random_weights()
        for note in notes:
            warnings.warn(note.text, stacklevel=2)
        model_settings: dict[str, Any] = {
            "refinenet": __version__,
            "model_sha256": _digest(self._model, self.card),
            "label_set": self.label_set.to_dict(),
            "temperature": self.card.temperature,
            "backend": self._backend,
            "precision": self._precision,
        }
        return segment_files(self._segmenter, work, options, model_settings, self._choices)

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
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> LargeSegmentation:
        """Segment an image file of any size in windows, in bounded memory; for large maps and scans.

        Args:
            image_file: TIFF (BigTIFF and GeoTIFF, too), PNG, JPEG or BMP.
            output_file: `.tif` (tiled, compressed) or `.png`; georeferencing is kept.
            output: As for `deploy`; by default label ids.
            window: Height and width of the windows, in pixels; by default 768 by 768.
            overlap: The least share of its side that a window has in common with the next one.
            abstain_below: As for `segment`.
            progress: Whether to show progress on standard error.
            bands: As for `segment`.
            value_range: As for `segment`.

        Raises:
            ValueError, OSError: as `large_images.segment_large`.
        """
        self._warn_of_random_weights()
        reading, notes = self._read_as(bands, value_range)
        done = segment_large(
            self._segmenter,
            image_file,
            output_file,
            output,
            window=window,
            overlap=overlap,
            abstain_below=abstain_below,
            reading=reading,
            progress=progress,
        )
        for note in (*notes, *done.notes):
            warnings.warn(note.text, stacklevel=2)
        return done

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
        # What only training needs, torchvision above all, takes longer to import than all else.
        from refinenet.training.stages import TrainArguments, prepare_runs
        from refinenet.training.start import RunOptions

        request = TrainArguments(
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
        self._untrained = None
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
        submission: str | os.PathLike[str] | None = None,
        progress: bool = True,
        check: bool = True,
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
            submission: A file for the server of the dataset's owners, as `submit` writes it, of the same label maps.
            progress: Whether to show progress and the table.
            check: Whether the doctor looks at the masks of a folder first, as before training, and refuses those whose
                labels it doubts.

        Returns:
            All figures, with the rules that they follow and how they were measured.

        Raises:
            FileNotFoundError: the data are not there; says where to get them.
            ValueError: a file cannot be used, a value is not allowed, the model's classes are not the dataset's, or the
                split has no labels, as Cityscapes' test: `submit` is for these.
        """
        plan = None if submission is None else plan_submission(submission, dataset)
        data, official = open_split(dataset, root, classes, split)
        data = with_value_range(data, self.card.value_range)
        check_same_classes(self.label_set, data)
        chosen = choose_protocol(protocol, data.name, self.card.architecture.model_type)
        processes = launch(self._segmenter.backend.device).processes
        if check:
            check_masks(dataset, split, processes, progress=progress)
        weights = _digest(self._model, self.card)
        return examine(
            model_predictor(self._segmenter.under(chosen), weights, abstain_below),
            data,
            official,
            output_file=output_file,
            report=report,
            submission=None if plan is None else plan.of(data),
            progress=progress,
            processes=processes,
        )

    def submit(
        self,
        dataset: str,
        output_file: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        split: str = "test",
        protocol: Protocol | Literal["plain", "paper"] = "plain",
        progress: bool = True,
    ) -> Submission:
        """Segment a split and write the file that the server of the dataset's owners measures.

        Args:
            dataset: "cityscapes", "voc" or "ade20k".
            output_file: A `.zip` file, for VOC `.tgz`; missing folders are made, an existing file is replaced.
            root: Where the dataset lies.
            split: Which part of it; servers measure "test".
            protocol: As for `eval`.
            progress: Whether to show progress, and what is to be done with the file.

        Returns:
            What was written.

        Raises:
            FileNotFoundError: the images are not there; says where to get them.
            ValueError: the dataset has no server, a file cannot be used, or the model's classes are not the dataset's.
            OSError: the file cannot be written.
        """
        self._warn_of_random_weights()
        plan = plan_submission(output_file, dataset)
        submission = plan.of(with_value_range(open_dataset(dataset, root)(split), self.card.value_range))
        check_same_classes(self.label_set, submission.dataset)
        chosen = choose_protocol(protocol, submission.dataset.name, self.card.architecture.model_type)
        write_submission(self._segmenter.under(chosen), submission, progress=progress)
        print_note(submission.describe(), enabled=progress)
        return submission

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
            ValueError: a file cannot be used, no pixel has a class, the model's classes are not the dataset's, or it is
                an exported graph.
        """
        network = self.network
        data = with_value_range(open_split(dataset, root, classes, split)[0], self.card.value_range)
        check_same_classes(self.label_set, data)
        fitted = fit_temperature(self._segmenter, data, progress=progress)
        self._adopt(network, replace(self.card, temperature=fitted.value))
        return fitted

    def export(
        self,
        path: str | os.PathLike[str],
        dataset: DatasetSource | None = None,
        root: str | os.PathLike[str] | None = None,
        split: str = "val",
        classes: str | None = None,
        sizes: Sequence[tuple[int, int]] = SIZES,
        precision: ExportPrecision = "float32",
        calibration_split: str = "train",
        max_drop: float = MAX_DROP,
        progress: bool = True,
    ) -> Certificate:
        """Write the model for other programs, once they give its answers, with a certificate beside it.

        The graph takes float32 RGB images `(N, 3, H, W)` in [0, 1] of any size, as "images", and says "labels"
        `(N, H, W)` and "logits" `(N, K, ceil(H/4), ceil(W/4))`.

        Args:
            path: `.onnx`, `.xml` (OpenVINO), `.pt2` (PyTorch's exported program), or `.triton`: a folder, which is a
                model repository for Triton. The certificate is called as it is, with `.certificate.json` after it.
            dataset: Compare on its images, too, and measure mIoU before and after; as for `train`.
            root: Where a named dataset lies.
            split: Which part of it.
            classes: As for `train`.
            sizes: Heights and widths of images to time it with, and to compare on beside those that always are.
            precision: Of the arithmetic: "float32"; or "int8", for `.xml` and with a dataset.
            calibration_split: Of the dataset, for int8: the images that show which values occur.
            max_drop: For int8: how far mIoU may fall on `split`, in [0, 1]; layers stay in float until it does not
                fall further.
            progress: Whether to show progress and the tables.

        Returns:
            How close the export is, how good and how fast; as written beside it.

        Raises:
            FileNotFoundError: the data are not there; says where to get them.
            ValueError: no format ends so, something is not installed, or the export does not say the same as the
                network; what was at `path` is then as it was.
            OSError: it cannot be written.
        """
        check_target(path, precision)
        data = None if dataset is None else open_split(dataset, root, classes, split)[0]
        if data is not None:
            check_same_classes(self.label_set, data)
            data = with_value_range(data, self.card.value_range)
        int8: Int8 | None = None
        if precision == "int8":
            if dataset is None or data is None:
                raise ValueError("Int8 is fitted to images and measured on images: pass dataset (--dataset).")
            if calibration_split == split:
                raise ValueError(f"Int8 is measured on other images than it is fitted to: {split!r} is named for both.")
            calibration = open_split(dataset, root, classes, calibration_split)[0]
            int8 = Int8(calibration=calibration, measured_on=data, max_drop=max_drop, progress=progress)
        certificate = export_model(
            path, self.network, self.card, dataset=data, sizes=sizes, int8=int8, progress=progress
        )
        if progress:
            certificate.print()
        return certificate

    def deploy_video(
        self,
        source: str | os.PathLike[str],
        output: str | os.PathLike[str],
        kind: Output | None = None,
        abstain_below: float = 0.0,
        retries: int = RETRIES,
        progress: bool = True,
    ) -> VideoResult:
        """Segment a video, a stream or a camera, frame by frame, and write a video or a folder of pictures.

        Args:
            source: A file, the address of a stream (`rtsp://`, `rtmp://`, `http://`, ...), or a camera: `camera:0`.
            output: A `.mp4`, `.m4v`, `.mov` or `.mkv` file, H.264, with the frames' own times and the sound as it was;
                or a folder, which gets a PNG for each frame and their times in `frames.jsonl`. See `video`.
            kind: Which picture of each frame: "overlay" (the default of a file), "colour" or "confidence"; in a folder
                also "labels" (its default).
            abstain_below: As for `segment`.
            retries: Attempts in a row to reach a stream that broke off.
            progress: Whether to show progress on standard error.

        Returns:
            What was written, and what happened on the way.

        Raises:
            ValueError: PyAV is not installed, the source is no video or has no frames, or the output does not fit.
            OSError: a file cannot be read or written, or a stream does not answer.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the output holds the frames up to then, and plays.
        """
        self._warn_of_random_weights()
        segment = partial(self._segmenter.segment, abstain_below=abstain_below)
        return segment_video(segment, source, output, kind, retries=retries, progress=progress)

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
            ValueError: a weight is not a finite number, or the model is an exported graph.
            OSError: the file cannot be written.
        """
        card = self.card if licence is None else replace(self.card, licence=licence)
        self._card = save(path, self.network, card, dtype)
        return Path(path)


_MADE_ANEW = ("_noted", "_choices", "_segmenter")
"""Attributes that a copy makes for itself."""


def _note(model: Network | ExportedModel) -> Weights:
    """Numbers that change with a parameter's values, and not where the network is moved to another device."""
    return note_weights(model, buffers=False) if isinstance(model, Network) else ()


def _digest(model: Network | ExportedModel, card: ModelCard) -> str:
    """Hexadecimal SHA-256 of a network's weights, or of an exported file, whose weights may be others by now."""
    if isinstance(model, ExportedModel):
        return model.sha256
    return card.weights_sha256 or digest(model.state_dict())


def _choose_backend(start: ModelSpec, backend: str, device: str | torch.device | None, precision: str) -> str:
    """Choose what runs the network or the exported file that a user asked for."""
    if start.model is not None and graph_kind(start.model) is not None:
        return choose_engine(start.model, None if backend == AUTO else backend)
    return choose_backend(backend, choose_device(device).type, precision)


def _open(
    start: ModelSpec, backend: str, device: str | torch.device | None
) -> tuple[Network | ExportedModel, ModelCard]:
    """Open the network that a user asked for, or the exported file, with its card."""
    if start.model is None or graph_kind(start.model) is None:
        return start.open(device, _draw_calibration_images)
    if device is not None and choose_device(device).type != "cpu":
        raise ValueError(f"{start.model} is an exported graph, which runs on the CPU here, not on {device}.")
    exported, card = open_exported(Path(start.model), choose_engine(start.model, None if backend == AUTO else backend))
    start.check(card)
    return exported, card


def _draw_calibration_images() -> torch.Tensor:
    """Draw the street scenes on which folded batch norms measure their statistics: `(16, 3, 240, 320)` in [0, 1]."""
    images = [torch.from_numpy(draw_street(seed, 240, 320)[0]) for seed in range(16)]
    return torch.stack([image.permute(2, 0, 1) / 255 for image in images])
