"""Users: sign-up, sign-in, changes and deletion of accounts."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from elkyn.auth.account_store import AccountStore, Pages, User
from elkyn.auth.claims import check_custom, check_uid
from elkyn.auth.errors import AccountError
from elkyn.auth.failed_logins import FailedLogins
from elkyn.auth.keys import KEY_ROLES
from elkyn.auth.passwords import PASSWORD_MAX, PASSWORD_MIN, Passwords
from elkyn.auth.revocations import Revocations, Revoked, revoke_in
from sennit_core.clock import Clock
from sennit_core.errors import UsageError

__all__ = ["Users", "checked_email"]

CLAIMS_CHARACTERS_MAX = 1000
# Deliberately permissive: only a message that arrives proves an address.
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\Z")
# ITU-T E.164: at most 15 digits after the plus sign.
_PHONE = re.compile(r"\+[1-9][0-9]{1,14}\Z")
# 64 before the @, and 255 after it (RFC 5321, section 4.5.3.1).
_EMAIL_BYTES_MAX = 320
_TEXT_MAX = 2048
_UID_CHARACTERS = string.ascii_letters + string.digits
_CHANGEABLE = {field.name for field in fields(User)} - {"uid", "created_ms"}


class Users:
    """The users of an account store; thread-safe. Hashing passwords is slow: use threads.

    Args:
        account_store: stores the users.
        passwords: hashes their passwords.
        revocations: notified when a user's tokens become invalid.
        clock: the time source.
        email_privacy: return the same error for a wrong email and a wrong password.
    """

    def __init__(
        self,
        account_store: AccountStore,
        passwords: Passwords,
        revocations: Revocations,
        clock: Clock,
        *,
        email_privacy: bool = True,
    ) -> None:
        self._account_store = account_store
        self._passwords = passwords
        self._revocations = revocations
        self._clock = clock
        self.email_privacy = email_privacy
        # In memory only: after a restart, counting begins anew.
        self._failures = FailedLogins(clock)

    def get(self, uid: str) -> User | None:
        """Return a user."""
        with self._account_store.read() as pages:
            return pages.user(uid)

    def named(self, kind: str, name: str) -> User | None:
        """Return the user with this `email` or `phone`."""
        with self._account_store.read() as pages:
            return pages.user_named(kind, name)

    def list(self, after: str = "", limit: int = 1000) -> list[User]:
        """Return up to `limit` users sorted by uid, starting after `after`."""
        with self._account_store.read() as pages:
            # A list, as the rows cannot be read after the transaction has ended.
            return [user for user, _count in zip(pages.users(after), range(limit), strict=False)]

    def create(self, uid: str | None = None, **values: Any) -> User:
        """Create a user.

        Args:
            uid: the user's id; a random one when None.
            values: fields of `User`, and `password`; `claims` is a mapping.

        Raises:
            AccountError: the uid, email or phone is in use, or a value is invalid.
        """
        if uid is not None and not _is_uid(uid):
            raise AccountError("INVALID_LOCAL_ID")
        # Outside the transaction: hashing a password would block every other writer.
        checked = self._checked(values)
        # Chosen before `body`, which may run twice and must then write the same user.
        new_uid = uid or "".join(secrets.choice(_UID_CHARACTERS) for _ in range(28))
        now = self._clock.now()

        def body(pages: Pages) -> User:
            if pages.user(new_uid) is not None:
                raise AccountError("DUPLICATE_LOCAL_ID")
            # Tokens of an earlier user of this id stay revoked: `cutoffs` remembers them.
            user = User(uid=new_uid, created_ms=int(now * 1000), valid_since=int(now))
            user = replace(user, **checked)
            _refuse_duplicates(pages, user)
            pages.put_user(user)
            return user

        return self._account_store.write(body)

    def sign_in(self, email: str, password: str, client: str | None = None) -> User:
        """Return the user with this email and password.

        Raises:
            AccountError: email or password are wrong, the user is disabled, or there were too many
                failed logins recently.
        """
        # The form in which emails are stored, so that failures of all spellings count together.
        name = email.lower()
        # Before the password is verified: a refused attempt costs no hash.
        if self._failures.refuses(name, client):
            raise AccountError(
                "TOO_MANY_ATTEMPTS_TRY_LATER", "Too many failures. Try again later.", status=429
            )
        user = self.named("email", email)
        known = None if user is None else user.password_hash
        # As slow for an unknown email as for a wrong password, so that the duration does not show
        # which emails have accounts. The password is cut one character past the maximum: longer
        # ones cannot match.
        if not self._passwords.verify(known, password[: PASSWORD_MAX + 1]):
            self._failures.failed(name, client)
            if self.email_privacy:
                raise AccountError("INVALID_LOGIN_CREDENTIALS")
            raise AccountError("EMAIL_NOT_FOUND" if user is None else "INVALID_PASSWORD")
        assert user is not None
        self._failures.succeeded(name, client)
        # Only after the password was verified: others do not learn that the account is disabled.
        if user.disabled:
            raise AccountError("USER_DISABLED")
        return self._signed_in(user, password)

    def _signed_in(self, user: User, password: str) -> User:
        # A hash can only be renewed while the password is known, which is now.
        outdated = user.password_hash is None or self._passwords.is_outdated(user.password_hash)
        fresh = {"password_hash": self._passwords.hash(password)} if outdated else {}
        return self.note_sign_in(user.uid, **fresh)

    def note_sign_in(self, uid: str, **values: Any) -> User:
        """Record a sign-in of a user; creates the user of a custom token.

        Raises:
            AccountError: the user does not exist, or is disabled.
        """
        now = self._clock.now()
        now_ms = int(now * 1000)

        def body(pages: Pages) -> User:
            user = pages.user(uid)
            # The signers of custom tokens decide which users exist.
            if user is None and values.get("custom_auth"):
                user = User(uid=uid, created_ms=now_ms, valid_since=int(now))
            if user is None:
                raise AccountError("USER_NOT_FOUND")
            if user.disabled:
                raise AccountError("USER_DISABLED")
            user = replace(user, login_ms=now_ms, refresh_ms=now_ms, **values)
            pages.put_user(user)
            return user

        return self._account_store.write(body)

    def update(self, uid: str, **values: Any) -> User:
        """Change a user; see `create`. A new password or a removed role ends the user's sessions.

        The sessions of a disabled user are valid again once the user is enabled.

        Raises:
            AccountError: the user does not exist, or a value is invalid.
        """
        checked = self._checked(values)
        now = int(self._clock.now())

        def body(pages: Pages) -> tuple[User, bool]:
            before = pages.user(uid)
            if before is None:
                raise AccountError("USER_NOT_FOUND")
            user = replace(before, **checked)
            _refuse_duplicates(pages, user)
            pages.put_user(user)
            ends = _ends_sessions(before, user)
            if "valid_since" in checked:
                pages.put_cutoff(uid, user.valid_since)
            elif ends:
                revoke_in(pages, uid, now)
                user = pages.user(uid) or user
            # Enabling is no revocation, but followers hold a copy of who is disabled.
            elif user.disabled or before.disabled:
                pages.count_revocation()  # followers are notified of both
            return user, ends or user.disabled or "valid_since" in checked

        # Subscribers are notified after the commit: one that looks the user up must find the
        # change.
        user, revoked = self._account_store.write(body)
        if revoked:
            self._revocations.notify(Revoked(uid=uid))
        return user

    def delete(self, uids: Sequence[str]) -> int:
        """Delete users and revoke their tokens. Returns the number of deleted users."""
        # As in `revoke_in`: tokens of the current second are revoked too.
        cutoff = int(self._clock.now()) + 1

        def body(pages: Pages) -> list[str]:
            gone = []
            for uid in dict.fromkeys(uids):
                user = pages.user(uid)
                if user is not None:
                    pages.delete_user(user)
                    # Outlives the user, so that old tokens are no credentials of a later user with
                    # this uid.
                    pages.put_cutoff(uid, cutoff)
                    gone.append(uid)
            return gone

        gone = self._account_store.write(body)
        self._revocations.notify(*(Revoked(uid=uid) for uid in gone))
        return len(gone)

    def _checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return checked fields of a user; hashes the password, outside of any transaction."""
        checked = {name: value for name, value in values.items() if name != "password"}
        if checked.get("email") is not None:
            checked["email"] = checked_email(checked["email"])
        if checked.get("phone") is not None and not _PHONE.match(str(checked["phone"])):
            raise AccountError("INVALID_PHONE_NUMBER")
        if "claims" in checked:
            checked["claims"] = _checked_claims(checked["claims"])
        for role in checked.get("roles", ()):
            if role not in KEY_ROLES:
                raise AccountError("INVALID_ROLE", f"the roles are {', '.join(KEY_ROLES)}")
        for name in ("display_name", "photo_url"):
            if len(checked.get(name) or "") > _TEXT_MAX:
                raise AccountError(f"INVALID_{name.upper()}", "The text is too long.")
        # A mistake of the calling code: fields from requests are filtered before.
        unknown = checked.keys() - _CHANGEABLE
        if unknown:
            raise UsageError(f"a user has no field {min(unknown)!r}")
        password = values.get("password")
        return checked if password is None else {**checked, **self.hashed(password)}

    def hashed(self, password: str) -> dict[str, Any]:
        """Return the fields of a user with this password.

        Raises:
            AccountError: the password is too short or too long.
        """
        digest = self._passwords.hash(_checked_password(password))
        return {"password_hash": digest, "password_ms": int(self._clock.now() * 1000)}


