"""Keys of other issuers: a JWKS (RFC 7517) fetched over https or read from a file, and cached.

`find` never waits: it raises `KeysMissing` when the caller should `refresh`. An unknown key id causes
at most one fetch in `RETRY_SECONDS`; the cached keys of an unreachable issuer are used for a day.
`jwt.PyJWKClient` (2.15) fetches in the caller's thread, here the event loop's, reads a response of
any size, and has no keys while an issuer cannot be reached and its cache (300 s) has expired.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Protocol
from urllib.parse import urlsplit

from elkyn.auth.jws import Key, PublicKey
from elkyn.auth.tokens import Trust
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import BadInput, SennitError, Unavailable, UsageError
from sennit_core.logs import get_logger

__all__ = ["Issuer", "JwksSource", "KeysMissing", "Source", "fetch_json"]

# Bounds the fetches that tokens with made-up key ids can cause.
RETRY_SECONDS = 30.0
# An issuer that cannot be reached for a day does not lock its users out.
USABLE_SECONDS = 24 * 3600.0
# Bounds of the issuer's own `Cache-Control: max-age`.
_FRESH_SECONDS = (60.0, 3600.0, 24 * 3600.0)  # minimum, default, maximum
_TIMEOUT_SECONDS = 5.0
_BODY_BYTES_MAX = 256 * 1024
_KEYS_MAX = 64
_FIREBASE_KEYS = (
    "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
)

_log = get_logger(__name__)

Fetch = Callable[[str], tuple[Any, float | None]]
"""`fetch(url)` returns the JSON at the address and for how many seconds it is fresh."""


class Source(Protocol):
    """A source of keys or principals that is read over the network."""

    name: str

    def refresh(self) -> None:
        """Fetch the data, blocking, and cache it."""
        ...


class KeysMissing(Exception):
    """`source` must be refreshed, usually to get keys, before a token can be verified."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.name)
        self.source = source


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer of tokens (any OpenID Connect issuer).

    Args:
        issuer: the value of `iss`.
        audience: the accepted values of `aud`.
        jwks: the location of its keys: an https address (http on loopback) or a file.
        algorithms: the algorithms of its tokens.
        provider: the sign-in provider of its users if their tokens name none.
        uid_prefix: the prefix of its users' ids.
    """

    issuer: str
    audience: tuple[str, ...]
    jwks: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    provider: str = ""
    uid_prefix: str = ""

    @classmethod
    def firebase(cls, project: str) -> Issuer:
        """Return the issuer of a Firebase project's ID tokens."""
        return cls(
            f"https://securetoken.google.com/{project}", (project,), _FIREBASE_KEYS, ("RS256",)
        )

    def trust(self, clock: Clock = SYSTEM) -> Trust:
        """Return the `Trust` that makes a `Verifier` accept this issuer's tokens.

        Raises:
            UsageError: the issuer, its audience or the location of its keys is invalid.
        """
        if not self.issuer or not self.audience or not all(self.audience):
            raise UsageError("an issuer needs a name (iss) and an audience (aud)")
        if not self.algorithms or not set(self.algorithms) <= {"RS256", "ES256"}:
            raise UsageError("an issuer's algorithms must be RS256 or ES256")
        return Trust(
            find=JwksSource(self.jwks, clock).find,
            algorithms=frozenset(self.algorithms),
            issuer=self.issuer,
            audience=frozenset(self.audience),
            provider=self.provider or self.issuer,
            uid_prefix=self.uid_prefix,
        )


