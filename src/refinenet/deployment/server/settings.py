"""Settings of the HTTP server: where it listens, and the limits that keep it alive."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Annotated, ClassVar

from refinenet.io.extras import install_extra
from refinenet.io.images.image_files import MAX_PIXELS
from refinenet.settings import Range, Rule, Settings

_NAME = Rule(
    lambda name: re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) is not None,
    "1 to 100 letters, digits, dots, dashes and underscores",
)


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name) is not None
    return True


_HOST = Rule(_is_host, "a host name or IP address without scheme, port or brackets")
_RESPONSE_PIXEL_BYTES = 32
"""For each pixel of an image: a response with several files, such as probabilities and pictures."""
_LIBRARIES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Settings):
    """Settings of the HTTP server.

    Raises:
        ValueError: a value is not allowed.
    """

    host: str = "127.0.0.1"
    """Address to listen at; only programs on this machine reach the default."""
    port: Annotated[int, Range(0, 65_535)] = 8000
    """Port to listen at; 0 for any free one."""
    name: Annotated[str, _NAME] = "refinenet"
    """Name of the model in addresses and responses."""
    token: str | None = field(default=None, repr=False)
    """Secret that requests must carry as `Authorization: Bearer TOKEN`; None to serve everybody."""
    allowed_hosts: tuple[Annotated[str, _HOST], ...] = ()
    """Host names that requests may be addressed to, besides those of this machine; at an address other than loopback
    every name is allowed unless some are given."""
    workers: Annotated[int, Range(1, 256)] = 2
    """Threads that read images and compute; while one waits for the network another reads or writes."""
    model_processes: Annotated[int, Range(0, 256)] = 0
    """Processes that run the network, each with a copy of it: one that crashes or hangs is replaced. 0 to run it in the
    server's own process, which takes less memory."""
    model_seconds: Annotated[float, Range(above=0)] = 20.0
    """Time for the network on an image, after which its process is replaced."""
    queue: Annotated[int, Range(0, 10_000)] = 32
    """Requests that may wait for a thread; further ones are refused."""
    max_bytes: Annotated[int, Range(1)] = 20 * 2**20
    """Size of the body of a request."""
    total_bytes: Annotated[int, Range(1)] = 64 * 2**20
    """Total size of the bodies of all requests that are received, wait or are computed, beyond which further ones are
    refused; and of all responses that clients do not read. At least one of `max_bytes` is always taken."""
    max_pixels: Annotated[int, Range(1, MAX_PIXELS)] = 12_500_000
    """Pixels of an image, height times width."""
    window_pixels: Annotated[int, Range(1, MAX_PIXELS)] = 1_000_000
    """Pixels of the largest image that the network sees as a whole, which determines memory use: half a kilobyte or
    more for each. Larger images are segmented in overlapping windows of this size."""
    header_seconds: Annotated[float, Range(above=0)] = 5.0
    """Time for the head of a request, from its first byte or from the connection."""
    body_seconds: Annotated[float, Range(above=0)] = 10.0
    """Time for the body of a request."""
    request_seconds: Annotated[float, Range(above=0)] = 30.0
    """Time for waiting and computing."""
    decode_seconds: Annotated[float, Range(above=0)] = 10.0
    """Time for decoding an image, in a separate process."""
    write_seconds: Annotated[float, Range(above=0)] = 30.0
    """Time for which a client may leave a response unread."""
    keep_alive_seconds: Annotated[int, Range(1)] = 10
    """Time for which an idle connection is kept."""
    drain_seconds: Annotated[int, Range(1)] = 10
    """Time for requests in flight when the server is asked to stop."""
    connections: Annotated[int, Range(1)] = 512
    """Open connections. A further one replaces the one that has been idle longest; if all are in use, its requests are
    refused."""
    connections_per_address: Annotated[int, Range(1)] = 20
    """Open connections from an address other than loopback."""

    _title: ClassVar[str] = "settings of the server"

    @cached_property
    def allowed_names(self) -> frozenset[str]:
        """The allowed hosts in lower case, because host names do not distinguish capitals."""
        return frozenset(name.lower() for name in self.allowed_hosts)

    @property
    def body_budget(self) -> int:
        """Size of all bodies of requests in memory, and of all responses that clients do not read."""
        return max(self.total_bytes, self.max_bytes)

    @property
    def response_budget(self) -> int:
        """Size of all responses that are not read to the end, also by clients that read: one more for each thread."""
        return self.body_budget + self.threads * self.max_pixels * _RESPONSE_PIXEL_BYTES

    @property
    def threads(self) -> int:
        """Images processed at the same time: at least one for each process of the model."""
        return max(self.workers, self.model_processes)

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can reach the server."""
        return is_loopback(self.host)


@lru_cache(maxsize=64)  # asked for each request
def is_loopback(address: str) -> bool:
    """Whether an address or a host name means this machine."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def check_libraries() -> None:
    """Check that what the server is built on is installed.

    Raises:
        ValueError: A library is missing.
    """
    missing = next((name for name in _LIBRARIES if find_spec(name) is None), None)
    if missing is not None:
        raise ValueError(f"The server needs {missing}: {install_extra('serve')}")
