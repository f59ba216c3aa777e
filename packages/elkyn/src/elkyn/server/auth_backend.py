"""Authentication of HTTP requests and WebSockets: by credentials, or by an embedder's hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import unquote

from elkyn.auth.authorizer import Authorizer
from elkyn.auth.principal import ADMIN, UNAUTHENTICATED, Principal
from elkyn.server.asgi import client_of
from elkyn.server.request import Request, Response
from elkyn.store import ElkynStore

if TYPE_CHECKING:
    from elkyn.auth.authenticator import Authenticator

__all__ = ["AuthBackend", "AuthenticatorBackend", "Authorize", "ClientAuth", "HookBackend"]

Scope: TypeAlias = Mapping[str, Any]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

Authorize: TypeAlias = Callable[[Scope, str, str, bool], Principal | None]
"""`authorize(scope, namespace, path, write)` raises `Denied` to refuse; `scope` is ASGI's.

A returned `Principal` is checked against the rules of the namespace; None means full access.
"""

_EXPIRED = "credential is no longer valid"


class ClientAuth(Protocol):
    """An authenticated client of a request, stream or socket: who it is, and while it is valid."""

    @property
    def principal(self) -> Principal | None:
        """The client's principal; None for full access, or when the principal depends on the path."""
        ...

    def authorizer(self, store: ElkynStore, namespace: str, path: str, write: bool) -> Authorizer:
        """Return what authorizes the client at `path`; raises `Denied` when it has no access there."""
        ...

    async def sign_in(
        self, token: str, variable: Any, *, unauthenticated: bool
    ) -> Principal | None:
        """Sign in with a credential that a socket sent after it was opened.

        Args:
            token: an ID token or an admin key.
            variable: what an admin wants rules to see as `auth` instead of its own principal.
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
    """Authenticates clients by the credentials they send, and serves the endpoints that sign them in."""

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
        self, client_auth: ClientAuth, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Record that the rules refused a request from the address `client`."""
        ...

    async def authenticate(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> ClientAuth:
        """Authenticate the client of a request; `anonymous` ignores the credential that it has sent."""
        ...

    def authenticate_nowait(
        self, headers: Headers, query: Mapping[str, str], client: str
    ) -> ClientAuth:
        """Return what `authenticate` returns, without waiting and without an ASGI scope.

        Raises:
            BlockingIOError: authentication must wait, or needs the scope; use `authenticate`.
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
        self, client_auth: ClientAuth, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Do nothing: the embedder logs what its hook refuses."""

    async def authenticate(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> ClientAuth:
        """Return the client of `scope`, which the hook checks for each path."""
        return _HookClientAuth(self.authorize, scope)

    def authenticate_nowait(
        self, headers: Headers, query: Mapping[str, str], client: str
    ) -> ClientAuth:
        """Raise `BlockingIOError`: the hook needs the ASGI scope."""
        raise BlockingIOError


@dataclass(slots=True)
class _HookClientAuth:
    authorize: Authorize
    scope: Scope

    @property
    def principal(self) -> Principal | None:
        return None

    def authorizer(self, store: ElkynStore, namespace: str, path: str, write: bool) -> Authorizer:
        principal = self.authorize(self.scope, namespace, path, write)
        # Not `UNRESTRICTED`: the rules say which indexes an admin's queries need.
        return store.admin.authorizer(ADMIN if principal is None else principal)

    async def sign_in(
        self, token: str, variable: Any, *, unauthenticated: bool
    ) -> Principal | None:
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
        self, client_auth: ClientAuth, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Write the refusal to the audit log."""
        self.authenticator.audit.refused(
            client_auth.principal or UNAUTHENTICATED, namespace, path, write, client
        )

    async def authenticate(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> ClientAuth:
        """Authenticate the client of `scope`; raises `BadToken` for an invalid credential."""
        principal = UNAUTHENTICATED
        client = client_of(scope)
        if not anonymous:
            principal = await self.authenticator.authenticate(scope["headers"], query, client)
        return _TokenClientAuth(self, principal, client)

    def authenticate_nowait(
        self, headers: Headers, query: Mapping[str, str], client: str
    ) -> ClientAuth:
        """Authenticate a client unless signing keys must be fetched; raises as `authenticate`."""
        principal = self.authenticator.authenticate_nowait(headers, query, client)
        return _TokenClientAuth(self, principal, client)


@dataclass(slots=True)
class _TokenClientAuth:
    backend: AuthenticatorBackend
    principal: Principal
    client: str
    checked_revocations: int = -1  # count of revocations when `principal` was last checked

    def authorizer(self, store: ElkynStore, namespace: str, path: str, write: bool) -> Authorizer:
        return store.admin.authorizer(
            self.principal, open_without_rules=self.backend.open_without_rules
        )

    async def sign_in(
        self, token: str, variable: Any, *, unauthenticated: bool
    ) -> Principal | None:
        principal = await self.backend.authenticator.authenticate_token(token, self.client)
        if unauthenticated or variable is not None:
            from elkyn.auth.authenticator import seen_as

            principal = seen_as(principal, None if unauthenticated else dict(variable))
        self.principal = principal
        # No count: the new principal has not been checked.
        self.checked_revocations = -1
        return principal

    def sign_out(self) -> None:
        self.principal = UNAUTHENTICATED

    def invalid_reason(self, now_ms: int) -> str | None:
        expires = self.principal.expires_ms
        if expires is not None and now_ms >= expires:
            return _EXPIRED
        revocations = self.backend.authenticator.revocations
        # Read before the check: a revocation in between makes the counts differ again. While they
        # are equal, a stream or socket costs no look at the account store.
        known = revocations.notified
        if known == self.checked_revocations:
            return None
        reason = revocations.reason(self.principal)
        if reason is None:
            self.checked_revocations = known
        return reason
