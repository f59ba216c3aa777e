"""Export and import of accounts: users, their sessions, admin keys and revocations.

An export is JSON, one row per line. It holds password hashes and hashes of refresh tokens: protect it
like the account store. Private signing keys are not exported; a refresh token gets ID tokens of the
new server.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from types import NoneType
from typing import Any

from elkyn.auth.account_store import AccountStore, AdminKey, Pages, Session, User
from elkyn.auth.claims import check_uid
from sennit_core.errors import BadInput

__all__ = ["Imported", "export_accounts", "import_accounts"]

_BATCH_ROWS = 1000


@dataclass(slots=True)
class Imported:
    """The result of an import.

    Attributes:
        counts: the number of written rows, by kind.
        skipped: one line for each user that was not written, with the reason.
    """

    counts: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _MovedSession(Session):
    """A `Session` with the SHA-256 of its refresh token."""

    # The refresh token itself is not stored, so clients keep theirs: the digest is all that is
    # compared.
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Cutoff:
    """The time of the last revocation of a uid's tokens."""

    uid: str
    seconds: int


_BYTES = {"digest", "secret_sha256"}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, NoneType),
    "int": (int,),
    "bool": (bool,),
    "bytes": (bytes,),
    "tuple[str, ...]": (tuple,),
}


def export_accounts(account_store: AccountStore) -> Iterator[str]:
    """Yield the rows of an account store as lines of JSON, from one snapshot."""
    with account_store.read() as pages:
        for user in pages.users():
            yield _line("user", asdict(user))
        for token_digest, session in pages.sessions():
            yield _line("session", {**asdict(session), "digest": token_digest})
        for key in pages.admin_keys():
            yield _line("key", asdict(key))
        for uid, seconds in pages.cutoffs().items():
            yield _line("cutoff", {"uid": uid, "seconds": seconds})


def import_accounts(account_store: AccountStore, lines: Iterable[str]) -> Imported:
    """Write exported rows; existing rows stay unchanged.

    Args:
        account_store: the store to write to.
        lines: the lines of `export_accounts`; users come before their sessions.

    Raises:
        BadInput: a line is not an exported row; earlier rows may have been written.
    """
    done = Imported()
    batch: list[tuple[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            batch.append(_parse(line, number))
        if len(batch) == _BATCH_ROWS:
            _write(account_store, batch, done)
            batch = []
    _write(account_store, batch, done)
    return done


def _line(kind: str, row: dict[str, Any]) -> str:
    return json.dumps({"kind": kind, **row}, ensure_ascii=False, default=_to_base64)


def _to_base64(value: Any) -> str:
    assert isinstance(value, bytes)
    return b64encode(value).decode("ascii")


def _parse(line: str, number: int) -> tuple[str, Any]:
    try:
        row = json.loads(line)
        kind = row.pop("kind")
        for name in _BYTES & row.keys():
            row[name] = b64decode(row[name], validate=True)
        row.update({name: tuple(value) for name, value in row.items() if isinstance(value, list)})
        record = _checked(_KINDS[kind](**row))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            "the accounts",
            line=number,
            reason=f"not a row of an export ({error!r})",
            hint="create an export with: elkyn user export --data DIR",
        ) from None
    return kind, record


def _checked(record: Any) -> Any:
    """Check that a record's fields have their declared types, and return it."""
    for one in fields(record):
        value = getattr(record, one.name)
        if type(value) not in _TYPES[str(one.type)]:
            raise TypeError(f"{one.name} is {type(value).__name__}")
        if type(value) is tuple and any(type(item) is not str for item in value):
            raise TypeError(f"{one.name} holds a value that is not text")
    if not isinstance(record, AdminKey):
        check_uid(record.uid)
    return record


def _write(account_store: AccountStore, batch: list[tuple[str, Any]], done: Imported) -> None:
    def body(pages: Pages) -> list[tuple[str, str | None]]:
        return [(kind, _PUTS[kind](pages, record)) for kind, record in batch]

    for kind, problem in account_store.write(body):
        if problem is None:
            done.counts[kind] = done.counts.get(kind, 0) + 1
        elif problem:
            done.skipped.append(problem)


def _put_user(pages: Pages, user: User) -> str | None:
    # Never overwritten: an import can be repeated, and the users of this server stay as they are.
    if pages.user(user.uid) is not None:
        return f"user {user.uid}: exists already"
    for kind, name in (("email", user.email), ("phone", user.phone)):
        owner = None if name is None else pages.user_named(kind, name)
        if owner is not None:
            return f"user {user.uid}: {kind} {name} belongs to {owner.uid} here"
    pages.put_user(user)
    return None


def _put_session(pages: Pages, moved: _MovedSession) -> str | None:
    if pages.user(moved.uid) is None or pages.has_session(moved.digest):
        return ""  # its user was skipped and reported, or the session exists already
    members = {name: value for name, value in asdict(moved).items() if name != "digest"}
    pages.put_session_of(moved.digest, Session(**members))
    return None


def _put_key(pages: Pages, key: AdminKey) -> str | None:
    if pages.admin_key(key.id) is not None:
        return ""
    pages.put_admin_key(key)
    return None


def _put_cutoff(pages: Pages, cutoff: _Cutoff) -> str | None:
    if pages.cutoff(cutoff.uid) >= cutoff.seconds:
        return ""
    pages.put_cutoff(cutoff.uid, cutoff.seconds)
    return None


_KINDS: dict[str, Callable[..., Any]] = {
    "user": User,
    "session": _MovedSession,
    "key": AdminKey,
    "cutoff": _Cutoff,
}
_PUTS: dict[str, Callable[[Pages, Any], str | None]] = {
    "user": _put_user,
    "session": _put_session,
    "key": _put_key,
    "cutoff": _put_cutoff,
}
"""Each returns None if it wrote the row, else the reason; an empty reason is not reported."""
