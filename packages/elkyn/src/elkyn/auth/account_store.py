"""The account store: users, sessions, keys and revocations, in a separate folder.

    users     uid                                the user
    names     "email:" or "phone:" and the name  uid of its user
    sessions  SHA-256 of a refresh token         its user, and the sign-in provider
    of-user   SHA-256 of a uid, session          (an index)
    signing   key id                             the private key of ID tokens
    admins    key id                             a named admin key: SHA-256 of its secret, roles
    cutoffs   uid                                time before which issued tokens are revoked
    codes     SHA-256 of a code                  its purpose, user and expiry
    revoked   token id                           a revoked token, until it expires
    disabled  uid                                a disabled user
    meta      names                              the number of revocations, the secret

Passwords are argon2id hashes; refresh tokens and admin keys are random, so SHA-256 suffices.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import chain, islice
from pathlib import Path as FilePath
from typing import Any, Literal, Self, TypeVar

from elkyn.storage.account_rows import AccountFile, RowSet

__all__ = ["AccountStore", "AdminKey", "Code", "Pages", "Session", "User", "digest"]

T = TypeVar("T")

_DATABASES = (
    *("users", "names", "sessions", "of-user", "signing", "admins"),
    *("codes", "cutoffs", "revoked", "disabled", "meta"),
)
# Of one user. A client that signs in again and again without signing out would otherwise fill the
# store.
SESSIONS_MAX = 200
# Rows that each write looks at to delete expired ones: bounds the cost of a write.
_FORGET_ROWS = 64


@dataclass(frozen=True, slots=True)
class User:
    """One user; times in milliseconds since 1970, `valid_since` in seconds."""

    uid: str
    email: str | None = None
    email_verified: bool = False
    phone: str | None = None
    display_name: str | None = None
    photo_url: str | None = None
    password_hash: str | None = None
    password_ms: int = 0
    custom_auth: bool = False
    roles: tuple[str, ...] = ()
    # JSON text rather than a mapping, so that the record is immutable.
    claims: str = "{}"
    disabled: bool = False
    # Tokens with an earlier `auth_time` are revoked. Seconds, as in the tokens.
    valid_since: int = 0
    created_ms: int = 0
    login_ms: int = 0
    refresh_ms: int = 0

    @property
    def providers(self) -> tuple[str, ...]:
        """The sign-in providers of the user."""
        ways = (("password", self.email and self.password_hash), ("phone", self.phone))
        return tuple(name for name, there in ways if there)

    def names(self) -> set[bytes]:
        """Return the keys of this user's rows in `names`."""
        names = (("email", self.email), ("phone", self.phone))
        return {_name(kind, name) for kind, name in names if name is not None}


@dataclass(frozen=True, slots=True)
class Session:
    """The session of a refresh token; `claims` are those of the custom token, as JSON."""

    uid: str
    provider: str
    auth_time: int
    created_ms: int
    claims: str = "{}"


@dataclass(frozen=True, slots=True)
class AdminKey:
    """A named key of an administrator or a service."""

    id: str
    name: str
    secret_sha256: bytes
    roles: tuple[str, ...]
    created_ms: int
    revoked_ms: int = 0


@dataclass(frozen=True, slots=True)
class Code:
    """The purpose and user of a code that was sent to an email; valid until `ends` (seconds)."""

    purpose: Literal["PASSWORD_RESET", "VERIFY_EMAIL", "VERIFY_AND_CHANGE_EMAIL", "EMAIL_SIGNIN"]
    uid: str
    email: str
    new_email: str | None = None
    ends: int = 0


