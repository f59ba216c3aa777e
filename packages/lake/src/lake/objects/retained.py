"""Objects that are kept although no snapshot references them: pinned ones, and retired ones.

Both are rows of the tree, so they survive a restart:

    /pins/{id}              PinInfo: a reason, and when
    /pinned/{id}-{n}        the pin's objects, a thousand in each row
    /retired/{id}           objects that may go after a time, a thousand in each row

Rows have checksums. While one is damaged it is unknown what it keeps, so nothing is deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable, write_changes
from sennit_core.clock import Clock
from sennit_core.errors import Corrupt, NotFound
from sennit_core.ids import new_id
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["PinInfo", "Retained"]

_ROW_OBJECTS = 1000
"""A row has at most this many ids: 64 KiB."""


@dataclass(frozen=True, slots=True)
class PinInfo(Record):
    """Objects that stay until they are unpinned.

    Args:
        id: Its id.
        reason: Why, in the words of its maker.
        objects: The number of pinned objects.
        created_at: Unix seconds.
    """

    id: str
    reason: str
    objects: int
    created_at: float


@dataclass(frozen=True, slots=True)
class _Pinned(Record):
    pin: str
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Retired(Record):
    not_before: float
    objects: tuple[str, ...]
    is_trash: bool = False


class Retained:
    """The pinned and the retired objects of one lake. Not thread-safe: its owner locks.

    Args:
        tree: The `sys` namespace.
        clock: Stamps ids and times.
    """

    def __init__(self, tree: ElkynStore, clock: Clock) -> None:
        self._tree = tree
        self._clock = clock
        self._pins = CheckedTable(tree, "/pins", PinInfo)
        self._pinned_rows = CheckedTable(tree, "/pinned", _Pinned)
        self._retired_rows = CheckedTable(tree, "/retired", _Retired)
        # How many pins have each object; no entry is 0.
        self._pinned: Counter[str] = Counter()
        # The rows of retired objects, and for each object the latest of its times.
        self._retired: dict[str, _Retired] = {}
        self._until: dict[str, float] = {}
        self.problem: Corrupt | None = None  # why it is unknown what is kept
        self._load()

    def keeps(self, name: str) -> bool:
        """Return whether the object is pinned, or retired and not yet due."""
        return name in self._pinned or self._until.get(name, 0.0) > self._clock.now()

    def pins(self) -> Sequence[PinInfo]:
        """Return all pins, oldest first."""
        return sorted(self._pins.all().values(), key=lambda pin: (pin.created_at, pin.id))

    def pin(self, objects: Iterable[str], reason: str) -> PinInfo:
        """Keep objects until `unpin`; durable when it returns."""
        names = sorted(set(objects))
        pin = PinInfo(new_id(self._clock), reason, len(names), self._clock.now())
        # One write: a pin with a part of its objects would be a promise that is not kept.
        write_changes(
            self._tree,
            self._pins.change(pin.id, pin),
            *(
                self._pinned_rows.change(f"{pin.id}-{index}", _Pinned(pin.id, part))
                for index, part in enumerate(_parts(names))
            ),
        )
        self._pinned.update(names)
        return pin

    def unpin(self, pin_id: str) -> set[str]:
        """Remove a pin; return its objects.

        Raises:
            NotFound: There is no such pin.
        """
        pin = self._pins.get(pin_id) if pin_id and "/" not in pin_id else None
        if pin is None:
            raise NotFound(kind="pin", name=pin_id[:80], suggestion=None)
        rows = {row_id: row for row_id, row in self._pinned_rows.all().items() if row.pin == pin_id}
        write_changes(
            self._tree,
            self._pins.change(pin_id, None),
            *(self._pinned_rows.change(row_id, None) for row_id in rows),
        )
        names = {name for row in rows.values() for name in row.objects}
        self._pinned.subtract(names)
        self._pinned = +self._pinned
        return names

    def retire(self, objects: Iterable[str], not_before: float, *, is_trash: bool = False) -> None:
        """Keep unreferenced objects until a time; durable when it returns.

        Args:
            objects: Their ids.
            not_before: Unix seconds.
            is_trash: Whether a removed dataset has them, which may be restored.
        """
        rows = {
            new_id(self._clock): _Retired(not_before, part, is_trash)
            for part in _parts(sorted(set(objects)))
        }
        write_changes(
            self._tree, *(self._retired_rows.change(row_id, row) for row_id, row in rows.items())
        )
        for row_id, row in rows.items():
            self._note_retired(row_id, row)

    def due(self) -> dict[str, tuple[str, ...]]:
        """Return the rows of retired objects whose time has come; end each with `forget`."""
        now = self._clock.now()
        return {
            row_id: row.objects for row_id, row in self._retired.items() if row.not_before <= now
        }

    def retired_rows(self) -> dict[str, tuple[str, ...]]:
        """Return the rows of all retired objects but those of the trash; as `due`."""
        return {row_id: row.objects for row_id, row in self._retired.items() if not row.is_trash}

    def pins_of(self, objects: Iterable[str]) -> set[str]:
        """Return the ids of the pins that have one of the objects."""
        wanted = set(objects) & self._pinned.keys()
        if not wanted:
            return set()
        rows = self._pinned_rows.all().values()
        return {row.pin for row in rows if not wanted.isdisjoint(row.objects)}

    def forget(self, row_ids: Iterable[str]) -> None:
        """Remove rows of retired objects, after these were deleted."""
        gone = list(row_ids)
        write_changes(self._tree, *(self._retired_rows.change(row_id, None) for row_id in gone))
        for row_id in gone:
            del self._retired[row_id]
        self._until.clear()
        for row in self._retired.values():
            self._extend(row)

    @property
    def retired_objects(self) -> int:
        """The number of objects that wait for their time."""
        return len(self._until)

    def _load(self) -> None:
        try:
            for pinned in self._pinned_rows.all().values():
                self._pinned.update(pinned.objects)
            for row_id, row in self._retired_rows.all().items():
                self._note_retired(row_id, row)
        except Corrupt as problem:
            self.problem = problem

    def _note_retired(self, row_id: str, row: _Retired) -> None:
        self._retired[row_id] = row
        self._extend(row)

    def _extend(self, row: _Retired) -> None:
        for name in row.objects:
            self._until[name] = max(row.not_before, self._until.get(name, 0.0))


def _parts(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(names), _ROW_OBJECTS):
        yield tuple(names[start : start + _ROW_OBJECTS])
