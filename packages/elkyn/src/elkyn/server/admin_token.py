"""Authorization by one admin token, for an embedded app without an authenticator."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Any

from elkyn.server.auth_backend import Authorize
from elkyn.server.request import parse_query
from sennit_core.errors import Unauthenticated

__all__ = ["Authorize", "read_or_create_token", "require_token", "token_of"]


def require_token(token: str) -> Authorize:
    """Accept clients that send `token` as bearer, or as parameter `auth` or `access_token`."""

    def authorize(scope: Mapping[str, Any], namespace: str, path: str, write: bool) -> None:
        shown = token_of(scope)
        if shown is None or not hmac.compare_digest(shown.encode(), token.encode()):
            action = f"{'writing' if write else 'reading'} {namespace}:{path}"
            raise Unauthenticated(action, "the admin token")

    return authorize


def token_of(scope: Mapping[str, Any]) -> str | None:
    """Return the token that a request carries; None without one."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _space, token = value.decode("latin-1").partition(" ")
            return str(token.strip()) if kind.lower() == "bearer" else None
    query = parse_query(scope.get("query_string", b""))
    return query.get("auth") or query.get("access_token")


def read_or_create_token(file: FilePath) -> str:
    """Return the token in `file`; creates the file with mode 0600 and a new token if it is missing."""
    with suppress(FileExistsError):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w") as stream:
            stream.write(f"elk_{secrets.token_urlsafe(32)}\n")
    return file.read_text().strip()
