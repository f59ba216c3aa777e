from collections.abc import Sequence
from typing import Self

from typing_extensions import Buffer

class Columns:
    def __new__(
        cls,
        row_count: int,
        columns: Sequence[tuple[int, int, Buffer | None, Buffer | None, Buffer | None]],
        /,
    ) -> Self: ...
    def __len__(self) -> int: ...
    def null_count(self, index: int, /) -> int: ...

class RecordFault(ValueError):
    # A record that cannot be read; `reason` is ragged, value, encoding or room.
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
    ) -> Self:
        ...
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

def csv_last_record_end(data: Buffer, size: int, delimiter: int, quote: int, /) -> int: ...
def csv_record_end(data: Buffer, start: int, size: int, delimiter: int, quote: int, /) -> int: ...
def lz4_bound(size: int, /) -> int: ...
def lz4_compress(source: Buffer, target: Buffer, /) -> int: ...
def lz4_decompress(source: Buffer, target: Buffer, /) -> int: ...
def open_block(head: Buffer, segment: int, stored: Buffer, target: Buffer, /) -> int: ...
def read_block_head(head: Buffer, segment: int, /) -> tuple[int, int, int, int, int, int, int]: ...
def sync_range(file: int, start: int, size: int, wait: bool, /) -> None: ...
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
def xxh3_64(buffer: Buffer, seed: int = 0) -> int: ...
