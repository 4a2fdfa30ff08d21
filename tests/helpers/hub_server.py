"""A small server on this machine that speaks the HTTP interface of the Hugging Face Hub, for models.

It keeps repositories in memory: each is a list of commits, and a commit is all files by name. What the client sends and
expects was taken from huggingface_hub: `api/models`, `resolve`, `preupload`, the batch interface of Git LFS, `commit`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """The state of a server, which tests set and read."""

    url: str = ""
    token: str = "hf_" + "t" * 34
    """Token that may write, and read private repositories."""
    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256."""
    announced_bytes: int | None = None
    """Size that the description of a repository states for each file, instead of its own."""
    served: bytes | None = None
    """What is sent instead of a large file."""
    is_down: bool = False
    """Whether each request fails with status 503."""
    downloads: int = 0
    """Number of files that were sent."""

    def commit_name(self, repository: str, number: int) -> str:
        """Return the commit of a place in the history, counted from 0, or from -1 backwards."""
        history = self.repositories[repository]
        return hashlib.sha1(f"{repository} {number % len(history)}".encode()).hexdigest()

    def find(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit that a revision names, and its files."""
        for number, files in enumerate(self.repositories[repository]):
            name = self.commit_name(repository, number)
            if revision == name or (revision == "main" and number == len(self.repositories[repository]) - 1):
                return name, files
        return None


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a server as a context."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def is_large(name: str) -> bool:
    """Whether the hub keeps a file by Git LFS."""
    return name.endswith((".safetensors", ".jpg"))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - names of the base class

    def _route(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        found = ((act, re.fullmatch(pattern, path)) for pattern, act in _ROUTES.items())
        act, groups = next(((act, match.groups()) for act, match in found if match is not None), ("", ()))
        if self.hub.is_down or not act:
            self._answer(503 if self.hub.is_down else 404, {"error": path})
        else:
            getattr(self, act)(body, *groups)

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        # Real servers do not repeat the token; this one does, so that a message that repeats the server's is found.
        told = self.headers.get("Authorization") or "no token"
        self._answer(status, {"error": told}, {"X-Error-Code": code, "X-Error-Message": told})

    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _find(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Find a commit, or answer that there is none."""
        hidden = repository in self.hub.private and not self._may_write()
        if repository not in self.hub.repositories or hidden:
            self._refuse(401 if hidden else 404, "RepoNotFound")
            return None
        found = self.hub.find(repository, revision)
        if found is None:
            self._refuse(404, "RevisionNotFound")
        return found

    def describe(self, _: bytes, repository: str, revision: str | None) -> None:
        found = self._find(repository, revision or "main")
        if found is None:
            return
        commit, files = found
        siblings = [
            {
                "rfilename": name,
                "size": self.hub.announced_bytes or len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                **(
                    {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}
                    if is_large(name)
                    else {}
                ),
            }
            for name, content in files.items()
        ]
        self._answer(200, {"id": repository, "sha": commit, "siblings": siblings})

    def resolve(self, _: bytes, repository: str, revision: str, name: str) -> None:
        found = self._find(repository, revision)
        if found is None:
            return
        commit, files = found
        if name not in files:
            self._refuse(404, "EntryNotFound")
            return
        content = files[name]
        digest = hashlib.sha256(content).hexdigest() if is_large(name) else hashlib.sha1(content).hexdigest()
        sent = self.hub.served if is_large(name) and self.hub.served is not None else content
        self.hub.downloads += self.command == "GET"
        self._answer(200, sent, {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "X-Linked-Size": str(len(sent))})

    def create(self, body: bytes) -> None:
        if not self._may_write():
            self._refuse(401, "Unauthorized")
            return
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(name)
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, [{}])
        self._answer(status, {"url": f"{self.hub.url}/{name}"})

    def accept_card(self, _: bytes) -> None:
        self._answer(200, {"errors": [], "warnings": []})

    def plan_upload(self, body: bytes, *_: str) -> None:
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {name: "lfs" if is_large(name) else "regular" for name in names}
        files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
        self._answer(200, {"files": files})

    def plan_large(self, body: bytes, _: str) -> None:
        if not self._may_write():
            self._refuse(403, "Forbidden")
            return
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/large/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.stored[oid] = body
        self._answer(200, {})

    def commit(self, body: bytes, repository: str) -> None:
        files = dict(self.hub.repositories[repository][-1])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        self.hub.repositories[repository].append(files)
        name = self.hub.commit_name(repository, -1)
        self._answer(200, {"commitUrl": f"{self.hub.url}/{repository}/commit/{name}", "commitOid": name})


_ROUTES = {
    r"/api/repos/create": "create",
    r"/api/validate-yaml": "accept_card",
    r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?": "describe",
    r"/api/models/([^/]+/[^/]+)/preupload/(.+)": "plan_upload",
    r"/api/models/([^/]+/[^/]+)/commit/main": "commit",
    r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": "plan_large",
    r"/large/([0-9a-f]{64})": "store",
    r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)": "resolve",
}
"""Methods of the handler by the paths that they serve."""
