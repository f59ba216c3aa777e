"""Read Parquet to Arrow within a budget: pages are measured before the first one is read.

A reader holds one page of each column it reads, and that column's dictionary, for any batch size.
If the budget does not hold those of all columns at once, a row group is read in several passes over
fewer columns; all but the last pass are spilled and combined again. So a file is refused only if a
single page or dictionary does not fit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.io.casting import BatchCaster
from emsqrt.io.file_facts import known_fact
from emsqrt.io.once import look_up
from emsqrt.io.parquet_coded import (
    Dictionary,
    coded_columns,
    decoded,
    refuse_grown,
    with_plain_texts,
)
from emsqrt.io.parquet_facts import Span, group_facts, joined_spans, stored_spans
from emsqrt.io.parquet_footer import Footer, Piece, read_footer
from emsqrt.io.parquet_groups import FileChunks, RowGroup, read_bytes, walk_file
from emsqrt.io.parquet_pages import ChunkPages
from emsqrt.io.parquet_passes import split_columns, zipped_batches
from emsqrt.io.parquet_rows import (
    TextSizes,
    are_near,
    doubtful_texts,
    rows_at_once,
    rows_of_longest,
)
from emsqrt.io.pruning import Condition, may_match
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.memory import BudgetGuard, MemoryBudget
from emsqrt.system_errors import refuse_memory
from sennit_core.errors import BadInput
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.spill import SpillManager

_BATCH_BYTES_MAX = 1 << 20
_BATCH_BYTES_MIN = 1 << 17
_BATCH_COPIES = 5
"""A batch, what is decoded ahead of it, and slack: measured from outside."""
_LEAF_BYTES = 1 << 9
"""A leaf column of an Arrow schema, with its name: rounded up."""
_ROOM_SHARE = 8 * _BATCH_COPIES
"""Batches use 1 / 8 of the memory that pages leave: operators and the sink need the rest."""


@dataclass(slots=True)
class _Together:
    """Row groups that are read together, in the same passes, with the same rows per batch."""

    piece: int
    """The number of the footer's piece that contains them all."""
    rows_at_once: int
    indexes: list[int] = field(default_factory=list)
    passes: list[list[str]] = field(default_factory=list)


