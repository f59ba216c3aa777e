"""The account_store: users, sessions, keys and revocations, and nothing of them outside its own folder.

    users     uid                                the user
    names     "email:" or "phone:" and the name  whose it is
    sessions  SHA-256 of a refresh token         whose it is, and how they signed in
    of-user   SHA-256 of a uid, session          (an index)
    signing   key id                             the private key of ID tokens
    admins    key id                             a named admin key: SHA-256 of its secret, roles
    cutoffs   uid                                tokens issued before are no longer good
    codes     SHA-256 of a code                  what it is good for, and until when
    revoked   token id                           one token that is no longer good, until it ends
    disabled  uid                                somebody who may not use their account
    meta      names                              the number of revocations, the secret

Passwords are argon2id hashes; refresh tokens and admin keys are random, so SHA-256 hides them.
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

from elkyn._lmdb.vault import AccountFile, RowSet

__all__ = ["AccountStore", "AdminKey", "Code", "Pages", "Session", "User", "digest"]

T = TypeVar("T")

_DATABASES = (
    *("users", "names", "sessions", "of-user", "signing", "admins"),
    *("codes", "cutoffs", "revoked", "disabled", "meta"),
)
SESSIONS_MAX = 200
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
    claims: str = "{}"
    disabled: bool = False
    valid_since: int = 0
    created_ms: int = 0
    login_ms: int = 0
    refresh_ms: int = 0

    @property
    def providers(self) -> tuple[str, ...]:
        """The ways in which the user can sign in by themselves."""
        ways = (("password", self.email and self.password_hash), ("phone", self.phone))
        return tuple(name for name, there in ways if there)

    def names(self) -> set[bytes]:
        """Return the rows of `names` that are this user's."""
        given = (("email", self.email), ("phone", self.phone))
        return {_name(kind, name) for kind, name in given if name is not None}


@dataclass(frozen=True, slots=True)
class Session:
    """What a refresh token stands for; `claims` are those of the custom token, as JSON."""

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
    """What a code that was sent to an email is good for, until `ends` (in seconds)."""

    purpose: Literal["PASSWORD_RESET", "VERIFY_EMAIL", "VERIFY_AND_CHANGE_EMAIL", "EMAIL_SIGNIN"]
    uid: str
    email: str
    new_email: str | None = None
    ends: int = 0


