from collections.abc import Sequence
from typing import Literal, Self, TypeAlias

from typing_extensions import Buffer

_Span: TypeAlias = tuple[int, int]
_Filled: TypeAlias = tuple[int, int, _Span, _Span, _Span | None]

class AggReader:
    # Reads rows of keys and states as columns: the keys, then the outputs.
    #
    # Args:
    #     keys, parts: as of the AggTable that made the rows; columns do not matter.
    #     outputs: (op, part, kind, scale) of each column; op as `enum em_output_op` of finish.h.

    def __new__(
        cls,
        keys: Sequence[tuple[int, int, bool, bool]],
        parts: Sequence[tuple[int, int, int, int]],
        outputs: Sequence[tuple[int, int, int, int]],
        /,
    ) -> Self: ...
    # Read rows from byte `start` while their columns fit `out`: (rows, next start, columns), as of
    # decode_keys. Raises MemoryError when not even one fits, OverflowError(output) when a sum has
    # no place in its type, ValueError when a row is damaged.
    def read(self, rows: Buffer, start: int, out: Buffer, /) -> tuple[int, int, list[_Filled]]: ...

class AggTable:
    # Groups by normalised key in `memory`, which is kept for life; 64 KiB at least.
    #
    # Args:
    #     keys: (column, kind, descending, nulls_first) of each key column.
    #     parts: (op, column, kind, param) of each state; op as `enum em_part_op` of states.h, column
    #         -1 when rows add nothing to it; param is a decimal's scale, a sketch's precision, or 1
    #         when first and last keep nulls.
    #     limit: bytes of a row's key, and of its texts, that are taken; 0 is no limit.
    #     for_long: whether long keys find room.

    def __new__(
        cls,
        memory: Buffer,
        keys: Sequence[tuple[int, int, bool, bool]],
        parts: Sequence[tuple[int, int, int, int]],
        limit: int = 0,
        for_long: bool = False,
        /,
    ) -> Self: ...
    # Add rows from `start` on; return how many were taken: fewer when it is full or `refused_bytes`
    # says so, 0 when it is empty and a row does not fit. With `heading` the last key column counts as null.
    def add(self, columns: Columns, start: int = 0, heading: bool = False, /) -> int: ...
    # Merge whole rows of packed states from byte `start` on; return the bytes taken.
    def add_rows(self, rows: Buffer, start: int = 0, /) -> int: ...
    # Order the groups by key; then they can be drained, until reset.
    def sort(self) -> None: ...
    # Write sorted groups from number `first` on as rows; return (bytes, rows).
    def drain(self, out: Buffer, first: int, /) -> tuple[int, int]: ...
    # The most bytes that the row of a sorted group takes.
    def row_bound(self, group: int, /) -> int: ...
    def reset(self) -> None: ...
    @property
    def groups(self) -> int: ...
    # Of the row that the last call refused, being over the limit; 0 when it refused none.
    @property
    def refused_bytes(self) -> int: ...
    # Where the keys ever taken differ: for a Merger.
    @property
    def positions(self) -> bytes: ...
    # Rows ever taken; set it where an earlier table took the first ones.
    rows: int
    # The longest text that a state ever held.
    @property
    def text_bytes_max(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...

# A column's kind: its number, or (kind, bytes in a packed row, what is taken away from each value).
_Kind: TypeAlias = int | tuple[int, int, int]

class Columns:
    def __new__(
        cls,
        row_count: int,
        columns: Sequence[tuple[_Kind, int, Buffer | None, Buffer | None, Buffer | None]],
        /,
    ) -> Self: ...
    def __len__(self) -> int: ...
    # Kind, offset, and where validity, values and ends lie (0 for none): for Arrow to look at
    # while these columns live.
    def addresses(self, index: int, /) -> tuple[int, int, int, int, int]: ...
    # The same rows with further columns, given as to the constructor; `self` must stay valid.
    def with_columns(
        self,
        columns: Sequence[tuple[int, int, Buffer | None, Buffer | None, Buffer | None]],
        /,
    ) -> Columns: ...
    def null_count(self, index: int, /) -> int: ...
    # The same rows with these columns, in this order; `self` must stay valid.
    def select(self, indices: Sequence[int], /) -> Columns: ...

class CsvFormatter:
    # Writes columns as CSV: a delimiter, `"` only where needed, LF; NULL is nothing, empty text is `""`.
    # Each value is written as the Arrow tier's sink writes it.
    #
    # Args:
    #     types: for each column its type's text.

    def __new__(cls, types: Sequence[str], *, delimiter: str = ",") -> Self: ...

    # Write rows from `start` on, until `out` has no room for the next; of them only those whose
    # bit in `keep` is set. Return (the next row, bytes written); no progress means that a single
    # row is longer than `out`.
    def format(
        self, columns: Columns, start: int, out: Buffer, keep: Buffer | None = None, /
    ) -> tuple[int, int]: ...

class CsvParser:
    # Parses the wanted fields of whole records into columns that lie in `memory`.
    #
    # Args:
    #     memory: where the columns lie; kept for the object's life.
    #     field_count: fields of each record.
    #     columns: for each column its field's index and its type's text, such as `Decimal(12,2)`.
    #     delimiter, quote: one ASCII character each; quote None when nothing is quoted.
    #     null_values: unquoted fields that are NULL.
    #     on_error: "fail"; "null" (a value that does not fit, or a missing field, is NULL); or
    #         "skip" (the record is left out and listed in `skipped_records`).
    #     check_fields: whether every record must have `field_count` fields.
    #     exact: for types that were inferred: an integer is one only as it would be printed, a
    #         Float64 is digits without zeros in front, a fraction, an exponent; of `null_values`
    #         only the empty one counts in columns of text.

    def __new__(
        cls,
        memory: Buffer,
        *,
        field_count: int,
        columns: Sequence[tuple[int, str]],
        delimiter: str = ",",
        quote: str | None = '"',
        null_values: Sequence[str] = ("",),
        on_error: str = "fail",
        check_fields: bool = True,
        exact: bool = False,
    ) -> Self: ...

    # Parse records from `start`, until `memory` is full or the block ends; the last record
    # may lack its line end. Return the columns and where the next record starts.
    #
    # The columns hold the block, are valid until the next call, and are then empty. Rows before a
    # bad record are returned first; the call that starts at it raises.
    #
    # Raises:
    #     RecordFault: the record at `start` cannot be read, and `on_error` says so.
    def parse(self, block: Buffer, start: int = 0, /) -> tuple[Columns, int]: ...

    # Empty the columns of the last call and let go of its block.
    def release(self) -> None: ...

    # Records read so far, skipped ones included.
    @property
    def records(self) -> int: ...

    # Values that became NULL because they did not fit.
    @property
    def nulled(self) -> int: ...

    # Records left out so far.
    @property
    def skipped(self) -> int: ...

    # (offset, size, field, reason) of each record that the last call left out.
    @property
    def skipped_records(self) -> list[tuple[int, int, int, str]]: ...

class ExprProgram:
    # A small expression in postfix form, see program.h; `emsqrt.expr.program` makes them.
    #
    # Args:
    #     code: instructions of four bytes: op, lane, u16 argument.
    #     constants: `constant_count` entries of 32 bytes, then their texts; kept for life.
    #     memory: where blocks of rows are worked out; kept for life.

    def __new__(
        cls, code: Buffer, constants: Buffer, constant_count: int, memory: Buffer, /
    ) -> Self: ...
    # Write the values of all rows from `start` on as Arrow buffers, from bit and byte 0: (rows, None),
    # or where a row has no value: (rows before its block, (row, instruction, left, right)).
    def run(
        self, columns: Columns, start: int, values: Buffer, validity: Buffer, /
    ) -> tuple[int, tuple[int, int, int | None, int | None] | None]: ...
    # Write the numbers of rows for which the answer is true, as u32, until `chosen` is full or the
    # rows end: (rows looked at, rows chosen, as above).
    def select(
        self, columns: Columns, start: int, chosen: Buffer, /
    ) -> tuple[int, int, tuple[int, int, int | None, int | None] | None]: ...

class FrameBest:
    # Which row of each frame has the least or greatest value, the first of equals; see window.h.
    #
    # Args:
    #     memory: the queue, kept for life; 32 bytes a row, of text half of it for the texts.
    #     kind: of the values.
    #     greatest: else the least.
    #     sliding: else frames of a partition all begin at one row, and the queue has one.

    def __new__(cls, memory: Buffer, kind: int, greatest: bool, sliding: bool, /) -> Self: ...
    # As FrameSum.run, with row numbers in `out`; -1 where a frame has no value. Stops with 3 when
    # the queue is full.
    def run(
        self,
        low: Buffer,
        high: Buffer,
        row: int,
        chunk: Columns | None,
        first: int,
        out: Buffer,
        /,
    ) -> tuple[int, int]: ...
    # The row after the last one that is in.
    @property
    def high(self) -> int: ...

class FrameSum:
    # Counts, exact sums and means of frames of rows; see window.h.
    #
    # Args:
    #     op: 0 count, 1 sum, 2 mean.
    #     kind: of the values.
    #     scale: of decimals, for the mean.

    def __new__(cls, op: int, kind: int, scale: int, /) -> Self: ...
    # Write the results of the frames [low[i], high[i]), two int64 a row, from `row` on; bounds never
    # fall. Chunks are one column of the rows from `first` on, at either end of the frame. Return the
    # row and why it stopped there: 0 done; 1 the chunk that holds row `high` is needed, 2 the one
    # that holds row `low`; 3 a sum is beyond its type.
    #
    # Args:
    #     values: 8 bytes a row, 16 for sums of decimals.
    #     validity: a bit a row, zeroed before; counts leave it.
    def run(
        self,
        low: Buffer,
        high: Buffer,
        row: int,
        high_chunk: Columns | None,
        high_first: int,
        low_chunk: Columns | None,
        low_first: int,
        values: Buffer,
        validity: Buffer,
        /,
    ) -> tuple[int, int]: ...
    # The rows that are in: [low, high).
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...

class GroupFold:
    # Makes rows of the main aggregate from sorted rows of (keys, value) with one count; see fold.h.
    #
    # Args:
    #     memory: kept for life.
    #     keys: those of the rows, the value last and its nulls first.
    #     parts: of the main aggregate, with column 0 where the value goes and -1 elsewhere.
    #     quantiles: (part, fraction) of each, the part the minimum of a Float64; or, for one of the
    #         values themselves, (part, numerator, denominator), the part a minimum of their kind.
    #     scale: of the value, when it is a decimal.

    def __new__(
        cls,
        memory: Buffer,
        keys: Sequence[tuple[int, int, bool, bool]],
        parts: Sequence[tuple[int, int, int, int]],
        quantiles: Sequence[tuple[int, float] | tuple[int, int, int]],
        scale: int = 0,
        /,
    ) -> Self: ...
    # As StateCombiner.run.
    def run(self, rows: Buffer, start: int, out: Buffer, last: bool, /) -> tuple[int, int, int]: ...

class JsonlFormatter:
    # Writes columns as one JSON object a line, as the Arrow tier's sink writes them.
    #
    # Args:
    #     columns: for each column its name and its type's text.

    def __new__(cls, columns: Sequence[tuple[str, str]], /) -> Self: ...

    # As CsvFormatter.format.
    def format(
        self, columns: Columns, start: int, out: Buffer, keep: Buffer | None = None, /
    ) -> tuple[int, int]: ...

class JsonlParser:
    # Parses the wanted members of JSON Lines into columns that lie in `memory`; each line is checked
    # whole (RFC 8259, UTF-8). An absent member is NULL, of members with one name the last counts.
    # Text takes any value: what is no string stands as its JSON text without blanks. Numbers, days
    # and times may stand in strings, Binary is base64.
    #
    # Args:
    #     memory: where the columns lie; kept for the object's life.
    #     columns: for each column its member's name and its type's text.
    #     on_error: as for CsvParser; a line that is no object is never made NULL.

    def __new__(
        cls, memory: Buffer, columns: Sequence[tuple[str, str]], *, on_error: str = "fail"
    ) -> Self: ...

    # As CsvParser.parse; `field` of a fault is the column's index, its reason never "ragged".
    def parse(self, block: Buffer, start: int = 0, /) -> tuple[Columns, int]: ...
    def release(self) -> None: ...
    @property
    def records(self) -> int: ...
    @property
    def nulled(self) -> int: ...
    @property
    def skipped(self) -> int: ...
    @property
    def skipped_records(self) -> list[tuple[int, int, int, str]]: ...

class JoinTable:
    # The build side's rows, found by key. `memory` holds the rows back to back, then 12 bytes a row.
    #
    # A row whose key is empty equals nothing. `flags` are those of external/joined.py.

    def __new__(cls, memory: Buffer, /) -> Self: ...
    # Store rows from byte `at` while they fit; return where the first that does not fit starts, or
    # the block's length. `keys_only` drops payloads, and rows whose key is empty.
    def add_rows(self, block: Buffer, at: int = 0, /, *, keys_only: bool = False) -> int: ...
    # Build the index, after which rows can be looked up and none be added.
    def index(self) -> None: ...
    # Keep the first of the rows with one key, and take more.
    def distinct(self) -> None: ...
    # Join the block's rows from `at` on with the table's; return (next at, bytes, rows, rows passed).
    # `out` was full when the next `at` is not the block's end: call again with it, and `first_bit`
    # moved by the rows passed. `bits` has one a probe row; a match sets it.
    def probe(
        self,
        block: Buffer,
        at: int,
        out: Buffer,
        flags: int,
        bits: Buffer | None = None,
        first_bit: int = 0,
        /,
    ) -> tuple[int, int, int, int]: ...
    # Write the stored rows that matched, or that did not, in build order; return (bytes, rows, done).
    def drain(self, out: Buffer, matched: bool, flags: int, /) -> tuple[int, int, bool]: ...
    # Forget all rows.
    def clear(self) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def rows_bytes(self) -> int: ...

class KeySpec:
    # What orders rows: (column, descending, nulls_first) of each key column, most significant first.

    def __new__(cls, columns: Sequence[tuple[int, bool, bool]], /) -> Self: ...
    def __len__(self) -> int: ...
    # One row's key as bytes (keys.h), without a sequence number.
    def encode(self, columns: Columns, row: int, /) -> bytes: ...

class LineWriter:
    # Writes parsed records as they stand (with LF), or some of their fields, quoted anew.
    #
    # Args:
    #     fields: indices of the fields to write, in order; None writes records as they stand.
    #     record_fields: fields of a record, when `fields` are given.
    #     delimiter, quote: of the records.
    #     out_delimiter: between fields that are written anew.
    #     instead: for each of `fields`, the one that is written when it is empty.

    def __new__(
        cls,
        fields: Sequence[int] | None = None,
        *,
        record_fields: int = 0,
        delimiter: str = ",",
        quote: str | None = '"',
        out_delimiter: str = ",",
        instead: Sequence[int] | None = None,
    ) -> Self: ...

    # Write the records of columns from row `start` on, as CsvFormatter.format does.
    def write(
        self, columns: Columns, start: int, out: Buffer, keep: Buffer | None = None, /
    ) -> tuple[int, int]: ...

    # Write the records that packed rows (rows.h) carry as payload, from byte `start` of the block.
    # Return (the next byte of the block, bytes written).
    def write_rows(self, rows: Buffer, start: int, out: Buffer, /) -> tuple[int, int]: ...

class MergeJoiner:
    # Joins two inputs that are sorted by their keys. `left` is one block after the other; the
    # caller moves a window over the right side along, and sees to it that all rows of a key are in it.

    def __new__(cls, flags: int, /) -> Self: ...
    # Go on; return (why it stopped, bytes and rows in `out`, bytes and rows in `rest`). Why: 0 the
    # left block has ended, 1 more right rows are needed behind those from `right_at` on, 2
    # `out` is full, 3 `rest` (right rows without a match) is full, 4 a side is not sorted.
    def run(
        self, left: Buffer, right: Buffer, out: Buffer, rest: Buffer, right_ended: bool, /
    ) -> tuple[int, int, int, int, int]: ...
    # The next call has another left block.
    def next_left(self) -> None: ...
    # The right rows from `right_at` on lie at the start of the block from now on.
    def moved(self) -> None: ...
    # Go on at byte `at` of the left block.
    def skip_left(self, at: int, /) -> None: ...
    @property
    def left_at(self) -> int: ...
    @property
    def right_at(self) -> int: ...
    # Where the right rows that matched last end.
    @property
    def group_end(self) -> int: ...
    # The row with a key before `left_at`, or -1.
    @property
    def left_last(self) -> int: ...
    @property
    def right_last(self) -> int: ...

class Merger:
    # Merges sorted rows of sources, stable by source number, by a loser tree.
    #
    # Args:
    #     memory: the state, merger_bytes(len(sizes)), then each source's part; kept for life.
    #     sizes: bytes of each source's part of `memory`.
    #     positions: RowStore.positions of a store that has seen every key; None looks at whole keys.

    def __new__(
        cls, memory: Buffer, sizes: Sequence[int], positions: bytes | None = None, /
    ) -> Self: ...
    # Where a source's part lies in `memory`: (start, stop).
    def span(self, source: int, /) -> tuple[int, int]: ...
    # Say how many bytes of whole rows now lie at the start of an empty source's part; 0 ends it.
    def refill(self, source: int, filled: int, /) -> None: ...
    # Write the next rows, or with `ending` their payloads each followed by it, into `out`. Return
    # (bytes, rows, why): the source that must be refilled, -1 when `out` is full (or too small for
    # one row) or `rows_max` is reached, -2 when all is done.
    def run(
        self, out: Buffer, /, ending: bytes | None = None, rows_max: int = ...
    ) -> tuple[int, int, int]: ...
    # Where the next row lies in `memory`, (start, stop); None when `run` would stop at once.
    def head(self) -> tuple[int, int] | None: ...
    # Pass over the row at head(); returns `why` as of `run`.
    def skip(self) -> int: ...

class Partitioner:
    # Spreads rows over `fan_out` equal parts of `memory` by the hash of their keys, and rows whose
    # key is empty into one more. Each `level` uses other bits. With `bounds`, ascending keys at which
    # every part but the first begins, by the ranges of their keys. A `key_filter` that one Partitioner
    # fills has the next one of that level leave out most rows whose key it was not told.

    def __new__(
        cls,
        memory: Buffer,
        fan_out: int,
        level: int,
        /,
        *,
        bounds: tuple[bytes, ...] = ...,
        key_filter: Buffer | None = None,
        fills: bool = False,
    ) -> Self: ...
    # Spread rows from byte `at` on; return (next at, the partition that is full or -1, next
    # sequence). From `sequence` on (none when negative) rows get their number before their payload.
    def add_rows(self, block: Buffer, at: int, sequence: int = -1, /) -> tuple[int, int, int]: ...
    # Put one row at the start of `memory`, when all parts are empty: (next at, bytes). 0 bytes when
    # it does not fit.
    def add_whole(self, block: Buffer, at: int, sequence: int = -1, /) -> tuple[int, int]: ...
    # Where a partition's rows lie in `memory`, which takes others from now on: (start, stop, rows).
    def pop(self, partition: int, /) -> tuple[int, int, int]: ...

class RangeBound:
    # Where frames begin, or end, whose bound is so far from the rows' whole-number keys.
    #
    # Args:
    #     offset: negative before the row, in the order of the keys.
    #     is_end: else where the frame begins.
    #     descending, nulls_first: of the order.

    def __new__(cls, offset: int, is_end: bool, descending: bool, nulls_first: bool, /) -> Self: ...
    # Write a bound, an int64, for each of `keys` from `row` on; -1 where the key is null. Return the
    # row and why it stopped there: 0 done, 1 the rows that hold row `at` are needed in `ahead`.
    #
    # Args:
    #     partitions: an int64 for each row: where its partition begins.
    #     ahead: keys of the rows from `first` on.
    #     flags: of those rows, as of row_changes.
    #     last: no row follows them.
    def run(
        self,
        keys: Columns,
        partitions: Buffer,
        row: int,
        ahead: Columns | None,
        flags: Buffer,
        first: int,
        last: bool,
        out: Buffer,
        /,
    ) -> tuple[int, int]: ...
    # The row that is looked at next.
    @property
    def at(self) -> int: ...

class RecordFault(ValueError):
    # A record that cannot be read; `reason` is ragged, value, encoding, room or syntax.
    #
    # `offset` and `size` are the record's place in the block, without its line end; `row` counts the
    # parser's records from 0; `field` is the field's index, or how many fields a ragged record has;
    # `text` is the value (at most 80 characters of it).

    offset: int
    size: int
    row: int
    field: int
    reason: str
    text: str

class RowStore:
    # Rows gathered in `memory`, put in order, and handed out. A row takes its bytes and 32 more.

    def __new__(cls, memory: Buffer, /) -> Self: ...
    # Add rows from `start` until memory is full; return how many were taken. A row that is too
    # large for the empty store is not taken: 0. `payload` is None, "line" (the record's bytes) or
    # the indices of the columns to pack; `sequence` numbers the keys from there on.
    def add(
        self,
        columns: Columns,
        keys: KeySpec,
        payload: Literal["line"] | Sequence[int] | None,
        /,
        start: int = 0,
        sequence: int | None = None,
    ) -> int: ...
    # Add whole rows of a block from byte `start`; return the bytes taken.
    def add_rows(self, block: Buffer, start: int = 0, /) -> int: ...
    # Bytes of one row as `add` would write it.
    def row_bytes(
        self,
        columns: Columns,
        keys: KeySpec,
        payload: Literal["line"] | Sequence[int] | None,
        row: int,
        sequenced: bool = False,
        /,
    ) -> int: ...
    # Put the rows in the order of their keys; equal keys stay as they came.
    def sort(self) -> None: ...
    # Copy sorted rows [start, stop), or with `ending` their payloads each followed by it, into
    # `out` while they fit; return (bytes, rows).
    def drain(
        self, out: Buffer, start: int, stop: int, /, ending: bytes | None = None
    ) -> tuple[int, int]: ...
    # Where the sorted row at `position` lies in `memory`: (start, stop).
    def row_span(self, position: int, /) -> tuple[int, int]: ...
    # Keep the first `count` sorted rows and take more. With `bounding`, rows that come now and are
    # not among the first `count` so far are taken, and dropped.
    def keep(self, count: int, /, bounding: bool = False) -> None: ...
    # Forget all rows; what was learnt of their keys (`positions`) stays.
    def follow(self, before: RowStore, /) -> None: ...
    def reset(self) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...
    # The longest row ever taken.
    @property
    def row_bytes_max(self) -> int: ...
    # Where the keys ever taken differ: for a Merger.
    @property
    def positions(self) -> bytes: ...

class StateCombiner:
    # Makes rows of equal keys, which follow one another, one. `memory` is kept for life and holds
    # some eight times the longest row.

    def __new__(cls, memory: Buffer, parts: Sequence[tuple[int, int, int, int]], /) -> Self: ...
    # Read sorted rows from byte `start`, and write combined ones while they fit `out`: (bytes read,
    # bytes written, rows written). One row is held back until a greater key comes, or `last`. Raises
    # MemoryError when a group does not fit the memory, ValueError when a row is damaged.
    def run(self, rows: Buffer, start: int, out: Buffer, last: bool, /) -> tuple[int, int, int]: ...

# (kind, validity, values, ends) of a column, copied; what it does not have is None.
def copy_column(
    columns: Columns, index: int, /
) -> tuple[int, bytes | None, bytes, bytes | None]: ...

# Each row's record, without its line end.
def copy_lines(columns: Columns, /) -> list[bytes]: ...
def csv_last_record_end(data: Buffer, size: int, delimiter: int, quote: int, /) -> int: ...
def csv_record_end(data: Buffer, start: int, size: int, delimiter: int, quote: int, /) -> int: ...

# Read keys, or packed payloads, of a block's rows from byte `start` on, at most `rows_max`, while
# they fit `out`. Return (rows, next start, columns); a column is (kind, null count, validity, values,
# ends), each a (start, stop) in `out` of one Arrow buffer, aligned to 64 bytes; ends is None for
# kinds without. Raises ValueError when a row has another form, or the first one does not fit.
def decode_keys(
    block: Buffer, start: int, rows_max: int, kinds: Sequence[int], out: Buffer, spec: KeySpec, /
) -> tuple[int, int, list[_Filled]]: ...

# The float sum of spec/float-sum.md over doubles, as 80 bytes; of their squares.
def float_sum(values: Buffer, squares: bool = False, /) -> bytes: ...
def float_sum_merge(states: Buffer, /) -> bytes: ...
def float_sum_value(state: Buffer, /) -> float: ...
def float_sum_variance(count: int, total: Buffer, squares: Buffer, /) -> float | None: ...
def hll_estimate(state: Buffer, /) -> int: ...

# Write rows beside nothing, as the left or the right side of joined rows: (next at, bytes, rows,
# rows passed). Of `flags` those count that say which sides are sequenced. With `bits` only rows
# whose bit is 0.
def join_alone(
    block: Buffer,
    at: int,
    out: Buffer,
    is_right: bool,
    flags: int,
    bits: Buffer | None = None,
    first_bit: int = 0,
    /,
) -> tuple[int, int, int, int]: ...

# Write each left row beside each right row: (next left at, next right at, bytes, rows).
def join_cross(
    left: Buffer,
    left_at: int,
    right: Buffer,
    right_at: int,
    out: Buffer,
    flags: int = 0,
    /,
) -> tuple[int, int, int, int]: ...

# Write joined rows as lines: the left payload, `separator`, the right payload, a line feed; a text
# for a side that has no row. Without a separator the left payload alone: (next at, bytes, rows).
# ValueError when not even one line fits.
def join_lines(
    block: Buffer,
    at: int,
    out: Buffer,
    separator: bytes | None,
    left_absent: bytes,
    right_absent: bytes,
    /,
) -> tuple[int, int, int]: ...

# Write one side of joined rows as rows without keys, with the payload `absent` where that side has
# no row: (next at, bytes, rows).
def join_side(
    block: Buffer, at: int, out: Buffer, is_right: bool, absent: bytes, /
) -> tuple[int, int, int]: ...

# Have the allocator keep so many bytes at the end of its heap, and take blocks up to so many bytes
# from there; False where it is not glibc's.
def keep_freed(heap_bytes: int, block_bytes: int, /) -> bool: ...

# Give whole pages of freed memory back, also from between blocks in use; False where there were none.
def release_freed() -> bool: ...

# The bytes of the longest of so many texts of a Parquet page of plain values, of all when the count
# is negative; ValueError where it is cut.
def longest_text(page: Buffer, count: int, /) -> int: ...

# Write where texts end whose places (i32) in a dictionary with these ends are given, behind a zero;
# return the bytes of them all. Then write the texts, which are so many bytes.
def measure_texts(places: Buffer, ends: Buffer, out: Buffer, /) -> int: ...
def spread_texts(places: Buffer, ends: Buffer, texts: Buffer, out: Buffer, /) -> None: ...

# Where the rows from `at` on end that have this key.
def key_run(block: Buffer, at: int, key: Buffer, /) -> int: ...
def lz4_bound(size: int, /) -> int: ...
def lz4_compress(source: Buffer, target: Buffer, /) -> int: ...
def lz4_decompress(source: Buffer, target: Buffer, /) -> int: ...

# Bytes of memory that a Merger of so many sources takes for itself.
def merger_bytes(sources: int, /) -> int: ...
def open_block(head: Buffer, segment: int, stored: Buffer, target: Buffer, /) -> int: ...

# Pack rows from `start` on while they fit `out`: (bytes, rows). The key is empty when one of its
# columns is NULL; `payload` as of RowStore.add. `dropped`: ascending indices, four bytes each, of the
# fields that lines go without; `marks`: their delimiter and quote. ValueError when not even one fits.
def pack_join_rows(
    columns: Columns,
    keys: KeySpec,
    payload: Literal["line"] | Sequence[int] | None,
    start: int,
    out: Buffer,
    dropped: Buffer = b"",
    marks: bytes = b',"',
    /,
) -> tuple[int, int]: ...
def read_block_head(head: Buffer, segment: int, /) -> tuple[int, int, int, int, int, int, int]: ...

# For each of the sorted rows from byte `start` on, one for each byte of `flags`: 1 when its key
# differs from that of the row before, and 2 more when the first columns of the key differ, which are
# ascending, nulls last, of these kinds (a byte each). `previous` is the row before the block, empty
# when there is none. Return where the last row starts.
def row_changes(
    block: Buffer, start: int, kinds: Buffer, previous: Buffer, flags: Buffer, /
) -> int: ...

# Where the rows from `at` on end whose keys ascend, none empty and the first not below `key`, and that
# take at most `limit` bytes, one row excepted: (end, rows, where the last of them starts).
def sorted_run(block: Buffer, at: int, limit: int, key: Buffer, /) -> tuple[int, int, int]: ...

# Mark rows of a spilled side that matched: those from `at` on, of keys up to `last`, which do not lie
# in `rest` from `rest_at` on: (next at, next in `rest`, whether a greater key came). It stops where
# `rest` does, unless nothing follows it.
def mark_matched(
    block: Buffer, at: int, rest: Buffer, rest_at: int, rest_ended: bool, last: Buffer, /
) -> tuple[int, int, bool]: ...

# Make a whole writable mapping read-only, so that RLIMIT_DATA no longer counts its addresses; False
# when the system refuses.
def seal_pages(memory: Buffer, /) -> bool: ...
def sync_range(file: int, start: int, size: int, wait: bool, /) -> None: ...
def unpack_rows(
    block: Buffer, start: int, rows_max: int, kinds: Sequence[_Kind], out: Buffer, /
) -> tuple[int, int, list[_Filled]]: ...

# Look at an open /proc/PID/status until more is charged, shared, or less idle than that, `wake` can
# be read, or `judge_ms` have passed: (VmHWM, RssAnon, RssFile, RssShmem, VmData). `peak` has three
# numbers of 64 bits: the most charged, and VmHWM and RssFile of the last look.
def watch_usage(
    file: int,
    wake: int,
    peak: Buffer,
    charged_max: int,
    shmem_max: int,
    idle_min: int,
    near_bytes: int,
    far_ms: int,
    near_ms: int,
    judge_ms: int,
    /,
) -> tuple[int, int, int, int, int]: ...
def write_block_head(
    head: Buffer,
    stored: Buffer,
    schema: int,
    segment: int,
    number: int,
    codec: int,
    rows: int,
    raw_bytes: int,
    /,
) -> None: ...

# Copy the payloads of a block's rows from byte `start` on into `out`, each followed by `ending`,
# while they fit; return (bytes, rows, next start).
def write_lines(
    block: Buffer, start: int, out: Buffer, ending: bytes, /
) -> tuple[int, int, int]: ...
def xxh3_64(buffer: Buffer, seed: int = 0) -> int: ...
