"""Parquet to Arrow under a budget: the pages are measured before the first one is read.

A reader holds one page of each column it reads, and that column's dictionary, whatever batch size it
is asked for. Where the budget does not hold those of all columns at once, a row group is read in
several passes over fewer columns; all but the last wait in the spill and are zipped together again.
So only a single page or dictionary that does not fit is refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.io.casting import BatchCaster
from emsqrt.io.once import look_up
from emsqrt.io.parquet_coded import (
    Dictionary,
    codable_columns,
    coded_columns,
    decoded,
    refuse_grown,
    small_columns,
    with_plain_texts,
)
from emsqrt.io.parquet_facts import Span, group_facts, stored_spans
from emsqrt.io.parquet_footer import MAGIC, read_footer, text_sizes
from emsqrt.io.parquet_pages import ChunkPages, walk_chunks
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
from sennit_core.errors import BadInput
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.spill import SpillManager

_ARROW_SCHEMA = b"ARROW:schema"
_READ_BYTES = 1 << 16
_FAR_READ_BYTES = 1 << 19
_BATCH_BYTES_MAX = 1 << 20
_BATCH_BYTES_MIN = 1 << 17
_BATCH_COPIES = 5
"""A batch, what is decoded ahead of it, and slack: measured from outside."""
_ROOM_SHARE = 8 * _BATCH_COPIES
"""Batches take an eighth of what pages leave: operators and the sink have the rest."""
_CODED_COPIES = 3
"""Of a dictionary that texts come with: in what gathers it, twice, and in a batch."""
_COLUMN_BYTES = 64 << 10
"""A column's decoder and what allocators round up: measured likewise."""


@dataclass(frozen=True, slots=True)
class _Group:
    """One row group: what a reader holds for each column, and beside for one at a time."""

    index: int
    row_count: int
    held_bytes: Mapping[str, int]
    passing_bytes: int
    chunks: Sequence[ChunkPages]

    def coded(self, columns: Collection[str]) -> _Group:
        """Return the same, when texts of some columns come with their dictionaries."""
        sizes = (chunk.dictionary_bytes for chunk in self.chunks if chunk.column in columns)
        return replace(self, passing_bytes=self.passing_bytes + _CODED_COPIES * sum(sizes))


@dataclass(slots=True)
class _Together:
    """Row groups that are read in one go, in as many passes as it takes, so many rows at once."""

    rows_at_once: int
    indexes: list[int] = field(default_factory=list)
    passes: list[list[str]] = field(default_factory=list)


