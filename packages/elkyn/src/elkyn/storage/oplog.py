"""The log of a store's durable writes, which replicas, backups and resumed streams read."""

from __future__ import annotations

from elkyn.errors import PositionGone
from elkyn.storage.disk import Disk
from elkyn.storage.log_rows import Entry, LogRows

__all__ = ["Entry", "Oplog"]

_READ_BYTES_MAX = 8 * 1024 * 1024


class Oplog:
    """Reads the log; every durable write adds one entry, in the transaction of the write.

    Putting an entry's `places` into the tree before the entry yields the tree after it. Ephemeral
    writes are not logged. The oldest entries are dropped when the log exceeds the store's
    `oplog_bytes_max` or `oplog_seconds_max`; the newest entry always stays.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    @property
    def first(self) -> int:
        """The position of the oldest retained entry; 0 before the first write."""
        with self._disk.log() as rows:
            return rows.first()

    @property
    def last(self) -> int:
        """The position of the newest entry; 0 before the first write."""
        return self._disk.position

    @property
    def term(self) -> int:
        """The leader term of new entries."""
        return self._disk.terms.term

    def row(self, position: int) -> bytes | None:
        """Return the packed row at `position`; None when it was dropped."""
        with self._disk.log() as rows:
            return rows.row(position)

    def covers(self, after: int) -> bool:
        """Whether the log still holds every entry after position `after`."""
        with self._disk.log() as rows:
            return rows.first() <= after + 1 <= rows.last() + 1

    def read(
        self, after: int, limit: int = 1000, *, bytes_max: int = _READ_BYTES_MAX
    ) -> list[Entry]:
        """Return the entries after position `after` in order; empty when there are none yet.

        Args:
            after: the last position that the caller has.
            limit: the maximum number of entries.
            bytes_max: the maximum size in packed bytes; the first entry is returned at any size.

        Raises:
            PositionGone: entries after `after` were dropped, or the log has not reached `after`.
        """
        with self._disk.log() as rows:
            _refuse_gap(rows, after)
            return rows.read(after, limit, bytes_max)

    def rows(self, after: int, bytes_max: int = _READ_BYTES_MAX) -> list[tuple[int, bytes]]:
        """Return position and packed row of the entries after `after`; otherwise like `read`."""
        found: list[tuple[int, bytes]] = []
        size = 0
        with self._disk.log() as rows:
            _refuse_gap(rows, after)
            for position, row in rows.raw(after):
                found.append((position, row))
                size += len(row)
                if size >= bytes_max:
                    break
        return found


def _refuse_gap(rows: LogRows, after: int) -> None:
    first, last = rows.first(), rows.last()
    if not first <= after + 1 <= last + 1:
        raise PositionGone(after, first, last)
