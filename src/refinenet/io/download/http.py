"""HTTP requests for a file, or for the rest of one, from servers that are not trusted.

Only http and https are used, with verified certificates, and never redirected from https to http. urllib3 speaks the
protocol; proxies come from the environment (`https_proxy`, `no_proxy`).

No server can block a caller for longer than the deadlines below. The timeout of a socket does not ensure that: it
restarts with each byte, so a server that sends one byte now and then never exceeds it, within a status line, a header,
a TLS handshake, a chunk size or a trailer. Therefore each request runs in its own thread (`_Exchange`). The caller
waits no longer than the deadline, and then shuts the connection down, which ends that thread as well.
"""

from __future__ import annotations

import email.utils
import queue
import re
import socket
import ssl
import string
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, responses
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

MAX_REDIRECTS = 10
BLOCK = 1 << 20
MIN_SPEED = 1_000
"""Minimum bytes per second; a slower server is considered dead."""
ANSWER_DEADLINE = 2
"""Deadline for connection, status and headers, as a multiple of the timeout."""
MAX_UNANNOUNCED = 16 << 30
"""Maximum bytes of a file whose length the server does not announce."""
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_ADVICE: Mapping[int, str] = {
    401: "It requires a login: download the file with your browser",
    403: "It does not allow access to this file: download it with your browser",
    404: "The file has moved: look for it on its owner's page",
    410: "The file was removed: look for it on its owner's page",
}


class PassingError(Exception):
    """A temporary error, which may be gone at the next attempt."""

    def __init__(self, text: str, *, wait: float | None = None, is_misfit: bool = False) -> None:
        super().__init__(text)
        self.wait = wait
        """Seconds that the server asks to wait before the next attempt."""
        self.is_misfit = is_misfit
        """Whether the part that should be resumed is of no use."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """Version of a file on a server."""

    validator: str | None
    """Strong ETag, or else the date of the last change."""
    size: int | None
    """Size in bytes, if the server says it."""


class _Exchange:
    """A request and its response in a separate thread; see the top of this file.

    Args:
        url: The address.
        headers: Headers of the request.
        timeout: Seconds that the server may be silent.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float) -> None:
        self._url, self._headers, self._timeout = url, headers, timeout
        # The queue is short, so that a server that is faster than the disk does not fill the memory.
        self._items: queue.Queue[urllib3.BaseHTTPResponse | bytes | Exception | None] = queue.Queue(maxsize=4)
        self._lock, self._is_closed = threading.Lock(), False
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self, seconds: float) -> urllib3.BaseHTTPResponse | bytes:
        """Return the response, then the blocks of its body as they arrive; an empty block is the end.

        Raises:
            queue.Empty: Nothing arrived within `seconds`.
            OSError, HTTPException, HTTPError, ValueError: The request failed.
        """
        item = self._items.get(timeout=max(0.0, seconds))
        assert item is not None, "the thread of a download ended without a result"
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Close the connection, whatever the thread waits for."""
        with self._lock:
            self._is_closed = True
            for line in self._sockets:
                _shut(line)
            self._sockets.clear()
        with suppress(queue.Empty):
            while True:
                self._items.get_nowait()

    def _run(self) -> None:
        try:
            response = self._ask()
            self._put(response)
            while not self._is_closed:
                block = response.read1(BLOCK, decode_content=False)
                self._put(block)
                if not block:
                    break
        except (OSError, HTTPException, HTTPError, ValueError) as error:
            self._put(error)
        finally:
            self._put(None)

    def _put(self, item: urllib3.BaseHTTPResponse | bytes | Exception | None) -> None:
        while not self._is_closed:
            with suppress(queue.Full):
                self._items.put(item, timeout=0.5)
                return

    def _ask(self) -> urllib3.BaseHTTPResponse:
        return _pool_manager(self._url, self._keep).request(
            "GET",
            self._url,
            headers={"User-Agent": "refinenet", **self._headers},
            timeout=urllib3.Timeout(connect=self._timeout, read=self._timeout),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
            enforce_content_length=False,
        )

    def _keep(self, line: socket.socket) -> None:
        """Keep a second handle of a connection, because TLS takes over the first one."""
        handle = line.dup()
        with self._lock:
            if self._is_closed:
                _shut(handle)
            else:
                self._sockets.append(handle)


def _shut(line: socket.socket) -> None:
    with suppress(OSError):  # the server was faster
        line.shutdown(socket.SHUT_RDWR)
    line.close()


def _pool_manager(url: str, keep: Callable[[socket.socket], None]) -> urllib3.PoolManager:
    """Return a pool manager, with the proxy of the environment, if any; `keep` is called with each new connection.

    Raises:
        ValueError: The proxy is of a kind that is not supported.
    """

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            line = super()._new_conn()
            keep(line)
            return line

    class Protected(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            line = super()._new_conn()
            keep(line)
            return line

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class ProtectedPool(HTTPSConnectionPool):
        ConnectionCls = Protected

    parts, context = urlsplit(url), ssl.create_default_context()
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    manager = _through(proxy, context) if proxy else urllib3.PoolManager(ssl_context=context)
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": ProtectedPool}
    return manager


def _through(proxy: str, context: ssl.SSLContext) -> urllib3.ProxyManager:
    address = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"A proxy's address begins with http:// or https://; the environment names {address!r}.")
    login = None if parts.username is None else f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
    return urllib3.ProxyManager(address, proxy_headers=headers, ssl_context=context, proxy_ssl_context=context)


@dataclass(frozen=True, kw_only=True)
class Response:
    """Response with a file, or the rest of one, to be read and then closed."""

    start: int
    """Offset in the file of the first byte of the response."""
    version: Version
    ends_clearly: bool
    """Whether a broken connection can be distinguished from the end of the file."""
    exchange: _Exchange

    def close(self) -> None:
        """Close the connection."""
        self.exchange.close()

    def blocks(self, timeout: float) -> Iterator[bytes]:
        """Yield the bytes as they arrive: at most as many as were announced, but perhaps fewer.

        Raises:
            PassingError: The connection broke, or nothing or next to nothing arrived for `timeout` seconds.
        """
        left = BLOCK if self.version.size is None else self.version.size - self.start
        waited, received = 0.0, 0
        while left > 0:
            begin = time.monotonic()
            block = self._take(timeout - waited)
            waited += time.monotonic() - begin  # without the time in which the caller writes the block
            if block is not None:
                if not block:
                    return
                block = block if self.version.size is None else block[:left]
                yield block
                left -= 0 if self.version.size is None else len(block)
                received += len(block)
            if waited >= timeout:
                if received < MIN_SPEED * waited:
                    raise PassingError(f"the server sent only {received:,} bytes in {waited:.3g} s")
                waited, received = 0.0, 0

    def _take(self, seconds: float) -> bytes | None:
        try:
            block = self.exchange.take(seconds)
        except queue.Empty:
            return None
        except (OSError, HTTPException, HTTPError, ValueError) as error:
            raise PassingError(f"the connection broke ({error!r})") from error
        assert isinstance(block, bytes)
        return block


def check_address(url: str) -> None:
    """Check that an address is a valid http or https address.

    Raises:
        ValueError: It has another scheme, no host, an invalid port, a login, or characters that are not allowed.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"Files are downloaded from http:// and https:// addresses, not from {url!r}.")
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(
            f"{url!r} is not an address: it has spaces or control characters. Write them as %20 and so on."
        )
    if parts.username is not None:
        raise ValueError(f"The address of a file on {parts.hostname} has a login in it. Logins are not supported.")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not an address: {error}.") from error