class JwksSource:
    """The keys at one address or in one file; thread-safe.

    Args:
        place: an https address, an http one on loopback, or a file.
        clock: measures the age of the keys.
        fetch: fetches the JSON at an address.

    Raises:
        UsageError: the address is not safe.
    """

    def __init__(self, place: str, clock: Clock = SYSTEM, fetch: Fetch | None = None) -> None:
        self.name = place
        self._fetch = fetch or (fetch_json if _is_url(place) else _read_file)
        self._clock = clock
        self._keys: list[PublicKey] = []
        self._lock = threading.Lock()
        # Held during a fetch, so that one thread fetches; `_lock` is never held while waiting for
        # the network.
        self._refreshing = threading.Lock()
        # Counts finished fetches: a thread that waited for `_refreshing` sees that another one has
        # just fetched.
        self._generation = 0
        self._failures = 0
        # In the past: nothing is fresh or usable yet, and the first `find` asks for a fetch.
        start = clock.monotonic() - 1
        self._fresh_until = self._usable_until = self._next_try = start

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """Return the keys that may have signed a token, without waiting.

        Raises:
            KeysMissing: the keys must be fetched first.
            Unavailable: no keys are cached, and a fetch has just failed.
        """
        with self._lock:
            now = self._clock.monotonic()
            found = [
                key
                for key in self._keys
                if key.algorithm == algorithm and (kid is None or key.kid in (None, kid))
            ]
            usable = now < self._usable_until
            if found and now < self._fresh_until:
                return found
            if now >= self._next_try:
                if found and usable:  # one caller fetches, the others use the cached keys
                    self._next_try = now + RETRY_SECONDS
                raise KeysMissing(self)
            if not usable:
                raise Unavailable(f"the keys of issuer {self.name}")
            return found

    def refresh(self) -> None:
        """Fetch the keys, blocking; a failure is logged and remembered."""
        seen = self._generation
        with self._refreshing:
            if self._generation != seen:  # another thread has just refreshed
                return
            try:
                body, fresh_seconds = self._fetch(self.name)
                keys = _read_keys(body)
            except (OSError, ValueError, SennitError) as error:
                self._failed(error)
            else:
                self._succeeded(keys, fresh_seconds)

    def _succeeded(self, keys: list[PublicKey], fresh_seconds: float | None) -> None:
        least, usual, most = _FRESH_SECONDS
        fresh = min(max(usual if fresh_seconds is None else fresh_seconds, least), most)
        with self._lock:
            now = self._clock.monotonic()
            self._keys = keys
            self._failures = 0
            self._generation += 1
            self._fresh_until = now + fresh
            self._usable_until = now + max(fresh, USABLE_SECONDS)
            self._next_try = now + RETRY_SECONDS

    def _failed(self, error: Exception) -> None:
        _log.warning("the keys of issuer %s could not be read: %s", self.name, error)
        with self._lock:
            self._failures += 1
            self._generation += 1
            # Doubled after each failure, up to a minute.
            pause = min(2.0 ** min(self._failures, 6), 2 * RETRY_SECONDS)
            self._next_try = self._clock.monotonic() + pause


def fetch_json(url: str) -> tuple[Any, float | None]:
    """Return the JSON at `url` and how many seconds it is fresh; follows no redirects.

    Raises:
        OSError: the address cannot be reached, answers with another status than 200, or too slowly.
        ValueError: the response is too large, or not JSON.
    """
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    ends = time.monotonic() + _TIMEOUT_SECONDS
    with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as response:
        body = b""
        # `timeout` bounds each read only: a slow sender could hold the thread for ever.
        while part := response.read1(65536):
            body += part
            if len(body) > _BODY_BYTES_MAX:
                raise ValueError(f"more than {_BODY_BYTES_MAX} bytes")
            if time.monotonic() > ends:
                raise TimeoutError("the response was too slow")
        fresh = _max_age(response.headers.get("cache-control", ""))
    return _load(body), fresh


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _read_file(place: str) -> tuple[Any, float | None]:
    with FilePath(place).open("rb") as stream:
        body = stream.read(_BODY_BYTES_MAX + 1)
    if len(body) > _BODY_BYTES_MAX:
        raise ValueError(f"more than {_BODY_BYTES_MAX} bytes")
    return _load(body), _FRESH_SECONDS[0]


def _load(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read_keys(body: Any) -> list[PublicKey]:
    entries = body.get("keys") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWKS: there is no list of keys")
    keys = []
    for entry in entries[:_KEYS_MAX]:
        try:
            keys.append(PublicKey.from_jwk(entry))
        except (BadInput, AttributeError) as error:
            _log.info("ignoring a key of a JWKS: %s", error)
    if not keys:
        raise ValueError("none of its keys can verify RS256 or ES256")
    return keys


def _max_age(header: str) -> float | None:
    for part in header.split(","):
        name, _equals, value = part.strip().partition("=")
        if name.lower() == "max-age" and value.isdecimal() and len(value) < 12:
            return float(value)
    return None


def _is_url(place: str) -> bool:
    parts = urlsplit(place)
    if parts.scheme == "https" and parts.hostname:
        return True
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return True
    if parts.scheme:
        raise UsageError(f"refusing to read keys from {place}", hint="use https, or a file")
    return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
