"""Filters over the records in a ring: predicates, bitsets, ranges, and search in sorted fields.

A bitset has one bit for each record of a window. Bitsets can be intersected, counted, iterated, or
used to find the ranges of other fields (faceted filtering over the records in the ring).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sennit_core.errors import Corrupt, UsageError
from strand.conversions import NULLS
from strand.cursor import RecordCursor
from strand.sources import OFFSETS32

if TYPE_CHECKING:
    from strand.consumer import RingConsumer
    from strand.fields import StrandField

__all__ = [
    "Between",
    "Bitset",
    "OneOf",
    "Predicate",
    "between",
    "constrained_ranges",
    "eq",
    "find_first",
    "for_each_set",
    "get_filter_bitset",
    "intersect",
    "one_of",
    "popcount",
]

Array = np.ndarray[Any, Any]

_UNORDERED = ("json", "array")  # kinds whose values have no order


@dataclass(frozen=True)
class Between:
    """Values from `low` to `high`, inclusive; None: no bound on that side."""

    low: Any
    high: Any

    def holds(self, value: Any) -> bool:
        """Whether one value matches."""
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class OneOf:
    """Values out of a set."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether one value matches."""
        return value in self.values


Predicate = Between | OneOf


def between(low: Any, high: Any) -> Predicate:
    """Match values from `low` to `high`, inclusive; None: no bound on that side.

    Strings compare by their UTF-8 bytes, which is the order of their code points.
    """
    return Between(low, high)


def eq(value: Any) -> Predicate:
    """Match one value."""
    return OneOf((value,))


def one_of(values: Sequence[Any]) -> Predicate:
    """Match any of these values."""
    return OneOf(tuple(values))


