"""Authentication of requests: resolves credentials of all kinds to principals.

A credential is a token of a trusted issuer, an admin key, the admin token, or (in emulator mode) the
word `owner`. Verified tokens are cached for a few minutes. A revocation by this process applies
at once, one by another process within a second.

The path of a credential:

    admin token, configured secret, `owner` -> admin
    admin key of this server                -> its row in the account store
    remembered token                        -> still valid? -> principal
    token                                   -> Verifier -> revoked? -> remembered
      its keys are not loaded               -> KeysMissing(JwksSource): fetch, try again
      unknown, and this server follows      -> KeysMissing(_LeaderCheck): ask the leader, try again

`_resolve` never waits: its caller decides where a `KeysMissing` is refreshed, on a thread of a pool
(`authenticate_token`) or on its own (`authenticate_token_sync`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Self, TypeVar

from elkyn.auth.account_store import AccountStore, AdminKey
from elkyn.auth.audit import Audit
from elkyn.auth.claims import check_uid
from elkyn.auth.codes import Codes
from elkyn.auth.endpoints import AuthRequest, AuthResponse, Endpoints
from elkyn.auth.errors import BadToken
from elkyn.auth.jwks import KeysMissing
from elkyn.auth.jws import Key, SecretKey
from elkyn.auth.keys import AdminKeys, SigningKeys, is_admin_key, server_secret
from elkyn.auth.leader_credentials import Ask, LeaderCredentialCache
from elkyn.auth.leader_trust import LeaderTrust, state_for_followers
from elkyn.auth.passwords import BoundedPool, Passwords
from elkyn.auth.principal import ADMIN, UNAUTHENTICATED, Principal
from elkyn.auth.revocations import KEY_CLAIM, Revocations
from elkyn.auth.services import AuthServices, Policy
from elkyn.auth.sessions import Sessions
from elkyn.auth.settings import AuthSettings
from elkyn.auth.tokens import TokenSigner, Trust, Verifier
from elkyn.auth.users import Users
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Busy, Denied, UsageError

__all__ = ["AuthSettings", "Authenticator", "seen_as"]

T = TypeVar("T")

_CACHED_MAX = 4096
# A verified signature stays verified; this bounds how long a key that is no longer trusted counts.
_CACHED_SECONDS = 300.0
# How long the result is used without looking into the account store, while no revocation was
# notified.
_TRUSTED_SECONDS = 1.0
# Bounds how often one credential is tried again after a fetch.
_FETCHES_MAX = 3
# Everything that may hash a password has threads of its own, so that hashing does not hold up the
# rest.
_HASH_WORKERS = 2
_WAITING_MAX = 64
_REQUESTS_MAX = 512
_LEADER_CHECKS_MAX = 256
# Faults of a token whose signature was verified here: its issuer is known, so the leader is not
# asked.
_VERIFIABLE = ("expired", "early", "revoked")


@dataclass(frozen=True, slots=True)
class _CachedPrincipal:
    """A verified token, its expiry, and how long the cached result is used."""

    principal: Principal
    verified_until: float
    checked_until: float = 0.0
    notified: int = 0


@dataclass(slots=True)
class _LeaderCheck:
    """A credential that only the leader can verify."""

    auth: Authenticator
    text: str
    digest: bytes
    client: str | None
    name: str = "the leader"

    def refresh(self) -> None:
        self.auth.ask_leader_about(self.text, self.digest, self.client)


class Authenticator:
    """Identifies callers, and handles sign-in requests; thread-safe.

    Args:
        settings: the trusted issuers and secrets.
        folder: the folder of the account store; None keeps it in memory.
        clock: the time source.

    Raises:
        UsageError: an issuer is invalid, or has the name of this server's own issuer.
    """

    def __init__(
        self, settings: AuthSettings, folder: FilePath | None = None, clock: Clock = SYSTEM
    ) -> None:
        self.settings = settings
        self._clock = clock
        if any(issuer.issuer == settings.issuer for issuer in settings.issuers):
            raise UsageError(
                f"{settings.issuer} is the issuer of this server's own ID tokens",
                hint="choose another project for this server",
            )
        issuers = [issuer.trust(clock) for issuer in settings.issuers]
        signers = [issuer.trust(clock) for issuer in settings.signers]
        self.account_store = AccountStore(folder)
        self.audit = Audit(clock)
        self.admin_keys = AdminKeys(self.account_store, clock)
        self.signing = SigningKeys(self.account_store, clock)
        self.revocations = Revocations(
            self.account_store, settings.issuer, clock, members_only=not settings.emulator
        )
        privacy = (
            not settings.emulator if settings.email_privacy is None else settings.email_privacy
        )
        self.users = Users(
            self.account_store, Passwords(), self.revocations, clock, email_privacy=privacy
        )
        self.sessions = Sessions(
            self.account_store, self.users, self.signing, settings.project, clock
        )
        self.leader = LeaderTrust(self.account_store, self.revocations, clock)
        own = _own_trust(settings, self.signing)
        secrets = self._secret_trusts()
        self._trusts = [own, *secrets, *issuers]
        # Replaced as a whole when the leader's keys change (`follow`), so that readers need no
        # lock.
        self._verifier = self._verifier_of([*self._trusts, *self.leader.trusts()])
        self._endpoints = Endpoints(
            self,
            self._services(),
            tokens=self._verifier_of([own]),
            custom=self._verifier_of([*secrets, *signers]),
        )
        # None on a server that follows no leader.
        self._leader_credentials: LeaderCredentialCache | None = None
        # By SHA-256 of the token, the one used last at the end; guarded by `_cache_lock`.
        self._cache: OrderedDict[bytes, _CachedPrincipal] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._hashing = BoundedPool("elkyn-password", _HASH_WORKERS, _WAITING_MAX)
        self._handling = BoundedPool("elkyn-auth", _HASH_WORKERS, _REQUESTS_MAX)
        self._fetching = BoundedPool("elkyn-jwks", 2, _WAITING_MAX)
        self._leader_checks = BoundedPool("elkyn-leader", 4, _LEADER_CHECKS_MAX)

    def _services(self) -> AuthServices:
        settings = self.settings
        policy = Policy(
            emulator=settings.emulator,
            sign_up=settings.sign_up,
            anonymous=settings.anonymous,
            recent_seconds=settings.recent_seconds,
            sign_ups_max=None if settings.emulator else settings.sign_ups_max,
        )
        codes = Codes(
            self.account_store,
            self._clock,
            settings.action_url,
            settings.deliver,
            keep=settings.emulator,
        )
        return AuthServices(
            self.users, self.sessions, self.revocations, codes, self.audit, policy, self._clock
        )

    def sign(self, uid: str, claims: Mapping[str, Any], expires_seconds: float | None) -> str:
        """Return a token for `uid`, as `TokenSigner.sign`; earlier revocations do not affect it."""
        check_uid(uid)
        with self.account_store.read() as pages:
            cutoff = pages.cutoff(uid)
        signer = TokenSigner(server_secret(self.account_store), self._clock)
        return signer.sign(uid, claims, expires_seconds, signed_in=cutoff)

    def state_for_followers(self, known_tag: str) -> bytes | None:
        """Return the state that followers need to verify ID tokens; see `elkyn.auth.leader_trust`."""
        return state_for_followers(
            self.account_store, self.signing, self.settings, self.admin_secrets_tag, known_tag
        )

    @property
    def admin_secrets_tag(self) -> str:
        """Return a tag of the unnamed admin credentials, which changes with them."""
        secrets = repr([self.settings.admin_token, self.settings.secret]).encode()
        return hmac.new(server_secret(self.account_store), secrets, hashlib.sha256).hexdigest()[:24]

    def ask_leader(self, ask: Ask) -> None:
        """Forward credentials that are unknown here to a leader from now on."""
        self._leader_credentials = LeaderCredentialCache(ask, self._clock)

    def follow(self, packed: bytes) -> None:
        """Accept ID tokens of a leader, with the state that its `state_for_followers` returned.

        Raises:
            BadInput: the state is malformed.
        """
        self.leader.apply(packed)
        self._verifier = self._verifier_of([*self._trusts, *self.leader.trusts()])

    def _verifier_of(self, trusts: Sequence[Trust]) -> Verifier:
        return Verifier(trusts, unsigned=self.settings.emulator, clock=self._clock)

    def _secret_trusts(self) -> list[Trust]:
        found: list[Key] = []

        def of_server(_kid: str | None, _algorithm: str) -> Sequence[Key]:
            if not found:
                found.append(SecretKey(server_secret(self.account_store)))
            return found

        trusts = [Trust(of_server, frozenset({"HS256"}))]
        if self.settings.secret is not None:
            trusts.append(Trust.of_secret(self.settings.secret))
        return trusts

    def authenticate_sync(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        query: Mapping[str, str],
        client: str | None = None,
    ) -> Principal:
        """Return the principal of the caller: `UNAUTHENTICATED` for a request without a credential.

        Args:
            headers: ASGI's, names in lower case.
            query: the URL's query parameters.
            client: the client's address, for the audit log.

        Raises:
            BadToken: the credential is invalid (401).
            Denied: a caller who is not an admin uses `auth_variable_override`.
            UsageError: `auth_variable_override` is not JSON.
        """
        return self._overridden(self._of_credential(_credential(headers, query), client), query)

    async def authenticate(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        query: Mapping[str, str],
        client: str | None = None,
    ) -> Principal:
        """Do what `authenticate_sync` does without blocking the event loop."""
        credential = _credential(headers, query)
        if credential is None:
            return self._overridden(UNAUTHENTICATED, query)
        return self._overridden(await self.authenticate_token(credential, client), query)

    def authenticate_nowait(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        query: Mapping[str, str],
        client: str | None = None,
    ) -> Principal:
        """Do what `authenticate_sync` does, using only keys and results that are already loaded.

        Raises:
            BlockingIOError: keys must be fetched first.
        """
        credential = _credential(headers, query)
        try:
            principal = UNAUTHENTICATED if credential is None else self._resolve(credential, client)
        except KeysMissing:
            raise BlockingIOError from None
        return self._overridden(principal, query) if query else principal

    def authenticate_token_sync(self, credential: str, client: str | None = None) -> Principal:
        """Return the principal of a credential; fetches an issuer's keys if necessary.

        Raises:
            BadToken: the credential is invalid.
            Unavailable: the issuer's keys cannot be fetched, and no earlier ones are cached.
        """
        for _ in range(_FETCHES_MAX):
            try:
                return self._resolve(credential, client)
            except KeysMissing as missing:
                missing.source.refresh()
        raise BadToken(fault="signature")

    async def authenticate_token(self, credential: str, client: str | None = None) -> Principal:
        """Do what `authenticate_token_sync` does without blocking the event loop."""
        for _ in range(_FETCHES_MAX):
            try:
                return self._resolve(credential, client)
            except KeysMissing as missing:
                asks = isinstance(missing.source, _LeaderCheck)
                lane = self._leader_checks if asks else self._fetching
                await lane.run(missing.source.refresh)
        raise BadToken(fault="signature")

    async def check_forwarded_credential(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        query: Mapping[str, str],
        client: str | None = None,
    ) -> None:
        """Refuse a credential that is unknown here and to the leader; an expired one passes.

        Raises:
            BadToken: the credential is unknown.
        """
        credential = _credential(headers, query)
        if credential is not None:
            try:
                await self.authenticate_token(credential, client)
            except BadToken as error:
                if error.fault not in _VERIFIABLE:
                    raise

    def _of_credential(self, credential: str | None, client: str | None) -> Principal:
        return (
            UNAUTHENTICATED
            if credential is None
            else self.authenticate_token_sync(credential, client)
        )

    def _resolve(self, credential: str, client: str | None) -> Principal:
        try:
            if self._is_admin_secret(credential):
                return ADMIN
            key = self.admin_keys.verify(credential) if is_admin_key(credential) else None
            return self._of_token(credential, client) if key is None else _key_principal(key)
        except BadToken as error:
            self.audit.refused_credential(error.fault, client)
            raise

    def _is_admin_secret(self, credential: str) -> bool:
        """Whether this is the admin token, a configured secret, or the emulator's `owner`."""
        given = credential.encode(errors="surrogatepass")
        secrets = (self.settings.admin_token, self.settings.secret)
        found = self.settings.emulator and credential == "owner"
        for secret in secrets:
            # No early return, and a comparison in constant time: the duration does not show which
            # one was nearly right.
            found |= bool(secret) and hmac.compare_digest(given, str(secret).encode())
        return found

    def _of_token(self, text: str, client: str | None) -> Principal:
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
        # Read before the revocations are looked up: one that comes in between changes the counter,
        # and the next request looks again.
        now, notified = self._clock.monotonic(), self.revocations.notified
        with self._cache_lock:
            known = self._cache.get(digest)
        if known is not None and now < known.checked_until and notified == known.notified:
            return known.principal
        if known is None or now >= known.verified_until:
            known = _CachedPrincipal(self._verify(text, digest, client), now + _CACHED_SECONDS)
        self._check_revoked(known.principal)
        self._remember(
            digest, replace(known, checked_until=now + _TRUSTED_SECONDS, notified=notified)
        )
        return known.principal

    def _verify(self, text: str, digest: bytes, client: str | None) -> Principal:
        leader = self._leader_credentials
        try:
            # Not among the valid keys of this server: only a leader may know it.
            if is_admin_key(text):
                raise BadToken(fault="malformed" if leader is not None else "revoked")
            return self._verifier.verify(text)
        except BadToken as error:
            unknown = error.fault not in _VERIFIABLE
            if leader is None or not unknown or not leader.may_accept(text, digest):
                raise
        raise KeysMissing(_LeaderCheck(self, text, digest, client))

    def ask_leader_about(self, text: str, digest: bytes, client: str | None) -> None:
        """Ask the leader for the principal of a credential that is unknown here, and cache it.

        Raises:
            Unavailable: the leader does not answer.
            Busy: too many credentials were sent that the leader refused.
        """
        assert self._leader_credentials is not None
        now = self._clock.monotonic()
        with self._cache_lock:
            known = self._cache.get(digest)
        if (
            known is not None and now < known.verified_until
        ) or not self._leader_credentials.may_accept(text, digest):
            return  # another thread has asked meanwhile
        principal = self._leader_credentials.authenticate(text, digest, client or "")
        if principal is not None:
            # Without `checked_until`: the next `_of_token` looks at the revocations first.
            self._remember(digest, _CachedPrincipal(principal, now + _CACHED_SECONDS))

    def _check_revoked(self, principal: Principal) -> None:
        if self.revocations.reason(principal) is None:
            return
        expired = (
            principal.expires_ms is not None and self._clock.now() * 1000 > principal.expires_ms
        )
        raise BadToken(fault="expired" if expired else "revoked")

    def _remember(self, digest: bytes, known: _CachedPrincipal) -> None:
        with self._cache_lock:
            self._cache[digest] = known
            self._cache.move_to_end(digest)
            while len(self._cache) > _CACHED_MAX:
                self._cache.popitem(last=False)

    def _overridden(self, principal: Principal, query: Mapping[str, str]) -> Principal:
        text = query.get("auth_variable_override")
        return principal if text is None else seen_as(principal, _parse_override(text))

    def owns(self, path: str) -> bool:
        """Whether `respond` handles this path."""
        return self._endpoints.owns(path)

    async def respond(self, request: AuthRequest) -> AuthResponse:
        """Handle a request to a path that `owns` accepts; 429 when too many requests wait."""
        # Two bounded pools; past their queues requests are answered with 429 instead of waiting
        # without end.
        lane = self._hashing if self._endpoints.is_costly(request.path) else self._handling
        try:
            return await lane.run(self.answer, request)
        except Busy as error:
            return self._endpoints.busy(request, str(error))

    def answer(self, request: AuthRequest) -> AuthResponse:
        """Handle a request on this thread, which may last as long as hashing a password."""
        return with_keys(lambda: self._endpoints.answer(request))

    def close(self) -> None:
        """Let running requests finish, and close the account store."""
        self._hashing.close()
        self._handling.close()
        self._fetching.close()
        self._leader_checks.close()
        self.account_store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def with_keys(work: Callable[[], T]) -> T:
    """Call `work` again after fetching each issuer's keys that it lacks."""
    for _ in range(_FETCHES_MAX):
        try:
            return work()
        except KeysMissing as missing:
            missing.source.refresh()
    raise BadToken(fault="signature")


