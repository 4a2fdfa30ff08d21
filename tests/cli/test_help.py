"""What helps on the command line: examples that run, groups of options, completion, words of other programs."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
import typer
from conftest import CommandLine

from refinenet.cli import app
from refinenet.cli.examples import EXAMPLES, OTHER_WORDS
from refinenet.cli.options import is_given
from refinenet.deployment.server.settings import ServerSettings
from refinenet.training import TrainConfig, recipe_descriptions
from refinenet.training.records.recipes import read_recipe


def find(name: str) -> Any:
    """Return a command by its words."""
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    return command


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_accepted(name: str) -> None:
    for example in EXAMPLES[name]:
        words = example.split()[1 + len(name.split()) :]
        find(name).make_context(name, words)
        assert len(example) <= 78  # it is copied from one line of the help


def test_every_command_has_examples() -> None:
    def walk(command: Any, path: str = "") -> set[str]:
        children = getattr(command, "commands", None)
        return {path.strip()} if children is None else {n for k, c in children.items() for n in walk(c, f"{path} {k}")}

    assert walk(typer.main.get_command(app)) == set(EXAMPLES)


def test_annotations_of_commands_are_not_postponed() -> None:
    """Typer compiles postponed annotations at every start: half of the time of `--help`."""
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    registered = [command for group in groups if group is not None for command in group.registered_commands]
    commands = [command.callback for command in registered if command.callback is not None]
    assert len(commands) == len(EXAMPLES)
    assert not any(
        isinstance(kind, str) for function in commands for kind in inspect.get_annotations(function).values()
    )


def test_the_server_has_an_option_and_a_variable_for_each_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    command = find("serve")
    defaults = command.make_context("serve", []).params
    settings = {field.name: field.default for field in fields(ServerSettings)}
    # By default the name is that of the model file; the token comes in a file, and the hosts one by one.
    assert [settings.pop(name) for name in ("name", "token", "allowed_hosts")] == ["refinenet", None, ()]
    assert {name: defaults[name] for name in settings} == settings
    monkeypatch.setenv("REFINENET_SERVE_MODEL", "mine.safetensors")
    monkeypatch.setenv("REFINENET_SERVE_CONNECTIONS_PER_ADDRESS", "7")
    context = command.make_context("serve", [])
    assert (context.params["model"], context.params["connections_per_address"]) == ("mine.safetensors", 7)
    assert is_given(context, "model")  # no notice about the bundled model


def test_words_of_other_programs_are_known(call_refinenet: CommandLine) -> None:
    for word in ("predict", "segment"):
        refused = call_refinenet(word, "photo.jpg")
        assert refused.returncode == 2
        assert "refinenet deploy" in refused.stderr
    for meant in set(OTHER_WORDS.values()):
        words = [word for word in meant.split() if not word.startswith("-") and word != "int8"]
        assert find(" ".join(words)) is not None


def test_brackets_of_help_are_shown(call_refinenet: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = call_refinenet("train", "--help").stdout
    assert "NAME=regression[height:m,moisture:%]" in shown
    assert "crop_size=[360,480]" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_settings_are_listed_with_their_defaults(call_refinenet: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = {item["name"]: item for item in json.loads(call_refinenet("train", "--show-settings", "--json").stdout)}
    defaults = TrainConfig()
    assert set(listed) == {field.name for field in fields(TrainConfig)}
    for name, item in listed.items():
        value = getattr(defaults, name)
        assert item["default"] == (list(value) if isinstance(value, tuple) else value)
        assert item["meaning"]
        assert item["allowed"]
    shown = call_refinenet("train", "--show-settings").stdout.splitlines()
    found = [line.split("=")[0].strip() for line in shown if re.match(r"  [a-z_]+=", line)]
    assert sorted(found) == sorted(listed)
    assert max(map(len, shown)) <= 80
    assert len(shown) < 2.5 * len(listed)  # a line or two for each, with titles
    assert '  longest_side="auto"' in "\n".join(shown)


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_settings_are_described_without_names_of_the_source(command: str, call_refinenet: CommandLine) -> None:
    listed = json.loads(call_refinenet(command, "--show-settings", "--json").stdout)
    names = [item["name"] for item in listed]
    assert len(names) == len(set(names))
    for item in listed:
        for quoted in re.findall(r"`([^`]+)`", item["meaning"]):
            assert quoted in (*names, "torch.compile", "RefineNet", 'if __name__ == "__main__":', "refinenet data info")


def test_recipes_are_listed_with_what_they_set(call_refinenet: CommandLine) -> None:
    shown = call_refinenet("train", "--list-recipes").stdout
    for name in recipe_descriptions():
        block = shown[shown.index(f"{name}\n") :].partition("\n\n")[0]
        assert all(f"{key}=" in block for key in read_recipe(name).train)


def test_information_about_the_installation(call_refinenet: CommandLine) -> None:
    found = json.loads(call_refinenet("info", "--json").stdout)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["backends"]["pytorch"].startswith("available")
    assert found["caches"]["refinenet"].startswith(os.environ["REFINENET_CACHE"])
    assert found["extras"]["large"] == "installed"
    assert "default_device" in call_refinenet("info").stdout


@pytest.mark.parametrize(
    ("shell", "more"),
    [
        ("bash", {"COMP_WORDS": "refinenet dep", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "refinenet dep"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "refinenet dep", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_shells_complete_commands(shell: str, more: dict[str, str]) -> None:
    code = "import sys; sys.argv = ['refinenet']; from refinenet.cli import main; main()"
    variables = {**os.environ, "_REFINENET_COMPLETE": f"complete_{shell}", **more}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert "deploy" in done.stdout, done.stderr