@dataclass(frozen=True, eq=False)
class Bitset:
    """A bit for each record of a window; iterating yields the sequence numbers that are set.

    Bit i of `words` (u64, least significant bit first) is record `start + i`.
    """

    start: int
    length: int
    words: np.ndarray[Any, np.dtype[np.uint64]]

    @classmethod
    def from_mask(cls, start: int, mask: Array) -> Bitset:
        """Pack a boolean array, one value for each record from `start` on."""
        packed = np.packbits(mask, bitorder="little")
        padded = np.zeros((len(mask) + 63) // 64 * 8, np.uint8)
        padded[: len(packed)] = packed
        return cls(start, len(mask), padded.view("<u8"))

    def to_mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return a boolean array, one value for each record of the window."""
        bits = np.unpackbits(self.words.view(np.uint8), count=self.length, bitorder="little")
        return bits.view(np.bool_)

    def popcount(self) -> int:
        """Return how many records are set."""
        return int(np.bitwise_count(self.words).sum())

    def __iter__(self) -> Iterator[int]:
        yield from (np.flatnonzero(self.to_mask()) + self.start).tolist()

    def __contains__(self, seq: object) -> bool:
        if not isinstance(seq, int) or not 0 <= seq - self.start < self.length:
            return False
        word, bit = divmod(seq - self.start, 64)
        return bool(int(self.words[word]) >> bit & 1)

    def __bool__(self) -> bool:
        return bool(self.words.any())

    def __eq__(self, other: object) -> bool:  # and no hash: the words can be written to
        if not isinstance(other, Bitset):
            return NotImplemented
        same = (self.start, self.length) == (other.start, other.length)
        return same and np.array_equal(self.words, other.words)

    def __and__(self, other: Bitset) -> Bitset:
        return Bitset(self.start, self.length, self.words & self._aligned(other))

    def __or__(self, other: Bitset) -> Bitset:
        return Bitset(self.start, self.length, self.words | self._aligned(other))

    def __invert__(self) -> Bitset:
        return Bitset.from_mask(self.start, ~self.to_mask())

    def _aligned(self, other: Bitset) -> Array:
        if (self.start, self.length) != (other.start, other.length):
            raise UsageError(
                f"bitsets over {self.length} records from {self.start} and over {other.length} "
                f"from {other.start} cannot be combined",
                hint="pass the same start and stop to get_filter_bitset for all",
            )
        return other.words


def intersect(*bitsets: Bitset) -> Bitset:
    """Return the records set in all of these bitsets, which must be of the same window."""
    if not bitsets:
        raise UsageError("intersect needs at least one bitset")
    result, *others = bitsets
    for other in others:
        result &= other
    return result


def popcount(bitset: Bitset) -> int:
    """Return how many records are set."""
    return bitset.popcount()


def for_each_set(bitset: Bitset, function: Callable[[int], object]) -> None:
    """Call `function` with the sequence number of each record that is set, in order."""
    for seq in bitset:
        function(seq)


# ---- over a view --------------------------------------------------------------------------------


def get_filter_bitset(
    view: RingConsumer,
    field: str,
    predicate: Predicate,
    start: int | None = None,
    stop: int | None = None,
) -> Bitset:
    """Return the records that match a predicate on one field; nulls never match.

    Args:
        view: the ring's consumer.
        field: a number, boolean, `utf8`, `bytes` or `utf8_ref` (by its strings) field.
        predicate: from `between`, `eq` or `one_of`.
        start: the first record; the oldest that may be read by default.
        stop: one past the last; the committed count by default.

    Raises:
        UsageError: a field whose type is not comparable, values of another type, or records that may
            not be read.
        Corrupt: an invalid pointer or handle.
    """
    start = view.window_start if start is None else start
    stop = view.committed_count if stop is None else stop
    position = view.map.schema.position(field)
    found = view.map.schema.fields[position]
    if not isinstance(predicate, (Between, OneOf)):
        raise UsageError(f"a predicate comes from between, eq or one_of, not {predicate!r}")
    try:
        if found.facts.kind in ("text", "bytes"):
            mask = _match_text(view, position, predicate, start, stop)
        elif found.facts.kind in _UNORDERED:
            raise UsageError(
                f"field {field!r} is {found.type}, which filters do not compare",
                hint="read the records and compare them yourself",
            )
        else:
            mask = _match_fixed(view, found, predicate, start, stop)
    except TypeError as error:
        raise UsageError(f"field {field!r} is {found.type}: {error}") from error
    return Bitset.from_mask(start, mask)


def constrained_ranges(
    view: RingConsumer, bitset: Bitset, fields: Sequence[str] | None = None
) -> dict[str, tuple[Any, Any]]:
    """Return the least and greatest value of numeric fields among the records of a bitset.

    Fields without a value there (none set, all null, or not a number) are left out.

    Args:
        view: the ring's consumer; the bitset's records may still be read.
        bitset: the records to consider.
        fields: names; all numeric fields by default.

    Raises:
        UsageError: a field that is not numeric, or records that may not be read.
    """
    schema = view.map.schema
    names = fields
    if names is None:
        names = [field.name for field in schema.fields if field.facts.is_number]
    wanted = bitset.to_mask()
    ranges = {}
    for name in names:
        field = schema.fields[schema.position(name)]
        if not field.facts.is_number:
            raise UsageError(f"field {name!r} is {field.type}, which has no range of numbers")
        values, present = _column(view, field, bitset.start, bitset.start + bitset.length)
        chosen = values[wanted & present]
        if chosen.dtype.kind == "f":
            chosen = chosen[~np.isnan(chosen)]
        if len(chosen):
            ranges[name] = (chosen.min().item(), chosen.max().item())
    return ranges


def find_first(view: RingConsumer, field: str, value: Any) -> int:
    """Return the first record whose sorted field is not before `value`, by bisection.

    That is the first with `field >= value`, or `field <= value` where the order is descending.
    Only readable records are searched. Nulls and NaN are assumed to sort last.

    Returns:
        A sequence number; `committed_count` when there is no such record.

    Raises:
        UsageError: the field is not declared as sorted, or the value is of another type.
    """
    found = view.map.schema.fields[view.map.schema.position(field)]
    if found.order is None or found.facts.kind in _UNORDERED:
        raise UsageError(
            f"field {field!r} ({found.type}) is not sorted",
            hint='declare it with order="ascending" or "descending", or use get_filter_bitset',
        )
    cursor = RecordCursor(view)
    low, committed = view.window_start, view.committed_count
    high = committed
    while low < high:
        middle = (low + high) // 2
        cursor.seek(middle)
        at = cursor.get(field)
        if isinstance(at, memoryview):
            at = bytes(at)
        try:
            before = at is not None and (at > value if found.order == "descending" else at < value)
        except TypeError as error:
            raise UsageError(f"field {field!r} is {found.type}: {error}") from error
        if before:
            low = middle + 1
        else:
            high = middle
    return low


# ---- one field ----------------------------------------------------------------------------------


def _column(
    view: RingConsumer, field: StrandField, start: int, stop: int
) -> tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return a field's values, and where they are present."""
    pieces = view.records(start, stop)
    dtype = view.map.schema.to_numpy(view.map.version)
    values = [piece[field.name] for piece in pieces] or [np.empty(0, dtype[field.name])]
    bit = view.map.schema.null_bits[view.map.schema.position(field.name)]
    column = values[0] if len(values) == 1 else np.concatenate(values)
    if bit is None:
        return column, np.ones(len(column), bool)
    nulls = [piece[NULLS][:, bit // 8] for piece in pieces] or [np.empty(0, np.uint8)]
    return column, np.concatenate(nulls) >> (bit & 7) & 1 == 1


def _match_fixed(
    view: RingConsumer, field: StrandField, predicate: Predicate, start: int, stop: int
) -> Array:
    values, present = _column(view, field, start, stop)
    table = view._compiled.intern  # noqa: SLF001 - of one package
    if field.facts.kind == "handle" and table:
        matching: Array = np.array([predicate.holds(text) for text in table], bool)
        handles = np.where(present, values, 0)
        if len(handles) and int(handles.max()) >= len(table):
            found = f"handle {int(handles.max())} of {len(table)}"
            raise Corrupt(f"field {field.name!r}", "a handle in the intern table", found)
        mask: Array = matching[handles] & present
        return mask
    if field.facts.kind == "boolean":
        values = values.view(np.uint8) != 0
    wanted = [predicate.low, predicate.high] if isinstance(predicate, Between) else predicate.values
    for value in wanted:
        if value is not None and not isinstance(value, (int, float, np.number, np.bool_)):
            raise UsageError(
                f"field {field.name!r} is {field.type}, and cannot be compared with {value!r}"
            )
    with np.errstate(over="ignore"):  # a bound beyond a float's range acts as infinity
        matches: Array = _compare(values, predicate) & present
        return matches


def _compare(values: Array, predicate: Predicate) -> Array:
    """Compare numbers exactly: bounds of integer fields are rounded to integers first."""
    mask: Array
    if isinstance(predicate, OneOf):
        mask = np.zeros(len(values), bool)
        for value in predicate.values:
            if values.dtype.kind not in "iu":
                mask |= values == value
            elif value is not None and math.isfinite(value) and int(value) == value:
                mask |= values == int(value)
        return mask
    mask = np.ones(len(values), bool)
    low, high = predicate.low, predicate.high
    if any(bound is not None and math.isnan(bound) for bound in (low, high)):
        return np.zeros(len(values), bool)
    if values.dtype.kind in "iu":
        low = math.ceil(low) if low is not None and math.isfinite(low) else low
        high = math.floor(high) if high is not None and math.isfinite(high) else high
    if low is not None:
        mask &= values >= low
    if high is not None:
        mask &= values <= high
    return mask


def _match_text(
    view: RingConsumer, position: int, predicate: Predicate, start: int, stop: int
) -> Array:
    """Compare payloads as bytes: UTF-8 sorts in the order of code points."""
    rows = stop - start
    field = view.map.schema.fields[position]
    [size] = view._payload_sizes(start, stop, [position])  # noqa: SLF001 - of one package
    data, ends = np.empty(size, np.uint8), np.zeros(rows + 1, np.int32)
    bits = np.empty((rows + 7) // 8, np.uint8) if field.nullable else None
    view._gather(start, stop, [(position, OFFSETS32, data, ends, bits)])  # noqa: SLF001
    if isinstance(predicate, Between):
        predicate = Between(_encode(predicate.low), _encode(predicate.high))
    else:
        predicate = OneOf(tuple(map(_encode, predicate.values)))
    text, offsets = data.tobytes(), ends.tolist()
    matches = (predicate.holds(text[at:end]) for at, end in pairwise(offsets))
    mask = np.fromiter(matches, bool, rows)
    if bits is not None:
        mask &= np.unpackbits(bits, count=rows, bitorder="little").view(bool)
    return mask


def _encode(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value
