"""Access control of a node: tokens, the browser's cookie, hosts, origins and roles.

A request passes four checks in this order: the Host header names this node (no DNS rebinding), an
unsafe method or a WebSocket comes from an allowed origin (no CSRF), the token is valid, and its
role is sufficient for the route. A request that fails a check is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Denied, Unauthenticated, UsageError

ROLES = ("reader", "writer", "admin")
"""The roles of users; each includes those before it."""
WORKER = "worker"
"""The role of remote workers, which includes none and is included in none."""
_ADMIN = "admin"
_PORT_MAX = 65535
_ID_DIGITS = 12
SOCKET = "WEBSOCKET"
"""In place of the method, of a request that opens a WebSocket: its role may be another one."""
_TOKEN_PROTOCOL = "sennit-token."
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Rules, replication and the log of a tree are for admins, reading included.
_TREE_ADMIN = ("/.settings", "/.replica")


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated owner of a token.

    Args:
        name: The token's name.
        role: One of `ROLES`, or `WORKER`.
        is_owner: Whether it is the data folder's own admin token, not an issued one.
        token_id: The token's id, as `Tokens.list` shows it; "" of the admin token.
    """

    name: str
    role: str
    is_owner: bool = False
    token_id: str = ""

    def may(self, needed: str) -> bool:
        """Whether this role includes `needed`."""
        if WORKER in (self.role, needed):
            return self.role == needed
        # `ROLES` is ordered. An unknown role raises ValueError: it is never treated as sufficient.
        return ROLES.index(self.role) >= ROLES.index(needed)


class Roles(Protocol):
    """The roles that the routes of the API declare (`sennit.route_roles`)."""

    def is_api(self, path: str) -> bool:
        """Whether `path` belongs to the API."""

    def needed(self, method: str, path: str) -> str:
        """The minimum role of a request; "open" for a public route."""


class TokenTree(Protocol):
    """Methods of the Elkyn store that holds tokens; it is not reachable through any API path."""

    def get(self, path: str) -> Any:
        """The value at `path`, or None."""

    def set(self, path: str, value: Any) -> Any:
        """Replace what is at `path`."""

    def delete(self, path: str) -> Any:
        """Remove what is at `path`."""


