"""Outputs of a network."""

import pytest

from refinenet.outputs import has_only_classes, read_outputs


@pytest.mark.parametrize(
    ("text", "expected"),
    [("classes", True), ("seg=classes", True), ("classes,depth", False), ("depth", False), ("classes=depth", False)],
)
def test_networks_of_classes_alone(text: str, expected: bool) -> None:
    assert has_only_classes(read_outputs(text)) == expected