def seen_as(admin: Principal, variable: Mapping[str, Any] | None) -> Principal:
    """Return the principal of an admin acting as another user; it expires with the admin's key.

    Args:
        admin: the acting admin.
        variable: the value of `auth` in rules; None for an unauthenticated caller.

    Raises:
        Denied: `admin` is not an admin.
    """
    if not admin.admin:
        raise Denied("acting as another user", "an admin's credential")
    if variable is None:
        return replace(UNAUTHENTICATED, claims=admin.claims, expires_ms=admin.expires_ms)
    uid = variable.get("uid")
    return Principal(
        uid=uid if isinstance(uid, str) else None,
        claims=admin.claims,
        expires_ms=admin.expires_ms,
        override=variable,
    )


def _parse_override(text: str) -> dict[str, Any] | None:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if value is not None and not isinstance(value, dict):
        raise UsageError("auth_variable_override must be a JSON object or null")
    return value


def _own_trust(settings: AuthSettings, signing: SigningKeys) -> Trust:
    return Trust(
        find=signing.find,
        algorithms=frozenset({"RS256"}),
        issuer=settings.issuer,
        audience=frozenset({settings.project}),
        roles=True,
    )


def _key_principal(key: AdminKey) -> Principal:
    claims = {KEY_CLAIM: key.id, "roles": dict.fromkeys(key.roles, True), "iat": 0}
    return Principal(
        uid=f"key:{key.name}", provider="key", claims=claims, admin="admin" in key.roles
    )


def _credential(headers: Iterable[tuple[bytes, bytes]], query: Mapping[str, str]) -> str | None:
    for name, value in headers:
        if name == b"authorization":
            kind, _space, text = value.decode("latin-1").partition(" ")
            if kind.lower() == "bearer" and text.strip():
                return text.strip()
    return query.get("auth") or query.get("access_token") or None
