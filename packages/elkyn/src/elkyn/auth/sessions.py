"""Sessions: ID tokens of signed-in users, and refresh tokens for new ones."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elkyn.auth.account_store import AccountStore, Pages, Session, User
from elkyn.auth.errors import AccountError
from elkyn.auth.jws import sign_token
from elkyn.auth.keys import SigningKeys
from elkyn.auth.tokens import ID_TOKEN_SECONDS
from elkyn.auth.users import Users
from sennit_core.clock import Clock

__all__ = ["Sessions", "SignedIn"]

# 48 random bytes in base64url, as `open` makes them.
_REFRESH_TOKEN = re.compile(r"[A-Za-z0-9_-]{64}\Z")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A signed-in user and their tokens."""

    user: User
    id_token: str
    refresh_token: str

    def to_json(self) -> dict[str, Any]:
        """Return the three members that all sign-in responses share."""
        return {
            "idToken": self.id_token,
            "refreshToken": self.refresh_token,
            "expiresIn": str(ID_TOKEN_SECONDS),
        }


class Sessions:
    """Issues tokens; thread-safe.

    Args:
        account_store: stores the sessions of refresh tokens.
        users: the users.
        keys: the signing keys of ID tokens.
        project: the audience of ID tokens, and the suffix of their issuer.
        clock: the time source.
    """

    def __init__(
        self,
        account_store: AccountStore,
        users: Users,
        keys: SigningKeys,
        project: str,
        clock: Clock,
    ) -> None:
        self._account_store = account_store
        self._users = users
        self._keys = keys
        self._project = project
        self._clock = clock

    def open(self, user: User, provider: str, claims: Mapping[str, Any] | None = None) -> SignedIn:
        """Start a session of `user`, who has just signed in.

        Args:
            user: the user.
            provider: the sign-in provider: `password`, `anonymous` or `custom`.
            claims: the claims of the custom token.
        """
        now = self._clock.now()
        # Before `body`, which may run twice and must then write the same session.
        text = secrets.token_urlsafe(48)
        own = json.dumps(dict(claims or {}))

        def body(pages: Pages) -> Session:
            # A user who signs in within the second of a revocation gets the next second: tokens up
            # to the cutoff are revoked.
            signed_in = max(int(now), user.valid_since, pages.cutoff(user.uid))
            session = Session(user.uid, provider, signed_in, int(now * 1000), own)
            pages.put_session(text, session)
            return session

        session = self._account_store.write(body)
        return SignedIn(user, self._id_token(user, session), text)

    def refresh(self, text: str) -> SignedIn:
        """Return a new ID token for a refresh token, which stays the same.

        Raises:
            AccountError: the refresh token is revoked or unknown, or its user is disabled.
        """
        # Never a token of this server. SDKs keep the user signed in on this code, so it must not be
        # the answer for a token that was revoked.
        if not _REFRESH_TOKEN.match(text):
            raise AccountError("INVALID_REFRESH_TOKEN")
        with self._account_store.read() as pages:
            session = pages.session(text)
            user = None if session is None else pages.user(session.uid)
        if session is None:  # issued here and since revoked: this code makes SDKs sign the user out
            raise AccountError("TOKEN_EXPIRED")
        if user is None:
            raise AccountError("USER_NOT_FOUND")
        if user.disabled:
            raise AccountError("USER_DISABLED")
        if session.auth_time < user.valid_since:
            raise AccountError("TOKEN_EXPIRED")
        return SignedIn(user, self._id_token(user, session), text)

    def _id_token(self, user: User, session: Session) -> str:
        now = int(self._clock.now())
        identities: dict[str, list[str]] = {}
        if user.email is not None:
            identities["email"] = [user.email]
        if user.phone is not None:
            identities["phone"] = [user.phone]
        claims: dict[str, Any] = {
            **_own_claims(user, session),
            **_profile(user, session.provider),
            # Issuer, audience and claims as Firebase documents them for its ID tokens.
            "iss": f"https://securetoken.google.com/{self._project}",
            "aud": self._project,
            "auth_time": session.auth_time,
            "user_id": user.uid,
            "sub": user.uid,
            "iat": now,
            "exp": now + ID_TOKEN_SECONDS,
            # With it a single token can be revoked (`Revocations.revoke_token`).
            "jti": secrets.token_urlsafe(9),
            "firebase": {"identities": identities, "sign_in_provider": session.provider},
        }
        return sign_token(claims, self._keys.current())

    def cookie(self, claims: Mapping[str, Any], seconds: int) -> str:
        """Return a session cookie: the claims of an ID token under the issuer of cookies."""
        now = int(self._clock.now())
        issuer = f"https://session.firebase.google.com/{self._project}"
        return sign_token(
            {**claims, "iss": issuer, "iat": now, "exp": now + seconds}, self._keys.current()
        )


def _own_claims(user: User, session: Session) -> dict[str, Any]:
    claims: dict[str, Any] = {**json.loads(user.claims), **json.loads(session.claims)}
    claims.pop("roles", None)  # only the user's own field counts: roles make administrators
    return claims


def _profile(user: User, provider: str) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "name": user.display_name,
        "picture": user.photo_url,
        "email": user.email,
        "email_verified": None if user.email is None else user.email_verified,
        "phone_number": user.phone,
        "provider_id": "anonymous" if provider == "anonymous" else None,
        "roles": dict.fromkeys(user.roles, True) or None,
    }
    return {name: value for name, value in claims.items() if value is not None}
