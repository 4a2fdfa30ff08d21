"""Exported OpenVINO files that are damaged, lie or attack: each is refused by name, for a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from exported_files import tiny_openvino
from hostile_files import refuse

pytestmark = pytest.mark.usefixtures("canary", "warm_sandbox")

LAUGHS = '<!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
ENTITY = '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


def replace(old: str, new: str, count: int = 1) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, count)

    return change


def after_declaration(addition: str) -> Callable[[str], str]:
    return replace('<net name="', addition + '<net name="')


XML: dict[str, tuple[Callable[[str], str], str]] = {
    "billion laughs": (after_declaration(LAUGHS), "document type"),
    "a file as entity": (after_declaration(ENTITY), "document type"),
    "a document type": (after_declaration('<!DOCTYPE net SYSTEM "http://example.org/x.dtd">'), "document type"),
    "a comment": (after_declaration("<!-- -->"), "comments"),
    "another root": (lambda text: "<html></html>", "<html version=None>"),
    "no XML": (lambda text: "x" * 1000, "not an XML file"),
    "nothing": (lambda text: " ", "not an XML file"),
    "cut": (lambda text: text[: len(text) // 2], "damaged"),
    "UTF-16": (lambda text: text.encode("utf-16").decode("latin-1"), "not in UTF-8"),
    "UTF-16 without a mark": (lambda text: text.encode("utf-16-be").decode("latin-1"), "not in plain UTF-8"),
    "UTF-16 with entities": (
        lambda text: after_declaration(LAUGHS)(text).encode("utf-16").decode("latin-1"),
        "not in UTF-8",
    ),
    "a mark": (lambda text: "\ufeff".encode().decode("latin-1") + text, "not in plain UTF-8"),
    "NUL": (lambda text: text + "\0", "damaged"),
    "an undefined entity": (replace('name="images"', 'name="&evil;"'), "damaged"),
    "deep": (replace("<edges>", "<x>" * 10_000 + "</x>" * 10_000 + "<edges>"), "nested more than 12 deep"),
    "three million tags": (replace("<edges>", "<edges>" + "<a/>" * 2_000_001), "tags"),
    "65 MB": (lambda text: text + " " * 65 * 1024**2, "bytes and"),
    "version 7": (replace('version="11"', 'version="7"'), "version='7'"),
    "two parts of layers": (replace("<edges>", "<layers></layers><edges>"), "not OpenVINO's <net>"),
    "an unknown part": (replace("<edges>", "<quantization/><edges>"), "not OpenVINO's <net>"),
    "a custom layer": (replace('type="AvgPool"', 'type="Evil"'), "'Evil' is not supported"),
    "an extension": (
        lambda text: text.replace('version="opset', 'version="extension', 1),
        "is of 'extension1', not of OpenVINO's own",
    ),
    "opset 99": (lambda text: text.replace('version="opset1"', 'version="opset99"', 1), "is of 'opset99'"),
    "Loop": (replace('type="AvgPool"', 'type="Loop"'), "'Loop' is not supported"),
    "TensorIterator": (replace('type="AvgPool"', 'type="TensorIterator"'), "'TensorIterator' is not supported"),
    "If": (replace('type="AvgPool"', 'type="If"'), "'If' is not supported"),
    "state": (replace('type="AvgPool"', 'type="ReadValue"'), "'ReadValue' is not supported"),
    "random numbers": (replace('type="AvgPool"', 'type="RandomUniform"'), "'RandomUniform' is not supported"),
    "a body": (replace("</layer>", "<body></body></layer>"), r"has unexpected parts \['body'\]"),
    "a layer that is not supported": (replace("<layers>", "<layers><evil/>"), "is of ''"),
    "the same id twice": (replace('<layer id="1"', '<layer id="0"'), "'0' occurs twice"),
    "values beyond the end": (replace('offset="0"', 'offset="1000000"'), "belongs to another model"),
    "a negative offset": (replace('offset="0"', 'offset="-8"'), "lies at '-8'"),
    "a huge offset": (replace('offset="0"', 'offset="99999999999999999999"'), "lies at '99999"),
    "an offset that is not supported": (replace('offset="0"', 'offset="0x0"'), "lies at '0x0'"),
    "constants of texts": (replace('element_type="i64"', 'element_type="string"'), "has the type 'string'"),
    "another input": (lambda text: text.replace('"images"', '"x"'), "its inputs are"),
    "a fixed size": (replace("<dim>-1</dim>", "<dim>1</dim>"), "its inputs are"),
    "a side that is not supported": (replace("<dim>-1</dim>", "<dim>-2</dim>"), "has the shape"),
    "other outputs": (lambda text: text.replace('"logits"', '"x"'), "its outputs are"),
    "an edge from nowhere": (lambda text: text.replace('from-layer="', 'from-layer="9'), "has no source layer"),
    "no header": (lambda text: text.replace("<refinenet ", "<other "), "was not exported by this package"),
    "two headers": (
        lambda text: text.replace("<refinenet ", '<refinenet value=""/><refinenet '),
        "2 entries 'refinenet'",
    ),
    "another header": (lambda text: text.replace("format_version&quot;: 1", "format_version&quot;: 4"), "version is 4"),
}


@pytest.mark.parametrize("case", XML)
def test_hostile_xml(case: str, tmp_path: Path) -> None:
    change, message = XML[case]
    text, weights = tiny_openvino()
    path = tmp_path / "hostile.xml"
    path.write_bytes(change(text).encode("latin-1" if "UTF" in case or case == "a mark" else "utf-8"))
    path.with_suffix(".bin").write_bytes(weights)
    refuse(path, message)


@pytest.mark.parametrize("change", [lambda bin_: bin_ + b"\0", lambda bin_: bin_[:-1], lambda bin_: bin_ * 1000])
def test_weights_of_another_length(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "hostile.xml"
    path.write_text(tiny_openvino()[0])
    path.with_suffix(".bin").write_bytes(change(tiny_openvino()[1]))
    refuse(path, "its .bin has")
