"""Authentication of HTTP requests and WebSockets: by credentials, or by an embedder's hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import unquote

from elkyn.auth.identity import ADMIN, UNAUTHENTICATED, Identity
from elkyn.server.asgi import client_of
from elkyn.server.grant import Grant
from elkyn.server.request import Request, Response
from elkyn.store import ElkynStore

if TYPE_CHECKING:
    from elkyn.auth.authenticator import Authenticator

__all__ = ["AuthBackend", "AuthenticatorBackend", "Authorize", "Caller", "HookBackend"]

Scope: TypeAlias = Mapping[str, Any]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

Authorize: TypeAlias = Callable[[Scope, str, str, bool], Identity | None]
"""`authorize(scope, namespace, path, write)` raises `Denied` to refuse; `scope` is ASGI's.

A returned `Identity` is checked against the rules of the namespace; None means full access.
"""

_EXPIRED = "credential is no longer valid"


class Caller(Protocol):
    """An authenticated client: of one request, or of an open stream or socket."""

    @property
    def identity(self) -> Identity | None:
        """The client's identity; None for full access, or when the identity depends on the path."""
        ...

    def grant(self, store: ElkynStore, namespace: str, path: str, write: bool) -> Grant:
        """Return the client's permissions at `path`; raises `Denied` when it has none there."""
        ...

    async def sign_in(
        self, credential: str, variable: Any, *, unauthenticated: bool
    ) -> Identity | None:
        """Sign in with a credential that a socket sent after it was opened.

        Args:
            credential: the token.
            variable: what an admin wants rules to see as `auth` instead of its own identity.
            unauthenticated: whether rules are to see an unauthenticated client.
        """
        ...

    def sign_out(self) -> None:
        """Forget the credential."""
        ...

    def invalid_reason(self, now_ms: int) -> str | None:
        """Return why the credential is no longer valid; None while it is."""
        ...


