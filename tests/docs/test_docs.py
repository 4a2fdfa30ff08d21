"""The documentation: nothing is missing from the reference, links lead somewhere, examples can be typed as they are.

The full build, with warnings as errors, is `make docs`.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from reference_pages import link_pages, reference_pages
from small_runs import SETTINGS, new_network, write_pictures

from refinenet.cli import app
from refinenet.datasets import doctor
from refinenet.evaluation.metrics import RULES
from refinenet.evaluation.metrics.targets import TARGET_METRICS
from refinenet.labelling import find_label_errors, rank_images
from refinenet.training import TrainConfig, recipe_descriptions

DOCS = Path(__file__).parents[2] / "docs"
WRITTEN = sorted(path for path in DOCS.rglob("*.md") if not {"_build", "reference"} & set(path.parts))
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
OF_THE_REPOSITORY = [
    DOCS.parent / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "MODEL_CARD", "SECURITY")
]
OTHERS = [DOCS.parent / name / "README.md" for name in ("ros", "runtime")]
GENERATED = {"_build", "reference"}
"""Folders of pages that a build writes."""


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The generated pages by name."""
    return reference_pages()


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield the fenced blocks of a language, each with its page."""
    for path in WRITTEN:
        for text in re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE):
            yield str(path.relative_to(DOCS)), text


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the commands of the application, each with its full name."""
    if not hasattr(command, "commands"):
        yield name.strip(), command
        return
    for part, child in command.commands.items():
        yield from leaves(child, f"{name} {part}")


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_the_reference_has_every_command_and_option(reference: dict[str, str]) -> None:
    sections = dict(re.findall(r"^## refinenet ([a-z ]+)$(.*?)(?=^## |\Z)", reference["commands"], re.DOTALL | re.M))
    assert sections.keys() == COMMANDS.keys()
    for name, command in COMMANDS.items():
        for parameter in command.params:
            for option in (word for word in (*parameter.opts, *parameter.secondary_opts) if word.startswith("-")):
                assert re.search(rf"[ ,]{option}\b", sections[name]), (name, option)
    assert "Default: `0.005`" in sections["export"]
    assert "{option} --set KEY=VALUE" in sections["train"]


def test_the_reference_has_every_setting_with_default_range_and_meaning(reference: dict[str, str]) -> None:
    training = reference["settings"].partition("\n## Training\n")[2].partition("\n## ")[0]
    found = re.findall(r"^### `(\w+)`\n\n(.+?)\. Default: `(.+?)`\.\n\n([^#]+)", training, flags=re.M)
    assert {name for name, *_ in found} == {field.name for field in fields(TrainConfig)}
    listed = {name: (kind, default, meaning) for name, kind, default, meaning in found}
    assert listed["rotation"][:2] == ("A number from 0 to 180", "0.0")
    assert listed["crop_size"][1] == "[320, 320]"
    assert listed["epochs"][2].startswith("Passes over the training images.")


def test_the_reference_has_every_recipe_rule_and_public_name(reference: dict[str, str]) -> None:
    for name in recipe_descriptions():
        assert f"\n## {name}\n" in reference["recipes"]
    rules = [RULES, *(kind.rules for kind in TARGET_METRICS.values())]
    for key in (key.strip() for table in rules for keys in table for key in keys.split(",")):
        assert f"`{key}`" in reference["metrics"], key
    for name in ("RefineNet", "Segmentation", "LabelSet", "evaluate_predictions"):
        assert re.search(rf"auto(class|function):: refinenet\.[\w.]+\.{name}$", reference["api"], re.M)
    assert ".. autoclass:: refinenet.training.config.TrainConfig" in reference["api-training"]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MyST make them."""
    titles = re.findall(r"^#{1,3} (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def read_notebook(path: Path) -> str:
    """Return the Markdown cells of a notebook."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_links_within_the_documentation_resolve(reference: dict[str, str]) -> None:
    """Pages, anchors, pictures and files; links to other sites are checked by `make docs BUILDER=linkcheck`."""
    pages = {path: path.read_text("utf-8") for path in (*WRITTEN, *OF_THE_REPOSITORY)}
    pages |= {path: read_notebook(path) for path in NOTEBOOKS}
    pages |= {DOCS / "reference" / f"{name}.md": text for name, text in reference.items()}
    del pages[DOCS / "reference.md"]
    for path, text in pages.items():
        text = link_pages(text)
        prose = re.sub(r"```.*?```|(?<!})`[^`]*`", "", text, flags=re.DOTALL)
        downloads = re.findall(r"{nb-download}`[^`<]*<([^>]+)>`", text)
        for link in re.findall(r"\]\(([^)\s]+)\)", prose) + downloads:
            if re.match(r"\w+:", link):
                continue
            place, _, anchor = link.partition("#")
            target = (path.parent / place).resolve() if place else path
            assert target in pages or target.is_file(), (path.name, link)
            assert not anchor or anchor in anchors(pages[target]), (path.name, link)


