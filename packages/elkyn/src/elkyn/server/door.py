"""Who asks: callers of HTTP requests and of WebSockets, told from their credentials or by a hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import unquote

from elkyn.identity import ADMIN, NOBODY, Identity
from elkyn.server.asgi import client_of
from elkyn.server.grant import Grant
from elkyn.server.request import Request, Response
from elkyn.store import ElkynStore

if TYPE_CHECKING:
    from elkyn.auth.authenticator import Authenticator

__all__ = ["AuthDoor", "Authorize", "Caller", "Door", "HookDoor"]

Scope: TypeAlias = Mapping[str, Any]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

Authorize: TypeAlias = Callable[[Scope, str, str, bool], Identity | None]
"""`authorize(scope, namespace, path, write)` raises `Denied` to refuse; `scope` is ASGI's.

What it returns is who asks: the rules of the namespace decide then. None is full access.
"""

_EXPIRED = "credential is no longer valid"


class Caller(Protocol):
    """One client, for a request or as long as a stream or socket lives."""

    @property
    def identity(self) -> Identity | None:
        """Who it is; None for full access, or when that depends on the path."""
        ...

    def grant(self, store: ElkynStore, namespace: str, path: str, write: bool) -> Grant:
        """Return what it may do at `path`; raises `Denied` when that is nothing."""
        ...

    async def sign_in(self, credential: str, variable: Any, *, nobody: bool) -> Identity | None:
        """Take a credential that came later; see `AuthDoor`."""
        ...

    def sign_out(self) -> None:
        """Forget the credential."""
        ...

    def ended(self, now_ms: int) -> str | None:
        """Say why its credential counts no more; None while it does."""
        ...


class Door(Protocol):
    """Makes callers, and answers those who want to become one."""

    async def respond(self, scope: Scope, request: Request) -> Response | None:
        """Answer a request that is for signing in; None for all others."""
        ...

    def owns(self, raw_path: str) -> bool:
        """Whether `respond` answers this path."""
        ...

    async def vouch(self, scope: Scope, query: Mapping[str, str]) -> None:
        """Refuse what is passed on to a leader with a credential that nobody knows."""
        ...

    def poll(self) -> None:
        """Look for credentials that were revoked elsewhere."""
        ...

    def refused(
        self, caller: Caller, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Note that the rules have refused something to somebody at the address `client`."""
        ...

    async def caller(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> Caller:
        """Return who sends a request; `anonymous` ignores its credentials."""
        ...

    def caller_at_once(self, headers: Headers, query: Mapping[str, str], client: str) -> Caller:
        """Do what `caller` does where it needs no waiting, and no more of the scope.

        Raises:
            BlockingIOError: it does.
        """
        ...


@dataclass(slots=True)
class HookDoor:
    """Asks an embedder's hook about every path; credentials are the embedder's."""

    authorize: Authorize

    async def respond(self, scope: Scope, request: Request) -> Response | None:
        """Leave that to the embedder."""
        return None

    def owns(self, raw_path: str) -> bool:
        """Leave all paths to others."""
        return False

    async def vouch(self, scope: Scope, query: Mapping[str, str]) -> None:
        """Leave that to the leader."""

    def poll(self) -> None:
        """Know of nothing that could be revoked."""

    def refused(
        self, caller: Caller, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Leave that to the hook."""

    async def caller(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> Caller:
        """Return the caller of `scope`."""
        return _Hooked(self.authorize, scope)

    def caller_at_once(self, headers: Headers, query: Mapping[str, str], client: str) -> Caller:
        """Leave it to `caller`: the hook takes whole scopes."""
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

    async def sign_in(self, credential: str, variable: Any, *, nobody: bool) -> Identity | None:
        return None

    def sign_out(self) -> None:
        return None

    def ended(self, now_ms: int) -> str | None:
        return None


@dataclass(slots=True)
class AuthDoor:
    """Asks an authenticator; what it does not know is nobody, and the rules decide.

    Args:
        authenticator: of the server.
        open_without_rules: whether a namespace without rules is open to everybody.
    """

    authenticator: Authenticator
    open_without_rules: bool = False

    async def respond(self, scope: Scope, request: Request) -> Response | None:
        """Answer by the authenticator."""
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
        """Ask the authenticator."""
        return self.authenticator.owns(raw_path)

    async def vouch(self, scope: Scope, query: Mapping[str, str]) -> None:
        """Ask the authenticator."""
        await self.authenticator.check_forwarded_credential(
            scope["headers"], query, client_of(scope)
        )

    def poll(self) -> None:
        """Ask the vault."""
        self.authenticator.revocations.poll()

    def refused(
        self, caller: Caller, client: str, namespace: str, path: str, *, write: bool
    ) -> None:
        """Write it to the audit log."""
        self.authenticator.audit.refused(caller.identity or NOBODY, namespace, path, write, client)

    async def caller(
        self, scope: Scope, query: Mapping[str, str], *, anonymous: bool = False
    ) -> Caller:
        """Return the caller of `scope`; raises `BadToken` for a token that is none."""
        identity = NOBODY
        client = client_of(scope)
        if not anonymous:
            identity = await self.authenticator.identify(scope["headers"], query, client)
        return _SignedIn(self, identity, client)

    def caller_at_once(self, headers: Headers, query: Mapping[str, str], client: str) -> Caller:
        """Return the caller unless keys must be fetched; raises `BadToken` as `caller` does."""
        identity = self.authenticator.identity_at_once(headers, query, client)
        return _SignedIn(self, identity, client)


@dataclass(slots=True)
class _SignedIn:
    door: AuthDoor
    identity: Identity
    client: str
    told: int = -1  # how many revocations there were when the identity was looked up last

    def grant(self, store: ElkynStore, namespace: str, path: str, write: bool) -> Grant:
        return Grant(self.identity, store, self.door.open_without_rules)

    async def sign_in(self, credential: str, variable: Any, *, nobody: bool) -> Identity | None:
        identity = await self.door.authenticator.identify_token(credential, self.client)
        if nobody or variable is not None:
            from elkyn.auth.authenticator import seen_as

            identity = seen_as(identity, None if nobody else dict(variable))
        self.identity = identity
        self.told = -1
        return identity

    def sign_out(self) -> None:
        self.identity = NOBODY

    def ended(self, now_ms: int) -> str | None:
        expires = self.identity.expires_ms
        if expires is not None and now_ms >= expires:
            return _EXPIRED
        revocations = self.door.authenticator.revocations
        told = revocations.notified
        if told == self.told:
            return None
        reason = revocations.reason(self.identity)
        if reason is None:
            self.told = told
        return reason
