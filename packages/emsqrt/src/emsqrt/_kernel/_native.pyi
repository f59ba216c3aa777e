from collections.abc import Sequence
from typing import Literal, Self, TypeAlias

from typing_extensions import Buffer

_Span: TypeAlias = tuple[int, int]
_Filled: TypeAlias = tuple[int, int, _Span, _Span, _Span | None]

class AggReader:
    # Reads rows of keys and states as columns: first the keys, then the outputs.
    #
    # Args:
    #     keys, parts: as for the AggTable that wrote the rows; their columns are not used.
    #     outputs: (op, part, kind, scale) of each column; op is an `enum em_output_op` of finish.h.

    def __new__(
        cls,
        keys: Sequence[tuple[int, int, bool, bool]],
        parts: Sequence[tuple[int, int, int, int]],
        outputs: Sequence[tuple[int, int, int, int]],
        /,
    ) -> Self: ...
    # Read rows from byte `start` on while their columns fit `out`. Return (rows, next start,
    # columns), columns as decode_keys returns them. Raises MemoryError when not even one row fits,
    # OverflowError(output) when a sum does not fit its type, ValueError when a row is damaged.
    def read(self, rows: Buffer, start: int, out: Buffer, /) -> tuple[int, int, list[_Filled]]: ...

class AggTable:
    # Groups by normalised key in `memory`, which the table holds for life; at least 64 KiB.
    #
    # Args:
    #     keys: (column, kind, descending, nulls_first) of each key column.
    #     parts: (op, column, kind, param) of each state; op is an `enum em_part_op` of states.h;
    #         column is -1 when rows add nothing to the state; param is a decimal's scale, a
    #         sketch's precision, or 1 when first and last count nulls.
    #     limit: maximum bytes of a row's key, and of its texts; 0 is no limit.
    #     for_long: reserve a larger scratch, so that long keys fit.

    def __new__(
        cls,
        memory: Buffer,
        keys: Sequence[tuple[int, int, bool, bool]],
        parts: Sequence[tuple[int, int, int, int]],
        limit: int = 0,
        for_long: bool = False,
        /,
    ) -> Self: ...
    # Add rows from `start` on and return how many were added. Fewer than there are: the table is
    # full, or `refused_bytes` is set; 0 when the table is empty and a row does not fit it. With
    # `heading` the last key column counts as null.
    def add(self, columns: Columns, start: int = 0, heading: bool = False, /) -> int: ...
    # As `add`, for one key column, given as a number for each row: the row of `keys`, a single column
    # of distinct keys, as int32. `columns` are those that follow the key column.
    def add_coded(
        self, keys: Columns, codes: Buffer, columns: Columns, start: int = 0, /
    ) -> int: ...
    # Merge whole rows of packed states from byte `start` on; return the bytes consumed.
    def add_rows(self, rows: Buffer, start: int = 0, /) -> int: ...
    # Sort the groups by key; after that they can be drained, until reset.
    def sort(self) -> None: ...
    # Write sorted groups as rows, from number `first` on while they fit; return (bytes, rows).
    def drain(self, out: Buffer, first: int, /) -> tuple[int, int]: ...
    # An upper bound of the bytes of a sorted group's row.
    def row_bound(self, group: int, /) -> int: ...
    def reset(self) -> None: ...
    @property
    def groups(self) -> int: ...
    # Bytes of the key or the texts, over the limit, of the row that the last call refused; else 0.
    @property
    def refused_bytes(self) -> int: ...
    # Positions where the keys ever added differ, for a Merger.
    @property
    def positions(self) -> bytes: ...
    # Rows added so far; assign it when an earlier table has added the first ones.
    rows: int
    # Bytes of the longest text that a state has held.
    @property
    def text_bytes_max(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...

class BatchJoiner:
    # Joins small batches of an Arrow C stream to messages of an IPC stream, see arrow_join.h.
    #
    # Args:
    #     stream: a capsule of `__arrow_c_stream__`.
    #     layouts: (form, width) of each column; form is an `enum em_form` of arrow_join.h, width the
    #         bytes of a value of fixed size.

    def __new__(cls, stream: object, layouts: tuple[tuple[int, int], ...], /) -> Self: ...
    # Write one message of as many of the next batches as fit `out`, which is aligned to 8 bytes, and
    # have at most `rows_max` rows; return (rows, bytes). (0, 0) at the end of the stream, or when
    # the next batch alone does not fit.
    #
    # Raises:
    #     OSError, MemoryError: the stream has failed, with its text.
    def read_into(self, out: Buffer, rows_max: int, /) -> tuple[int, int]: ...
    # Return the batch that does not fit, as a capsule of `__arrow_c_array__`; None at the end.
    def take(self) -> object | None: ...
    # Release the batches and the stream; it then is at its end.
    def close(self) -> None: ...

# A column's kind: its number, or (kind, bytes in a packed row, what is subtracted from each value).
_Kind: TypeAlias = int | tuple[int, int, int]

class Columns:
    def __new__(
        cls,
        row_count: int,
        columns: Sequence[tuple[_Kind, int, Buffer | None, Buffer | None, Buffer | None]],
        /,
    ) -> Self: ...
    def __len__(self) -> int: ...
    # Return the kind, the offset, and the addresses of validity, values and ends (0 for none), for
    # Arrow to read while these columns are alive.
    def addresses(self, index: int, /) -> tuple[int, int, int, int, int]: ...
    # Return the same rows with further columns, in the form that the constructor accepts; `self`
    # must stay valid.
    def with_columns(
        self,
        columns: Sequence[tuple[int, int, Buffer | None, Buffer | None, Buffer | None]],
        /,
    ) -> Columns: ...
    def null_count(self, index: int, /) -> int: ...
    # Return the same rows with these columns, in this order; `self` must stay valid.
    def select(self, indices: Sequence[int], /) -> Columns: ...

class CsvFormatter:
    # Writes columns as CSV: a delimiter, `"` only where needed, LF; NULL is nothing, empty text is
    # `""`. Values are written as the Arrow tier's sink writes them.
    #
    # Args:
    #     types: the type name of each column.

    def __new__(cls, types: Sequence[str], *, delimiter: str = ",") -> Self: ...

    # Write the rows from `start` on whose bit in `keep` is set, until the next one does not fit
    # `out`. Return (the next row, bytes written); no progress means that a single row is longer
    # than `out`.
    def format(
        self, columns: Columns, start: int, out: Buffer, keep: Buffer | None = None, /
    ) -> tuple[int, int]: ...

class CsvParser:
    # Parses the wanted fields of whole records into columns in `memory`.
    #
    # Args:
    #     memory: the columns' memory; held for the object's life.
    #     field_count: fields of each record.
    #     columns: (field index, type name) of each column, such as `Decimal(12,2)`.
    #     delimiter, quote: one ASCII character each; quote None when nothing is quoted.
    #     null_values: unquoted fields that are NULL.
    #     on_error: "fail"; "null" (a value that cannot be parsed, or a missing field, is NULL); or
    #         "skip" (the record is left out and listed in `skipped_records`).
    #     check_fields: whether every record must have `field_count` fields.
    #     exact: for inferred types: an integer must be spelled as it would be printed, a Float64
    #         has digits without leading zeros, a fraction, an exponent; of `null_values` only the
    #         empty one counts in columns of text.

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

    # Parse records from `start`, until `memory` is full or the block ends; the last record may lack
    # its line end. Return the columns and the start of the next record.
    #
    # The columns hold the block. They are valid until the next call, which empties them. Rows
    # before a bad record are returned first; the call that starts at the bad record raises.
    #
    # Raises:
    #     RecordFault: the record at `start` cannot be parsed, and `on_error` does not allow that.
    def parse(self, block: Buffer, start: int = 0, /) -> tuple[Columns, int]: ...

    # Empty the columns of the last call and release its block.
    def release(self) -> None: ...

    # Records read so far, including skipped ones.
    @property
    def records(self) -> int: ...

    # Values that became NULL because they could not be parsed.
    @property
    def nulled(self) -> int: ...

    # Records skipped so far.
    @property
    def skipped(self) -> int: ...

    # (offset, size, field, reason) of each record that the last call skipped.
    @property
    def skipped_records(self) -> list[tuple[int, int, int, str]]: ...

class ExprProgram:
    # A small expression in postfix form, see program.h; `emsqrt.expr.program` compiles them.
    #
    # Args:
    #     code: instructions of four bytes: op, lane, u16 argument.
    #     constants: `constant_count` entries of 32 bytes, then their texts; held for life.
    #     memory: the stack, where blocks of rows are evaluated; held for life.

    def __new__(
        cls, code: Buffer, constants: Buffer, constant_count: int, memory: Buffer, /
    ) -> Self: ...
    # Write the values of all rows from `start` on as Arrow buffers, from bit and byte 0. Return
    # (rows, None); when a row has no value, (rows before its block, (row, instruction, left,
    # right)).
    def run(
        self, columns: Columns, start: int, values: Buffer, validity: Buffer, /
    ) -> tuple[int, tuple[int, int, int | None, int | None] | None]: ...
    # Write the numbers of the rows for which the result is true, as u32, until `chosen` is full or
    # the rows end. Return (rows evaluated, rows chosen, None or the failed row as for run).
    def select(
        self, columns: Columns, start: int, chosen: Buffer, /
    ) -> tuple[int, int, tuple[int, int, int | None, int | None] | None]: ...

class FrameMinMax:
    # Finds the row with the least or greatest value of each frame, the first of equal ones; see
    # window.h.
    #
    # Args:
    #     memory: the queue, held for life; 32 bytes per row; for text, half of it is for the texts.
    #     kind: of the values.
    #     greatest: find the greatest value, else the least.
    #     sliding: whether a frame's first row can change within a partition; otherwise the queue
    #         has only one row.

    def __new__(cls, memory: Buffer, kind: int, greatest: bool, sliding: bool, /) -> Self: ...
    # As FrameSum.run, with row numbers in `out`; -1 when a frame has no value. Stops with 3 when
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
    # The row after the last one that was added.
    @property
    def high(self) -> int: ...

class FrameSum:
    # Computes counts, exact sums and means of frames of rows; see window.h.
    #
    # Args:
    #     op: 0 count, 1 sum, 2 mean.
    #     kind: of the values.
    #     scale: of decimals, for the mean.

    def __new__(cls, op: int, kind: int, scale: int, /) -> Self: ...
    # Write the results of the frames [low[i], high[i]), two int64 per row, from `row` on; neither
    # bound may decrease. Each chunk is one column of the rows from its `first` on, at one end of
    # the frame. Return the row where it stopped and why: 0 done; 1 the chunk with row `high` is
    # needed, 2 the one with row `low`; 3 a sum does not fit its type.
    #
    # Args:
    #     values: 8 bytes per row, 16 for sums of decimals.
    #     validity: a bit per row, zeroed by the caller; counts do not write it.
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
    # The rows that are in the frame: [low, high).
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...

class GroupFold:
    # Makes rows of the main aggregate from sorted rows of (keys, value) with one count; see fold.h.
    #
    # Args:
    #     memory: held for life.
    #     keys: those of the rows, the value last and its nulls first.
    #     parts: of the main aggregate, with column 0 for those that read the value and -1 for the
    #         others.
    #     quantiles: (part, fraction) of each, the part being the minimum of a Float64; or for a
    #         discrete quantile (part, numerator, denominator), the part being a minimum of the
    #         value's kind.
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
    # Writes columns as one JSON object per line, as the Arrow tier's sink does.
    #
    # Args:
    #     columns: (name, type name) of each column.

    def __new__(cls, columns: Sequence[tuple[str, str]], /) -> Self: ...

    # As CsvFormatter.format.
    def format(
        self, columns: Columns, start: int, out: Buffer, keep: Buffer | None = None, /
    ) -> tuple[int, int]: ...

class JsonlParser:
    # Parses the wanted members of JSON Lines into columns in `memory`; each line is validated whole
    # (RFC 8259, UTF-8). An absent member is NULL; of members with the same name the last one
    # counts. A text column accepts any value: one that is not a string becomes its JSON text
    # without blanks. Numbers, days and times may be in strings; Binary is base64.
    #
    # Args:
    #     memory: the columns' memory; held for the object's life.
    #     columns: (member name, type name) of each column.
    #     on_error: as for CsvParser; a line that is not an object is never made NULL.

    def __new__(
        cls, memory: Buffer, columns: Sequence[tuple[str, str]], *, on_error: str = "fail"
    ) -> Self: ...

    # As CsvParser.parse; `field` of a fault is the column's index, its reason is never "ragged".
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
    # The build side's rows, looked up by key. `memory` holds the rows one after another, then 12
    # bytes per row.
    #
    # A row whose key is empty equals no row. `flags` are those of external/joined.py.

    def __new__(cls, memory: Buffer, /) -> Self: ...
    # Store rows from byte `at` on while they fit; return the offset of the first that does not, or
    # the block's length. `keys_only` drops payloads, and rows whose key is empty.
    def add_rows(self, block: Buffer, at: int = 0, /, *, keys_only: bool = False) -> int: ...
    # Build the index; after that rows can be looked up, but not added.
    def index(self) -> None: ...
    # Keep only the first row of each key, and accept more rows.
    def distinct(self) -> None: ...
    # Join the block's rows from `at` on with the table's; return (next at, bytes, rows, rows read).
    # When the next `at` is not the block's end, `out` was full: call again with it, and with
    # `first_bit` plus the rows read. `bits` has one bit per probe row; a match sets it.
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
    # Write the stored rows that matched, or those that did not, in build order; return (bytes,
    # rows, done).
    def drain(self, out: Buffer, matched: bool, flags: int, /) -> tuple[int, int, bool]: ...
    # Drop all rows.
    def clear(self) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def rows_bytes(self) -> int: ...

class KeySpec:
    # The sort order of rows: (column, descending, nulls_first) of each key column, most significant
    # first.

    def __new__(cls, columns: Sequence[tuple[int, bool, bool]], /) -> Self: ...
    def __len__(self) -> int: ...
    # Return one row's key as bytes (keys.h), without a sequence number.
    def encode(self, columns: Columns, row: int, /) -> bytes: ...

class LineWriter:
    # Writes parsed records unchanged (with LF), or a selection of their fields, quoted again.
    #
    # Args:
    #     fields: indices of the fields to write, in order; None writes records unchanged.
    #     record_fields: fields of a record, required with `fields`.
    #     delimiter, quote: of the records.
    #     out_delimiter: between the written fields.
    #     instead: for each of `fields`, the field that replaces it when it is empty.

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

    # Write the records in the payloads of packed rows (rows.h), from byte `start` of the block.
    # Return (the next byte of the block, bytes written).
    def write_rows(self, rows: Buffer, start: int, out: Buffer, /) -> tuple[int, int]: ...

class MergeJoiner:
    # Joins two inputs that are sorted by their keys. `left` is one block after the other; the
    # caller moves a window over the right side, which must contain all rows of a key.

    def __new__(cls, flags: int, /) -> Self: ...
    # Continue; return (why it stopped, bytes and rows in `out`, bytes and rows in `rest`). Why: 0
    # the left block has ended, 1 more right rows are needed after those from `right_at` on, 2 `out`
    # is full, 3 `rest` (right rows without a match) is full, 4 a side is not sorted.
    def run(
        self, left: Buffer, right: Buffer, out: Buffer, rest: Buffer, right_ended: bool, /
    ) -> tuple[int, int, int, int, int]: ...
    # Announce that the next call has the next left block.
    def next_left(self) -> None: ...
    # Announce that the right rows from `right_at` on were moved to the start of the block.
    def moved(self) -> None: ...
    # Continue at byte `at` of the left block.
    def skip_left(self, at: int, /) -> None: ...
    @property
    def left_at(self) -> int: ...
    @property
    def right_at(self) -> int: ...
    # The end of the right rows that matched last.
    @property
    def group_end(self) -> int: ...
    # The offset of the last row with a key before `left_at`, or -1.
    @property
    def left_last(self) -> int: ...
    @property
    def right_last(self) -> int: ...

class Merger:
    # Merges sorted rows of sources with a loser tree, stable by source number.
    #
    # Args:
    #     memory: the state, merger_bytes(len(sizes)), then each source's part; held for life.
    #     sizes: bytes of each source's part of `memory`.
    #     positions: RowStore.positions of a store that has seen every key; None compares whole
    #         keys.

    def __new__(
        cls, memory: Buffer, sizes: Sequence[int], positions: bytes | None = None, /
    ) -> Self: ...
    # Return the span of a source's part in `memory`: (start, stop).
    def span(self, source: int, /) -> tuple[int, int]: ...
    # Announce the bytes of whole rows that are now at the start of an empty source's part; 0 ends
    # the source.
    def refill(self, source: int, filled: int, /) -> None: ...
    # Write the next rows, or with `ending` their payloads each followed by it, into `out`. Return
    # (bytes, rows, why): the source that must be refilled, -1 when `out` is full (or too small for
    # one row) or `rows_max` is reached, -2 when all sources have ended.
    def run(
        self, out: Buffer, /, ending: bytes | None = None, rows_max: int = ...
    ) -> tuple[int, int, int]: ...
    # Return the span of the next row in `memory`, (start, stop); None when `run` would stop at
    # once.
    def head(self) -> tuple[int, int] | None: ...
    # Skip the row at head(); return `why` as `run` does.
    def skip(self) -> int: ...

class Partitioner:
    # Partitions rows into `fan_out` equal parts of `memory` by the hash of their keys, and rows
    # whose key is empty into one more. Each `level` uses other bits of the hash. With `bounds`,
    # ascending keys at which every part but the first begins, rows go to the range of their key. A
    # `key_filter` that one Partitioner fills lets the next one of that level drop most rows whose
    # key is not in it.

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
    # Partition rows from byte `at` on; return (next at, the partition that is full or -1, next
    # sequence). Unless `sequence` is negative, each row gets that number, counted up, before its
    # payload.
    def add_rows(self, block: Buffer, at: int, sequence: int = -1, /) -> tuple[int, int, int]: ...
    # Store one row at the start of `memory`, when all parts are empty: (next at, bytes). 0 bytes
    # when it does not fit.
    def add_whole(self, block: Buffer, at: int, sequence: int = -1, /) -> tuple[int, int]: ...
    # Return the span of a partition's rows in `memory`, (start, stop, rows), and empty the
    # partition: the rows are valid until more are added.
    def pop(self, partition: int, /) -> tuple[int, int, int]: ...

class RangeBound:
    # Finds the rows where RANGE frames begin, or end: at `offset` from the row's whole-number key.
    #
    # Args:
    #     offset: negative before the row, in the order of the keys.
    #     is_end: find where the frame ends, else where it begins.
    #     descending, nulls_first: of the order.

    def __new__(cls, offset: int, is_end: bool, descending: bool, nulls_first: bool, /) -> Self: ...
    # Write a bound, an int64, for each of `keys` from `row` on; -1 when the key is null. Return the
    # row where it stopped and why: 0 done, 1 the rows with row `at` are needed in `ahead`.
    #
    # Args:
    #     partitions: an int64 per row: the first row of its partition.
    #     ahead: keys of the rows from `first` on.
    #     flags: of those rows, from row_changes.
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
    # The next row to compare.
    @property
    def at(self) -> int: ...

class RecordFault(ValueError):
    # A record that cannot be parsed; `reason` is ragged, value, encoding, room or syntax.
    #
    # `offset` and `size` are the record's span in the block, without its line end; `row` counts the
    # parser's records from 0; `field` is the field's index, or the number of fields of a ragged
    # record; `text` is the value (at most 80 characters of it).

    offset: int
    size: int
    row: int
    field: int
    reason: str
    text: str

class RowStore:
    # Collects rows in `memory`, sorts them, and copies them out. A row needs its bytes and 32 more.

    def __new__(cls, memory: Buffer, /) -> Self: ...
    # Add rows from `start` until the memory is full; return how many were added. A row that is too
    # large for the empty store is not added: 0. `payload` is None, "line" (the record's bytes) or
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
    # Add whole rows of a block from byte `start` on; return the bytes consumed.
    def add_rows(self, block: Buffer, start: int = 0, /) -> int: ...
    # Return the bytes of one row as `add` would write it.
    def row_bytes(
        self,
        columns: Columns,
        keys: KeySpec,
        payload: Literal["line"] | Sequence[int] | None,
        row: int,
        sequenced: bool = False,
        /,
    ) -> int: ...
    # Sort the rows by key; the sort is stable.
    def sort(self) -> None: ...
    # Copy sorted rows [start, stop), or with `ending` their payloads each followed by it, into
    # `out` while they fit; return (bytes, rows).
    def drain(
        self, out: Buffer, start: int, stop: int, /, ending: bytes | None = None
    ) -> tuple[int, int]: ...
    # Return the span of the sorted row at `position` in `memory`: (start, stop).
    def row_span(self, position: int, /) -> tuple[int, int]: ...
    # Keep the first `count` sorted rows, drop the others, and accept more. With `bounding`, later
    # rows that would sort after these `count` are dropped when they are added.
    def keep(self, count: int, /, bounding: bool = False) -> None: ...
    # Continue the statistics of another store: `positions` and `row_bytes_max`.
    def follow(self, before: RowStore, /) -> None: ...
    # Drop all rows, but keep these statistics.
    def reset(self) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...
    # Bytes of the longest row ever added.
    @property
    def row_bytes_max(self) -> int: ...
    # Positions where the keys ever added differ, for a Merger.
    @property
    def positions(self) -> bytes: ...

class StateCombiner:
    # Combines adjacent rows with equal keys into one. `memory` is held for life and needs some
    # eight times the longest row.

    def __new__(cls, memory: Buffer, parts: Sequence[tuple[int, int, int, int]], /) -> Self: ...
    # Read sorted rows from byte `start` on, and write combined ones while they fit `out`: (bytes
    # read, bytes written, rows written). The last row is held back until a greater key arrives, or
    # `last` is set. Raises MemoryError when a group does not fit the memory, ValueError when a row
    # is damaged.
    def run(self, rows: Buffer, start: int, out: Buffer, last: bool, /) -> tuple[int, int, int]: ...

# Return copies of a column's kind, validity, values and ends; None for a buffer that it lacks.
def copy_column(
    columns: Columns, index: int, /
) -> tuple[int, bytes | None, bytes, bytes | None]: ...

# Return each row's record, without its line end.
def copy_lines(columns: Columns, /) -> list[bytes]: ...
def csv_last_record_end(data: Buffer, size: int, delimiter: int, quote: int, /) -> int: ...
def csv_record_end(data: Buffer, start: int, size: int, delimiter: int, quote: int, /) -> int: ...

# Decode the keys, or the packed payloads, of a block's rows from byte `start` on, at most
# `rows_max`, while they fit `out`. Return (rows, next start, columns); a column is (kind, null
# count, validity, values, ends), each of the last three the span of an Arrow buffer in `out`,
# aligned to 64 bytes; ends is None for kinds without it. Raises ValueError when a row is malformed,
# or the first one does not fit.
def decode_keys(
    block: Buffer, start: int, rows_max: int, kinds: Sequence[int], out: Buffer, spec: KeySpec, /
) -> tuple[int, int, list[_Filled]]: ...

# Return the float sum of spec/float-sum.md over doubles, or over their squares, as 80 bytes.
def float_sum(values: Buffer, squares: bool = False, /) -> bytes: ...
def float_sum_merge(states: Buffer, /) -> bytes: ...
def float_sum_value(state: Buffer, /) -> float: ...
def float_sum_variance(count: int, total: Buffer, squares: Buffer, /) -> float | None: ...
def hll_estimate(state: Buffer, /) -> int: ...

# Write rows as the left or the right side of joined rows without the other side: (next at, bytes,
# rows, rows read). Only the flags that mark sequenced sides are used. With `bits`, write only rows
# whose bit is 0.
def null_extend_rows(
    block: Buffer,
    at: int,
    out: Buffer,
    is_right: bool,
    flags: int,
    bits: Buffer | None = None,
    first_bit: int = 0,
    /,
) -> tuple[int, int, int, int]: ...

# Write each left row joined with each right row: (next left at, next right at, bytes, rows).
def join_cross(
    left: Buffer,
    left_at: int,
    right: Buffer,
    right_at: int,
    out: Buffer,
    flags: int = 0,
    /,
) -> tuple[int, int, int, int]: ...

# Write joined rows as lines: the left payload, `separator`, the right payload, a line feed;
# `left_absent` or `right_absent` replaces a side without a row. Without a separator, only the left
# payload. Return (next at, bytes, rows). ValueError when not even one line fits.
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

# Make the allocator keep up to `heap_bytes` free at the end of its heap, and allocate blocks of up
# to `block_bytes` from the heap; False when it is not glibc's.
def keep_freed(heap_bytes: int, block_bytes: int, /) -> bool: ...

# Return whole pages of freed memory to the system, also those between blocks in use; False when
# there were none.
def release_freed() -> bool: ...

# Return the bytes of the longest of the first `count` texts in a Parquet page of plain values, of
# all when `count` is negative; ValueError when the page is truncated.
def longest_text(page: Buffer, count: int, /) -> int: ...

# Write the end offsets of dictionary-encoded texts after a leading zero, and return the bytes of
# all texts: `places` are indices (i32) into the dictionary with these `ends`. Then gather_texts()
# writes the texts, which have that many bytes.
def measure_texts(places: Buffer, ends: Buffer, out: Buffer, /) -> int: ...
def gather_texts(places: Buffer, ends: Buffer, texts: Buffer, out: Buffer, /) -> None: ...

# Return the end of the rows with this key that start at `at`.
def key_run(block: Buffer, at: int, key: Buffer, /) -> int: ...
def lz4_bound(size: int, /) -> int: ...
def lz4_compress(source: Buffer, target: Buffer, /) -> int: ...
def lz4_decompress(source: Buffer, target: Buffer, /) -> int: ...

# Return the bytes of memory that a Merger of this many sources needs for its own state.
def merger_bytes(sources: int, /) -> int: ...
def open_block(head: Buffer, segment: int, stored: Buffer, target: Buffer, /) -> int: ...

# Pack rows from `start` on while they fit `out`: (bytes, rows). The key is empty when one of its
# columns is NULL; `payload` as for RowStore.add. `dropped`: ascending indices, four bytes each, of
# the fields to remove from lines; `marks`: their delimiter and quote. ValueError when not even one
# fits.
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

# For each of the sorted rows from byte `start` on, one per byte of `flags`, set 1 when its key
# differs from that of the row before, and add 2 when the first columns of the key differ, which are
# ascending, nulls last, of these kinds (a byte each). `previous` is the row before the block, empty
# when there is none. Return the offset of the last row.
def row_changes(
    block: Buffer, start: int, kinds: Buffer, previous: Buffer, flags: Buffer, /
) -> int: ...

# Find the rows from `at` on whose keys ascend, none empty and the first not below `key`, and which
# have at most `limit` bytes together, though at least one row: (end, rows, offset of the last).
def sorted_run(block: Buffer, at: int, limit: int, key: Buffer, /) -> tuple[int, int, int]: ...

# Mark the rows of a spilled side that matched: those from `at` on with keys up to `last` that are
# not in `rest` from `rest_at` on. Return (next at, next in `rest`, whether a greater key was
# found). It stops at the end of `rest`, unless `rest_ended`.
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

# Sample an open /proc/PID/status until more memory is charged or shared than the limits, less is
# idle, `wake` is readable, or `looks_ms` have passed: (VmHWM, RssAnon, RssFile, RssShmem, VmData).
# `peak` has three 64-bit numbers: the peak of the charged bytes, and VmHWM and RssFile of the last
# sample.
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
    looks_ms: int,
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