class Tokens:
    """The admin token of the data folder, and issued tokens, which are stored as hashes."""

    def __init__(self, admin_token: str, tree: TokenTree, clock: Clock = SYSTEM) -> None:
        self._admin = admin_token
        self._tree = tree
        self._clock = clock

    def principal(self, token: str) -> Principal | None:
        """Return the principal of `token`, or None if the token is unknown."""
        # In constant time. The lookup below needs no such comparison: it is by hash, so its
        # duration shows nothing that helps to find a token.
        if hmac.compare_digest(token.encode(), self._admin.encode()):
            return Principal(_ADMIN, _ADMIN, is_owner=True)
        digest = _digest(token)
        row = self._tree.get(f"/tokens/{digest}")
        if not row or self._is_expired(row):
            return None
        return Principal(str(row["name"]), str(row["role"]), token_id=digest[:_ID_DIGITS])

    def issue(
        self, name: str, role: str, *, owner: str = "", expires_at: float | None = None
    ) -> str:
        """Create a token for `name`; only its hash is stored, so it is shown once.

        Args:
            name: What it is listed as.
            role: One of `ROLES`, or `WORKER`.
            owner: The user for whose tab it is.
            expires_at: Unix time in seconds after which it is not valid; None for never.
        """
        known = (*ROLES, WORKER)
        if role not in known:
            raise UsageError(f"unknown role {role!r}", hint=f"one of: {', '.join(known)}")
        # Datasets that the admin token created are owned by this name.
        if name.strip().casefold() == _ADMIN and role != _ADMIN:
            raise UsageError(f"the name {name!r} is for admins", hint="use another name")
        token = f"snt_{secrets.token_urlsafe(32)}"
        # 32 random bytes cannot be guessed from their hash, so neither a salt nor a slow hash is
        # necessary.
        row: dict[str, Any] = {"name": name, "role": role}
        if owner:
            row["owner"] = owner
        if expires_at is not None:
            self._remove_expired()
            row["expiresAt"] = expires_at
        self._tree.set(f"/tokens/{_digest(token)}", row)
        return token

    def list(self) -> list[dict[str, Any]]:
        """Return every valid token that was issued: id, name and role; a tab's owner and end too."""
        rows = self._tree.get("/tokens") or {}
        return [
            {"id": digest[:_ID_DIGITS], **row}
            for digest, row in sorted(rows.items())
            if not self._is_expired(row)
        ]

    def _is_expired(self, row: Mapping[str, Any]) -> bool:
        expires_at = row.get("expiresAt")
        return expires_at is not None and float(expires_at) <= self._clock.now()

    def _remove_expired(self) -> None:
        for digest, row in (self._tree.get("/tokens") or {}).items():
            if self._is_expired(row):
                self._tree.delete(f"/tokens/{digest}")

    def role_of(self, name: str, role: str) -> str | None:
        """Return the role in which a user may still do what needed `writer`; None if in none.

        Args:
            name: The user's name.
            role: The role that the user had, which is not exceeded; "" if it is not known.
        """
        if name == _ADMIN:
            return _ADMIN
        rows = (self._tree.get("/tokens") or {}).values()
        held = {str(row["role"]) for row in rows if row["name"] == name}
        most = ROLES.index(role) if role in ROLES else len(ROLES) - 1
        writing = [ROLES.index(each) for each in held & set(ROLES[1:])]
        # A stronger token includes the role.
        return ROLES[min(most, max(writing))] if writing and most else None

    def revoke(self, token_id: str) -> tuple[str, ...]:
        """Delete the token with this id; return its id, or nothing if there is none."""
        rows = self._tree.get("/tokens") or {}
        # At least the digits that `list` shows: a shorter text, or none, would revoke many.
        found = [
            digest for digest in rows if len(token_id) >= _ID_DIGITS and digest.startswith(token_id)
        ]
        for digest in found:
            self._tree.delete(f"/tokens/{digest}")
        return tuple(digest[:_ID_DIGITS] for digest in found)


def admin_token(data: Path) -> str:
    """Return the admin token; on first start, create it in a file that only its owner can read."""
    path = data / "admin.token"
    if path.exists():
        return path.read_text(encoding="ascii").strip()
    token = f"snt_{secrets.token_urlsafe(32)}"
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Written under another name and renamed, so that no crash leaves an empty token. The mode is
    # set when the file is created, so it is never readable to others.
    staged = data / f".admin.token.{os.getpid()}"
    descriptor = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    return token


