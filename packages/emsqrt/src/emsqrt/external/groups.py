"""Any number of groups, sorted by key: a hash table, sorted partial runs, one merge of the runs.

1. Rows are added to the states of their groups in a hash table.
2. A full table is sorted by key and spilled as a run of (key, packed states).
3. At the end the runs are merged, and the states of equal keys are combined.

Hash partitions instead of sorted runs would write the same bytes, but in no order (design/0038).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from emsqrt._kernel import AggTable, StateCombiner
from emsqrt.external.aggregate_state import BYTES, TEXT, AggregateState, KeyColumn, StateOp
from emsqrt.external.runs import Runs, RunStats
from emsqrt.long_row import LongRow
from sennit_core.errors import CapTooSmall, Closed

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt._kernel import Columns
    from emsqrt.external.journal import Journal
    from emsqrt.spill import SpillManager

TABLE_BYTES_MIN = 64 << 10
RESERVE_BYTES_MIN = 48 << 10
RESERVE_BYTES_MAX = 512 << 10
GROUPS_BYTES_MIN = TABLE_BYTES_MIN + RESERVE_BYTES_MIN
_LONGEST_SHARE = 12  # a row may have 1 / 12 of the reserve: its states are merged and packed there
_FEW = 250
_KEY_BYTES, _STATE_BYTES = 32, 96  # the most of each key and each state beyond these, without texts
_LONG_SHARE = 2  # the reserve gets 1 / 2 of the memory once a row is longer than that
_SHARE_OF_KEYS, _SHARE_OF_TEXTS = 6, 8
"""Shares of the reserve in which a row is merged if only keys, or also texts, are long."""
_TABLE_ROWS, _TABLE_ROWS_OF_BOTH = 5, 7
"""A table for one long row: a quarter to read its key, three rows and a block to merge."""
_SKETCHES = (StateOp.SKETCH, StateOp.SKETCH_MERGE)
_TEXTS = (TEXT, BYTES)
_HELD = (StateOp.MIN, StateOp.MAX, StateOp.FIRST, StateOp.LAST)


class Groups:
    """Adds rows to the states of their groups and returns the groups in the order of their keys.

    A full table is sorted and spilled as a run of partial states. At the end the runs are merged,
    and states of equal keys are combined exactly. Nothing is spilled if all groups fit.
    The memory is divided into the table and a reserve, in which rows are packed and merged. The
    reserve gets half of the memory once there is a long row, and all but what the table needs if
    half is too little for the row.

    Args:
        memory: the memory for everything; `groups_bytes_min`, or `long_groups_bytes` for long rows.
        spill: the spill manager for runs.
        keys: the columns that rows are grouped by.
        parts: the states of each group.
        name: the name in segments and errors.
        check: called often; an exception that it raises ends the work.
        lends: whether `lend` will be called.
        journal: where runs are recorded; see `ExternalSort`.

    Raises:
        CapTooSmall: too little memory, or a group whose key and states are too long for it.
    """

    def __init__(  # noqa: PLR0913 - settings, all but four by keyword
        self,
        memory: memoryview,
        spill: SpillManager,
        keys: Sequence[KeyColumn],
        parts: Sequence[AggregateState],
        *,
        name: str,
        check: Callable[[], None],
        lends: bool = False,
        journal: Journal | None = None,
    ) -> None:
        self._name = name
        self._long_shares = _long_shares(keys, parts, lends=lends)
        self._check = check
        self._size = len(memory)
        self._parts = [part.as_tuple() for part in parts]
        if len(memory) < groups_bytes_min(parts):
            raise CapTooSmall(
                cap_bytes=len(memory),
                needed_bytes=groups_bytes_min(parts),
                because=f"the {name} needs a table of groups with {len(parts)} states each",
            )
        reserve = min(max(len(memory) // 8, RESERVE_BYTES_MIN), RESERVE_BYTES_MAX)
        reserve = max(reserve, RESERVE_BYTES_MIN + _LONGEST_SHARE * sketch_bytes(parts))
        self._memory = memory
        self._reserve_least = reserve
        self._reserve = memory[len(memory) - reserve :]
        area = memory[: len(memory) - reserve]
        self._keys = [key.as_tuple() for key in keys]
        # State of long rows:
        #
        #     _limit           the table refuses a row with a longer key or longer texts; 0: none
        #     _for_long        the memory was divided for long rows: large reserve, small table
        #     _reopened        the table was replaced: its `positions` miss the keys of earlier rows
        #     _refused_bytes   the row that made it reopen last, for the error if that did not help
        self._limit = reserve // _LONGEST_SHARE
        self._texts = sum(map(_keeps_a_text, parts))
        self._for_long = False
        self._reopened = False
        self._refused_bytes = 0
        self._table: AggTable | None = AggTable(area, self._keys, self._parts, self._limit)
        self._runs = Runs(area, spill, name=name, check=check, journal=journal)
        # Rows are numbered over the whole input: FIRST and LAST depend on it.
        self._table.rows = self._runs.rows_found
        self._finished = False
        self._row_bytes_max = self._runs.row_bytes_max
        self._text_bytes_max = self._texts_found()
        if self._row_bytes_max > self._limit:
            self._reopen(self._row_bytes_max)
        self._used_bytes = 0

    @property
    def stats(self) -> RunStats:
        """Statistics of spilling and merging so far."""
        return self._runs.stats

    @property
    def rows(self) -> int:
        """Rows added so far."""
        return 0 if self._table is None else self._table.rows

    @property
    def used_bytes(self) -> int:
        """Peak use of the memory so far."""
        if self._runs.stats.runs:
            return self._size
        return self._used_bytes if self._table is None else self._table.used_bytes

    @property
    def row_bytes_max(self) -> int:
        """The longest row if any row is long, else 0; known once the input has ended."""
        return self._row_bytes_max

    def add(self, columns: Columns, start: int = 0, *, heading: bool = False) -> None:
        """Add the rows of a batch.

        Args:
            columns: the batch.
            start: the first row to add.
            heading: whether to treat the last key column as NULL.
        """
        count = len(columns)
        self._check()
        while start < count:
            start += self._filling().add(columns, start, heading)
            if start < count:
                self._make_room()

    def add_coded(self, keys: Columns, codes: Buffer, columns: Columns) -> None:
        """Add the rows of a batch whose only key column is dictionary-encoded.

        Args:
            keys: the dictionary, a single column.
            codes: for each row, the index of its key, as int32.
            columns: the columns after the key column.
        """
        start, count = 0, len(columns)
        self._check()
        while start < count:
            start += self._filling().add_coded(keys, codes, columns, start)
            if start < count:
                self._make_room()

    def add_rows(self, block: Buffer) -> None:
        """Add all rows of a block of packed states."""
        with memoryview(block).cast("B") as rows:
            start = 0
            while start < len(rows):
                start += self._filling().add_rows(rows, start)
                if start < len(rows):
                    self._make_room()

    def finish(self) -> None:
        """End the input, and merge until one pass is left."""
        table = self._filling()
        self._finished = True
        if not self._runs:
            table.sort()
            self._measure(table)
            return
        if table.groups:
            self._spill_run(table, complete=True)
        else:
            self._runs.complete()
        self._runs.merge_to_last_pass(self._positions())
        if self._row_bytes_max:
            self._row_bytes_max += self._texts * self._text_bytes_max

    def blocks(self, out: memoryview) -> Iterator[tuple[int, int]]:
        """Fill `out` repeatedly with the next groups, as rows of keys and states.

        May be called again once the previous iterator has ended.

        Yields:
            (bytes, rows) at the start of `out`.
        """
        assert self._finished, "finish first"
        if self._table is None:
            raise Closed(f"the {self._name}")
        if self._runs:
            yield from self._merged(out)
        else:
            yield from self._drained(self._table, out)

    def lend(self) -> memoryview | None:
        """Return half of the reserve, for a reader of long rows with short states; None if none."""
        if not self._for_long:
            return None
        half = len(self._reserve) // 2 // 64 * 64
        lent, self._reserve = self._reserve[half:], self._reserve[:half]
        return lent

    def close(self) -> None:
        """Remove the spilled runs and drop all references to the memory. May be called twice."""
        if self._table is not None:
            self._used_bytes = self._table.used_bytes
        self._runs.close()
        self._table = None

    def _filling(self) -> AggTable:
        if self._table is None or self._finished:
            raise Closed(f"the input of the {self._name}")
        return self._table

    def _make_room(self) -> None:
        """Spill the groups to make room for other groups or for a long row."""
        assert self._table is not None
        self._check()
        refused_bytes = self._table.refused_bytes
        # A table is emptied by spilling all of its groups. A group that comes again later gets
        # a new record, and the merge combines both.
        if self._table.groups:
            self._spill_run(self._table)
            if self._runs.has_too_many():
                self._runs.merge_some(self._positions())
            self._table.reset()  # after the merge, which works in the table's memory
        # An empty table refuses the row although it is not too long by `_limit`.
        elif not refused_bytes:
            raise self._too_long(self._refused_bytes)
        if refused_bytes:
            self._reopen(refused_bytes)

    def _reopen(self, row_bytes: int) -> None:
        """Divide the memory again for long rows; without a row limit if they cannot be spilled."""
        rows = self._filling().rows
        self._reopened = True
        self._refused_bytes = row_bytes
        # First try: half of the memory. If that is too little for the row, the least table and the
        # rest, in proportion to how many copies of the row each must hold (`_long_shares`).
        reserve = self._size // _LONG_SHARE
        limit = reserve // _LONGEST_SHARE
        if row_bytes > limit:  # half is too little: the table gets only what it needs
            limit = (self._size - TABLE_BYTES_MIN) // sum(self._long_shares)
            reserve = limit * self._long_shares[0]
        has_room = self._size - reserve >= TABLE_BYTES_MIN and reserve >= self._reserve_least
        is_new = not self._for_long or limit > self._limit
        self._for_long = has_room and is_new and row_bytes <= limit
        if self._for_long:
            self._reserve = self._memory[self._size - reserve :]
            self._limit = limit
        else:
            # No division helps: without a limit the row fits the table, as long as it need not be
            # spilled.
            self._limit = 0
        area = self._memory[: self._size - len(self._reserve)]
        self._table = None  # releases its view of the memory before the new table takes one
        self._table = AggTable(area, self._keys, self._parts, self._limit, self._for_long)
        self._table.rows = rows
        self._runs.use(area)

    def _texts_found(self) -> int:
        """Return the longest text that runs of an earlier process may contain."""
        return max(self._row_bytes_max, self._limit) if self._runs.rows_found else 0

    def _positions(self) -> bytes | None:
        """Return where keys may differ; None if the table was reopened and missed some keys."""
        return None if self._reopened or self._table is None else self._table.positions

    def _measure(self, table: AggTable) -> None:
        if self._reopened:
            longest = max(map(table.row_bound, range(table.groups)), default=0)
            self._row_bytes_max = max(self._row_bytes_max, longest)
        self._text_bytes_max = max(self._text_bytes_max, table.text_bytes_max)

    def _spill_run(self, table: AggTable, *, complete: bool = False) -> None:
        table.sort()
        self._measure(table)
        self._runs.row_bytes_max = self._row_bytes_max
        # The table is full, so the block to write from is in the reserve.
        block = self._reserve[: min(self._runs.block_bytes, len(self._reserve))]
        position = 0
        with self._runs.create() as writer:
            while position < table.groups:
                filled, rows = table.drain(block, position)
                if not rows:  # longer than a block: a block of its own
                    bound = table.row_bound(position)
                    # The merge reads such a row in a quarter of the reserve and combines it in the
                    # rest.
                    if bound > len(self._reserve) * 3 // 16:
                        raise self._too_long(bound)
                    filled, rows = table.drain(self._reserve[:bound], position)
                writer.append((block if filled <= len(block) else self._reserve)[:filled], rows)
                position += rows
            self._runs.add(writer.finish(), self.rows, complete=complete)

    def _drained(self, table: AggTable, out: memoryview) -> Iterator[tuple[int, int]]:
        position = 0
        while position < table.groups:
            self._check()
            filled, rows = table.drain(out, position)
            if not rows:
                raise self._too_long(table.row_bound(position))
            position += rows
            yield filled, rows

    def _merged(self, out: memoryview) -> Iterator[tuple[int, int]]:
        # | combiner: states of one group, 3/4 | stage: merged rows, 1/4 |
        split = len(self._reserve) * 3 // 4
        stage = self._reserve[split:]
        combiner = StateCombiner(self._reserve[:split], self._parts)
        merged = self._runs.blocks(stage, self._positions())
        try:
            yield from rewrite(combiner, merged, stage, out)
        except MemoryError:
            raise self._too_long(self._row_bytes_max) from None

    def _too_long(self, row_bytes: int = 0) -> CapTooSmall:
        # The memory of which the reserve's limit, half of it divided by _LONGEST_SHARE, is this
        # row.
        needed = (row_bytes + 64) * _LONG_SHARE * _LONGEST_SHARE
        what = f"{row_bytes} bytes" if row_bytes else "a key or states too long for its memory"
        return LongRow(
            cap_bytes=self._size,
            needed_bytes=max(needed, self._size + self._size // 4),
            because=f"a group of the {self._name} has {what}",
            row_bytes=row_bytes,
        )


def _keeps_a_text(part: AggregateState) -> bool:
    """Return whether this state keeps a text, so that merging two rows may add up their texts."""
    return _holds_a_text(part) and not part.param


def sketch_bytes(parts: Sequence[AggregateState]) -> int:
    """Return the bytes of the full sketches of a group."""
    return sum(1 << part.param for part in parts if part.op in _SKETCHES)


def long_groups_bytes(
    keys: Sequence[KeyColumn],
    parts: Sequence[AggregateState],
    row_bytes: int,
    *,
    lends: bool = False,
) -> int:
    """Return memory for groups of rows of up to `row_bytes` bytes, which only texts make long."""
    if not texts_of(keys, parts):
        return groups_bytes_min(parts, len(keys))
    texts = Counter(part.column for part in parts if _holds_a_text(part))
    each_bytes = row_bytes * max(texts.values(), default=1)
    return sum(_long_shares(keys, parts, lends=lends)) * each_bytes + TABLE_BYTES_MIN + 64


def _long_shares(
    keys: Sequence[KeyColumn], parts: Sequence[AggregateState], *, lends: bool
) -> tuple[int, int]:
    """Return how many long keys or texts must fit the reserve, and how many the table."""
    if texts_of(keys, parts) > 1:
        return _LONGEST_SHARE, _TABLE_ROWS_OF_BOTH
    if lends:
        return _LONGEST_SHARE, _TABLE_ROWS
    return _SHARE_OF_TEXTS if any(map(_holds_a_text, parts)) else _SHARE_OF_KEYS, _TABLE_ROWS


def texts_of(keys: Sequence[KeyColumn], parts: Sequence[AggregateState]) -> int:
    """Return how many rows' texts a group may hold at most; those of its key count as one row."""
    return any(key.kind in _TEXTS for key in keys) + sum(map(_holds_a_text, parts))


