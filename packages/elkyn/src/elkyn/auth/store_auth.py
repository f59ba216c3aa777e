"""The rules of a store, which it keeps, and the tokens that it accepts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from elkyn.auth.authorizer import UNRESTRICTED, Authorizer
from elkyn.auth.principal import ADMIN, UNAUTHENTICATED, Principal
from elkyn.storage.disk import Disk
from elkyn.storage.writer import Writer
from sennit_core.clock import Clock
from sennit_core.errors import UsageError

if TYPE_CHECKING:
    from elkyn.auth.tokens import TokenSigner, Verifier
    from elkyn.rules import RuleSet

__all__ = ["RULES", "StoreAuth"]

RULES = "rules"
"""The setting of the store that holds the text of the rules."""


class StoreAuth:
    """The rules of a store, and the verification of its clients' tokens.

    The store keeps the text of the rules; it is compiled on first use. Without rules only admins may
    read and write. Until `enable` is called, every client is an admin.
    """

    def __init__(self, disk: Disk, writer: Writer, clock: Clock) -> None:
        self._disk = disk
        self._writer = writer
        self._clock = clock
        # Orders changes of the rules, so that memory and store end with the same ones.
        self._changing = threading.Lock()
        self._lock = threading.Lock()  # the writer acquires it too: never write while holding it
        self._rules: RuleSet | None = None
        # True iff `_rules` is what the store holds; `reload` resets it.
        self._loaded = False
        # Changes, under `_lock`, whenever the stored rules have: rules that were read from a
        # snapshot are installed only if it is as it was before the snapshot.
        self._version = 0
        self._signer: TokenSigner | None = None
        self._verifier: Verifier | None = None
        self.listeners: tuple[Callable[[], object], ...] = ()

    @property
    def rules(self) -> RuleSet | None:
        """The compiled rules of the store; None when none were ever set."""
        while not self._loaded:
            version = self._version
            with self._disk.snapshot() as view:
                source = view.tree.setting(RULES)
            with self._lock:
                if self._version == version and not self._loaded:
                    self._rules = None if source is None else _parse(source.decode())
                    self._loaded = True
        return self._rules

    def set_rules(self, source: str | bytes | Mapping[str, Any]) -> None:
        """Check, store and apply new rules; invalid ones leave the old rules in force."""
        rules = _parse(source)
        with self._changing:
            # Stored first, under `_changing` alone: the writer needs `_lock` to evaluate rules in
            # its transactions.
            self._writer.keep_setting(RULES, rules.source)
            with self._lock:
                self._rules, self._loaded = rules, True
                self._version += 1
        for listener in self.listeners:
            listener()

    def reload(self) -> None:
        """Read the rules from the store again on their next use."""
        with self._lock:
            self._loaded = False
            self._version += 1
        for listener in self.listeners:
            listener()

    @property
    def enabled(self) -> bool:
        """Whether `enable` was called."""
        return self._verifier is not None

    def enable(self, secret: str | bytes) -> None:
        """Enforce the rules from now on, and accept tokens signed with `secret`."""
        from elkyn.auth.tokens import TokenSigner, Verifier

        signer = TokenSigner(secret, self._clock)
        self._verifier, self._signer = Verifier.of_secret(secret, self._clock), signer

    def create_token(
        self, uid: str, claims: Mapping[str, Any], expires_seconds: float | None
    ) -> str:
        """Return a token for `uid` that this store accepts."""
        if self._signer is None:
            raise UsageError(
                "a token needs a secret to sign it with", hint='call enable_auth("secret") first'
            )
        return self._signer.sign(uid, claims, expires_seconds)

    def authenticate(self, token: str | None) -> Principal:
        """Return the principal that `token` proves: an admin while auth is not enabled.

        Raises:
            BadToken: the token is not valid, or no longer.
        """
        if self._verifier is None:
            return ADMIN
        return UNAUTHENTICATED if token is None else self._verifier.verify(token)

    def authorizer(self, principal: Principal, *, open_without_rules: bool = False) -> Authorizer:
        """Return what authorizes `principal` by the rules; see `Authorizer`."""
        return Authorizer(principal, self, open_without_rules, self._clock)

    def authorizer_for_token(self, token: str | None) -> Authorizer:
        """Return what authorizes the principal that `token` proves.

        Raises:
            BadToken: the token is not valid, or no longer.
        """
        principal = self.authenticate(token)
        return UNRESTRICTED if principal is ADMIN else self.authorizer(principal)


def _parse(source: str | bytes | Mapping[str, Any]) -> RuleSet:
    from elkyn.rules import parse_rules

    return parse_rules(source)
