"""Tables of typed records in a tree, and the atomic write of several changes to them.

A package defines the tables of its own records; each record is one row `/{table}/{id}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sennit_core.errors import Corrupt, SennitError, UsageError
from sennit_core.hashing import canonical_json, sha256_hex
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn.store import ElkynStore

__all__ = ["SYSTEM_NAMESPACE", "Change", "CheckedTable", "Table", "write_changes"]

SYSTEM_NAMESPACE = "sys"
"""The namespace that only the platform writes."""

CHECKSUM = "checksum"
"""Member of a row that holds the checksum of its other members; see `CheckedTable`."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Change:
    """A record to write, or to remove when it is None, in one write with others.

    `members` are additional members of the row, next to the record's own.
    """

    path: str
    record: Record | None
    members: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any] | None:
        """Return the row to write, None for a removal."""
        if self.record is None:
            return None
        return {**self.record.to_json(), **(self.members or {})}


class Table(Generic[R]):
    """The records of one class below one path, by id.

    Args:
        tree: the store of the records.
        path: the parent path of the records.
        kind: the class of the records; members unknown to it are ignored.
    """

    def __init__(self, tree: ElkynStore, path: str, kind: type[R]) -> None:
        self.path = path
        self._tree = tree
        self._kind = kind

    def get(self, record_id: str) -> R | None:
        """Return a record, None when it does not exist.

        Raises:
            Corrupt: the row is not a valid record.
        """
        row = self._value(self._place(record_id))
        return None if row is None else self._read(record_id, row)

    def ids(self) -> list[str]:
        """Return the ids of the records without reading the records.

        Raises:
            Corrupt: the keys cannot be read.
        """
        with _decoding(self.path):
            return self._tree.keys(self.path)

    def raw(self, record_id: str) -> Any:
        """Return the stored row of an id without validation, to inspect a damaged row.

        Raises:
            Corrupt: the row cannot be decoded.
        """
        return self._value(self._place(record_id))

    def all(self) -> dict[str, R]:
        """Return every record by id, in the order of the ids.

        Raises:
            Corrupt: the row is not a valid record.
        """
        rows = self._value(self.path) or {}
        if not isinstance(rows, Mapping):
            raise Corrupt(
                f"{self.path} of the platform's tree", found="a value that is no map of records"
            )
        return {record_id: self._read(record_id, row) for record_id, row in rows.items()}

    def __contains__(self, record_id: str) -> bool:
        return self._value(self._place(record_id)) is not None

    def put(self, record_id: str, record: R, *, ephemeral: bool = False) -> None:
        """Write or replace a record; `ephemeral` as in `ElkynStore.set`."""
        self._tree.set(self._place(record_id), record.to_json(), ephemeral=ephemeral)

    def remove(self, record_id: str) -> None:
        """Remove a record with all paths below it; no error if it does not exist."""
        self._tree.delete(self._place(record_id))

    def change(self, record_id: str, record: R | None) -> Change:
        """Return a change for `write_changes`; None removes the record with all paths below it."""
        return Change(self._place(record_id)[1:], record)

    def _value(self, path: str) -> Any:
        with _decoding(path):
            return self._tree.get(path)

    def _place(self, record_id: str) -> str:
        # An id is one key: a slash would name a place inside another record.
        if not record_id or "/" in record_id:
            raise UsageError(f"{record_id[:80]!r} is not a valid id for {self.path}")
        return f"{self.path}/{record_id}"

    def _read(self, record_id: str, row: Any) -> R:
        try:
            return self._kind.from_known(row)
        except UsageError as error:
            raise Corrupt(
                f"{self.path}/{record_id} of the platform's tree", found=str(error)
            ) from None


class CheckedTable(Table[R]):
    """A table whose rows have a checksum, so that reading a row detects a flipped bit.

    LMDB has no checksums: a row with a changed letter in a name would read as valid. The checksum
    covers the row's path and all its other members. It is computed from the stored document, not
    from the record, so that a version with more members can read older rows. Rows without a
    checksum are read unchecked: earlier versions wrote none.
    """

    def change(self, record_id: str, record: R | None) -> Change:
        """Return a change for `write_changes`; None removes the record with all paths below it."""
        place = self._place(record_id)
        if record is None:
            return Change(place[1:], None)
        # The path is part of the checksum: a row that is found under another key is damaged.
        return Change(place[1:], record, {CHECKSUM: _checksum(place, record.to_json())})

    def put(self, record_id: str, record: R, *, ephemeral: bool = False) -> None:
        """Write or replace a record; `ephemeral` as in `ElkynStore.set`."""
        row = self.change(record_id, record).to_json()
        self._tree.set(self._place(record_id), row, ephemeral=ephemeral)

    def _read(self, record_id: str, row: Any) -> R:
        if isinstance(row, Mapping) and CHECKSUM in row:
            place = self._place(record_id)
            members = {name: value for name, value in row.items() if name != CHECKSUM}
            try:
                found = _checksum(place, members)
            except UsageError as error:  # a value that no record can hold
                found = str(error)
            if found != row[CHECKSUM]:
                raise Corrupt(
                    f"{place} of the platform's tree",
                    expected=f"checksum {row[CHECKSUM]}",
                    found=found,
                )
        return super()._read(record_id, row)


def write_changes(tree: ElkynStore, *changes: Change, ephemeral: bool = False) -> None:
    """Apply several changes in one write: a reader sees all of them or none.

    Args:
        tree: The store of the records.
        changes: The changes, from `Table.change`.
        ephemeral: As in `ElkynStore.set`.
    """
    documents = {change.path: change.to_json() for change in changes}
    tree.update("/", documents, ephemeral=ephemeral)


def _checksum(place: str, row: Mapping[str, Any]) -> str:
    return sha256_hex(canonical_json([place, _stored_form(row)]))[:32]


def _stored_form(value: Any) -> Any:
    """Return the common form of a written value and of the value that the tree returns for it.

    The tree keeps no nulls and no empty lists or objects, shows a list as an object where it has
    gaps, and writes a whole float as an integer.
    """
    if isinstance(value, (list, tuple)):
        value = {str(index): item for index, item in enumerate(value)}
    if isinstance(value, Mapping):
        members = {str(name): _stored_form(item) for name, item in value.items()}
        return {name: item for name, item in members.items() if item is not None} or None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@contextmanager
def _decoding(path: str) -> Iterator[None]:
    """Convert decoders' errors for damaged bytes, which may be of any class, into `Corrupt`."""
    try:
        yield
    except (SennitError, OSError, MemoryError):
        raise
    except Exception as error:
        what = f"a row that cannot be decoded ({type(error).__name__}: {error})"
        raise Corrupt(f"{path} of the platform's tree", found=what) from error
