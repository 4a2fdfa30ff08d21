"""Models on the Hugging Face Hub: addresses, downloads that are pinned and verified, and uploads.

An address is `hf://owner/name`, with `@` and a branch, a tag or a commit behind it. `fetch_model` resolves it to a
commit, refuses a file that is too large before any of it is downloaded, and compares its SHA-256 with the hub's. The
file is a safetensors file with a hash of its own, which `model_file.load` checks; nothing is executed or unpickled.

Errors are our own words: those of the client could repeat a token from a header or an address.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from refinenet._version import __version__
from refinenet.io.console import print_note
from refinenet.models.files.file_checks import MAX_FILE_BYTES, printable

MODEL_FILE = "model.safetensors"
"""Name of the model file in a repository."""
SCHEME = "hf://"
TIMEOUT = 10.0
"""Seconds that the hub may take to describe a repository."""
_ADDRESS = re.compile(r"hf:/{1,2}([\w][\w.-]{0,95})/([\w][\w.-]{0,95})(?:@([\w][\w./-]{0,199}))?", re.ASCII)
"""One slash is what `Path` leaves of two."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"hf_\w{8,}")


@dataclass(frozen=True, kw_only=True)
class HubAddress:
    """Place of a model on the hub."""

    repository: str
    """Owner and name, separated by a slash."""
    revision: str = "main"
    """A branch, a tag, or the 40 hexadecimal digits of a commit."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, whose files never change."""
        return _COMMIT.fullmatch(self.revision) is not None

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Read `hf://owner/name` or `owner/name`, with `@revision` or without.

        Raises:
            ValueError: The text is not such an address.
        """
        found = _ADDRESS.fullmatch(text if text.startswith("hf:") else f"{SCHEME}{text}")
        if found is None or ".." in text:
            shown = printable(_TOKEN.sub("hf_...", text))
            raise ValueError(f"A model on the hub is hf://owner/name or hf://owner/name@revision, not {shown}.")
        return cls(repository=f"{found[1]}/{found[2]}", revision=found[3] or cls.revision)


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A model file of the hub on this machine."""

    path: Path
    """The file in the cache of the hub's client."""
    address: HubAddress
    """Where it came from, pinned to a commit."""
    sha256: str
    """Hexadecimal SHA-256 of the file."""


def is_hub_address(model: object) -> bool:
    """Whether a model is given by its address on the hub, and not by a file or a name."""
    return isinstance(model, str | os.PathLike) and os.fspath(model).startswith("hf:/") and not os.path.lexists(model)


def fetch_model(model: str | os.PathLike[str], *, note: Callable[[str], None] = print_note) -> HubModel:
    """Return the model file of an address, from the cache if it is the requested one.

    Without a network connection, or if `HF_HUB_OFFLINE` is set, the most recently fetched file of the revision is used.

    Args:
        model: Address, see `HubAddress.parse`.
        note: Called with a sentence that names the commit, and where the file comes from.

    Raises:
        ValueError: The address is not valid; the hub does not have it, or does not let you read it; the file is larger
            than a model file may be, or is not the one that the hub describes.
        OSError: The hub cannot be reached, and the cache does not have the file; or it cannot be written.
    """
    hub, wanted = _client(), HubAddress.parse(os.fspath(model))
    # Before anything is asked: the client notes a newer commit before it has its file.
    cached = _find_cached(hub, wanted)
    if cached is not None and wanted.is_pinned:
        return _open_cached(cached, wanted)
    if hub.constants.HF_HUB_OFFLINE:
        return _from_cache(hub, wanted, cached, "HF_HUB_OFFLINE is set", note)
    try:
        commit, sha256 = _look_up(hub, wanted)
        pinned = replace(wanted, revision=commit)
        # By the name that was asked for, which the cache then leads to the commit when the network is away.
        path = Path(_api(hub).hf_hub_download(wanted.repository, MODEL_FILE, revision=wanted.revision))
    except _client_errors(hub) as error:
        if not _is_away(error):
            raise _explain(error, wanted) from None
        return _from_cache(hub, wanted, cached, "The hub cannot be reached", note)
    if path.parent.name != commit:
        raise ValueError(f"{wanted} changed while it was downloaded. Run again.")
    found = _verify(path, pinned, sha256)
    note(f"{wanted}: commit {commit}, SHA-256 {found.sha256}.")
    return found


def pin(model: Any) -> Any:
    """Return an address on the hub pinned to its current commit; anything else unchanged.

    Raises:
        ValueError, OSError: As `fetch_model`.
    """
    return str(fetch_model(model).address) if is_hub_address(model) else model


