"""Addresses that are valid for one attempt, one method and a short time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlencode

from sennit_core.errors import Denied

__all__ = ["SignedPaths"]


class SignedPaths:
    """Signs paths with a key of this process (HMAC-SHA256), so that none outlives it."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def sign(self, method: str, path: str, expires: float) -> str:
        """Return a path with its signature.

        Args:
            method: The only HTTP method that it is valid for.
            path: Without a query.
            expires: Unix time in seconds.
        """
        until = int(expires)
        signature = self._signature(method, path, until)
        return f"{path}?{urlencode({'expires': until, 'signature': signature})}"

    def check(self, method: str, path: str, expires: int, signature: str, now: float) -> None:
        """Check a request.

        Raises:
            Denied: The signature is not ours, or the time is over.
        """
        expected = self._signature(method, path, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise Denied(f"{method} {path}", needed="a signature of this node")
        if now > expires:
            raise Denied(f"{method} {path}", needed="a signature that has not expired")

    def _signature(self, method: str, path: str, expires: int) -> str:
        text = f"{method}\n{path}\n{expires}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()
