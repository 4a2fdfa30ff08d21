"""Dockerfile, compose.yaml and the manifests in `containers/`: what would break silently if the server changed.

No container engine runs here: nothing is built, and the health check alone is run.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from serve_process import ServeProcess

from refinenet import RefineNet
from refinenet.cli import app as command_line

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")

from refinenet.deployment.server.app import create_app
from refinenet.deployment.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
PORT = ServerSettings().port
PAGE = ROOT / "docs" / "how-to" / "containers.md"
MANIFESTS = sorted((ROOT / "containers").glob("k*.yaml"))
NOT_OF_THE_OPTIONS = {"REFINENET_SERVE_TOKEN", "REFINENET_CACHE", "REFINENET_BACKEND"}
"""Variables that the server reads besides those of its options; `test_server` and `test_translations` set them."""


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, without comments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.M).replace("\\\n", " ")
    lines = [line.strip().partition(" ") for line in text.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in lines]


def arguments_of(name: str) -> list[str]:
    return [rest for each, rest in instructions() if each == name]


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The specification of each pod in the manifests, with the name of its file."""
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "Deployment":
                yield path.name, document["spec"]["template"]["spec"]
            if document["kind"] == "InferenceService":
                yield path.name, document["spec"]["predictor"]


def containers() -> list[dict[str, Any]]:
    return [container for _, pod in pods() for container in pod["containers"]]


def compose(service: str) -> dict[str, Any]:
    found: dict[str, Any] = documents(ROOT / "compose.yaml")[0]["services"][service]
    return found


def health_command() -> list[str]:
    (line,) = arguments_of("HEALTHCHECK")
    command: list[str] = json.loads(line.partition("CMD ")[2])
    return command


def probes() -> list[dict[str, Any]]:
    return [probe["httpGet"] for each in containers() for name, probe in each.items() if name.endswith("Probe")]


def container_ports() -> dict[str, int]:
    return {port.get("name", ""): port["containerPort"] for each in containers() for port in each["ports"]}


