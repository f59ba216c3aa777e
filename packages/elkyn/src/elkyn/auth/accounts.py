"""The Identity Toolkit's methods for apps: sign-up, sign-in, and the user's own account."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elkyn.auth.account_store import User
from elkyn.auth.body import Body
from elkyn.auth.claims import RESERVED, check_custom, check_uid, is_legacy
from elkyn.auth.errors import AccountError, BadToken
from elkyn.auth.failed_logins import client_network
from elkyn.auth.jws import unsigned_token
from elkyn.auth.principal import Principal
from elkyn.auth.revocations import DISABLED
from elkyn.auth.services import AuthServices
from elkyn.auth.sessions import SignedIn
from elkyn.auth.throttle import Throttle
from elkyn.auth.tokens import Verifier
from sennit_core.errors import UsageError

__all__ = ["Accounts", "Call", "user_json"]

_KIND = "identitytoolkit#"
# "REDACTED" in base64: clients see that there is a password, never its hash.
_HIDDEN_HASH = "UkVEQUNURUQ="
# The audience of custom tokens that Firebase's server SDKs sign.
_CUSTOM_AUDIENCE = (
    "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit"
)
_INFO_FIELDS = {"displayName": "display_name", "photoUrl": "photo_url"}
_DELETABLE = {"DISPLAY_NAME": "display_name", "PHOTO_URL": "photo_url", "EMAIL": "email"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its body and parameters, the caller's principal and address."""

    body: Body
    query: Mapping[str, str]
    principal: Principal
    client: str | None = None


