"""The server of `refinenet label correct`: what it takes and what it refuses; drafts of all origins reach it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draft_folders import STEMS, read_ids, write_ids, write_photographs
from PIL import Image
from serve_process import Answer, CorrectorProcess

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.labelling import find_label_errors, rank_images, take_labels, write_labels
from refinenet.labelling.corrector.corrections import open_corrections

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrector")
    write_todo(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[CorrectorProcess]:
    running = CorrectorProcess(folder / "todo", folder=folder)
    yield running
    assert running.stop() == 0, running.error_text()


def write_todo(folder: Path, **options: Any) -> dict[str, Any]:
    photographs, ids = write_photographs(folder), write_ids(folder)
    settings: dict[str, Any] = {"min_area": 0, "recursive": True, "progress": False, **options}
    write_labels(str(photographs), folder / "todo", masks=folder / "ids", **settings)
    return dict(ids)


def png(ids: Any, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(ids).save(content, kind)
    return content.getvalue()


def put(server: CorrectorProcess, content: bytes, index: object = 0, **headers: str) -> Answer:
    sent = {"Content-Type": "image/png"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return server.ask("PUT", f"/images/{index}/labels", content, sent)


def masks(folder: Path) -> list[Path]:
    return sorted((folder / "todo").rglob("corrected/**/*"))


GOOD = np.full((40, 56), 2, np.uint8)
ONE_WRONG = np.where(np.arange(40 * 56).reshape(40, 56) == 7, 4, GOOD).astype(np.uint8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(GOOD[:-1]), "56x39 pixels (width x height), but the image has 56x40"),
        (png(GOOD.T), "40x56 pixels"),
        (png(ONE_WRONG), "the id 4, which is not a class: allowed are 0 to 3, and 255"),
        (png(GOOD.astype(np.uint16) + 300), "the id 302"),
        (png(np.zeros((40, 56, 3), np.uint8)), "a colour picture"),
        (png(GOOD, "BMP"), "is a BMP file: send the ids as PNG"),
        (png(GOOD)[:-30], "damaged"),
        (b"no picture", ""),
        (b"", "is empty"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_and_nothing_is_written(
    server: CorrectorProcess, folder: Path, content: bytes, words: str
) -> None:
    answer = put(server, content)
    assert answer.status == 422, answer.body
    assert words in answer.json["error"]
    assert str(folder) not in answer.json["error"]
    assert not masks(folder)


def test_other_sites_other_names_and_other_types_are_refused(server: CorrectorProcess, folder: Path) -> None:
    good = png(GOOD)
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}):
        assert put(server, good, **headers).status == 403
        assert server.ask("DELETE", "/images/0/labels", headers=headers).status == 403
    assert put(server, good, Host="evil.example").status == 403
    assert server.ask("GET", "/list", headers={"Host": "evil.example"}).status == 403
    assert put(server, good, Content_Type="text/plain").status == 415
    for index in (3, -1, 99999999999999999999):
        assert put(server, good, index).status == 404
    for name in ("x", "0.5", "..%2f..%2fetc", "%2e%2e"):
        assert put(server, good, name).status in (404, 422)
    assert not masks(folder)
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Host": f"127.0.0.1:{server.port}"}
    try:
        assert put(server, good, **own).json == {"is_reviewed": True}
        (written,) = (folder / "todo" / "corrected" / "masks").iterdir()
        np.testing.assert_array_equal(read_ids(written), GOOD)
    finally:
        assert server.ask("DELETE", "/images/0/labels").json == {"is_reviewed": False}
    assert not written.exists()
    (folder / "todo" / "corrected" / "classes.yaml").unlink()
    written.parent.rmdir()
    written.parent.parent.rmdir()


def test_responses_are_protected_as_those_of_serve(server: CorrectorProcess) -> None:
    for path in ("/", "/list", "/images/0/picture", "/images/0/labels", "/static/corrector.js"):
        answer = server.ask("GET", path)
        assert answer.status == 200, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
    for path in ("/static/corrections.py", "/static/..%2fapp.py", "/segment", "/drafts.json"):
        assert server.ask("GET", path).status == 404


def test_pixels_on_simplified_outlines_are_taken_as_painted(tmp_path: Path) -> None:
    """Polygons are not compared: the person saw the ids themselves."""
    ids = write_todo(tmp_path, file_format="labelme", simplify=3.0)[STEMS[0]]
    corrections = open_corrections(tmp_path / "todo")
    index = [image.stem for image in corrections.images].index(STEMS[0])
    painted = np.random.default_rng(0).choice([0, 1, 2, 3, 255], ids.shape).astype(np.uint8)
    corrections.accept(index, png(painted))
    take_labels(tmp_path / "todo", tmp_path / "mine", progress=False)
    (mask,) = (tmp_path / "mine" / "masks").rglob("*.png")
    np.testing.assert_array_equal(read_ids(mask), painted)


def test_pixels_left_open_by_the_draft_stay_void_until_they_are_painted(tmp_path: Path) -> None:
    ids = write_todo(tmp_path)[STEMS[0]]
    corrections = open_corrections(tmp_path / "todo")
    assert (ids == 255).any()
    np.testing.assert_array_equal(corrections.read_labels(0), ids)


@pytest.mark.parametrize("file_format", ["png", "labelme"])
def test_drafts_that_nobody_accepted_are_not_taken(file_format: str, tmp_path: Path) -> None:
    write_todo(tmp_path, file_format=file_format)
    todo, mine = tmp_path / "todo", tmp_path / "mine"
    words = "has drafts, none of which was accepted: accept some with `refinenet label correct "
    with pytest.raises(ValueError, match=words):
        take_labels(todo, mine, progress=False)
    corrections = open_corrections(todo)
    corrections.accept(0, png(GOOD))
    corrections.withdraw(0)
    with pytest.raises(ValueError, match=words):
        take_labels(todo, mine, progress=False)
    assert not mine.exists()


def test_many_classes_take_two_bytes(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    write_ids(tmp_path)
    (tmp_path / "ids" / "classes.yaml").write_text(f"names: [{', '.join(f'c{k}' for k in range(300))}]\n")
    settings: dict[str, Any] = {"file_format": "png", "min_area": 0, "progress": False}
    write_labels(str(tmp_path / "photographs"), tmp_path / "todo", masks=tmp_path / "ids", **settings)
    server = CorrectorProcess(tmp_path / "todo", folder=tmp_path)
    try:
        labels = server.ask("GET", "/images/0/labels")
        assert len(labels.body) == 2 * int(labels.headers["x-width"]) * int(labels.headers["x-height"])
        painted = np.full((40, 56), 299, np.uint16)
        painted[:3] = 65535
        assert put(server, png(painted)).status == 200
        assert put(server, png(painted - 1)).status == 422  # 65534 is no class
    finally:
        assert server.stop() == 0
    take_labels(tmp_path / "todo", tmp_path / "mine", progress=False, check=False)
    (mask,) = (tmp_path / "mine" / "masks").rglob("*.png")
    np.testing.assert_array_equal(read_ids(mask), painted)


def test_folders_that_cannot_be_corrected_are_refused(tmp_path: Path, call_refinenet: Any) -> None:
    write_todo(tmp_path)
    refused = call_refinenet("label", "correct", "photographs")
    assert refused.returncode == 1
    assert "photographs has no drafts: pass the output folder of `refinenet label next`" in refused.stderr
    record = tmp_path / "todo" / "drafts.json"
    values = json.loads(record.read_text())
    for name in ("../../out.png", "/etc/out.png", "a/../../out.png", "a\\out.png"):
        values["images"][0]["name"] = name
        record.write_text(json.dumps(values))
        with pytest.raises(ValueError, match="leads out of the folder of drafts"):
            open_corrections(tmp_path / "todo")
    values["images"][0]["name"] = "out.png"
    record.write_text(json.dumps(values))
    open_corrections(tmp_path / "todo").accept(0, png(GOOD))
    values["label_set"]["names"][1] = "path"
    record.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"has masks of other classes \(sky, road, car, tree\)"):
        open_corrections(tmp_path / "todo")


def test_a_changed_photograph_is_not_shown_with_a_draft_that_does_not_fit(tmp_path: Path) -> None:
    write_todo(tmp_path)
    corrections = open_corrections(tmp_path / "todo")
    Image.new("RGB", (10, 10)).save(corrections.images[0].file)
    with pytest.raises(ValueError, match=r"has 10x10 pixels .* its draft has 56x40: the image was changed since"):
        corrections.read_picture(0)


def test_chosen_images_come_in_their_order_with_the_reasons(tmp_path: Path, camvid_model: RefineNet) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        Image.fromarray(draw_street(seed, 48, 64)[0]).save(tmp_path / "photos" / f"{seed}.png")
    found = rank_images(camvid_model, tmp_path / "photos", tmp_path / "todo", count=3, progress=False)
    images = open_corrections(tmp_path / "todo").images
    assert [(image.name, image.reasons) for image in images] == [
        (each.file.name, each.reasons) for each in found.chosen
    ]


def test_new_drafts_do_not_replace_those_of_accepted_masks(tmp_path: Path, camvid_model: RefineNet) -> None:
    """The accepted masks would be compared with drafts that the person has not seen."""
    write_todo(tmp_path)
    accepted, photographs = tmp_path / "todo", tmp_path / "photographs"
    open_corrections(accepted).accept(0, png(GOOD))
    before = {path: path.read_bytes() for path in accepted.rglob("*") if path.is_file()}
    words = f"{accepted / 'corrected'} holds 1 mask accepted for the drafts that are there. Choose another"
    with pytest.raises(ValueError, match=re.escape(words)):
        rank_images(camvid_model, photographs, accepted, progress=False)
    with pytest.raises(ValueError, match=re.escape(words)):
        write_labels(str(photographs), accepted, masks=tmp_path / "ids", progress=False)
    with pytest.raises(ValueError, match=re.escape(words)):
        find_label_errors("streets:2", accepted, models=["camvid"], unseen=True, device="cpu", progress=False)
    assert {path: path.read_bytes() for path in accepted.rglob("*") if path.is_file()} == before
    open_corrections(accepted).withdraw(0)
    write_labels(str(photographs), accepted, masks=tmp_path / "ids", recursive=True, progress=False)


def test_proposals_of_label_errors_are_shown_and_only_what_is_accepted_changes(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for split, seeds in (("train", (1, 2)), ("val", (3,))):
        for seed in seeds:
            image, labels = draw_street(seed, 96, 128)
            labels = labels.copy()
            labels[labels == labels[90, 64]] = 9 if seed == 1 else labels[90, 64]  # the road of one is wrong
            for kind, picture in (("images", image), ("masks", labels)):
                (mine / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(mine / kind / split / f"street_{seed}.png")
    names = RefineNet(model="camvid", device="cpu").label_set.names
    (mine / "classes.yaml").write_text(f"names: [{', '.join(names)}]\n")
    out = tmp_path / "suspects"
    find_label_errors(mine, out, models=["camvid"], unseen=True, file_format="coco", device="cpu", progress=False)
    corrections = open_corrections(out)
    index = next(k for k, image in enumerate(corrections.images) if image.stem == "street_1")
    assert f"pixels labelled {names[9]} look like" in corrections.images[index].reasons
    proposal = corrections.read_labels(index)
    np.testing.assert_array_equal(proposal, read_ids(out / "proposals" / "train" / "street_1.png"))
    before = {path: read_ids(path) for path in (mine / "masks").rglob("*.png")}
    assert (proposal != before[mine / "masks" / "train" / "street_1.png"]).any()
    corrections.accept(index, png(proposal))
    taken = take_labels(out, mine, progress=False)
    assert [(image.name, image.action) for image in taken.images] == [("street_1", "changed")]
    for path, ids in before.items():
        np.testing.assert_array_equal(read_ids(path), proposal if path.stem == "street_1" else ids)