def _holds_a_text(part: AggregateState) -> bool:
    return part.op in _HELD and part.kind in _TEXTS


def groups_bytes_min(parts: Sequence[AggregateState], keys: int = 0) -> int:
    """Return the least memory of groups by so many keys, whose keys and texts are short."""
    # The table must hold a group and the next one; a group is packed and merged in the reserve.
    wide = max(0, keys - _FEW) * _KEY_BYTES + max(0, len(parts) - _FEW) * _STATE_BYTES
    return GROUPS_BYTES_MIN + (2 + _LONGEST_SHARE) * (sketch_bytes(parts) + wide)


class Rewriter(Protocol):
    """A kernel object that reads sorted rows and writes others: a combiner, a fold."""

    def run(self, rows: Buffer, start: int, out: Buffer, last: bool, /) -> tuple[int, int, int]:
        """Return bytes read, bytes written and rows written."""


def rewrite(
    rewriter: Rewriter, blocks: Iterator[tuple[int, int]], stage: memoryview, out: memoryview
) -> Iterator[tuple[int, int]]:
    """Pass the rows that `blocks` writes to `stage` through a rewriter to `out`.

    Yields:
        (bytes, rows) at the start of `out`.

    Raises:
        MemoryError: a row does not fit `out`, or the rewriter's memory.
    """
    filled = rows = 0
    for size, _ in blocks:
        start = 0
        while start < size:
            read, wrote, came = rewriter.run(stage[:size], start, out[filled:], False)
            start, filled, rows = start + read, filled + wrote, rows + came
            if start < size:
                if not rows:
                    raise MemoryError
                yield filled, rows
                filled = rows = 0
    # The rewriter holds its last group back until a greater key comes, or the end.
    if rows:
        yield filled, rows
    _, wrote, came = rewriter.run(b"", 0, out, True)
    if came:
        yield wrote, came