def _client() -> ModuleType:
    """Import the client, which is optional.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise ValueError("huggingface_hub is not installed: pip install 'refinenet-torch[hub]'") from error
    return huggingface_hub


def _api(hub: ModuleType) -> Any:
    return hub.HfApi(library_name="refinenet", library_version=__version__)


def _client_errors(hub: ModuleType) -> tuple[type[Exception], ...]:
    """Return the errors of the client: its own, those of its HTTP library, and those of files."""
    return (*hub.errors.HfHubHTTPError.__bases__, OSError, hub.errors.HFValidationError)


def _look_up(hub: ModuleType, wanted: HubAddress) -> tuple[str, str | None]:
    """Return the commit of a revision, and the SHA-256 of its model file as the hub states it.

    Raises:
        ValueError: There is no model file, or it is too large.
    """
    info = _api(hub).model_info(wanted.repository, revision=wanted.revision, files_metadata=True, timeout=TIMEOUT)
    files = {entry.rfilename: entry for entry in info.siblings or ()}
    if MODEL_FILE not in files or not _COMMIT.fullmatch(info.sha or ""):
        found = printable(", ".join(sorted(files))) or "nothing"
        raise ValueError(f"{wanted} has no {MODEL_FILE}, which `refinenet push` writes; it has {found}.")
    size = files[MODEL_FILE].size
    if not isinstance(size, int) or not 0 < size <= MAX_FILE_BYTES:
        raise ValueError(f"{MODEL_FILE} of {wanted} has {size} bytes; a model file has 1 to {MAX_FILE_BYTES}.")
    lfs = files[MODEL_FILE].lfs
    return info.sha, None if lfs is None else lfs.sha256


def _verify(path: Path, pinned: HubAddress, sha256: str | None) -> HubModel:
    """Compare a downloaded file with the SHA-256 that the hub states, and remove it from the cache if it differs."""
    with path.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 not in (None, actual):
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise ValueError(
            f"{MODEL_FILE} of {pinned} is not the file that the hub describes: its SHA-256 is {actual}, expected "
            f"{sha256}. It was removed. Run again to download it again; if it is the same, do not use this model."
        )
    return HubModel(path=path, address=pinned, sha256=actual)


def _find_cached(hub: ModuleType, wanted: HubAddress) -> Path | None:
    """Return the path of a revision's file in the cache."""
    found = hub.try_to_load_from_cache(wanted.repository, MODEL_FILE, revision=wanted.revision)
    return Path(found) if isinstance(found, str) else None


def _open_cached(path: Path, wanted: HubAddress) -> HubModel:
    """Verify a file in the cache, which names files of the hub by their SHA-256."""
    name = path.resolve().name  # without symbolic links, as on Windows, it is that of the file itself
    return _verify(path, replace(wanted, revision=path.parent.name), name if _SHA256.fullmatch(name) else None)


def _from_cache(
    hub: ModuleType, wanted: HubAddress, cached: Path | None, reason: str, note: Callable[[str], None]
) -> HubModel:
    if cached is None:
        raise OSError(
            f"{reason}, and {wanted} is not in the cache {hub.constants.HF_HUB_CACHE}. Connect once to fetch it."
        )
    found = _open_cached(cached, wanted)
    note(f"{reason}: {wanted} is taken from the cache, commit {found.address.revision}, SHA-256 {found.sha256}.")
    return found


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_away(error: Exception) -> bool:
    """Whether the hub could not be reached or does not work, as opposed to an answer that denies the request."""
    status = _status(error)
    return not _reason(error) and (type(error).__module__.startswith("http") if status is None else status >= 500)


_REASONS: Mapping[str, str] = {
    "GatedRepoError": "Its owner has to grant you access: ask for it on its page, and log in (`hf auth login`).",
    "RepositoryNotFoundError": "There is no such model, or it is private: check the name, and log in "
    "(`hf auth login`, or the variable HF_TOKEN).",
    "RevisionNotFoundError": "It has no such revision.",
    "LocalTokenNotFoundError": "Log in first: `hf auth login`, or the variable HF_TOKEN.",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set.",
    "HFValidationError": "This is not the name of a model.",
}
"""What to do about errors of the client, by their names."""
_STATUS_REASONS: Mapping[int, str] = {
    401: _REASONS["LocalTokenNotFoundError"],
    403: "You may not do this: `push` needs a token with the right to write (`hf auth login`).",
}


def _reason(error: Exception) -> str | None:
    return next((_REASONS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _REASONS), None)


def _explain(error: Exception, address: HubAddress) -> Exception:
    """Return an error of the client in our words, without its text."""
    status = _status(error)
    reason = _reason(error) or _STATUS_REASONS.get(status or 0)
    if reason is not None:
        return ValueError(f"{address}: {reason}")
    if isinstance(error, OSError) and error.errno is not None:  # of a file, which the client does not send anywhere
        return OSError(error.errno, f"{address}: {error.strerror}")
    told = f"the hub answered {status}" if status is not None else f"the request failed ({type(error).__name__})"
    return OSError(f"{address}: {told}. Run again later.")


def push(repository: str, files: Mapping[str, Path | bytes], *, message: str, private: bool = False) -> HubAddress:
    """Upload files to a repository in one commit; the repository is made if it does not exist.

    Args:
        repository: Owner and name, separated by a slash.
        files: Files on this machine, or their content, by their names in the repository.
        message: First line of the commit's message.
        private: Whether a new repository is private.

    Returns:
        The address, pinned to the commit.

    Raises:
        ValueError: The name is not valid, or you may not write there.
        OSError: The hub cannot be reached.
    """
    hub, address = _client(), HubAddress.parse(repository)
    if address.revision != HubAddress.revision:
        raise ValueError(f"A model is pushed to owner/name, and gets a new commit there; not to {address}.")
    api = _api(hub)
    # RuntimeError: a file that could not be uploaded.
    errors: tuple[type[Exception], ...] = (*_client_errors(hub), RuntimeError)
    try:
        api.create_repo(address.repository, private=private or None, exist_ok=True)
        added = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        commit = api.create_commit(address.repository, added, commit_message=message)
    except errors as error:
        raise _explain(error, address) from None
    return replace(address, revision=commit.oid)