def ask(url: str, timeout: float, *, have: int = 0, version: Version | None = None) -> Response:
    """Request a file.

    Args:
        url: Address of the file.
        timeout: Seconds that the server may be silent.
        have: Number of bytes that are downloaded already; if above 0, the rest is requested.
        version: Version that these bytes belong to.

    Raises:
        PassingError: There is no response, or one that asks to try later, or does not match the request.
        ValueError: The address is not valid.
        OSError: The server refuses, redirects elsewhere, or cannot prove its identity.
    """
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and version and version.validator:
        headers["If-Range"] = version.validator
    exchange, response = _follow(url, headers, timeout)
    try:
        return _understand(url, (exchange, response), have, version)
    except BaseException:
        exchange.close()
        raise


def _follow(url: str, headers: Mapping[str, str], timeout: float) -> tuple[_Exchange, urllib3.BaseHTTPResponse]:
    visited = [url]
    while True:
        exchange = _Exchange(visited[-1], headers, timeout)
        try:
            response = _response(exchange, visited[-1], timeout)
            if response.status not in (301, 302, 303, 307, 308):
                return exchange, response
            visited.append(_redirect(visited, response.headers.get("Location", "")))
        except BaseException:
            exchange.close()
            raise
        exchange.close()


def _response(exchange: _Exchange, url: str, timeout: float) -> urllib3.BaseHTTPResponse:
    host = urlsplit(url).netloc
    try:
        response = exchange.take(ANSWER_DEADLINE * timeout)
    except queue.Empty as error:
        seconds = ANSWER_DEADLINE * timeout
        raise PassingError(f"{host} does not respond: its headers were not complete after {seconds:.3g} s") from error
    except (OSError, HTTPException, HTTPError) as error:
        _raise_if_unverified(host, error)
        raise PassingError(f"{host} does not respond ({error!r})") from error
    assert not isinstance(response, bytes)
    return response