@dataclass(frozen=True, slots=True)
class AccessControl:
    """The four access checks of every request; created once for a node's address."""

    tokens: Tokens
    roles: Roles
    hosts: frozenset[str]
    origins: frozenset[str]
    cookie: str

    @classmethod
    def of(
        cls,
        tokens: Tokens,
        roles: Roles,
        *,
        host: str,
        port: int,
        hosts: Iterable[str],
        origins: Iterable[str],
    ) -> AccessControl:
        """Create the checks: loopback names and the bound host are always accepted, `hosts` too."""
        # Exact names: a suffix match would accept evil-localhost for localhost.
        known = frozenset({"127.0.0.1", "localhost", "[::1]", host, *hosts})
        return cls(tokens, roles, known, frozenset(origins), cookie_name(port))

    def admit(self, method: str, path: str, headers: Mapping[str, str]) -> Principal | None:
        """Return a request's principal, None on public paths; raise Denied or Unauthenticated."""
        self.check_host(headers)
        self.check_origin(method, headers)
        needed = self.role_needed(method, path)
        # Public routes work with any credentials, also outdated ones.
        if needed == "open":
            return None
        principal = self.identify(headers)
        if principal is None:
            # The pages themselves: they explain how to get a token.
            if not self.is_guarded(path):
                return None
            raise Unauthenticated(
                "this needs a token",
                hint="open the URL that `platform up` printed, or send Authorization: Bearer …",
            )
        if not principal.may(needed):
            raise Denied(
                action=f"{method} {path}",
                needed=needed,
                hint=f"your token's role is {principal.role}; ask an admin for a {needed} token",
            )
        return principal

    def is_guarded(self, path: str) -> bool:
        """Whether `path` needs a token; the playground's static files hold no data."""
        return self.roles.is_api(path) or _is_tree(path)

    def role_needed(self, method: str, path: str) -> str:
        """Return the minimum role for a method and path; "open" for a public route."""
        if not _is_tree(path):
            return self.roles.needed(method, path)
        if path.removeprefix("/db").startswith(_TREE_ADMIN):
            return "admin"
        return "reader" if method in (*SAFE_METHODS, SOCKET) else "writer"

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse a request whose Host header does not name this node (DNS rebinding)."""
        name = _host_name(headers.get("host", ""))
        if name not in self.hosts:
            raise Denied(
                action=f"answering for host {name!r}",
                needed="a known host name",
                hint="if the name is yours: platform up --allow-host NAME, or network.allowed_hosts",
            )

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse an unsafe request or a WebSocket from a page of another origin (CSRF)."""
        # A WebSocket begins with a GET, but is not subject to CORS: a page of any origin may open
        # one, and the browser sends the cookie.
        is_socket = method == SOCKET or headers.get("upgrade", "").lower() == "websocket"
        if method in SAFE_METHODS and not is_socket:
            return
        origin = headers.get("origin")
        if origin is None:
            # Probably no browser. A page cannot forge an Authorization header, but it can make
            # the browser send the cookie.
            if "authorization" in headers or self.cookie not in _cookies(headers):
                return
            # Set by the browser; scripts cannot set headers that begin with `Sec-`.
            if headers.get("sec-fetch-site") == "same-origin":
                return
        # The node's own pages, whichever of its names they were loaded under: the name was checked
        # before.
        elif origin in self.origins or urlsplit(origin).netloc == headers.get("host"):
            return
        raise Denied(
            action=f"{method} from origin {origin}",
            needed="an allowed origin",
            hint="add the origin to network.allowed_origins if you trust it",
        )

    def identify(self, headers: Mapping[str, str]) -> Principal | None:
        """Return the principal of the Bearer token or cookie; an invalid Bearer token raises."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else None
        token = token or _socket_token(headers) or _cookies(headers).get(self.cookie)
        if not token:
            return None
        principal = self.tokens.principal(token)
        # Only a token that was sent on purpose is an error. A cookie that is no longer valid is the
        # same as none.
        if principal is None and scheme:
            raise Unauthenticated(
                "this node does not know the token", hint="see <data>/admin.token"
            )
        return principal


def cookie_name(port: int) -> str:
    """Return the name of the session cookie of the node at this port.

    Cookies are not separated by port: two nodes on one machine need different names.
    """
    return f"sennit_{port}"


def is_tree_path(path: str) -> bool:
    """Whether Elkyn serves `path`: its socket, and `/a/b.json` outside the API and the files."""
    if path == "/.ws":
        return True
    # Elkyn's clients address a tree at the root of the host, as they do with Firebase's service.
    return path.endswith(".json") and not path.startswith(("/api/", "/_next/", "/files/"))


def _is_tree(path: str) -> bool:
    return path.startswith("/db/") or is_tree_path(path)


def _socket_token(headers: Mapping[str, str]) -> str | None:
    """Return the token among a WebSocket's subprotocols, where a page can put one.

    Pages cannot set other headers of a WebSocket, and a cookie is that of the page's user.
    """
    offered = headers.get("sec-websocket-protocol", "").split(",")
    tokens = (each.strip() for each in offered)
    return next(
        (t.removeprefix(_TOKEN_PROTOCOL) for t in tokens if t.startswith(_TOKEN_PROTOCOL)), None
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\\\s]*)(?::(?P<port>[0-9]{0,5}))?")


def _host_name(host: str) -> str:
    """Return the name in a Host header; the whole header when it has any other form.

    `127.0.0.1:8600@evil.example` starts with a known name, but a redirect built from it does not
    lead there.
    """
    match = _HOST.fullmatch(host)
    if match is None or int(match["port"] or 0) > _PORT_MAX:
        return host
    return match["name"].lower()


def _cookies(headers: Mapping[str, str]) -> dict[str, str]:
    try:
        return {
            name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()
        }
    except CookieError:
        return {}