LINK = r"""\]\(([^)\s]+)\)|<(?:img|a)\b[^>]*?\b(?:src|href)="([^"]+)\""""


def test_links_resolve_where_the_repository_shows_its_files() -> None:
    """On its web page, which has no generated pages: links lead to files of the repository, and headings."""
    pages = {path: path.read_text("utf-8") for path in (*WRITTEN, *OF_THE_REPOSITORY, *OTHERS)}
    texts = {**pages, **{path: read_notebook(path) for path in NOTEBOOKS}}
    checked = 0
    for path, text in texts.items():
        prose = re.sub(r"```.*?```|(?<!})`[^`]*`", "", text, flags=re.DOTALL)
        for link in (one or other for one, other in re.findall(LINK, prose)):
            if re.match(r"\w+:", link):
                continue
            place, _, anchor = link.partition("#")
            target = (path.parent / place).resolve() if place else path
            assert target.exists(), (path.name, link)
            assert not GENERATED & set(target.relative_to(DOCS.parent).parts), (path.name, link)
            assert not anchor or anchor in anchors(pages[target]), (path.name, link)
            checked += 1
    assert checked > 100


def test_the_security_policy_names_tests_that_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (DOCS.parent / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 20
    for file, name in named:
        assert f"\ndef {name}(" in (DOCS.parent / "tests" / file).read_text("utf-8"), (file, name)


def test_every_page_is_in_the_contents() -> None:
    listed = {line.strip() for line in (DOCS / "index.md").read_text("utf-8").splitlines()}
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in (*WRITTEN, *NOTEBOOKS)}
    assert pages - listed == {"index", "reference"}


def test_a_clone_has_what_its_pages_link_to(reference: dict[str, str]) -> None:
    """The reference is generated, so links lead to a page that names its pages, and what prints the same."""
    texts = {path: path.read_text("utf-8") for path in (*WRITTEN, *OF_THE_REPOSITORY)}
    texts |= {path: read_notebook(path) for path in NOTEBOOKS}
    assert not [path for path, text in texts.items() if re.search(r"\]\([^)]*reference/[a-z-]*(\.md)?[#)]", text)]
    page = texts[DOCS / "reference.md"]
    assert {name for name in reference if f"`{name}.md`" in page} >= reference.keys() - {
        "index",
        *(name for name in reference if name.startswith("api-")),
    }
    shown = [shlex.split(line)[1:] for line in re.findall(r"`(refinenet [a-z -]+)`", page)]
    assert all(
        " ".join(words[: 1 + (words[0] == "data")]) in COMMANDS for words in shown if not words[0].startswith("-")
    )


COLUMNS = {
    "how-to/read-results.md": 4,
    "formats.md": 1,
    "how-to/choose-what-to-label.md": 1,
    "how-to/find-label-errors.md": 1,
}
"""Number of tables of columns on each page."""


def documented_columns(page: str) -> list[list[str]]:
    """Return the columns that each table on a page documents."""
    tables = re.findall(
        r"^\| column \| content \|\n\|---\|---\|\n((?:\|.*\n)+)", (DOCS / page).read_text("utf-8"), re.M
    )
    found = [re.findall(r"^\| `([^`]+)` \|", rows, re.M) for rows in tables]
    assert len(found) == COLUMNS[page]
    return found