class Accounts:
    """Sign-up, sign-in, and the operations of signed-in users; thread-safe.

    Args:
        services: the users.
        tokens: verifies ID tokens.
        custom: verifies custom tokens.
    """

    def __init__(self, services: AuthServices, tokens: Verifier, custom: Verifier) -> None:
        self._users = services.users
        self._sessions = services.sessions
        self._revocations = services.revocations
        self._audit = services.audit
        self._policy = services.policy
        self._clock = services.clock
        self._tokens = tokens
        self._custom = custom
        # Each new account counts as a "failure" of its address; the count halves every hour.
        self._sign_ups = Throttle(self._policy.sign_ups_max or sys.maxsize, 3600, self._clock)

    def sign_up(self, call: Call) -> dict[str, Any]:
        """Create an account, anonymous or with a password, or add a password to the signed-in one."""
        email, password = call.body.text("email"), call.body.text("password")
        # Before all policies: the account exists already.
        if "idToken" in call.body:
            return self._link(call, email, password)
        if "localId" in call.body:
            raise AccountError("UNEXPECTED_PARAMETER", "User ID")
        if email is None and password is None:
            return self._sign_up_anonymous(call)
        if not self._policy.sign_up:
            raise AccountError("OPERATION_NOT_ALLOWED")
        self._admit(call)
        # After the limit was checked, because this hashes a password.
        user = self._users.create(
            email=email if email is not None else _missing("MISSING_EMAIL"),
            password=password if password is not None else _missing("MISSING_PASSWORD"),
            display_name=call.body.text("displayName"),
            **self._login(),
        )
        return self._signed_up(user, "password")

    def _sign_up_anonymous(self, call: Call) -> dict[str, Any]:
        if not self._policy.anonymous:
            raise AccountError("ADMIN_ONLY_OPERATION")
        self._admit(call)
        return self._signed_up(self._users.create(**self._login()), "anonymous")

    def _admit(self, call: Call) -> None:
        """Count a new account against the limit of its client address."""
        # A call without an address is not limited: the embedding program makes it.
        if call.client is None:
            return
        network = client_network(call.client)
        if self._sign_ups.refuses(network):
            text = "Too many accounts from one address. Try again later."
            raise AccountError("TOO_MANY_ATTEMPTS_TRY_LATER", text, status=429)
        self._sign_ups.failed(network)

    def _login(self) -> dict[str, Any]:
        """Return the fields of a user that a sign-in sets."""
        return dict.fromkeys(("login_ms", "refresh_ms"), int(self._clock.now() * 1000))

    def _signed_up(self, user: User, provider: str) -> dict[str, Any]:
        opened = self._sessions.open(user, provider)
        return {**_answer("SignupNewUserResponse", user), **opened.to_json()}

    def _link(self, call: Call, email: str | None, password: str | None) -> dict[str, Any]:
        user, claims = self._of_id_token(call)
        self._need_recent(claims)
        if email is None or password is None:
            raise AccountError("MISSING_PASSWORD" if email else "MISSING_EMAIL")
        user = self._users.update(user.uid, email=email, password=password)
        opened = self._sessions.open(user, "password")
        return {**_answer("SignupNewUserResponse", user), **opened.to_json()}

    def sign_in_with_password(self, call: Call) -> dict[str, Any]:
        """Sign in with email and password."""
        email = call.body.needed("email", "MISSING_EMAIL")
        password = call.body.needed("password", "MISSING_PASSWORD")
        try:
            user = self._users.sign_in(email, password, call.client)
        except AccountError as error:
            # The email is in the log only; the answer does not show whether it has an account, if
            # emails are private.
            self._audit.refused_credential(error.reason, call.client, email)
            raise
        opened = self._sessions.open(user, "password")
        answer = _answer("VerifyPasswordResponse", user)
        return {**answer, "registered": True, **opened.to_json()}

    def sign_in_with_custom_token(self, call: Call) -> dict[str, Any]:
        """Exchange a custom token, signed by a trusted signer, for an ID token."""
        uid, claims = self._custom_claims(call.body.needed("token", "MISSING_CUSTOM_TOKEN"))
        # Only for the answer: if another request creates the user in between, both report a new
        # user.
        is_new = self._users.get(uid) is None
        user = self._users.note_sign_in(uid, custom_auth=True)
        opened = self._sessions.open(user, "custom", claims)
        kind = f"{_KIND}VerifyCustomTokenResponse"
        return {"kind": kind, "isNewUser": is_new, **opened.to_json()}

    def _custom_claims(self, text: str) -> tuple[str, dict[str, Any]]:
        """Return the uid and the claims of a custom token."""
        # For tests: the emulator accepts the claims of a custom token as plain JSON.
        if self._policy.emulator and text.startswith("{"):
            text = unsigned_token(Body.parse(text.encode()).rest())
        try:
            claims, trust = self._custom.verify_claims(text)
        except BadToken as error:
            # A token for another project has a code of its own, which names the likely mistake.
            wrong_place = error.fault in ("issuer", "audience")
            reason = "CREDENTIAL_MISMATCH" if wrong_place else "INVALID_CUSTOM_TOKEN"
            raise AccountError(reason, "" if wrong_place else str(error)) from None
        try:
            uid, own = _custom_parts(claims)
        except UsageError as error:
            raise AccountError("INVALID_CUSTOM_TOKEN", str(error)) from None
        if trust is not None:  # an unsigned token has no reliable time of issue
            revoked = self._revocations.reason(Principal(uid=uid, claims=claims))
            # A disabled user has an error of its own, from `note_sign_in`.
            if revoked not in (None, DISABLED):
                raise AccountError("INVALID_CUSTOM_TOKEN", "It was revoked.")
        return uid, own

    def lookup(self, call: Call) -> dict[str, Any]:
        """Return the user of an ID token."""
        user, _claims = self._of_id_token(call)
        return {"kind": f"{_KIND}GetAccountInfoResponse", "users": [user_json(user)]}

    def update(self, call: Call) -> dict[str, Any]:
        """Update the user's own account; returns new tokens if the change revokes the old ones."""
        user, claims = self._of_id_token(call)
        values = profile_changes(call.body)
        for name in ("email", "password"):
            if name in call.body:
                values[name] = call.body.text(name)
        # What could lock the owner out of the account needs a recent sign-in, not only a token.
        if {"email", "password", "password_hash", "phone"} & values.keys():
            self._need_recent(claims)
        # Only the previous address was verified.
        if "email" in values and values["email"] != user.email:
            values["email_verified"] = False
        user = self._users.update(user.uid, **values)
        answer = update_json(user)
        # A new password ends all sessions (`Users.update`), including that of this request: without
        # new tokens, the user who changed it would be signed out.
        if "password" in values or "email" in values or call.body.flag("returnSecureToken"):
            answer.update(self._reopened(user, claims).to_json())
        return answer

    def _reopened(self, user: User, claims: Mapping[str, Any]) -> SignedIn:
        firebase = claims.get("firebase")
        before = firebase.get("sign_in_provider") if isinstance(firebase, dict) else None
        provider = "password" if "password" in user.providers else str(before or "custom")
        return self._sessions.open(user, provider)

    def delete(self, call: Call) -> dict[str, Any]:
        """Delete the caller's account."""
        user, claims = self._of_id_token(call)
        self._need_recent(claims)
        self._users.delete([user.uid])
        self._audit.acted(Principal(uid=user.uid), "delete account", user.uid, call.client)
        return {"kind": f"{_KIND}DeleteAccountResponse"}

    def create_auth_uri(self, call: Call) -> dict[str, Any]:
        """Return the sign-in methods of an email, unless emails are private."""
        email = call.body.needed("identifier", "MISSING_IDENTIFIER")
        answer: dict[str, Any] = {"kind": f"{_KIND}CreateAuthUriResponse", "sessionId": "none"}
        # The same answer for every email, so that accounts cannot be enumerated.
        if self._users.email_privacy:
            return answer
        user = self._users.named("email", email)
        methods = [] if user is None else [name for name in user.providers if name == "password"]
        registered = user is not None
        return {
            **answer,
            "registered": registered,
            "allProviders": methods,
            "signinMethods": methods,
        }

    def refresh(self, call: Call) -> dict[str, Any]:
        """Exchange a refresh token for a new ID token (the Secure Token service)."""
        if call.body.needed("grant_type", "MISSING_GRANT_TYPE") != "refresh_token":
            raise AccountError("INVALID_GRANT_TYPE")
        opened = self._sessions.refresh(call.body.needed("refresh_token", "MISSING_REFRESH_TOKEN"))
        return {
            "id_token": opened.id_token,
            "access_token": opened.id_token,
            "refresh_token": opened.refresh_token,
            "expires_in": opened.to_json()["expiresIn"],
            "token_type": "Bearer",
            "user_id": opened.user.uid,
        }

    def claims_of(self, text: str) -> tuple[User, dict[str, Any]]:
        """Return the user and claims of an ID token.

        Raises:
            AccountError: the token is invalid, expired or revoked.
        """
        try:
            principal = self._tokens.verify(text)
        except BadToken as error:
            expired = error.fault == "expired"
            raise AccountError("TOKEN_EXPIRED" if expired else "INVALID_ID_TOKEN") from None
        user = None if principal.uid is None else self._users.get(principal.uid)
        if user is None:
            raise AccountError("USER_NOT_FOUND")
        if user.disabled:
            raise AccountError("USER_DISABLED")
        if self._revocations.reason(principal) is not None:
            raise AccountError("TOKEN_EXPIRED")
        return user, dict(principal.claims)

    def _of_id_token(self, call: Call) -> tuple[User, dict[str, Any]]:
        return self.claims_of(call.body.needed("idToken", "INVALID_ID_TOKEN"))

    def _need_recent(self, claims: Mapping[str, Any]) -> None:
        limit = self._policy.recent_seconds
        signed_in = claims.get("auth_time", 0)
        if limit is not None and self._clock.now() - signed_in > limit:
            raise AccountError("CREDENTIAL_TOO_OLD_LOGIN_AGAIN")