class ParquetScan:
    """Reads one Parquet file; `bytes_done` is updated during iteration.

    Args:
        source: the file.
        schema: the columns to read, in order, with their types.
        budget: decides the size of batches; reserve `need_bytes` of it before reading.
        conditions: row groups are skipped if their statistics rule out these conditions.
        spill: opens the spill for columns that do not fit together; None refuses such files.

    Raises:
        BadInput: it is not a Parquet file.
    """

    def __init__(
        self,
        source: ByteSource | Path,
        schema: Schema,
        budget: MemoryBudget,
        *,
        conditions: Sequence[Condition] = (),
        spill: Callable[[], SpillManager] | None = None,
    ) -> None:
        self._source = open_source(source) if isinstance(source, Path) else source
        self._names = list(schema.names)
        self._spill = spill
        self._kept: frozenset[str] = frozenset()
        self.bytes_done = 0
        self.groups_left_out = 0
        self.bytes_skipped = 0
        """The part of `bytes_done` in row groups that an earlier process has read."""
        self._rows_skipped = 0
        columns = frozenset(schema.names)
        self._footer = read_footer(self._source)
        file_schema, leaves = _schemas(self._source, self._footer)
        self.known_because = self._admit_walk(leaves, budget)
        self._caster = BatchCaster(file_schema, schema, self._source.name)
        found = look_up(
            ("chunks", self._source.name, columns),
            lambda: known_fact(
                self._source,
                ("chunks", columns),
                lambda: walk_file(self._source, self._footer, columns, file_schema),
                lambda chunks: chunks.size_bytes,
            ),
        )
        ruled_out = self._ruled_out(conditions)
        groups = [group for group in found.groups if group.index not in ruled_out]
        self.groups_left_out = len(found.groups) - len(groups)
        room_bytes = budget.free_bytes - max((each.sum_bytes for each in groups), default=0)
        batch_bytes = max(_BATCH_BYTES_MIN, min(_BATCH_BYTES_MAX, room_bytes // _ROOM_SHARE))
        self._batch_bytes = batch_bytes
        self._sizes: tuple[int, TextSizes] = -1, {}
        self._rows = {each.index: rows_at_once(each.row_bytes, batch_bytes) for each in groups}
        self._long = self._with_long_texts(groups)
        self._coded = coded_columns(self._long, found.plain, file_schema)
        self._groups = [group.coded(self._coded) for group in groups]
        self._codable = found.codable
        page_room = budget.free_bytes - batch_bytes * _BATCH_COPIES
        self._passes = {
            group.index: split_columns(
                group.held_by_column(self._source), self._names, page_room - group.passing_bytes
            )
            for group in self._groups
            if spill is not None and group.sum_bytes > page_room
        }
        self._small = frozenset[str]()  # batches with dictionaries end where row groups do
        if self._whole and sum(group.row_count for group in self._groups) >= sum(
            self._rows.values()
        ):
            self._small = frozenset(self._codable) - found.large - self._long - self._coded
        page_bytes = max(map(self._held_at_once, self._groups), default=0)
        self.need_bytes = page_bytes + batch_bytes * _BATCH_COPIES + self._footer.piece_bytes
        self.need_because = _because(self._source, found.largest)
        self.known_bytes = found.size_bytes
        """Memory of the metadata of row groups, which is kept until the file is closed."""
        self.sure_row_bytes = max((group.sure_text_bytes for group in groups), default=0)
        """Some row has at least half of these bytes."""

    def _admit_walk(self, leaves: Sequence[str], budget: MemoryBudget) -> str:
        """Check that the facts of a walk over page headers fit memory; return their description."""
        groups, wanted = len(self._footer.group_rows), frozenset(self._names)
        chunks = groups * sum(leaf.partition(".")[0] in wanted for leaf in leaves)
        because = (
            f"{self._source.name} has {groups} row groups, "
            f"and {chunks} column chunks in them that are read"
        )
        budget.admit(FileChunks.bytes_of(groups, chunks), "row groups", because).release()
        return because

    def _with_long_texts(self, groups: Sequence[RowGroup]) -> set[str]:
        """Return the columns whose dictionaries may make some batches too large for the memory."""
        room_bytes = _BATCH_COPIES * self._batch_bytes
        return {
            chunk.column
            for group in groups
            if group.longest_bytes * self._rows[group.index] > room_bytes
            for chunk in group.chunks
            if chunk.longest_text_bytes * self._rows[group.index] > room_bytes
        }

    def _text_sizes(self, group: RowGroup) -> TextSizes:
        """Return the footer's text sizes of a row group's piece."""
        number = self._footer.piece_of(group.index)
        if number != self._sizes[0]:
            self._sizes = number, self._footer.text_sizes(self._footer.pieces[number])
        return self._sizes[1]

    def codable(self) -> dict[str, Dictionary]:
        """Return the text columns that may stay dictionary-encoded, with their dictionary sizes."""
        if not self._whole:
            return {}
        found = self._caster.uncast(self._codable)
        return {name: self._codable[name] for name in found if name not in self._coded}

    @property
    def _whole(self) -> bool:
        """Whether every row group is read in one pass."""
        return all(len(passes) == 1 for passes in self._passes.values())

    def keep_coded(self, names: Collection[str]) -> None:
        """Return these columns, which must be codable, as dictionary arrays in batches."""
        self._kept = frozenset(names)
        self._caster.keep_coded(names)

    def spans(self) -> dict[str, Span]:
        """Return the least and largest stored integers of columns that have statistics."""
        groups = [group.index for group in self._groups]
        columns = self._caster.unchanged
        return look_up(
            ("spans", self._source.name, tuple(groups), frozenset(columns)),
            lambda: self._stored_spans(groups, columns),
        )

    def _stored_spans(self, groups: Collection[int], columns: Collection[str]) -> dict[str, Span]:
        parts = []
        for piece in self._footer.pieces:
            wanted = [group - piece.first for group in groups if group in piece.groups]
            if wanted:
                parts.append(stored_spans(self._footer.metadata(piece), wanted, columns))
        return joined_spans(parts)

    def start_at(self, row: int) -> int:
        """Skip the row groups that end before a row; return their number of rows."""
        while self._groups and self._rows_skipped + self._groups[0].row_count <= row:
            self._rows_skipped += self._groups.pop(0).row_count
        return self._rows_skipped

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield the file's batches; `guard` holds `need_bytes`."""
        assert guard.size_bytes >= self.need_bytes, "admitted before"
        size = self._source.stored_bytes or 0
        total, done = max(self._footer.row_count, 1), self._rows_skipped
        self.bytes_skipped = size * done // total
        ends = list(accumulate((group.row_count for group in self._groups), initial=done))[1:]
        for batch in self._read():
            group = self._groups[min(bisect_right(ends, done), len(ends) - 1)]
            refuse_grown(batch, self._counts(group), self._source.name, group.index)
            done += batch.num_rows
            self.bytes_done = size * done // total
            batch = self._caster.cast(batch)
            yield batch
            del batch  # before the next one is made
        self.bytes_done = size

    def _counts(self, group: RowGroup) -> dict[str, int]:
        """Return the number of texts in the dictionaries of columns that stay encoded."""
        if not self._kept:
            return {}
        chunks = (chunk for chunk in group.chunks if chunk.column in self._kept)
        return {chunk.column: chunk.dictionary_count for chunk in chunks}

    def _read(self) -> Iterator[Any]:
        import pyarrow as pa

        coded = self._coded | self._kept | self._small
        try:
            for number, runs in groupby(self._runs(), lambda run: run.piece):
                piece = self._footer.pieces[number]
                with open_parquet(self._source, self._footer, piece, coded) as file:
                    for together in runs:
                        yield from self._passed(file, piece, together)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
            refuse_memory(error)
            raise BadInput(
                self._source.name,
                reason=f"a row group cannot be read: {error}",
                hint="the file is damaged, or uses a feature that this reader does not support",
            ) from error

    def _passed(self, file: Any, piece: Piece, together: _Together) -> Iterator[Any]:
        """Yield the rows of row groups, in one pass or in several."""
        opened = [self._pass(file, piece, together, names) for names in together.passes]
        if len(opened) == 1:
            yield from opened[0]
            return
        assert self._spill is not None, "passes are made only with a spill"
        for batch in zipped_batches(opened, self._spill()):
            yield batch.select(self._names)

    def _runs(self) -> Iterator[_Together]:
        """Yield row groups that are read together, or a single one that needs its own settings."""
        plain: _Together | None = None
        for group in self._groups:
            rows, doubtful = self._rows[group.index], self._doubtful(group)
            passes = self._passes.get(group.index, [self._names])
            alone = bool(doubtful) or len(passes) > 1
            piece = self._footer.piece_of(group.index)
            together = plain is not None and plain.piece == piece and not alone
            if plain is not None and not (together and are_near(rows, plain.rows_at_once)):
                yield plain
                plain = None
            if alone:
                sizes = self._text_sizes(group) if doubtful else {}
                rows = self._rows_of_longest(doubtful, rows, sizes)
                yield _Together(piece, rows, [group.index], passes)
                continue
            plain = plain or _Together(piece, rows, [], passes)
            plain.indexes.append(group.index)
            plain.rows_at_once = min(plain.rows_at_once, rows)
        if plain is not None:
            yield plain

    def _pass(
        self, file: Any, piece: Piece, together: _Together, names: list[str]
    ) -> Iterator[Any]:
        read = file.iter_batches(
            batch_size=together.rows_at_once,
            row_groups=[index - piece.first for index in together.indexes],
            columns=names,
            use_threads=False,
        )
        for batch in with_plain_texts(read, self._small - self._kept):
            pieces = decoded(batch, self._batch_bytes, self._kept)
            del batch
            yield from pieces
            del pieces

    def _doubtful(self, group: RowGroup) -> list[ChunkPages]:
        rows = min(self._rows[group.index], group.row_count)
        room_bytes = _BATCH_COPIES * self._batch_bytes
        if group.longest_bytes * rows <= room_bytes:
            return []
        return doubtful_texts(group.chunks, self._coded | self._kept, rows, room_bytes)

    def _rows_of_longest(self, doubtful: Sequence[ChunkPages], rows: int, sizes: TextSizes) -> int:
        """Read dictionaries to find the number of rows to decode at a time."""
        with self._source.open_ranges() as read_at:
            return rows_of_longest(read_at, doubtful, rows, self._batch_bytes, sizes)

    def _ruled_out(self, conditions: Sequence[Condition]) -> set[int]:
        """Return the row groups in which no row satisfies all conditions."""
        found: set[int] = set()
        for piece in self._footer.pieces if conditions else ():
            metadata = self._footer.metadata(piece)
            for group in piece.groups:
                facts = group_facts(metadata.row_group(group - piece.first), conditions)
                if not may_match(conditions, facts):
                    found.add(group)
        return found

    def _held_at_once(self, group: RowGroup) -> int:
        passes = self._passes.get(group.index)
        if not passes:
            return group.sum_bytes
        held = group.held_by_column(self._source)
        return max(sum(held.get(name, 0) for name in names) for names in passes) + (
            group.passing_bytes
        )


def open_parquet(
    source: ByteSource, footer: Footer, piece: Piece | None = None, coded: Collection[str] = ()
) -> Any:
    """Open a file with a reader that neither reads ahead nor uses threads.

    Args:
        source: the file.
        footer: its footer.
        piece: the part of the footer with the row groups to read; None to read none.
        coded: text columns that are read as indices and a dictionary.

    Raises:
        BadInput: Arrow cannot read it.
        MemoryError: there is not enough memory.
    """
    import pyarrow as pa
    from pyarrow import parquet

    from emsqrt.io.range_file import open_for_arrow

    file = open_for_arrow(source) if source.path is None else source.path
    options = {
        "buffer_size": read_bytes(source),
        "pre_buffer": False,
        "page_checksum_verification": True,
        "read_dictionary": list(coded),
    }
    try:
        opened = parquet.ParquetFile(file, metadata=footer.metadata(piece), **options)
        # Known after the first time: to derive the schema costs as much as to open the file.
        is_copied = known_fact(
            source,
            "types that are copied twice",
            lambda: any(map(_is_copied_twice, opened.schema_arrow.types)),
            lambda _: 0,
        )
        if not is_copied:
            return opened
        plain = footer.metadata(piece, plain=True)
        return parquet.ParquetFile(file, metadata=plain, **options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        refuse_memory(error)
        raise BadInput(source.name, reason=f"this is not a Parquet file: {error}") from error


def _schemas(source: ByteSource, footer: Footer) -> tuple[Any, tuple[str, ...]]:
    """Return a file's Arrow schema, and the paths of its leaf columns."""

    def read() -> tuple[Any, tuple[str, ...]]:
        with open_parquet(source, footer) as file:
            leaves = tuple(file.schema.column(at).path for at in range(len(file.schema)))
            return file.schema_arrow, leaves

    return known_fact(source, "schemas", read, lambda found: _LEAF_BYTES * len(found[1]))


def _is_copied_twice(kind: Any) -> bool:
    """Return whether Arrow converts this type from plain texts, which are later converted back."""
    import pyarrow as pa

    return bool(
        pa.types.is_string_view(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    )


def infer_parquet_schema(source: ByteSource | Path) -> Schema:
    """Return the file's columns."""
    source = open_source(source) if isinstance(source, Path) else source
    with open_parquet(source, read_footer(source)) as file:
        return Schema.from_arrow(file.schema_arrow)


def _because(source: ByteSource, top: ChunkPages | None) -> str:
    """Return the reason of the memory need: the column with the largest page."""
    name = Path(source.name).name
    if top is None:
        return f"{name} has no rows"
    page = format_bytes(top.largest_page)
    return f"row group {top.row_group} of {name}, column {top.column} has a {page} page"