class Pages:
    """The account store in one transaction; writing methods are only for `AccountStore.write`."""

    __slots__ = ("_rows",)

    def __init__(self, rows: RowSet) -> None:
        self._rows = rows

    def user(self, uid: str) -> User | None:
        """Return a user."""
        row = self._rows.get("users", uid.encode())
        return None if row is None else _from_row(User, row)

    def user_named(self, kind: str, name: str) -> User | None:
        """Return the user with this `email` or `phone`."""
        row = self._rows.get("names", _name(kind, name))
        return None if row is None else self.user(row["uid"])

    def users(self, after: str = "") -> Iterator[User]:
        """Iterate over users by uid."""
        for _key, row in self._rows.scan("users", after=after.encode()):
            yield _from_row(User, row)

    def put_user(self, user: User) -> None:
        """Write a user, and the rows of the user's names."""
        before = self.user(user.uid)
        # Both in one transaction: a name always leads to exactly one user, and a user's old names
        # are free for others at once.
        for name in (before.names() if before else set()) - user.names():
            self._rows.delete("names", name)
        for name in user.names():
            self._rows.put("names", name, {"uid": user.uid})
        # Only on a change: a follower keeps users that its leader disabled in the same database
        # (`put_disabled`).
        if before is None or user.disabled != before.disabled:
            self._put_disabled(user.uid, is_disabled=user.disabled)
        self._rows.put("users", user.uid.encode(), _to_row(user))

    def delete_user(self, user: User) -> None:
        """Remove a user, their names and sessions."""
        # Without this, a refresh token would lead to a user that does not exist.
        self.end_sessions(user.uid)
        self._put_disabled(user.uid, is_disabled=False)
        for name in user.names():
            self._rows.delete("names", name)
        self._rows.delete("users", user.uid.encode())

    def session(self, token: str) -> Session | None:
        """Return the session of a refresh token."""
        row = self._rows.get("sessions", digest(token))
        return None if row is None else _from_row(Session, row)

    def sessions(self) -> Iterator[tuple[bytes, Session]]:
        """Iterate over the SHA-256 of each refresh token, and its session."""
        for key, row in self._rows.scan("sessions"):
            yield key, _from_row(Session, row)

    def has_session(self, key: bytes) -> bool:
        """Whether there is a session whose refresh token has this SHA-256."""
        return self._rows.get("sessions", key) is not None

    def put_session(self, token: str, session: Session) -> None:
        """Write a session; ends the oldest sessions of a user who has too many."""
        self.put_session_of(digest(token), session)

    def put_session_of(self, key: bytes, session: Session) -> None:
        """Write a session by the SHA-256 of its refresh token; see `put_session`."""
        # A digest has a fixed length, so that a prefix of the index belongs to one user only,
        # however long uids are.
        owner = digest(session.uid)
        others = [bytes(row["session"]) for _key, row in self._rows.scan("of-user", prefix=owner)]
        if len(others) >= SESSIONS_MAX:
            self._end_oldest(owner, others)
        self._rows.put("sessions", key, _to_row(session))
        self._rows.put("of-user", owner + key, {"session": key})

    def _end_oldest(self, owner: bytes, keys: list[bytes]) -> None:
        def age(key: bytes) -> int:
            return int((self._rows.get("sessions", key) or {}).get("created_ms", 0))

        # One more than are too many, as another one is about to be written.
        for key in sorted(keys, key=age)[: len(keys) - SESSIONS_MAX + 1]:
            self._end_session(owner, key)

    def end_sessions(self, uid: str) -> None:
        """Revoke all refresh tokens of a user."""
        owner = digest(uid)
        # A list first: rows are deleted while it is walked.
        for _key, row in list(self._rows.scan("of-user", prefix=owner)):
            self._end_session(owner, bytes(row["session"]))

    def _end_session(self, owner: bytes, key: bytes) -> None:
        self._rows.delete("sessions", key)
        self._rows.delete("of-user", owner + key)

    def signing_keys(self) -> list[tuple[str, dict[str, Any]]]:
        """Return id and row (`der`, `created_ms`, `retired_ms`) of each key, oldest first."""
        found = [(key.decode(), row) for key, row in self._rows.scan("signing")]
        # Rows are stored in the order of the keys' ids, which says nothing about age.
        return sorted(found, key=lambda item: int(item[1]["created_ms"]))

    def put_signing_key(self, kid: str, row: dict[str, Any] | None) -> None:
        """Write a signing key; None removes it."""
        if row is None:
            self._rows.delete("signing", kid.encode())
        else:
            self._rows.put("signing", kid.encode(), row)

    def admin_key(self, key_id: str) -> AdminKey | None:
        """Return an admin key, revoked or not."""
        row = self._rows.get("admins", key_id.encode())
        return None if row is None else _from_row(AdminKey, row)

    def admin_keys(self) -> list[AdminKey]:
        """Return all admin keys, revoked ones too."""
        return [_from_row(AdminKey, row) for _key, row in self._rows.scan("admins")]

    def put_admin_key(self, key: AdminKey) -> None:
        """Write an admin key."""
        self._rows.put("admins", key.id.encode(), _to_row(key))

    def cutoff(self, uid: str) -> int:
        """Return when (in seconds) a uid's tokens were last revoked; 0 for never."""
        row = self._rows.get("cutoffs", uid.encode())
        return 0 if row is None else int(row["seconds"])

    def put_cutoff(self, uid: str, seconds: int) -> None:
        """Revoke the tokens of a uid that were issued before."""
        self._rows.put("cutoffs", uid.encode(), {"seconds": seconds})
        self.count_revocation()

    def is_revoked(self, token_id: str) -> bool:
        """Whether this one token was revoked."""
        return self._rows.get("revoked", digest(token_id)) is not None

    def revoke_token(self, token_id: str, until: int, now: int) -> None:
        """Revoke one token that expires at `until`; deletes rows of expired tokens."""
        self._forget("revoked", "until", now)
        self._rows.put("revoked", digest(token_id), {"until": until})
        self.count_revocation()

    def cutoffs(self) -> dict[str, int]:
        """Return when the tokens of each uid were last revoked."""
        return {uid.decode(): int(row["seconds"]) for uid, row in self._rows.scan("cutoffs")}

    def revoked_tokens(self) -> list[tuple[bytes, int]]:
        """Return SHA-256 and expiry of each revoked token."""
        return [(key, int(row["until"])) for key, row in self._rows.scan("revoked")]

    def add_revoked(self, tokens: Iterable[tuple[bytes, int]], now: int) -> None:
        """Revoke tokens by their SHA-256 and expiry, except expired ones."""
        for key, until in tokens:
            # Not counted as revocations: the caller copies those of another store.
            if until > now and self._rows.get("revoked", key) is None:
                self._rows.put("revoked", key, {"until": until})

    def is_disabled(self, uid: str) -> bool:
        """Whether a user is disabled, here or at the leader."""
        return self._rows.get("disabled", uid.encode()) is not None

    def disabled_users(self) -> list[str]:
        """Return the uids of disabled users."""
        return [uid.decode() for uid, _row in self._rows.scan("disabled")]

    def put_disabled(self, uids: Iterable[str]) -> None:
        """Replace the set of disabled users."""
        wanted = set(uids)
        # Only the differences are written.
        for uid in set(self.disabled_users()) ^ wanted:
            self._put_disabled(uid, is_disabled=uid in wanted)

    def _put_disabled(self, uid: str, *, is_disabled: bool) -> None:
        if is_disabled:
            self._rows.put("disabled", uid.encode(), {})
        else:
            self._rows.delete("disabled", uid.encode())

    def code(self, text: str) -> Code | None:
        """Return a code's row, even if the code has expired."""
        row = self._rows.get("codes", digest(text))
        return None if row is None else _from_row(Code, row)

    def put_code(self, text: str, code: Code | None) -> None:
        """Write a code; None removes it."""
        if code is None:
            self._rows.delete("codes", digest(text))
        else:
            self._rows.put("codes", digest(text), _to_row(code))

    def forget_codes(self, now: int) -> None:
        """Delete expired codes."""
        self._forget("codes", "ends", now)

    def _forget(self, database: str, member: str, now: int) -> None:
        """Delete expired rows among a few after a random key: the cost does not grow with the rows."""
        # Keys are digests, so a random start looks at a random sample: expired rows go without a
        # walk over all.
        start = secrets.token_bytes(32)
        # The second scan continues at the first key, as few keys may follow a random start.
        found = chain(self._rows.scan(database, after=start), self._rows.scan(database))
        for key, row in list(islice(found, _FORGET_ROWS)):
            if int(row[member]) < now:
                self._rows.delete(database, key)

    @property
    def revocations(self) -> int:
        """The number of revocations so far."""
        return int((self._rows.get("meta", b"revocations") or {"count": 0})["count"])

    def count_revocation(self) -> None:
        """Count a revocation, for which other processes poll."""
        self._rows.put("meta", b"revocations", {"count": self.revocations + 1})

    def meta(self, name: str) -> dict[str, Any]:
        """Return a row of `meta`."""
        return self._rows.get("meta", name.encode()) or {}

    def put_meta(self, name: str, row: dict[str, Any]) -> None:
        """Write a row of `meta`."""
        self._rows.put("meta", name.encode(), row)