def test_ports_are_the_servers() -> None:
    assert arguments_of("EXPOSE") == [str(PORT)]
    assert f"'127.0.0.1', {PORT}," in health_command()[-1]
    assert set(container_ports().values()) == {PORT}
    assert {container_ports().get(probe["port"], probe["port"]) for probe in probes()} == {PORT}
    (service,) = (each for path in MANIFESTS for each in documents(path) if each["kind"] == "Service")
    assert {container_ports()[port["targetPort"]] for port in service["spec"]["ports"]} == {PORT}
    assert compose("refinenet")["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    (job,) = documents(ROOT / "containers" / "prometheus.yaml")[0]["scrape_configs"]
    assert [target for each in job["static_configs"] for target in each["targets"]] == [f"refinenet:{PORT}"]


def test_labels_select_the_pods() -> None:
    deployment, service = documents(ROOT / "containers" / "kubernetes.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels


def ask(app: Any, path: str, host: str) -> int:
    """The status of a GET request without a token."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": "GET"},
        **{"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""},
        "headers": [(b"host", host.encode())],
    }
    asyncio.run(app(scope, receive, send))
    return statuses[0]


def test_probes_ask_for_health_that_needs_no_token_and_no_name(small_app_model: RefineNet) -> None:
    """Also where only some names are served: probes come to the address of the pod unless they say another."""
    app = create_app(small_app_model, ServerSettings(host="0.0.0.0", token="secret"))
    strict = create_app(small_app_model, ServerSettings(host="0.0.0.0", token="secret", allowed_hosts=("a.example",)))
    for application in (app, strict):
        application.state.service.warm_up()
    assert "'/v2/health/ready'" in health_command()[-1]
    assert ask(strict, "/v2/health/ready", "127.0.0.1:8000") == 200
    assert probes()
    for probe in probes():
        assert ask(app, probe["path"], "10.1.2.3:8000") == 200
        names = {header["name"]: header["value"] for header in probe.get("httpHeaders", [])}
        if names:
            assert ask(strict, probe["path"], names["Host"]) == 200
    (job,) = documents(ROOT / "containers" / "prometheus.yaml")[0]["scrape_configs"]
    shown = create_app(small_app_model, ServerSettings(host="0.0.0.0", allowed_hosts=("refinenet",)))
    assert compose("refinenet")["environment"]["REFINENET_SERVE_ALLOWED_HOST"] == "refinenet"
    assert ask(shown, job["metrics_path"], f"refinenet:{PORT}") == 200
    assert ask(shown, "/", f"localhost:{PORT}") == 200
    assert ask(shown, "/", "rebound.example") == 403


@pytest.fixture(scope="module")
def small_app_model() -> RefineNet:
    return RefineNet(encoder="test_resnet", num_classes=3, device="cpu", seed=4)


def serve_command() -> Any:
    group: Any = typer.main.get_command(command_line)
    return group.commands["serve"]


def variables() -> dict[str, str]:
    """The variables of this project in all files, each with a value where there is one."""
    assigned = re.findall(r"(REFINENET_\w+)=(\S+)", "\n".join(arguments_of("ENV")))
    found = dict(assigned)
    found |= {name: str(value) for name, value in compose("refinenet")["environment"].items()}
    found |= {each["name"]: each.get("value", "") for container in containers() for each in container["env"]}
    files = [ROOT / "Dockerfile", ROOT / "compose.yaml", *(ROOT / "containers").iterdir(), PAGE]
    for path in files:  # in comments and on the page, too
        found |= {name: found.get(name, "") for name in re.findall(r"REFINENET_\w+", path.read_text("utf-8"))}
    return {name: value for name, value in found.items() if name.startswith("REFINENET_")}


def test_variables_are_those_that_the_server_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    found, command = variables(), serve_command()
    options = {f"REFINENET_SERVE_{parameter.name.upper()}": parameter.name for parameter in command.params}
    assert "REFINENET_SERVE_HOST" in found
    assert found.keys() - NOT_OF_THE_OPTIONS <= options.keys()
    given = {name: value for name, value in found.items() if value and name in options}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    read = command.make_context("serve", [], auto_envvar_prefix="REFINENET_SERVE").params
    for name, value in given.items():
        assert str(read[options[name]]).strip("[]'") == value, name


def test_nobody_is_root_and_the_file_system_is_read_only() -> None:
    assert arguments_of("USER") == ["1000:1000"]
    order = [name for name, _ in instructions()]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert any("--uid 1000" in line for line in arguments_of("RUN"))
    for service in ("refinenet", "prometheus"):
        assert compose(service)["read_only"] is True
        assert compose(service)["cap_drop"] == ["ALL"]
        assert compose(service)["security_opt"] == ["no-new-privileges:true"]
    for _, pod in pods():
        for container in pod["containers"]:
            context = pod.get("securityContext", {}) | container["securityContext"]
            assert (context["runAsUser"], context["runAsGroup"], context["runAsNonRoot"]) == (1000, 1000, True)
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp"}  # forms are spooled there
            assert container["resources"]["limits"].keys() == {"memory"}
    assert any(line.startswith("/tmp") for line in compose("refinenet")["tmpfs"])


def test_the_memory_fits_the_largest_images() -> None:
    """0.9 GB, and 0.55 for each million pixels of an image: measured, see the page."""
    settings = [
        compose("refinenet")["environment"],
        *({e["name"]: e.get("value") for e in c["env"]} for c in containers()),
    ]
    limits = [compose("refinenet")["deploy"]["resources"]["limits"]["memory"].replace("g", "Gi")]
    limits += [each["resources"]["limits"]["memory"] for each in containers()]
    for variables, limit in zip(settings, limits, strict=True):
        largest = int(variables["REFINENET_SERVE_MAX_PIXELS"])
        needed = 0.9 + 0.55 * largest / 1e6 * ServerSettings().workers
        assert needed < int(limit.removesuffix("Gi")) * 2**30 / 1e9


def test_requests_in_flight_have_time_to_end() -> None:
    drain = ServerSettings().drain_seconds
    assert int(compose("refinenet")["stop_grace_period"].removesuffix("s")) >= drain + 5
    (pod,) = (pod for name, pod in pods() if name == "kubernetes.yaml")
    waited = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= waited + drain + 5


def copied() -> list[str]:
    """What the image takes from the repository."""
    sources = [line.split()[:-1] for line in arguments_of("COPY") if not line.startswith("--from")]
    return [name for names in sources for name in names]


def test_the_image_copies_what_the_package_is_built_from(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="pip install hatchling")
    pytest.importorskip("hatch_fancy_pypi_readme", reason="pip install hatch-fancy-pypi-readme")
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == set(copied())
    for name in copied():
        (tmp_path / name).symlink_to(ROOT / name)

    def content(folder: Path) -> set[str]:
        builder = wheel.WheelBuilder(str(folder))
        assert builder.metadata.core.readme  # made of the README by a hook
        return {file.distribution_path for file in builder.recurse_included_files()}

    assert content(tmp_path) == content(ROOT)


def test_extras_of_the_image_exist() -> None:
    (extras,) = (line.partition("=")[2] for line in arguments_of("ARG") if line.startswith("EXTRAS="))
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(re.search(rf"^{name} = \[", text, flags=re.M) for name in extras.split(","))
    assert json.loads(arguments_of("ENTRYPOINT")[0]) == ["refinenet", "serve"]


def test_the_health_check_succeeds_while_the_server_is_ready(tmp_path: Path) -> None:
    model = tmp_path / "small.safetensors"
    RefineNet(encoder="test_resnet", num_classes=3, device="cpu", seed=4).save(model)
    server = ServeProcess("--model", model, "--device", "cpu", folder=tmp_path)
    name, *words = health_command()
    assert name == "python"
    command = [sys.executable, *(word.replace(str(PORT), str(server.port)) for word in words)]
    proxied = {"http_proxy": "http://127.0.0.1:9", "PATH": ""}
    try:
        assert subprocess.run(command, env=proxied, check=False).returncode == 0
    finally:
        assert server.stop() == 0
    assert subprocess.run(command, env=proxied, check=False, capture_output=True).returncode != 0


def test_commands_of_the_page_name_what_exists() -> None:
    """They are not run: there is no container engine and no cluster."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line[2:], comments=True) for block in blocks for line in block.splitlines()]
    assert {line[0] for line in lines} <= {"docker", "kubectl", "curl", "refinenet"}
    named = {line.partition("=")[0] for line in arguments_of("ARG")}
    given = [word.partition("=")[0] for words in lines for before, word in pairwise(words) if before == "--build-arg"]
    assert given
    assert set(given) <= named
    files = [word for words in lines for before, word in pairwise(words) if before in ("-f", "--file")]
    assert {ROOT / name for name in files} >= set(MANIFESTS)
    assert f"localhost:{PORT}" in PAGE.read_text("utf-8")
