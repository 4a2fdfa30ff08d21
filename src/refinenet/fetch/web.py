"""Ask a web server for a file, or for the rest of one, and believe it nothing that cannot be checked.

Only http and https, with certificates verified, and never from https to http. Python's own `http.client` speaks the
protocol; proxies come from the environment (`https_proxy`, `no_proxy`).
"""

from __future__ import annotations

import email.utils
import re
import ssl
import string
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse, InvalidURL, responses
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

MAX_REDIRECTS = 10
BLOCK = 1 << 20
SLOWEST = 1_000
"""Bytes per second; a server that sends less is taken for dead."""
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_ADVICE: Mapping[int, str] = {
    401: "It wants a login: fetch the file with your browser",
    403: "It does not give this file out: fetch it with your browser",
    404: "The file has moved: look for it on its owner's page",
    410: "The file was taken away: look for it on its owner's page",
}


class PassingError(Exception):
    """Trouble that may be gone at the next attempt."""

    def __init__(self, text: str, *, wait: float | None = None, is_misfit: bool = False) -> None:
        super().__init__(text)
        self.wait = wait
        """Seconds after which the server wants to be asked again."""
        self.is_misfit = is_misfit
        """Whether the part that was to be continued is of no use."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What tells one version of a file from another."""

    validator: str | None
    """What the server knows it by: a strong ETag, else its date."""
    size: int | None
    """In bytes, where the server says so."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A file, or its rest, ready to be read; to be closed afterwards."""

    start: int
    """The place in the file of the first byte that comes."""
    version: Version
    ends_clearly: bool
    """Whether a broken connection can be told from the end of the file."""
    response: HTTPResponse

    def close(self) -> None:
        """Hang up."""
        self.response.close()

    def blocks(self, timeout: float) -> Iterator[bytes]:
        """The bytes as they come, never more than were announced, perhaps fewer.

        Raises:
            PassingError: the connection broke, or for `timeout` seconds there came nothing or next to nothing.
        """
        left = BLOCK if self.version.size is None else self.version.size - self.start
        since, came = time.monotonic(), 0
        while left > 0 and (block := _read(self.response, min(BLOCK, left))):
            yield block
            left -= 0 if self.version.size is None else len(block)
            came += len(block)
            seconds = time.monotonic() - since
            if seconds > timeout:
                if came < SLOWEST * seconds:
                    raise PassingError(f"the server sent only {came:,} bytes in {seconds:.3g} s")
                since, came = time.monotonic(), 0