class ParquetScan:
    """Reads one Parquet file; `bytes_done` moves while it is iterated.

    Args:
        source: the file.
        schema: the wanted columns, in order, with their types.
        budget: its size decides the batches'; `need_bytes` is to be admitted before reading.
        conditions: row groups whose statistics rule these out are left out.
        spill: opens where columns wait for each other; None has what does not fit refused.

    Raises:
        BadInput: it is no Parquet file.
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
        """Of the bytes done: those of row groups that an earlier run read."""
        self._rows_skipped = 0
        columns = frozenset(schema.names)
        with open_parquet(self._source) as file:
            self._caster = BatchCaster(file.schema_arrow, schema, self._source.name)
            try:
                chunks = look_up(
                    ("chunks", self._source.name, columns),
                    lambda: list(walk_chunks(self._source, file.metadata, columns)),
                )
            except UnicodeDecodeError as error:
                reason = f"a name in the footer is damaged: {error}"
                raise BadInput(self._source.name, reason=reason) from error
            self._groups = self._wanted_groups(file, chunks, conditions)
            room_bytes = budget.free_bytes - max(map(_sum_held, self._groups), default=0)
            batch_bytes = max(_BATCH_BYTES_MIN, min(_BATCH_BYTES_MAX, room_bytes // _ROOM_SHARE))
            self._batch_bytes = batch_bytes
            differing = any(chunk.has_prefixes for chunk in chunks)
            sizes = text_sizes(read_footer(self._source)) if differing else {}
            self._rows = {
                group.index: rows_at_once(group.chunks, batch_bytes, group.row_count, sizes)
                for group in self._groups
            }
            self._coded = coded_columns(
                chunks, file.schema_arrow, self._rows, _BATCH_COPIES * batch_bytes
            )
            self._groups = [group.coded(self._coded) for group in self._groups]
            self._codable = codable_columns(chunks, file.schema_arrow)
        self._texts = {
            (chunk.row_group, chunk.column): chunk.dictionary_count
            for chunk in chunks
            if chunk.column in self._codable
        }
        page_room = budget.free_bytes - batch_bytes * _BATCH_COPIES
        self._passes = {
            group.index: split_columns(
                group.held_bytes, self._names, page_room - group.passing_bytes
            )
            for group in self._groups
            if spill is not None and _sum_held(group) > page_room
        }
        self._small = frozenset[str]()  # batches with dictionaries end where row groups do
        if self._whole and sum(group.row_count for group in self._groups) >= sum(
            self._rows.values()
        ):
            room_bytes = _BATCH_COPIES * batch_bytes
            self._small = small_columns(chunks, self._codable, self._rows, room_bytes) - self._coded
        page_bytes = max(map(self._held_at_once, self._groups), default=0)
        self.need_bytes = page_bytes + batch_bytes * _BATCH_COPIES
        self.need_because = _because(self._source, chunks)
        of_groups = (chunk for group in self._groups for chunk in group.chunks)
        self.sure_row_bytes = max((chunk.sure_text_bytes for chunk in of_groups), default=0)
        """Some row is so long, or half of it at least."""

    def codable(self) -> dict[str, Dictionary]:
        """Return the columns of text that may be kept as places in dictionaries, and of what size."""
        if not self._whole:
            return {}
        found = self._caster.uncast(self._codable)
        return {name: self._codable[name] for name in found if name not in self._coded}

    @property
    def _whole(self) -> bool:
        """Whether every row group is read in one pass."""
        return all(len(passes) == 1 for passes in self._passes.values())

    def keep_coded(self, names: Collection[str]) -> None:
        """Have batches hold these columns, codable all, as Arrow's dictionary arrays."""
        self._kept = frozenset(names)
        self._caster.keep_coded(names)

    def spans(self) -> dict[str, Span]:
        """Return between which integers, as they are stored, those columns lie that tell it."""
        groups = [group.index for group in self._groups]
        columns = self._caster.unchanged
        return look_up(
            ("spans", self._source.name, tuple(groups), frozenset(columns)),
            lambda: stored_spans(read_metadata(self._source), groups, columns),
        )

    def start_at(self, row: int) -> int:
        """Leave out the row groups that end before a row; return how many rows these have."""
        while self._groups and self._rows_skipped + self._groups[0].row_count <= row:
            self._rows_skipped += self._groups.pop(0).row_count
        return self._rows_skipped

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield the file's batches; `guard` holds `need_bytes`."""
        assert guard.size_bytes >= self.need_bytes, "admitted before"
        size = self._source.stored_bytes or 0
        with open_parquet(self._source, self._coded | self._kept | self._small) as file:
            total, done = max(file.metadata.num_rows, 1), self._rows_skipped
            self.bytes_skipped = size * done // total
            ends = list(accumulate((group.row_count for group in self._groups), initial=done))[1:]
            for batch in self._read(file):
                group = self._groups[min(bisect_right(ends, done), len(ends) - 1)].index
                counts = {name: self._texts[group, name] for name in self._kept}
                refuse_grown(batch, counts, self._source.name, group)
                done += batch.num_rows
                self.bytes_done = size * done // total
                batch = self._caster.cast(batch)
                yield batch
                del batch  # before the next is made
        self.bytes_done = size

    def _read(self, file: Any) -> Iterator[Any]:
        import pyarrow as pa

        try:
            for together in self._runs():
                if len(together.passes) == 1:
                    yield from self._pass(file, together, self._names)
                    continue
                assert self._spill is not None, "passes are made only with a spill"
                opened = (self._pass(file, together, names) for names in together.passes)
                for batch in zipped_batches(list(opened), self._spill()):
                    yield batch.select(self._names)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
            raise BadInput(
                self._source.name,
                reason=f"a row group cannot be read: {error}",
                hint="the file is damaged, or written in a way that this reader does not know",
            ) from error

    def _runs(self) -> Iterator[_Together]:
        """Yield groups that are read in one go, and single ones that are read in a way of their own."""
        plain: _Together | None = None
        in_doubt = any(map(self._doubtful, self._groups))
        sizes = text_sizes(read_footer(self._source)) if in_doubt else {}
        for group in self._groups:
            rows, doubtful = self._rows[group.index], self._doubtful(group)
            passes = self._passes.get(group.index, [self._names])
            alone = bool(doubtful) or len(passes) > 1
            if plain is not None and (alone or not are_near(rows, plain.rows_at_once)):
                yield plain
                plain = None
            if alone:
                rows = self._rows_of_longest(doubtful, rows, sizes)
                yield _Together(rows, [group.index], passes)
                continue
            plain = plain or _Together(rows, [], passes)
            plain.indexes.append(group.index)
            plain.rows_at_once = min(plain.rows_at_once, rows)
        if plain is not None:
            yield plain

    def _pass(self, file: Any, together: _Together, names: list[str]) -> Iterator[Any]:
        read = file.iter_batches(
            batch_size=together.rows_at_once,
            row_groups=together.indexes,
            columns=names,
            use_threads=False,
        )
        for batch in with_plain_texts(read, self._small - self._kept):
            pieces = decoded(batch, self._batch_bytes, self._kept)
            del batch
            yield from pieces
            del pieces

    def _doubtful(self, group: _Group) -> list[ChunkPages]:
        rows = min(self._rows[group.index], group.row_count)
        room_bytes = _BATCH_COPIES * self._batch_bytes
        return doubtful_texts(group.chunks, self._coded | self._kept, rows, room_bytes)

    def _rows_of_longest(self, doubtful: Sequence[ChunkPages], rows: int, sizes: TextSizes) -> int:
        """Look at dictionaries before their texts are decoded."""
        with self._source.open_ranges() as read_at:
            return rows_of_longest(read_at, doubtful, rows, self._batch_bytes, sizes)

    def _wanted_groups(
        self, file: Any, chunks: Sequence[ChunkPages], conditions: Sequence[Condition]
    ) -> list[_Group]:
        held: dict[int, dict[str, int]] = {}
        passing: dict[int, int] = {}
        of_groups: dict[int, list[ChunkPages]] = {}
        for chunk in chunks:
            of_groups.setdefault(chunk.row_group, []).append(chunk)
            name = chunk.column.partition(".")[0]
            of_group = held.setdefault(chunk.row_group, {})
            of_group[name] = of_group.get(name, 0) + chunk.held_bytes
            of_group[name] += read_bytes(self._source) + _COLUMN_BYTES
            passing[chunk.row_group] = max(passing.get(chunk.row_group, 0), chunk.passing_bytes)
        groups = []
        for index in range(file.metadata.num_row_groups):
            metadata = file.metadata.row_group(index)
            facts = group_facts(metadata, conditions)
            if may_match(conditions, facts):
                parts = held.get(index, {}), passing.get(index, 0), of_groups.get(index, [])
                groups.append(_Group(index, metadata.num_rows, *parts))
        self.groups_left_out = file.metadata.num_row_groups - len(groups)
        return groups

    def _held_at_once(self, group: _Group) -> int:
        passes = self._passes.get(group.index) or [self._names]
        sets = (sum(group.held_bytes.get(name, 0) for name in names) for names in passes)
        return max(sets) + group.passing_bytes


