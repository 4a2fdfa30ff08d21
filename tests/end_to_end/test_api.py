"""The class `RefineNet` as users call it: segment, deploy, evaluate, save, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

import refinenet
from refinenet import RefineNet, Segmentation
from refinenet.datasets.catalog import open_dataset
from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.output_kinds import OUTPUTS, Output

CAMVID_COLOURS = {"Sky": (128, 128, 128), "Road": (128, 64, 128), "Car": (64, 0, 128)}


def test_segment_gives_labels_confidence_colours_and_areas(
    camvid_model: RefineNet, street: npt.NDArray[np.uint8]
) -> None:
    found = camvid_model.segment(street)
    assert isinstance(found, Segmentation)
    assert found.labels.shape == found.confidence.shape == (90, 120)
    assert found.labels.dtype.name == "uint8"
    assert found.confidence.dtype.name == "float32"
    assert 1 / 11 <= found.confidence.min() <= found.confidence.max() <= 1
    for name, colour in CAMVID_COLOURS.items():
        place = found.labels == found.label_set.names.index(name)
        assert (found.colour[place] == colour).all()
        assert found.areas[name] == pytest.approx(place.mean())
    assert sum(found.areas.values()) == pytest.approx(1)
    mixed = (street.astype(float) + found.colour) / 2
    assert np.abs(found.overlay - mixed).max() <= 0.5


def test_segmenting_is_what_the_network_says(camvid_model: RefineNet, street: npt.NDArray[np.uint8]) -> None:
    images = torch.from_numpy(street).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        probabilities = (camvid_model.network(images)[0] / camvid_model.card.temperature).softmax(0)
    assert camvid_model.card.temperature > 1
    found = camvid_model.segment(street)
    assert (found.labels == probabilities.argmax(0).numpy()).mean() > 0.999
    np.testing.assert_allclose(found.confidence, probabilities.amax(0).numpy(), atol=1e-4)


def test_one_picture_one_answer_from_any_source(
    camvid_model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "street.png"
    Image.fromarray(street).save(path)
    expected = camvid_model.segment(street).labels
    tensor = torch.from_numpy(street).permute(2, 0, 1)
    sources: list[Any] = [path, str(path), path.read_bytes(), Image.open(path), tensor, street / np.float32(255)]
    assert all((camvid_model.segment(source).labels == expected).all() for source in sources)
    assert (camvid_model.segment(street[..., ::-1], channel_order="bgr").labels == expected).all()


def test_a_network_in_training_mode_predicts_as_in_evaluation_mode(street: npt.NDArray[np.uint8]) -> None:
    """The predecessor predicted with dropout and batch statistics on."""
    torch.manual_seed(0)
    r = RefineNet(model_type="lightweight", num_layers=50, num_classes=5, device="cpu")
    expected = r.segment(street).confidence
    r.network.train()
    np.testing.assert_array_equal(r.segment(street).confidence, expected)
    assert r.network.training


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (37, 53)])
def test_images_of_any_size(camvid_model: RefineNet, size: tuple[int, int]) -> None:
    assert camvid_model.segment(draw_street(0, *size)[0]).labels.shape == size


class TestDeploy:
    """`deploy`: what it returns and writes."""

    def test_an_array_gives_the_colour_image(self, camvid_model: RefineNet, street: npt.NDArray[np.uint8]) -> None:
        picture = camvid_model.deploy(image=street)
        assert picture.shape == (90, 120, 3)
        assert picture.dtype.name == "uint8"
        np.testing.assert_array_equal(picture, camvid_model.segment(street).colour)

    def test_png_holds_ids_and_with_a_palette_where_asked_for(
        self, camvid_model: RefineNet, street_file: Path, tmp_path: Path
    ) -> None:
        camvid_model.deploy(image_file=street_file, output_file=tmp_path / "new" / "folder" / "ids.png")
        written = Image.open(tmp_path / "new" / "folder" / "ids.png")
        assert written.mode == "L"
        expected = camvid_model.segment(street_file)
        np.testing.assert_array_equal(np.asarray(written), expected.labels)
        camvid_model.deploy(image_file=street_file, output_file=tmp_path / "p.png", output="palette")
        written = Image.open(tmp_path / "p.png")
        assert written.mode == "P"
        np.testing.assert_array_equal(np.asarray(written), expected.labels)
        np.testing.assert_array_equal(np.asarray(written.convert("RGB")), expected.colour)

    def test_jpg_holds_the_colour_image(self, camvid_model: RefineNet, street_file: Path, tmp_path: Path) -> None:
        camvid_model.deploy(image_file=str(street_file), output_file=str(tmp_path / "b.jpg"))
        written = np.asarray(Image.open(tmp_path / "b.jpg").convert("RGB")).astype(int)
        expected = camvid_model.segment(street_file).colour
        assert np.median(np.abs(written - expected)) <= 3

    @pytest.mark.parametrize("output", OUTPUTS)
    def test_output_says_which_picture(
        self, camvid_model: RefineNet, street_file: Path, tmp_path: Path, output: Output
    ) -> None:
        picture = camvid_model.deploy(image_file=street_file, output_file=tmp_path / "a.png", output=output)
        written = Image.open(tmp_path / "a.png")
        np.testing.assert_array_equal(np.asarray(written), picture)
        found = camvid_model.segment(street_file)
        expected = np.rint(found.confidence * 255) if output == "confidence" else getattr(found, output)
        np.testing.assert_array_equal(picture, expected)

    def test_a_bare_file_name_goes_to_the_current_folder(
        self, camvid_model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        camvid_model.deploy(image=street, output_file="out.jpg")
        assert (tmp_path / "out.jpg").exists()

    def test_an_existing_file_is_replaced(
        self, camvid_model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
    ) -> None:
        (tmp_path / "out.png").write_text("old")
        camvid_model.deploy(image=street, output_file=tmp_path / "out.png")
        assert Image.open(tmp_path / "out.png").size == (120, 90)
        assert [path.name for path in tmp_path.iterdir()] == ["out.png"]

    def test_the_image_itself_is_never_overwritten(
        self, camvid_model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
    ) -> None:
        path = tmp_path / "street.png"
        Image.fromarray(street).save(path)
        before = path.read_bytes()
        (tmp_path / "link.png").symlink_to(path)
        for target in (path, tmp_path / "link.png"):
            with pytest.raises(ValueError, match="the input itself"):
                camvid_model.deploy(image_file=path, output_file=target)
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({}, "exactly one"),
            ({"image": np.zeros((2, 2, 3), np.uint8), "image_file": "a.png"}, "exactly one"),
            ({"image": np.zeros((2, 2, 3), np.uint8), "output": "labels", "output_file": "a.jpg"}, r"JPEG.*\.png"),
            ({"image": np.zeros((2, 2, 3), np.uint8), "output_file": "a.webp"}, r"\.png, \.jpg"),
            ({"image": np.zeros((2, 2, 3), np.uint8), "output": "mask"}, "labels, colour, overlay, confidence"),
            ({"image": np.full((2, 2, 3), np.nan, np.float32)}, "NaN"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self,
        camvid_model: RefineNet,
        arguments: dict[str, Any],
        words: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=words):
            camvid_model.deploy(**arguments)
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_cannot_be_made_is_an_error(
        self, camvid_model: RefineNet, street: npt.NDArray[np.uint8], tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(OSError, match="Cannot write"):
            camvid_model.deploy(image=street, output_file=tmp_path / "file" / "out.png")


class TestEval:
    """`eval`: figures that others would compute, too."""

    def test_figures_agree_with_torchmetrics(self, camvid_model: RefineNet, tmp_path: Path) -> None:
        result = camvid_model.eval(
            dataset="streets:6:120x90", split="test", output_file=tmp_path / "new" / "results.json", progress=False
        )
        written = json.loads((tmp_path / "new" / "results.json").read_text())
        assert written["miou"] == result.scores.miou
        assert (written["images"], written["dataset"], written["split"]) == (6, "streets", "test")
        assert written["model_sha256"] == camvid_model.card.weights_sha256
        assert written["package_version"] == refinenet.__version__
        assert "bilinear" in written["protocol"]

        per_class = MulticlassJaccardIndex(num_classes=11, average=None, ignore_index=255)
        for sample in open_dataset("streets:6:120x90")("test"):
            prediction = camvid_model.segment(sample.image).labels
            per_class.update(torch.from_numpy(prediction).long(), torch.from_numpy(sample.labels).long())
        present = [value for value in written["class_iou"].values() if value is not None]
        assert written["classes_averaged"] == len(present)
        theirs = per_class.compute().tolist()
        ours = [0.0 if value is None else value for value in written["class_iou"].values()]
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        assert written["miou"] == pytest.approx(sum(theirs) / len(present), abs=1e-6)

    def test_a_dataset_of_other_classes_is_refused(self, camvid_model: RefineNet, drawn_folder: Path) -> None:
        with pytest.raises(ValueError, match=r"has 11 classes, but the dataset .* has 3"):
            camvid_model.eval(dataset=drawn_folder)
        names = ", ".join(f"other {k}" for k in range(11))
        (drawn_folder / "classes.yaml").write_text(f"names: [{names}]\n")
        with pytest.raises(ValueError, match="'Sky' where the dataset has 'other 0'"):
            camvid_model.eval(dataset=drawn_folder)

    @pytest.mark.parametrize("dataset", ["camvid", "nyu", "coco"])
    def test_data_that_are_not_here_are_asked_for(
        self, camvid_model: RefineNet, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("REFINENET_CAMVID", raising=False)
        with pytest.raises(FileNotFoundError, match=r"(?s)Download.*http.*root="):
            camvid_model.eval(dataset=dataset)

    def test_an_unknown_dataset_is_refused(self, camvid_model: RefineNet) -> None:
        with pytest.raises(ValueError, match=r"no dataset 'cityscape'.*nyu, nyu:raw, voc, .*camvid, streets"):
            camvid_model.eval(dataset="cityscape")


class TestBundledModel:
    """`RefineNet(model="camvid")`: the model that ships inside the package."""

    def test_what_it_is(self, camvid_model: RefineNet) -> None:
        card = camvid_model.card
        assert card.architecture.to_dict() == {
            "model_type": "lightweight",
            "encoder": "mobilenetv2_100",
            "num_classes": 11,
            "decoder_options": {"widths": [128] * 4, "batch_norm": True, "neck_channels": 256},
        }
        assert card.label_set.names[:4] == ("Sky", "Building", "Pole", "Road")
        assert "CC BY-NC 4.0" in card.licence
        assert card.scores["miou"] >= 0.66
        assert (
            Path(refinenet.__file__).with_name("models").joinpath("pretrained", "camvid.safetensors").stat().st_size
            < 8e6
        )

    def test_it_sees_a_drawn_street(self, camvid_model: RefineNet) -> None:
        """Far from the photographs it was trained for, and from chance."""
        result = camvid_model.eval(dataset="streets:12", split="test", progress=False)
        assert (result.scores.pixel_accuracy or 0) > 0.7

    @pytest.mark.skipif(
        not Path(os.environ.get("REFINENET_CAMVID", "data/camvid")).is_dir(), reason="CamVid is not on this machine"
    )
    def test_its_figure_on_camvid(self, camvid_model: RefineNet) -> None:
        result = camvid_model.eval(dataset="camvid", progress=False)
        assert result.images == 101
        assert (result.scores.miou or 0) >= 0.66
        assert result.scores.miou == pytest.approx(camvid_model.card.scores["miou"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_layers": 34}, "50, 101, 152"),
        ({"model_type": "medium"}, "full, lightweight"),
        ({"num_layers": 50, "encoder": "mobilenetv2_100"}, "pass one"),
        ({"num_classes": 0}, "num_classes"),
        ({"device": "abacus"}, "abacus"),
        ({"model": "camvid", "num_classes": 21}, "num_classes=11, not 21"),
        ({"model": "camvid", "model_type": "full"}, "model_type='lightweight', not 'full'"),
        ({"model": "camvid", "encoder_weights": "imagenet"}, "not both"),
    ],
)
def test_arguments_that_contradict_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RefineNet(**arguments)


def test_a_model_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"no model file .*street\.pth.*camvid"):
        RefineNet(model="street.pth")


def test_families_and_defaults() -> None:
    facts = {
        "full": RefineNet(device="cpu"),
        "lightweight": RefineNet(model_type="lightweight", num_layers=101, device="cpu"),
        "mobile": RefineNet(encoder="mobilenetv2_100", num_classes=3, device="cpu"),
    }
    found = {name: tuple(r.card.architecture.to_dict().values()) for name, r in facts.items()}
    assert found == {
        "full": ("full", "resnet50", 21),
        "lightweight": ("lightweight", "resnet101", 21),
        "mobile": ("lightweight", "mobilenetv2_100", 3),
    }


@pytest.mark.parametrize(
    "value", [{"model": ""}, {"model": 5}, {"model": b"camvid"}, {"encoder": ""}, {"num_layers": 50.0}]
)
def test_what_is_no_model_is_said(value: dict[str, Any]) -> None:
    (name,) = value
    with pytest.raises(ValueError, match=f"^{name} must be "):
        RefineNet(**value)


def test_a_list_of_images_gives_a_list_of_results(camvid_model: RefineNet, tmp_path: Path) -> None:
    streets = [draw_street(seed, 60 + 8 * seed, 90)[0] for seed in range(5)]
    Image.fromarray(streets[0]).save(tmp_path / "street.png")
    images: list[Any] = [tmp_path / "street.png", Image.fromarray(streets[1]), *streets[2:]]
    expected = [camvid_model.segment(image, abstain_below=0.6).labels for image in images]
    for found in (
        camvid_model.segment(images, abstain_below=0.6),
        camvid_model.segment(tuple(images), abstain_below=0.6),
        camvid_model.segment_batch(iter(images), abstain_below=0.6),
    ):
        assert [each.labels.shape for each in found] == [each.shape for each in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.labels, other)
    assert camvid_model.segment([]) == []
    with pytest.raises(TypeError, match=r"not list\. Pass one image at a time, or numpy\.asarray of rows of pixels"):
        camvid_model.segment([[[1, 2, 3]]])
    with pytest.raises(FileNotFoundError, match="missing"):
        camvid_model.segment([streets[0], tmp_path / "missing.png", streets[1]])
