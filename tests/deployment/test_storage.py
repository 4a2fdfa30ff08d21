"""Places: paths, `file://` URIs, and a store with the S3 protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_store import running_store

from refinenet.deployment.ray.storage import (
    as_place,
    find_stamps,
    join,
    list_names,
    pair_places,
    read_content,
    write_content,
)

SUFFIXES = (".jpg", ".png")


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with running_store("places") as bucket:
        yield bucket


def test_places_that_users_name() -> None:
    assert as_place("a/b c.jpg") == "a/b c.jpg"
    assert as_place(Path("/a/b.jpg")) == "/a/b.jpg"
    assert as_place("file:///a/b%20c.jpg") == "/a/b c.jpg"
    assert as_place("s3://bucket/a/b c.jpg") == "s3://bucket/a/b c.jpg"
    for place in ("http://there/a.jpg", "s3://", "ftp://there/a.jpg"):
        with pytest.raises(ValueError, match=f"{place} is not a valid location for images"):
            as_place(place)
    with pytest.raises(ValueError, match="on the machine 'there'"):
        as_place("file://there/a.jpg")


def test_a_store_works_like_a_folder(store: str, tmp_path: Path) -> None:
    for root in (str(tmp_path), f"{store}/x"):
        one, two = join(root, "a.jpg"), join(root, "sub folder/b+c.PNG")
        assert list_names(join(root, "sub folder"), SUFFIXES) == []
        write_content(one, b"\0one")
        write_content(two, b"two")
        write_content(join(root, ".hidden/c.png"), b"three")
        write_content(join(root, "sub folder/notes.txt"), b"four")
        assert list_names(root, SUFFIXES) == ["a.jpg", "sub folder/b+c.PNG"]
        assert [read_content(one), read_content(two)] == [b"\0one", b"two"]
        stamps = find_stamps([one, two, join(root, "none.jpg"), join(root, "nowhere/none.jpg")])
        assert set(stamps) == {one, two}
        write_content(one, b"longer")
        again = find_stamps([one, two])
        assert again[one] != stamps[one]
        assert again[two] == stamps[two]
        assert read_content(one) == b"longer"
        with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
            read_content(join(root, "none.jpg"))
    with pytest.raises(OSError, match=r"Cannot write s3://missing/a\.png: .*NO_SUCH_BUCKET"):
        write_content("s3://missing/a.png", b"")


def test_images_of_a_store_are_paired(store: str, tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.jpg"):
        write_content(f"{store}/p/{name}", b"")
        write_content(str(tmp_path / name), b"")
    out = str(tmp_path / "out")
    assert pair_places([f"{store}/p"], out, recursive=True) == (
        [(f"{store}/p/a.jpg", f"{out}/a.png"), (f"{store}/p/sub/b.jpg", f"{out}/sub/b.png")],
        out,
    )
    into = f"{store}/q/"
    assert pair_places([tmp_path.as_uri()], into, recursive=True) == (
        [(f"{tmp_path}/a.jpg", f"{store}/q/a.png"), (f"{tmp_path}/sub/b.jpg", f"{store}/q/sub/b.png")],
        into,
    )
    one = f"{store}/p/a.jpg"
    assert pair_places([f"{store}/p"], into) == ([(one, f"{store}/q/a.png")], into)
    assert pair_places([one], f"{store}/one.png") == ([(one, f"{store}/one.png")], None)
    assert pair_places([one, one]) == ([(one, "segmented/a.png")], "segmented")
    assert pair_places([(tmp_path / "a.jpg").as_uri()], f"file://{out}.png") == (
        [(f"{tmp_path}/a.jpg", f"{out}.png")],
        None,
    )
    write_content(f"{tmp_path}/sub/out/b.png", b"")
    assert pair_places([str(tmp_path)], f"{tmp_path}/sub/out", recursive=True)[0] == [
        (f"{tmp_path}/a.jpg", f"{tmp_path}/sub/out/a.png"),
        (f"{tmp_path}/sub/b.jpg", f"{tmp_path}/sub/out/sub/b.png"),
    ]


@pytest.mark.parametrize("name", ["one.npz", "one.PLY", "one.tif"])
def test_a_result_of_values_is_a_file(tmp_path: Path, name: str) -> None:
    """Also where the kind is usually written as something else: depth as .npz instead of .png."""
    image, result = str(tmp_path / "a.jpg"), str(tmp_path / name)
    assert pair_places([image], result) == ([(image, result)], None)


def test_invalid_pairs_of_places(store: str, tmp_path: Path) -> None:
    write_content(f"{store}/r/sub/a.jpg", b"")
    write_content(str(tmp_path / "a.jpg"), b"")
    with pytest.raises(ValueError, match=r"r holds no images .* add --recursive"):
        pair_places([f"{store}/r"])
    with pytest.raises(ValueError, match=r"nothing holds no images .*\.gif\b.*\)\.$"):
        pair_places([f"{store}/nothing"])
    with pytest.raises(ValueError, match="not a file"):
        pair_places([f"{store}/r"], f"{store}/one.png")
    for folder in (f"{store}/r/sub", str(tmp_path)):
        with pytest.raises(ValueError, match=r"contains input images, such as .*a\.jpg"):
            pair_places([folder], folder)