class Pages:
    """The vault as one transaction sees it; the writing methods are for `AccountStore.write` alone."""

    __slots__ = ("_rows",)

    def __init__(self, rows: RowSet) -> None:
        self._rows = rows

    def user(self, uid: str) -> User | None:
        """Return a user."""
        row = self._rows.get("users", uid.encode())
        return None if row is None else _from_row(User, row)

    def user_named(self, kind: str, name: str) -> User | None:
        """Return the user whose `email` or `phone` this is."""
        row = self._rows.get("names", _name(kind, name))
        return None if row is None else self.user(row["uid"])

    def users(self, after: str = "") -> Iterator[User]:
        """Iterate over users by uid."""
        for _key, row in self._rows.scan("users", after=after.encode()):
            yield _from_row(User, row)

    def put_user(self, user: User) -> None:
        """Write a user, and whose the names are."""
        before = self.user(user.uid)
        for name in (before.names() if before else set()) - user.names():
            self._rows.delete("names", name)
        for name in user.names():
            self._rows.put("names", name, {"uid": user.uid})
        if before is None or user.disabled != before.disabled:
            self._put_disabled(user.uid, is_disabled=user.disabled)
        self._rows.put("users", user.uid.encode(), _to_row(user))

    def delete_user(self, user: User) -> None:
        """Remove a user, their names and sessions."""
        self.end_sessions(user.uid)
        self._put_disabled(user.uid, is_disabled=False)
        for name in user.names():
            self._rows.delete("names", name)
        self._rows.delete("users", user.uid.encode())

    def session(self, token: str) -> Session | None:
        """Return what a refresh token stands for."""
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
        """Write a session; the oldest ones of a user with too many end."""
        self.put_session_of(digest(token), session)

    def put_session_of(self, key: bytes, session: Session) -> None:
        """Write a session of whose refresh token the SHA-256 is known; see `put_session`."""
        owner = digest(session.uid)
        others = [bytes(row["session"]) for _key, row in self._rows.scan("of-user", prefix=owner)]
        if len(others) >= SESSIONS_MAX:
            self._end_oldest(owner, others)
        self._rows.put("sessions", key, _to_row(session))
        self._rows.put("of-user", owner + key, {"session": key})

    def _end_oldest(self, owner: bytes, keys: list[bytes]) -> None:
        def age(key: bytes) -> int:
            return int((self._rows.get("sessions", key) or {}).get("created_ms", 0))

        for key in sorted(keys, key=age)[: len(keys) - SESSIONS_MAX + 1]:
            self._end_session(owner, key)

    def end_sessions(self, uid: str) -> None:
        """Make all refresh tokens of a user worthless."""
        owner = digest(uid)
        for _key, row in list(self._rows.scan("of-user", prefix=owner)):
            self._end_session(owner, bytes(row["session"]))

    def _end_session(self, owner: bytes, key: bytes) -> None:
        self._rows.delete("sessions", key)
        self._rows.delete("of-user", owner + key)

    def signing_keys(self) -> list[tuple[str, dict[str, Any]]]:
        """Return id and row (`der`, `created_ms`, `retired_ms`) of each key, the oldest first."""
        found = [(key.decode(), row) for key, row in self._rows.scan("signing")]
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
        """Return when (in seconds) the tokens of a uid were revoked last; 0 for never."""
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
        """Revoke one token that would be good until `until`; forgets those that have ended."""
        self._forget("revoked", "until", now)
        self._rows.put("revoked", digest(token_id), {"until": until})
        self.count_revocation()

    def cutoffs(self) -> dict[str, int]:
        """Return when the tokens of each uid were revoked last."""
        return {uid.decode(): int(row["seconds"]) for uid, row in self._rows.scan("cutoffs")}

    def revoked_tokens(self) -> list[tuple[bytes, int]]:
        """Return SHA-256 of each token that was revoked, and when it would have ended."""
        return [(key, int(row["until"])) for key, row in self._rows.scan("revoked")]

    def add_revoked(self, tokens: Iterable[tuple[bytes, int]], now: int) -> None:
        """Revoke tokens of which SHA-256 and end are known, as far as they have not ended."""
        for key, until in tokens:
            if until > now and self._rows.get("revoked", key) is None:
                self._rows.put("revoked", key, {"until": until})

    def is_disabled(self, uid: str) -> bool:
        """Whether somebody may not use their account, here or at the leader."""
        return self._rows.get("disabled", uid.encode()) is not None

    def disabled_users(self) -> list[str]:
        """Return who may not use their account."""
        return [uid.decode() for uid, _row in self._rows.scan("disabled")]

    def put_disabled(self, uids: Iterable[str]) -> None:
        """Write down who alone may not use their accounts."""
        wanted = set(uids)
        for uid in set(self.disabled_users()) ^ wanted:
            self._put_disabled(uid, is_disabled=uid in wanted)

    def _put_disabled(self, uid: str, *, is_disabled: bool) -> None:
        if is_disabled:
            self._rows.put("disabled", uid.encode(), {})
        else:
            self._rows.delete("disabled", uid.encode())

    def code(self, text: str) -> Code | None:
        """Return what a code is good for, though it may have ended."""
        row = self._rows.get("codes", digest(text))
        return None if row is None else _from_row(Code, row)

    def put_code(self, text: str, code: Code | None) -> None:
        """Write a code; None removes it."""
        if code is None:
            self._rows.delete("codes", digest(text))
        else:
            self._rows.put("codes", digest(text), _to_row(code))

    def forget_codes(self, now: int) -> None:
        """Remove codes that have ended."""
        self._forget("codes", "ends", now)

    def _forget(self, database: str, member: str, now: int) -> None:
        """Remove rows that have ended, of the few next to a random key: cheap however many."""
        start = secrets.token_bytes(32)
        found = chain(self._rows.scan(database, after=start), self._rows.scan(database))
        for key, row in list(islice(found, _FORGET_ROWS)):
            if int(row[member]) < now:
                self._rows.delete(database, key)

    @property
    def revocations(self) -> int:
        """How often anything was revoked."""
        return int((self._rows.get("meta", b"revocations") or {"count": 0})["count"])

    def count_revocation(self) -> None:
        """Note that something was revoked: other processes look for it."""
        self._rows.put("meta", b"revocations", {"count": self.revocations + 1})

    def meta(self, name: str) -> dict[str, Any]:
        """Return a row of `meta`."""
        return self._rows.get("meta", name.encode()) or {}

    def put_meta(self, name: str, row: dict[str, Any]) -> None:
        """Write a row of `meta`."""
        self._rows.put("meta", name.encode(), row)


class AccountStore:
    """An open vault; safe for threads.

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
        """Run `body` in a write transaction; it may run twice, raising leaves nothing behind."""
        return self._file.write(lambda rows: body(Pages(rows)))

    def backup(self, folder: FilePath) -> None:
        """Write a copy that can be opened as a vault; it holds the same secrets.

        Args:
            folder: made when missing; must be empty.
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
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _name(kind: str, name: str) -> bytes:
    return f"{kind}:{name.lower()}".encode(errors="surrogatepass")


def _to_row(record: Any) -> dict[str, Any]:
    return asdict(record)


def _from_row(kind: type[T], row: dict[str, Any]) -> T:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in row.items()
            if name in names
        }
    )
