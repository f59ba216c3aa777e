"""`ExternalAggregate`: group any number of rows in memory of a fixed size, sorted by key.

States that fit a record are accumulated in a table of groups (`Groups`). Values that must be
distinct or in order go through a second table first:

    rows ──▶ groups by (key, value) ──sorted──▶ fold: one row per key ──▶ groups by key ──▶ columns
    rows ─────────────────────────────────────────────────────────────────────▲
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from emsqrt._kernel import AggReader, GroupFold
from emsqrt.external.aggregate_state import (
    I64,
    NO_COLUMN,
    AggregateState,
    KeyColumn,
    Output,
    OutputOp,
    StateOp,
    Values,
)
from emsqrt.external.groups import (
    GROUPS_BYTES_MIN,
    Groups,
    groups_bytes_min,
    long_groups_bytes,
    rewrite,
    sketch_bytes,
    texts_of,
)
from sennit_core.errors import CapTooSmall

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt._kernel import Columns
    from emsqrt.external.journal import Journal
    from emsqrt.external.runs import RunStats
    from emsqrt.spill import SpillManager

Filled = tuple[int, int, tuple[int, int], tuple[int, int], tuple[int, int] | None]
"""A column in memory: (kind, null count, validity, values, ends), each a (start, stop) there."""

FOLD_BYTES_MIN = 48 << 10
FOLD_BYTES_MAX = 512 << 10
AGGREGATE_BYTES_MIN = GROUPS_BYTES_MIN
"""Memory of an aggregate without `values`, whose keys and states are short."""
VALUES_BYTES_MIN = GROUPS_BYTES_MIN + FOLD_BYTES_MIN
"""Memory that each of `values` needs in addition, and that the groups need if there are any."""
_ALIGN = 64
_FEW_SHARE = 8
"""If only values may be long, groups get 1 / 8 of the memory."""
_COLUMN_BYTES = 384
"""Memory per column of a few groups: three aligned buffers, in three quarters of the output."""
_SKETCH_COPIES = 8
"""Copies of a row of sketches that must fit: it is read in a quarter of the output, and copied."""


@dataclass(frozen=True, slots=True)
class AggregateStats:
    """Statistics of an aggregate, for the manifest.

    Args:
        rows: rows read.
        groups: groups written so far.
        runs: sorted partial runs spilled, including those of values; 0 if everything fitted.
        passes: how often a state was read back at most, P.
        fan_in: the most runs in one merge, K.
        spilled_bytes: all bytes spilled, before compression.
        memory_bytes: the working memory, W.
        peak_bytes: the most of it that was in use.
    """

    rows: int
    groups: int
    runs: int
    passes: int
    fan_in: int
    spilled_bytes: int
    memory_bytes: int
    peak_bytes: int


class ExternalAggregate:
    """Groups rows by key and returns the groups as columns, sorted by key; one row without keys.

    The algorithm is a hash table, sorted partial runs, and one merge that combines equal keys. The
    result is the same in every byte for any memory and any batching of the input. Values that must
    be distinct or sorted (COUNT(DISTINCT), quantiles) are grouped a second time, together with
    their keys, and folded, so no set of values is ever held in memory. Close the aggregate before
    its memory is released.

    Args:
        memory: the memory for everything; at least `aggregate_bytes_min`.
        spill: the spill manager for runs.
        keys: the columns that rows are grouped by.
        parts: the states of each group.
        outputs: the result's columns after the keys.
        values: columns whose distinct values fill parts that are the COUNT, SUM, FLOAT_SUM,
            FLOAT_SQUARES or MIN of NO_COLUMN.
        row_bytes: the length of the longest row, if it is known to be large.
        name: the name in segments and errors.
        check: called often; an exception that it raises ends the work.
        journal: where runs are recorded; see `ExternalSort`. Not used with `values`, which have
            runs of their own.

    Raises:
        CapTooSmall: too little memory, or a group whose key and states are too long for it.
    """

    def __init__(  # noqa: PLR0913 - the first five belong together
        self,
        memory: memoryview,
        spill: SpillManager,
        keys: Sequence[KeyColumn],
        parts: Sequence[AggregateState],
        outputs: Sequence[Output],
        values: Sequence[Values] = (),
        *,
        row_bytes: int = 0,
        name: str = "aggregate",
        check: Callable[[], None] = lambda: None,
        journal: Journal | None = None,
    ) -> None:
        if values:
            journal = None
        first = share = len(memory) // (1 + len(values)) // _ALIGN * _ALIGN
        # The memory, for two columns of values:
        #
        #     | groups | values 0 | values 1 |
        #       `first`  `share`    `share`
        #
        # Equal parts, unless only the values have long rows: then the groups get an eighth.
        if values and row_bytes and not texts_of(keys, parts):
            first = max(groups_bytes_min(parts, len(keys)), len(memory) // _FEW_SHARE)
            share = (len(memory) - first) // len(values) // _ALIGN * _ALIGN
            first = len(memory) - share * len(values)
        if values and len(memory) < aggregate_bytes_min(parts, values):
            raise CapTooSmall(
                cap_bytes=len(memory),
                needed_bytes=aggregate_bytes_min(parts, values),
                because=f"the {name} sorts the values of {len(values)} columns",
            )
        self._size = len(memory)
        self._keys = list(keys)
        self._parts = list(parts)
        self._name = name
        self._groups_written = 0
        self._groups = Groups(
            memory[:first], spill, keys, parts, name=name, check=check, journal=journal
        )
        self._values = [
            SortedValues(memory[at : at + share], spill, keys, each, name, check)
            for at, each in zip(count(first, share), values, strict=False)
        ]
        self._reader = AggReader(
            [key.as_tuple() for key in keys],
            [part.as_tuple() for part in parts],
            [output.as_tuple() for output in outputs],
        )

    @property
    def stats(self) -> AggregateStats:
        """Statistics so far."""
        groups = [self._groups, *(values.groups for values in self._values)]
        stats: list[RunStats] = [each.stats for each in groups]
        return AggregateStats(
            rows=self._groups.rows,
            groups=self._groups_written,
            runs=sum(each.runs for each in stats),
            passes=max(each.passes for each in stats),
            fan_in=max(each.fan_in for each in stats),
            spilled_bytes=sum(each.spilled_bytes for each in stats),
            memory_bytes=self._size,
            peak_bytes=sum(each.used_bytes for each in groups),
        )

    @property
    def row_bytes_max(self) -> int:
        """The longest row if any row is long, else 0; known once the input has ended."""
        groups = [self._groups, *(values.groups for values in self._values)]
        return max(each.row_bytes_max for each in groups)

    def add(self, columns: Columns, start: int = 0) -> None:
        """Add the rows of a batch from `start` on, spilling when the memory is full."""
        assert start == 0 or not self._values, "an aggregate with values adds whole batches"
        self._groups.add(columns, start)
        for values in self._values:
            values.add(columns)

    def add_coded(self, keys: Columns, codes: Buffer, columns: Columns) -> None:
        """Add a batch whose only key column is dictionary-encoded, as `Groups.add_coded`."""
        assert not self._values, "values are grouped by their keys"
        self._groups.add_coded(keys, codes, columns)

    def add_values(self, index: int, columns: Columns) -> None:
        """Add rows to the values at `index` only: keys and values of groups that `add` has seen."""
        self._values[index].add(columns)

    def add_groups(self, columns: Columns) -> None:
        """Add rows to everything but the values."""
        self._groups.add(columns)

    def finish(self) -> None:
        """End the input."""
        for values in self._values:
            # A folded row is a partial of the groups, like a run's: states of equal keys are added
            # up.
            for block in values.folded(self._parts):
                self._groups.add_rows(block)
        # SQL's aggregate without GROUP BY has one row, also for no input.
        if not self._keys:
            self._groups.add_rows(_empty_row(len(self._parts)))
        self._groups.finish()

    def columns(self, out: memoryview) -> Iterator[tuple[int, list[Filled]]]:
        """Yield the groups as columns, keys first, in `out`, which is reused for each batch.

        Yields:
            The number of groups, and the position of each column in `out`.

        Raises:
            CapTooSmall: a group does not fit `out`.
            OverflowError: a sum does not fit its output's type; the argument is the output's index.
        """
        # | stage: rows as merged | room: the same groups as columns |
        split = _stage_bytes(out, self._groups.row_bytes_max)
        stage, room = out[:split], out[split:]
        for size, _ in self._groups.blocks(stage):
            start = 0
            while start < size:
                rows, start, filled = self._read(stage[:size], start, room)
                self._groups_written += rows
                yield rows, [_moved(column, split) for column in filled]

    def rows(self, out: memoryview) -> Iterator[tuple[int, int]]:
        """Yield the groups as rows of keys and packed states: (bytes, rows) in `out`."""
        return self._groups.blocks(out)

    def values(self, index: int, out: memoryview) -> Iterator[tuple[int, list[Filled]]]:
        """Yield the distinct values at `index`: the columns are the keys, the value and its count.

        The columns are written to `out`. Every group begins with a row whose value is NULL.
        """
        return self._values[index].columns(out)

    def close(self) -> None:
        """Remove the spilled runs and drop all references to the memory. May be called twice."""
        self._groups.close()
        for values in self._values:
            values.groups.close()

    def _read(
        self, rows: memoryview, start: int, room: memoryview
    ) -> tuple[int, int, list[Filled]]:
        try:
            return self._reader.read(rows, start, room)
        except MemoryError:
            raise _no_room(self._name, len(room), len(rows)) from None


class SortedValues:
    """The distinct values of each group in order, with the count of each.

    Args:
        memory: at least VALUES_BYTES_MIN.
        spill: the spill manager for runs.
        keys: the columns that rows are grouped by.
        values: the column, and the states that it fills.
        name: the name in segments and errors.
        check: called often.
    """

    def __init__(
        self,
        memory: memoryview,
        spill: SpillManager,
        keys: Sequence[KeyColumn],
        values: Values,
        name: str,
        check: Callable[[], None],
    ) -> None:
        #     | fold: state, block to read, block to write | groups: table and reserve |
        fold = min(max(len(memory) // 8, FOLD_BYTES_MIN), FOLD_BYTES_MAX)
        self._size = len(memory)
        self._memory = memory[:fold]
        self._column = values
        self._keys = _with_value(keys, values)
        self._counts = [AggregateState(StateOp.COUNT, values.column, values.kind)]
        self._name = name
        rest = memory[fold:]
        self.groups = Groups(
            rest, spill, self._keys, self._counts, name=f"{name}-values", check=check, lends=True
        )

    def add(self, columns: Columns) -> None:
        """Count each value of each group, and add the row with value NULL that begins the group."""
        self.groups.add(columns)
        # The value of this row is NULL, which sorts first, and its count is that of the whole
        # group: a quantile must know how many values there are before it sees the first.
        self.groups.add(columns, heading=True)

    def folded(self, parts: Sequence[AggregateState]) -> Iterator[memoryview]:
        """End the input and yield blocks of rows for the main aggregate with states `parts`."""
        self.groups.finish()
        # With long rows the fold works in half of the groups' reserve. The groups are complete by
        # now, so their merge needs only the other half.
        memory = self.groups.lend() or self._memory
        half, quarter = len(memory) // 2, len(memory) // 4
        fold = GroupFold(
            memory[:half],
            [key.as_tuple() for key in self._keys],
            [self._fed(at, part).as_tuple() for at, part in enumerate(parts)],
            self._column.quantiles,
            self._column.scale,
        )
        # | state of the fold: 1/2 | stage: rows to fold, 1/4 | out: rows for the groups, 1/4 |
        stage = memory[half : half + quarter]
        out = memory[half + quarter :]
        try:
            for size, _ in rewrite(fold, self.groups.blocks(stage), stage, out):
                yield out[:size]
        except MemoryError:
            raise _no_room(self._name, self._size, len(out)) from None

    def columns(self, out: memoryview) -> Iterator[tuple[int, list[Filled]]]:
        """Yield keys, values and counts as columns in `out`; after `folded`."""
        counts = [Output(OutputOp.STATE, 0, I64).as_tuple()]
        reader = AggReader(
            [key.as_tuple() for key in self._keys],
            [part.as_tuple() for part in self._counts],
            counts,
        )
        split = _stage_bytes(out, self.groups.row_bytes_max)
        stage, room = out[:split], out[split:]
        for size, _ in self.groups.blocks(stage):
            start = 0
            while start < size:
                try:
                    rows, start, filled = reader.read(stage[:size], start, room)
                except MemoryError:
                    raise _no_room(self._name, len(room), size) from None
                yield rows, [_moved(column, split) for column in filled]

    def _fed(self, at: int, part: AggregateState) -> AggregateState:
        """Return the state as the fold needs it: filled from the values, or from no column."""
        if at in self._column.filled:
            return replace(part, column=0, kind=self._column.kind)
        # A state that another input fills must stay empty here; COUNT_ROWS has no column to leave
        # out.
        op = StateOp.COUNT if part.op is StateOp.COUNT_ROWS else part.op
        return replace(part, op=op, column=NO_COLUMN)


def _with_value(keys: Sequence[KeyColumn], values: Values) -> list[KeyColumn]:
    return [*keys, KeyColumn(values.column, values.kind, nulls_first=True)]


def aggregate_bytes_min(
    parts: Sequence[AggregateState], values: Sequence[Values] = (), keys: int = 0
) -> int:
    """Return the least memory of an `ExternalAggregate` by `keys` short key columns."""
    share = groups_bytes_min(parts, keys)
    if values:
        share = max(share, VALUES_BYTES_MIN)
    return (1 + len(values)) * (-(-share // _ALIGN) * _ALIGN)


def long_aggregate_bytes(
    keys: Sequence[KeyColumn],
    parts: Sequence[AggregateState],
    values: Sequence[Values],
    row_bytes: int,
) -> int:
    """Return memory for an `ExternalAggregate` of rows of up to `row_bytes` bytes."""
    share = long_groups_bytes(keys, parts, row_bytes)
    for each in values:  # rows of keys and a value; the fold needs memory in addition
        of_values = long_groups_bytes(_with_value(keys, each), (), row_bytes, lends=True)
        # The fold may need up to this much of the part.
        share = max(share, of_values + FOLD_BYTES_MAX)
    if values and not texts_of(keys, parts):
        return share * len(values) * _FEW_SHARE // (_FEW_SHARE - 1) + (1 + len(values)) * _ALIGN
    return (1 + len(values)) * (share + _ALIGN)


def out_bytes_min(columns: int, parts: Sequence[AggregateState]) -> int:
    """Return the least output memory for `columns` columns of groups with short keys and texts."""
    return columns * _COLUMN_BYTES + _SKETCH_COPIES * sketch_bytes(parts)


def _empty_row(part_count: int) -> bytes:
    """Return the row of an empty input: an empty key, and one byte per state that means "empty"."""
    size = 8 + part_count
    return size.to_bytes(4, "little") + bytes(4 + part_count)


def _moved(column: Filled, by: int) -> Filled:
    kind, nulls, validity, values, ends = column
    return (
        kind,
        nulls,
        (validity[0] + by, validity[1] + by),
        (values[0] + by, values[1] + by),
        None if ends is None else (ends[0] + by, ends[1] + by),
    )


def _stage_bytes(out: memoryview, row_bytes: int) -> int:
    """Return how much of `out` is for rows: a quarter, or half if a row is too long for that."""
    return len(out) // (4 if row_bytes <= len(out) // 4 else 2) // 64 * 64


def _no_room(name: str, room_bytes: int, needed_bytes: int) -> CapTooSmall:
    return CapTooSmall(
        cap_bytes=room_bytes,
        needed_bytes=max(8 * needed_bytes, 2 * room_bytes),
        because=f"a group of the {name} does not fit its memory",
    )