class AccountStore:
    """An open account store; thread-safe.

    Args:
        folder: created 0700 when missing; None keeps it in memory.
    """

    def __init__(self, folder: FilePath | None) -> None:
        self._file = AccountFile(folder, _DATABASES)

    @contextmanager
    def read(self) -> Iterator[Pages]:
        """Read one consistent state for a block."""
        with self._file.read() as rows:
            yield Pages(rows)

    def write(self, body: Callable[[Pages], T]) -> T:
        """Run `body` in a write transaction; it may run twice, and an exception aborts it."""
        return self._file.write(lambda rows: body(Pages(rows)))

    def backup(self, folder: FilePath) -> None:
        """Write a copy that can be opened as an account store; it holds the same secrets.

        Args:
            folder: created when missing; must be empty.
        """
        self._file.copy(folder)

    def close(self) -> None:
        """Close the files."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def digest(text: str) -> bytes:
    """Return SHA-256 of a text."""
    # Any text of a request must have a digest, including one with a lone surrogate, which UTF-8
    # refuses.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _name(kind: str, name: str) -> bytes:
    # The kind is part of the key: an email and a phone number never meet.
    return f"{kind}:{name.lower()}".encode(errors="surrogatepass")


def _to_row(record: Any) -> dict[str, Any]:
    return asdict(record)


def _from_row(kind: type[T], row: dict[str, Any]) -> T:
    # A row of another version may lack fields, which get their defaults, or have further ones,
    # which are ignored.
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(
        **{
            # Rows have no tuples, and records no lists, so that they stay immutable.
            name: tuple(value) if isinstance(value, list) else value
            for name, value in row.items()
            if name in names
        }
    )