def user_json(user: User) -> dict[str, Any]:
    """Return a user in the Identity Toolkit's format."""
    info = [_provider_json(user, provider) for provider in user.providers]
    members: dict[str, Any] = {
        "localId": user.uid,
        "email": user.email,
        "emailVerified": user.email_verified,
        "displayName": user.display_name,
        "photoUrl": user.photo_url,
        "phoneNumber": user.phone,
        "passwordHash": _HIDDEN_HASH if user.password_hash else None,
        "passwordUpdatedAt": user.password_ms or None,
        "providerUserInfo": info or None,
        "validSince": str(user.valid_since),
        "disabled": user.disabled or None,
        "lastLoginAt": str(user.login_ms) if user.login_ms else None,
        "createdAt": str(user.created_ms),
        "customAuth": user.custom_auth or None,
        "customAttributes": user.claims if user.claims != "{}" else None,
        "lastRefreshAt": _iso(user.refresh_ms) if user.refresh_ms else None,
    }
    return {name: value for name, value in members.items() if value is not None}


def update_json(user: User) -> dict[str, Any]:
    """Return the response to an update of a user."""
    shown = user_json(user)
    names = ("localId", "email", "displayName", "photoUrl", "providerUserInfo", "passwordHash")
    members = {name: shown[name] for name in (*names, "emailVerified") if name in shown}
    return {"kind": f"{_KIND}SetAccountInfoResponse", **members}


def profile_changes(body: Body) -> dict[str, Any]:
    """Return the user fields that a body sets or deletes, of those that users may change."""
    values: dict[str, Any] = {
        field: body.text(name) for name, field in _INFO_FIELDS.items() if name in body
    }
    for name in body.texts("deleteAttribute"):
        # Attributes that this server does not have are ignored.
        if name in _DELETABLE:
            values[_DELETABLE[name]] = None
    deleted = body.texts("deleteProvider")
    if "password" in deleted:
        # The email belongs to this provider: without the password there is no sign-in with it.
        values |= {"email": None, "email_verified": False, "password_hash": None, "password_ms": 0}
    if "phone" in deleted:
        values["phone"] = None
    return values


def _custom_parts(claims: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Parse one of three forms of custom token: a service account's, a legacy one, or our own."""
    if is_legacy(claims):
        data = claims["d"]
        return check_uid(data.get("uid")), {k: v for k, v in data.items() if k not in RESERVED}
    # In a service account's token `sub` is the signer, so the user is in `uid`.
    if claims.get("aud") == _CUSTOM_AUDIENCE or "uid" in claims:
        own = claims.get("claims") or {}
        if not isinstance(own, dict):
            raise UsageError("claims must be an object")
        check_custom(own)
        return check_uid(claims.get("uid")), own
    return check_uid(claims.get("sub")), {k: v for k, v in claims.items() if k not in RESERVED}


def _provider_json(user: User, provider: str) -> dict[str, Any]:
    if provider == "phone":
        return {"providerId": "phone", "phoneNumber": user.phone, "rawId": user.phone}
    members = {
        "providerId": provider,
        "email": user.email,
        "federatedId": user.email,
        "rawId": user.email,
        "displayName": user.display_name,
        "photoUrl": user.photo_url,
    }
    return {name: value for name, value in members.items() if value is not None}


def _answer(kind: str, user: User) -> dict[str, Any]:
    members = {"localId": user.uid, "email": user.email, "displayName": user.display_name}
    found = {name: value for name, value in members.items() if value is not None}
    return {"kind": f"{_KIND}{kind}", **found}


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")


def _missing(reason: str) -> str:
    raise AccountError(reason)