def test_every_column_that_is_written_is_documented(tmp_path: Path) -> None:
    r = new_network()
    r.train(write_pictures(tmp_path / "mine"), output=tmp_path / "run", check=False, progress=False, **SETTINGS)
    images = tmp_path / "mine" / "images" / "val"
    r.deploy_files(images, tmp_path / "out", table=tmp_path / "areas.csv", progress=False)
    found = r.eval(tmp_path / "mine", progress=False, check=False)
    written = [["image", *r.segment(next(images.iterdir())).to_frame(1.0).columns]]
    assert header(tmp_path / "areas.csv") == written[0][:-1]  # without the square metres of georeferenced images
    written += [list(found.to_frame(by).columns) for by in ("class", "image", "image_class")]
    assert documented_columns("how-to/read-results.md") == written
    names = [f"val_iou/{name}" for name in ("one", "two", "three")]
    (log,) = documented_columns("formats.md")
    assert [*log[:-1], *names] == header(tmp_path / "run" / "log.csv")
    assert log[-1] == "val_iou/NAME"
    rank_images(r, [str(images)], tmp_path / "todo", count=1, progress=False)
    assert documented_columns("how-to/choose-what-to-label.md") == [header(tmp_path / "todo" / "todo.csv")]
    find_label_errors(
        tmp_path / "mine", tmp_path / "suspects", models=[str(tmp_path / "run")], unseen=True, progress=False
    )
    assert documented_columns("how-to/find-label-errors.md") == [header(tmp_path / "suspects" / "suspects.csv")]


def test_the_page_on_annotation_shows_what_a_repaired_copy_holds(tmp_path: Path) -> None:
    mine = write_pictures(tmp_path / "mine", train=1, val=1)
    doctor.fix(mine, tmp_path / "mended", workers=0, progress=False)
    shown = re.findall(r"^mended/(\S+)", (DOCS / "how-to/annotate.md").read_text("utf-8"), flags=re.MULTILINE)
    files = [path.relative_to(tmp_path / "mended") for path in (tmp_path / "mended").rglob("*.*")]
    written = {file.parent.as_posix() if file.parts[1:] else file.name for file in files}
    assert {each.rpartition("/")[0] or each for each in shown} == {each for each in written if "val" not in each}


def header(path: Path) -> list[str]:
    """Return the columns of a table."""
    return path.read_text("utf-8").splitlines()[0].split(",")


@pytest.mark.parametrize(("page", "text"), list(blocks("python")))
def test_python_examples_compile(page: str, text: str) -> None:
    compile(text, page, "exec")


def typed_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the arguments of each `refinenet` command in the examples, with its page."""
    for page, text in blocks("console"):
        for line in text.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if line.startswith("$ ") and "refinenet" in words and words[0] in ("refinenet", "cat", "torchrun"):
                words = words[words.index("refinenet") + 1 :]
                yield page, words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize(("page", "words"), list(typed_commands()))
def test_console_examples_are_accepted_by_the_command_line(page: str, words: list[str]) -> None:
    """Commands, options and the types of their values; nothing is run."""
    length = 2 if words[0] in ("data", "label") else 1
    name = " ".join(words[:length])
    COMMANDS[name].make_context(name, words[length:])
    settings = [word.partition("=") for before, word in pairwise(words) if before == "--set"]
    if name != "pretrain":
        TrainConfig.from_dict({key: _read_value(value) for key, _, value in settings} | {"teacher": None})


def _read_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:  # text without quotes
        return text


@pytest.mark.parametrize(("page", "text"), list(blocks("console")))
def test_brackets_are_quoted_as_zsh_wants_them(page: str, text: str) -> None:
    for line in (line for line in text.splitlines() if line.startswith("$ ")):
        assert "[" not in re.sub(r"'[^']*'|\"[^\"]*\"|#.*", "", line), (page, line)


def test_painted_labels_of_label_studio_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = (text for page, text in blocks("python") if page == "how-to/annotate.md")
    (tmp_path / "export").mkdir()
    painted = np.zeros((2, 3), np.uint8)
    painted[0, 1] = 255
    Image.fromarray(painted).save(tmp_path / "export" / "task-12-annotation-3-by-1-tag-car-0.png")
    Image.fromarray(255 - painted).save(tmp_path / "export" / "task-12-annotation-3-by-1-tag-road-0.png")
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    assert np.array(Image.open(tmp_path / "mine" / "masks" / "12.png")).tolist() == [[1, 2, 1], [1, 1, 1]]


def test_a_network_is_used_like_any_module() -> None:
    (script,) = (text for page, text in blocks("python") if page == "how-to/moving.md")
    names: dict[str, Any] = {}
    exec(script, names)
    assert names["logits"].shape == (2, 3, 65, 97)
