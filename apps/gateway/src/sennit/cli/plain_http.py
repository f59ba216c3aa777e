"""One HTTP request with only the standard library, for verbs with small responses.

Importing httpx and its dependencies takes longer than a small query. A connection to another
machine goes through `urllib`, which supports proxies and proxy exceptions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import urlsplit

from sennit_core.errors import RemoteError, SennitError, Unavailable, UsageError, error_from_json

__all__ = ["Response", "open_response"]

_SILENCE_SECONDS = 600.0
_LOOPBACK = ("localhost", "127.", "::1")
_RESULT_HEADER = "Sennit-Result"
_RETRYABLE = frozenset({429, 500, 502, 503, 504})


class Response(Protocol):
    """An HTTP response whose body has not been read."""

    status: int
    headers: Any

    def read(self, amount: int = ..., /) -> bytes:
        """Return at most `amount` bytes of the body; all of it by default."""
        ...


@contextmanager
def open_response(
    url: str, token: str | None, path: str, document: object, *, accept: str
) -> Iterator[Response]:
    """Post a JSON document and yield the response, whose body is read inside the `with`.

    Args:
        url: The node's address.
        token: Sent as a bearer token.
        path: From the root.
        document: The body.
        accept: The requested media type.

    Raises:
        UsageError: `url` is not an http(s) address.
        SennitError: The node's error, or Unavailable when the response is missing or incomplete.
    """
    headers = {"Accept": accept, "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    url = url.rstrip("/")
    response: Response | None = None
    try:
        with _opened("POST", url, path, headers, json.dumps(document).encode()) as response:
            if response.status >= 400:
                raise _error(response, path)
            yield response
    except BrokenPipeError:
        raise  # from writing our own output
    except (HTTPException, OSError) as problem:
        if isinstance(problem, SennitError):
            raise
        raise _why_aborted(response, url, headers) or _unavailable(url, problem) from problem


@contextmanager
def _opened(
    method: str, url: str, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> Iterator[Response]:
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port
    except ValueError:
        host, port, address = "", None, urlsplit("")
    if address.scheme not in ("http", "https") or not host:
        raise UsageError(
            f"{url!r} is not the address of a node", hint="write it like http://127.0.0.1:8600"
        )
    if not host.startswith(_LOOPBACK):
        yield from _through_urllib(method, url + path, headers, body)
        return
    kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
    connection = kind(host, port, timeout=_SILENCE_SECONDS)
    try:
        connection.request(method, address.path + path, body, dict(headers))
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def _through_urllib(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> Iterator[Response]:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    request = Request(url, body, dict(headers), method=method)
    try:
        response = urlopen(request, timeout=_SILENCE_SECONDS)
    except HTTPError as error:
        response = error
    with response:
        yield response


def _why_aborted(
    response: Response | None, url: str, headers: Mapping[str, str]
) -> SennitError | None:
    """Ask the node why a response ended early; None if the node has no record of it."""
    result_id = None if response is None else response.headers.get(_RESULT_HEADER)
    if result_id is None:
        return None
    try:
        with _opened("GET", url, f"/api/results/{result_id}", headers) as reason:
            return error_from_json(json.loads(reason.read())) if reason.status == 200 else None
    except (HTTPException, OSError, ValueError, SennitError):
        return None


def _error(response: Response, path: str) -> SennitError:
    text = response.read().decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict) and "code" in document:
        return error_from_json(document)
    sentence = f"POST {path} was answered with {response.status}: {text[:200]}"
    if response.status in _RETRYABLE:
        return Unavailable(f"the node ({sentence})")
    return RemoteError(sentence)


def _unavailable(url: str, problem: Exception) -> Unavailable:
    reason = str(problem) or type(problem).__name__
    return Unavailable(f"the node at {url} ({reason})", hint="is it running? see `platform status`")