class AuthBackend(Protocol):
    """Authenticates clients, and serves the endpoints that sign clients in."""

    async def respond(self, scope: Scope, request: Request) -> Response | None:
        """Answer a request to a sign-in endpoint; None for any other request."""
        ...

    def owns(self, raw_path: str) -> bool:
        """Whether `respond` serves this path."""
        ...

    async def check_forwarded_credential(self, scope: Scope, query: Mapping[str, str]) -> None:
        """Refuse a request that is to be forwarded to the leader with an unknown credential."""
        ...

    def poll(self) -> None:
        """Load revocations that another process has made."""
        ...

    def record_refusal(
        self, caller: Caller, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Record that the rules refused a request from the address `client`."""
        ...

    async def caller(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> Caller:
        """Return the client that sent a request; `anonymous` ignores its credentials."""
        ...

    def caller_at_once(self, headers: Headers, query: Mapping[str, str], client: str) -> Caller:
        """Return what `caller` returns, without waiting and without an ASGI scope.

        Raises:
            BlockingIOError: authentication must wait, or needs the scope; use `caller`.
        """
        ...


@dataclass(slots=True)
class HookBackend:
    """Asks an embedder's hook about every path; the embedder checks credentials."""

    authorize: Authorize

    async def respond(self, scope: Scope, request: Request) -> Response | None:
        """Return None: the embedder serves its own sign-in endpoints."""
        return None

    def owns(self, raw_path: str) -> bool:
        """Return False: this backend serves no paths."""
        return False

    async def check_forwarded_credential(self, scope: Scope, query: Mapping[str, str]) -> None:
        """Accept every credential: the leader checks it."""

    def poll(self) -> None:
        """Do nothing: the hook is asked about each request."""

    def record_refusal(
        self, caller: Caller, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Do nothing: the embedder logs what its hook refuses."""

    async def caller(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> Caller:
        """Return the caller of `scope`."""
        return _Hooked(self.authorize, scope)

    def caller_at_once(self, headers: Headers, query: Mapping[str, str], client: str) -> Caller:
        """Raise `BlockingIOError`: the hook needs the ASGI scope."""
        raise BlockingIOError


@dataclass(slots=True)
class _Hooked:
    authorize: Authorize
    scope: Scope

    @property
    def identity(self) -> Identity | None:
        return None

    def grant(self, store: ElkynStore, namespace: str, path: str, write: bool) -> Grant:
        identity = self.authorize(self.scope, namespace, path, write)
        return Grant(ADMIN if identity is None else identity, store)

    async def sign_in(
        self, credential: str, variable: Any, *, unauthenticated: bool
    ) -> Identity | None:
        return None

    def sign_out(self) -> None:
        return None

    def invalid_reason(self, now_ms: int) -> str | None:
        return None


@dataclass(slots=True)
class AuthenticatorBackend:
    """Asks an authenticator; a request without a credential is unauthenticated, and rules decide.

    Args:
        authenticator: checks credentials and serves the sign-in endpoints.
        open_without_rules: whether any client may read and write a namespace without rules.
    """

    authenticator: Authenticator
    open_without_rules: bool = False

    async def respond(self, scope: Scope, request: Request) -> Response | None:
        """Have the authenticator answer the request."""
        from elkyn.auth.endpoints import AuthRequest

        answer = await self.authenticator.respond(
            AuthRequest(
                method=request.method,
                path=unquote(request.raw_path),
                query=request.query,
                headers=request.headers,
                body=request.body,
                client=client_of(scope),
            )
        )
        return Response(answer.status, answer.body, answer.headers)

    def owns(self, raw_path: str) -> bool:
        """Whether the authenticator serves this path."""
        return self.authenticator.owns(raw_path)

    async def check_forwarded_credential(self, scope: Scope, query: Mapping[str, str]) -> None:
        """Refuse a credential that neither this server nor its leader knows."""
        await self.authenticator.check_forwarded_credential(
            scope["headers"], query, client_of(scope)
        )

    def poll(self) -> None:
        """Read new revocations from the account store."""
        self.authenticator.revocations.poll()

    def record_refusal(
        self, caller: Caller, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Write the refusal to the audit log."""
        self.authenticator.audit.refused(
            caller.identity or UNAUTHENTICATED, namespace, path, write, client
        )

    async def caller(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> Caller:
        """Return the caller of `scope`; raises `BadToken` for an invalid token."""
        identity = UNAUTHENTICATED
        client = client_of(scope)
        if not anonymous:
            identity = await self.authenticator.identify(scope["headers"], query, client)
        return _SignedIn(self, identity, client)

    def caller_at_once(self, headers: Headers, query: Mapping[str, str], client: str) -> Caller:
        """Return the caller unless signing keys must be fetched; raises `BadToken` as `caller`."""
        identity = self.authenticator.identity_at_once(headers, query, client)
        return _SignedIn(self, identity, client)


@dataclass(slots=True)
class _SignedIn:
    backend: AuthenticatorBackend
    identity: Identity
    client: str
    checked_revocations: int = -1  # count of revocations when `identity` was last checked

    def grant(self, store: ElkynStore, namespace: str, path: str, write: bool) -> Grant:
        return Grant(self.identity, store, self.backend.open_without_rules)

    async def sign_in(
        self, credential: str, variable: Any, *, unauthenticated: bool
    ) -> Identity | None:
        identity = await self.backend.authenticator.identify_token(credential, self.client)
        if unauthenticated or variable is not None:
            from elkyn.auth.authenticator import seen_as

            identity = seen_as(identity, None if unauthenticated else dict(variable))
        self.identity = identity
        self.checked_revocations = -1
        return identity

    def sign_out(self) -> None:
        self.identity = UNAUTHENTICATED

    def invalid_reason(self, now_ms: int) -> str | None:
        expires = self.identity.expires_ms
        if expires is not None and now_ms >= expires:
            return _EXPIRED
        revocations = self.backend.authenticator.revocations
        known = revocations.notified
        if known == self.checked_revocations:
            return None
        reason = revocations.reason(self.identity)
        if reason is None:
            self.checked_revocations = known
        return reason
