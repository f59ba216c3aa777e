"""One HTTP connection pool to a node: authentication, retries, and errors raised as exceptions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    DeadlineExceeded,
    Denied,
    NotFound,
    RemoteError,
    SennitError,
    Unauthenticated,
    Unavailable,
    UsageError,
    error_from_json,
)

if TYPE_CHECKING:
    # Imported where it is used: its import costs half of this package's, and pipelines without a node
    # do not need it.
    import httpx

ARROW = "application/vnd.apache.arrow.stream"
RESULT_HEADER = "Sennit-Result"
_CONNECT_SECONDS = 10.0
_RETRY_STATUSES = frozenset({429, 500, 502, 503, 504})
_BACKOFF_SECONDS_FIRST, _BACKOFF_SECONDS_MAX = 0.1, 5.0
_POLL_SECONDS_MIN = 0.005  # a small job takes 50 ms, and a poll 2 ms of the node
_POLL_SECONDS_MAX = 0.25

T = TypeVar("T")


class Transport:
    """Sends HTTP requests to one node; safe to share between threads.

    Args:
        url: The node's address, such as `http://127.0.0.1:8600`.
        token: Sent as `Authorization: Bearer`; never logged.
        timeout_seconds: Longest time without data from the node within one request.
        retry_seconds: How long a repeatable request is retried.
        clock: Source of time; tests inject one.

    Raises:
        UsageError: The address is not an http(s) URL.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_seconds: float = 60.0,
        retry_seconds: float = 3.0,
        clock: Clock = SYSTEM,
    ) -> None:
        import httpx

        address = httpx.URL(url)
        if address.scheme not in {"http", "https"} or not address.host:
            raise UsageError(
                f"{url!r} is not the address of a node",
                hint="write it like http://127.0.0.1:8600",
            )
        self.url = str(address).rstrip("/")
        self._retry_seconds = retry_seconds
        self._clock = clock
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=64),
            trust_env=not _is_loopback(
                address.host
            ),  # a proxy cannot reach this machine's loopback
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        document: object = None,
        repeatable: bool | None = None,
    ) -> httpx.Response:
        """Send one request and read its whole response.

        Args:
            method: GET, PUT, POST, PATCH or DELETE.
            path: From the root, with its query.
            headers: Added to the connection's default headers.
            document: Sent as JSON when not None.
            repeatable: Whether to retry when it is unknown whether the node received the request;
                by default for every method except POST and PATCH.

        Raises:
            SennitError: The node's error, or Unavailable when the node did not respond.
        """
        if repeatable is None:
            repeatable = method not in {"POST", "PATCH"}

        def send() -> httpx.Response:
            response = self._http.request(method, path, headers=headers, json=document)
            _raise_for_error(response)
            return response

        return self._retry(send, repeatable, self._retry_seconds)

    def put(
        self,
        path: str,
        body: Callable[[], Iterator[bytes]],
        *,
        headers: Mapping[str, str],
        retry_seconds: float,
    ) -> httpx.Response:
        """Send bytes; raises as `request` does.

        Args:
            path: From the root, with its query.
            body: Returns a new body for each attempt.
            headers: With Content-Length.
            retry_seconds: How long the request is retried.
        """

        def send() -> httpx.Response:
            response = self._http.put(path, headers=headers, content=body())
            _raise_for_error(response)
            return response

        return self._retry(send, True, retry_seconds)

    def json(self, method: str, path: str, document: object = None, **options: Any) -> Any:
        """Send one request and parse its JSON response; arguments as in `request`."""
        return self.request(method, path, document=document, **options).json()

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        document: object = None,
        timeout_seconds: float | None = None,
    ) -> Iterator[httpx.Response]:
        """Send one request whose response is read piece by piece inside the `with`.

        Raises:
            SennitError: The node's error, including one that aborted a response already started;
                Unavailable when the node did not respond.
        """
        import httpx

        timeout: Any = httpx.USE_CLIENT_DEFAULT
        if timeout_seconds is not None:
            timeout = httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS)
        request = self._http.build_request(
            method, path, headers=headers, json=document, timeout=timeout
        )
        try:
            response = self._http.send(request, stream=True)
        except httpx.TransportError as problem:
            raise self._unavailable(problem) from problem
        try:
            if response.is_error:
                response.read()
            _raise_for_error(response)
            yield response
        except httpx.TransportError as problem:
            raise self._why_aborted(response, problem) from problem
        finally:
            response.close()

    def _retry(self, send: Callable[[], T], repeatable: bool, seconds: float) -> T:
        """Call `send` until it succeeds or a retry cannot help, with increasing delays."""
        import httpx

        deadline = self._clock.monotonic() + seconds
        backoff_seconds = _BACKOFF_SECONDS_FIRST
        while True:
            try:
                return send()
            except httpx.TransportError as problem:
                untouched = isinstance(problem, httpx.ConnectError | httpx.PoolTimeout)
                failure: SennitError = self._unavailable(problem)
                if not (repeatable or untouched):
                    raise failure from problem
            except SennitError as problem:
                failure = problem
                if not (repeatable and problem.retryable):
                    raise
            if self._clock.monotonic() + backoff_seconds > deadline:
                raise failure
            self._clock.sleep(backoff_seconds * random.uniform(0.5, 1.0))
            backoff_seconds = min(2 * backoff_seconds, _BACKOFF_SECONDS_MAX)

    def _why_aborted(self, response: httpx.Response, problem: httpx.TransportError) -> SennitError:
        """Ask the node why a response ended early."""
        response.close()
        result_id = response.headers.get(RESULT_HEADER)
        if result_id is not None:
            with suppress(SennitError, ValueError):
                return error_from_json(self.json("GET", f"/api/results/{result_id}"))
        return Unavailable(
            f"the rest of the response from {self.url} ({problem or type(problem).__name__})",
            hint="the connection to the node was lost: try again",
        )

    def _unavailable(self, problem: httpx.TransportError) -> Unavailable:
        reason = str(problem) or type(problem).__name__
        return Unavailable(
            f"the node at {self.url} ({reason})", hint="is it running? Check with `platform status`"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _raise_for_error(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        document = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        document = None
    if isinstance(document, dict) and "code" in document:
        raise error_from_json(document)
    message = (isinstance(document, dict) and document.get("error")) or response.text[:200]
    path = response.request.url.path
    sentence = (
        f"{response.request.method} {path} was answered with {response.status_code}: {message}"
    )
    if response.status_code in _RETRY_STATUSES:
        raise Unavailable(f"the node ({sentence})")
    # The realtime tree's errors are Firebase's: a sentence without a code.
    match response.status_code:
        case 401:
            raise Unauthenticated(path, message=sentence)
        case 403:
            raise Denied(path, message=sentence)
        case 404:
            raise NotFound("path", path, message=sentence)
    raise RemoteError(sentence)


def wait_for(
    ready: Callable[[], T | None], *, what: str, seconds: float | None, clock: Clock = SYSTEM
) -> T:
    """Poll `ready` at growing intervals until it returns a value.

    Raises:
        DeadlineExceeded: `ready` returned no value within `seconds`.
    """
    deadline = None if seconds is None else clock.monotonic() + seconds
    pause_seconds = _POLL_SECONDS_MIN
    while (answer := ready()) is None:
        if deadline is not None and clock.monotonic() >= deadline:
            raise DeadlineExceeded(what, seconds)
        clock.sleep(pause_seconds)
        pause_seconds = min(1.5 * pause_seconds, _POLL_SECONDS_MAX)
    return answer