def open_parquet(source: ByteSource | Path, coded: Collection[str] = ()) -> Any:
    """Open a file with a reader that neither reads ahead nor uses threads.

    Args:
        source: the file.
        coded: columns of text that are read as indices and a dictionary.
    """
    import pyarrow as pa
    from pyarrow import parquet

    from emsqrt.io.range_file import open_for_arrow

    source = open_source(source) if isinstance(source, Path) else source
    footer = read_footer(source)
    file = open_for_arrow(source) if source.path is None else source.path
    options = {
        "buffer_size": read_bytes(source),
        "pre_buffer": False,
        "page_checksum_verification": True,
        "read_dictionary": list(coded),
    }
    try:
        opened = parquet.ParquetFile(file, metadata=_metadata(footer), **options)
        if not any(map(_is_copied_twice, opened.schema_arrow.types)):
            return opened
        # As if nothing but Parquet's own types were in it.
        plain = footer.replace(_ARROW_SCHEMA, _ARROW_SCHEMA.swapcase())
        return parquet.ParquetFile(file, metadata=_metadata(plain), **options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        raise BadInput(source.name, reason=f"this is not a Parquet file: {error}") from error


def _is_copied_twice(kind: Any) -> bool:
    """Whether Arrow makes these values of plain texts, which are then made plain again."""
    import pyarrow as pa

    return bool(
        pa.types.is_string_view(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    )


def read_metadata(source: ByteSource | Path) -> Any:
    """Return what a file's footer says; raises as `read_footer` does."""
    return _metadata(read_footer(open_source(source) if isinstance(source, Path) else source))


def _metadata(footer: bytes) -> Any:
    """Return what a footer says, as Arrow has it.

    Args:
        footer: as `read_footer` gives it.
    """
    import pyarrow as pa
    from pyarrow import parquet

    return parquet.read_metadata(pa.BufferReader(MAGIC + footer))


def read_bytes(source: ByteSource) -> int:
    """Return how much is asked of a source at a time, for each column."""
    return _READ_BYTES if source.path is not None else _FAR_READ_BYTES


def infer_parquet_schema(source: ByteSource | Path) -> Schema:
    """Return the file's columns."""
    with open_parquet(source) as file:
        return Schema.from_arrow(file.schema_arrow)


def _sum_held(group: _Group) -> int:
    return sum(group.held_bytes.values()) + group.passing_bytes


def _because(source: ByteSource, chunks: Sequence[ChunkPages]) -> str:
    """Name the column with the largest page."""
    name = Path(source.name).name
    if not chunks:
        return f"{name} has no rows"
    top = max(chunks, key=lambda chunk: chunk.largest_page)
    page = format_bytes(top.largest_page)
    return f"row group {top.row_group} of {name}, column {top.column} has a {page} page"