def _ends_sessions(before: User, after: User) -> bool:
    lost = set(before.roles) - set(after.roles)
    # A new role may wait for the next ID token; a removed one must not stay in the current ones.
    return before.password_hash != after.password_hash or bool(lost)


def _refuse_duplicates(pages: Pages, user: User) -> None:
    names = (("email", user.email, "EMAIL_EXISTS"), ("phone", user.phone, "PHONE_NUMBER_EXISTS"))
    for kind, name, reason in names:
        owner = None if name is None else pages.user_named(kind, name)
        # In the transaction of the write, so two requests cannot both find the name free.
        if owner is not None and owner.uid != user.uid:
            raise AccountError(reason)


def _is_uid(uid: str) -> bool:
    try:
        check_uid(uid)
    except UsageError:
        return False
    return True


def checked_email(email: str) -> str:
    """Return an email in its stored form: in lower case.

    Raises:
        AccountError: the text is not an email.
    """
    if not _EMAIL.match(email) or not email.isprintable() or len(email.encode()) > _EMAIL_BYTES_MAX:
        raise AccountError("INVALID_EMAIL")
    return email.lower()


def _checked_password(password: str) -> str:
    if len(password) < PASSWORD_MIN:
        text = f"Password should be at least {PASSWORD_MIN} characters"
        raise AccountError("WEAK_PASSWORD", text)
    if len(password) > PASSWORD_MAX:
        text = f"Password may have at most {PASSWORD_MAX} characters"
        raise AccountError("PASSWORD_DOES_NOT_MEET_REQUIREMENTS", text)
    return password


def _checked_claims(claims: Mapping[str, Any]) -> str:
    try:
        # Only the names are checked here; the length limit below is for the values.
        check_custom(dict.fromkeys(claims))
    except UsageError as error:
        raise AccountError("FORBIDDEN_CLAIM", str(error)) from None
    if "roles" in claims:
        raise AccountError("FORBIDDEN_CLAIM", "roles are a field of the user")
    try:
        text = json.dumps(claims, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise AccountError("INVALID_CLAIMS") from None
    if len(text) > CLAIMS_CHARACTERS_MAX:
        raise AccountError("CLAIMS_TOO_LARGE")
    return text