def check_address(url: str) -> None:
    """Refuse what is no http or https address.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"Files are fetched from http:// and https:// addresses, not from {url!r}.")


def ask(url: str, timeout: float, *, have: int = 0, version: Version | None = None) -> Answer:
    """Ask for a file.

    Args:
        url: Its address.
        timeout: Seconds that the server may be silent.
        have: How many of its bytes are there; where it is above 0, the rest is asked for.
        version: The version that those bytes belong to.

    Raises:
        PassingError: no answer, or one that asks to come again, or one that does not fit to the question.
        ValueError: the address is none.
        OSError: the server refuses, leads elsewhere, or cannot prove who it is.
    """
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and version and version.validator:
        headers["If-Range"] = version.validator
    response = _follow(url, headers, timeout)
    try:
        return _understand(url, response, have, version)
    except BaseException:
        response.close()
        raise


def _read(response: HTTPResponse, count: int) -> bytes:
    try:
        return response.read1(count)
    except (OSError, HTTPException) as error:
        raise PassingError(f"the connection broke ({error!r})") from error


def _follow(url: str, headers: Mapping[str, str], timeout: float) -> HTTPResponse:
    opener = OpenerDirector()
    opener.addheaders = [("User-Agent", "refinenet")]
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(context=ssl.create_default_context())):
        opener.add_handler(handler)
    visited = [url]
    while True:
        response = _open(opener, Request(visited[-1], headers=dict(headers)), timeout)
        if response.status not in (301, 302, 303, 307, 308):
            return response
        response.close()
        visited.append(_redirect(visited, response.headers.get("Location", "")))


def _open(opener: OpenerDirector, request: Request, timeout: float) -> HTTPResponse:
    try:
        response: HTTPResponse = opener.open(request, timeout=timeout)
    except InvalidURL as error:
        raise ValueError(f"{request.full_url!r} is no address: {error}.") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise OSError(
                f"{request.host} cannot prove who it is ({reason.verify_message}), so nothing was fetched. Check this "
                "computer's date and certificates, or fetch the file by other means."
            ) from error
        raise PassingError(f"{request.host} does not answer ({reason!r})") from error
    return response


def _redirect(visited: list[str], location: str) -> str:
    # As browsers do it: what is no ASCII in a header is Latin-1.
    wanted = quote(location, safe=string.punctuation, encoding="iso-8859-1", errors="replace")
    try:
        target = urljoin(visited[-1], wanted)
        parts = urlsplit(target)
        is_address = bool(location and parts.scheme in ("http", "https") and parts.hostname)
    except ValueError:
        target, is_address = wanted, False
    if not is_address:
        problem = f"to {target!r}, which is no http:// or https:// address"
    elif target.startswith("http:") and visited[-1].startswith("https:"):
        problem = f"from https to the unprotected {target!r}"
    elif target in visited:
        problem = f"in a circle, to {target!r} again"
    elif len(visited) > MAX_REDIRECTS:
        problem = f"on and on, {len(visited)} times so far"
    else:
        return target
    raise OSError(f"{visited[0]} leads {problem}. That is not followed: fetch the file by other means or use a mirror.")


def _understand(url: str, response: HTTPResponse, have: int, version: Version | None) -> Answer:
    status, encoding = response.status, response.headers.get("Content-Encoding", "identity")
    if status in (200, 206) and encoding.strip().lower() != "identity":
        raise OSError(f"{url} comes encoded as {encoding!r}, which was not asked for. Use a mirror.")
    if status == 200:
        return _whole(response)
    if status == 206 and have:
        return _rest(response, have, version)
    if status == 206:
        raise PassingError("the server sent a part of the file that was not asked for")
    if status == 416 and have:
        raise PassingError("the server does not have the rest of this file", is_misfit=True)
    answer = f"HTTP {status} {responses.get(status, '')}".rstrip()
    if status in PASSING_STATUS:
        raise PassingError(f"the server answers {answer}", wait=_retry_after(response))
    advice = _ADVICE.get(status, "Fetch the file by other means")
    raise OSError(f"{url}: the server answers {answer}. {advice} and put it into its place, or use a mirror.")


def _whole(response: HTTPResponse) -> Answer:
    is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    lengths = set(response.headers.get_all("Content-Length") or ())
    if not is_chunked and lengths and not (len(lengths) == 1 and re.fullmatch(r"\d{1,18}", min(lengths))):
        raise PassingError(f"the server states no sound Content-Length ({', '.join(sorted(lengths))[:60]!r})")
    size = int(min(lengths)) if lengths and not is_chunked else None
    return Answer(
        start=0,
        version=Version(validator=_validator(response), size=size),
        ends_clearly=is_chunked or size is not None,
        response=response,
    )


def _rest(response: HTTPResponse, have: int, version: Version | None) -> Answer:
    text = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", text)
    first, last, size = map(int, match.groups()) if match else (0, 0, 0)
    length = str(last - first + 1)
    fits = first == have <= last < size and response.headers.get("Content-Length", length) == length
    came = Version(validator=_validator(response), size=size)
    is_same = version is None or (
        version.size in (None, size) and (came.validator is None or came.validator == version.validator)
    )
    if not (fits and is_same):
        raise PassingError(f"the server's part ({text[:60]!r}) does not fit to what was asked for", is_misfit=True)
    return Answer(start=have, version=version or came, ends_clearly=True, response=response)


def _validator(response: HTTPResponse) -> str | None:
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _retry_after(response: HTTPResponse) -> float | None:
    """Seconds, from either of the two forms of the header; None where it is missing or damaged."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
