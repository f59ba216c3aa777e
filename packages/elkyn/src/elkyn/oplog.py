"""The log of a store's durable writes, for who follows it: replicas, backups, resumed streams."""

from __future__ import annotations

from elkyn._lmdb.oplog import Entry, LogRows
from elkyn.disk import Disk
from elkyn.errors import PositionGone

__all__ = ["Entry", "Oplog"]

_READ_BYTES_MAX = 8 * 1024 * 1024


class Oplog:
    """Reads the log; every durable write adds one entry, in the transaction of the write.

    The tree before an entry, with its `places` put in, is the tree after it. Ephemeral writes are
    not logged. The oldest entries go when the log passes the store's `oplog_bytes_max` or
    `oplog_seconds_max`; the newest one always stays.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    @property
    def first(self) -> int:
        """The position of the oldest entry that is still there; 0 when nothing was ever written."""
        with self._disk.log() as rows:
            return rows.first()

    @property
    def last(self) -> int:
        """The position of the newest entry; 0 when nothing was ever written."""
        return self._disk.position

    @property
    def term(self) -> int:
        """The term that new entries carry."""
        return self._disk.terms.term

    def row(self, position: int) -> bytes | None:
        """Return the packed row at `position`; None when it is gone."""
        with self._disk.log() as rows:
            return rows.row(position)

    def covers(self, after: int) -> bool:
        """Whether every entry after position `after` is still there."""
        with self._disk.log() as rows:
            return rows.first() <= after + 1 <= rows.last() + 1

    def read(
        self, after: int, limit: int = 1000, *, bytes_max: int = _READ_BYTES_MAX
    ) -> list[Entry]:
        """Return the entries after position `after` in order; empty when there are none yet.

        Args:
            after: the position that is known already.
            limit: how many entries at most.
            bytes_max: stop after so many packed bytes (the first entry comes whatever its size).

        Raises:
            PositionGone: entries after `after` were dropped already, or it was never reached.
        """
        with self._disk.log() as rows:
            _refuse_gap(rows, after)
            return rows.read(after, limit, bytes_max)

    def rows(self, after: int, bytes_max: int = _READ_BYTES_MAX) -> list[tuple[int, bytes]]:
        """Return position and packed row of the entries after `after`; otherwise as `read`."""
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