def _raise_if_unverified(host: str, error: BaseException) -> None:
    """Raise an error for an invalid certificate, which will be invalid at the next attempt, too."""
    cause: BaseException | None = error
    while cause is not None:
        for part in (cause, *cause.args):
            if isinstance(part, ssl.SSLCertVerificationError):
                raise OSError(
                    f"{host} has no valid certificate ({part.verify_message}), so nothing was downloaded. Check the "
                    "date and certificates of this computer, or download the file by other means."
                ) from error
        cause = cause.__cause__ or cause.__context__


def _redirect(visited: list[str], location: str) -> str:
    # As in browsers: non-ASCII bytes in a header are Latin-1.
    wanted = quote(location, safe=string.punctuation, encoding="iso-8859-1", errors="replace")
    try:
        target = urljoin(visited[-1], wanted)
        check_address(target)
        is_address = bool(location)
    except ValueError:
        target, is_address = wanted, False
    if not is_address:
        problem = f"to {target!r}, which is not an http:// or https:// address"
    elif target.startswith("http:") and visited[-1].startswith("https:"):
        problem = f"from https to the unprotected {target!r}"
    elif target in visited:
        problem = f"in a circle, to {target!r} again"
    elif len(visited) > MAX_REDIRECTS:
        problem = f"too many times ({len(visited)})"
    else:
        return target
    raise OSError(
        f"{visited[0]} redirects {problem}, which is not followed: download the file by other means or use a mirror."
    )


def _understand(
    url: str, exchange: tuple[_Exchange, urllib3.BaseHTTPResponse], have: int, version: Version | None
) -> Response:
    response = exchange[1]
    status = response.status
    if status in (200, 206):
        _reject_encodings(url, response)
    if status == 200:
        return _whole(*exchange)
    if status == 206 and have:
        return _rest(*exchange, have, version)
    if status == 206:
        raise PassingError("the server sent a part of the file that was not requested")
    if status == 416 and have:
        raise PassingError("the server does not have the rest of this file", is_misfit=True)
    answer = f"HTTP {status} {responses.get(status, '')}".rstrip()
    if status in PASSING_STATUS or status < 200:
        raise PassingError(f"the server responded with {answer}", wait=_retry_after(response))
    advice = _ADVICE.get(status, "Download the file by other means")
    raise OSError(f"{url}: the server responded with {answer}. {advice} and put it in place, or use a mirror.")


def _reject_encodings(url: str, response: urllib3.BaseHTTPResponse) -> None:
    """Reject compressed responses, which would be stored as they arrive, as another file."""
    content, transfer = (response.headers.getlist(f"{name}-Encoding") for name in ("Content", "Transfer"))
    for encodings, allowed in ((content, {"", "identity"}), (transfer, {"", "identity", "chunked"})):
        named = [name.strip().lower() for encoding in encodings for name in encoding.split(",")]
        if not set(named) <= allowed or named.count("chunked") > 1:
            raise OSError(f"{url} was sent encoded as {', '.join(encodings)!r}, which was not requested. Use a mirror.")


def _whole(exchange: _Exchange, response: urllib3.BaseHTTPResponse) -> Response:
    is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    lengths = set(response.headers.getlist("Content-Length"))
    if not is_chunked and lengths and not (len(lengths) == 1 and re.fullmatch(r"\d{1,18}", min(lengths))):
        raise PassingError(f"the server states an invalid Content-Length ({', '.join(sorted(lengths))[:60]!r})")
    size = int(min(lengths)) if lengths and not is_chunked else None
    return Response(
        start=0,
        version=Version(validator=_validator(response), size=size),
        ends_clearly=is_chunked or size is not None,
        exchange=exchange,
    )


def _rest(exchange: _Exchange, response: urllib3.BaseHTTPResponse, have: int, version: Version | None) -> Response:
    text = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", text)
    first, last, size = map(int, match.groups()) if match else (0, 0, 0)
    length = str(last - first + 1)
    fits = first == have <= last < size and response.headers.get("Content-Length", length) == length
    offered = Version(validator=_validator(response), size=size)
    is_same = version is None or (
        version.size in (None, size) and (offered.validator is None or offered.validator == version.validator)
    )
    if not (fits and is_same):
        raise PassingError(f"the server's part ({text[:60]!r}) does not match the request", is_misfit=True)
    return Response(start=have, version=version or offered, ends_clearly=True, exchange=exchange)


def _validator(response: urllib3.BaseHTTPResponse) -> str | None:
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Return the seconds of Retry-After, in either of its two forms; None if it is missing or invalid."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):  # not a date, or one that does not exist
        return None
