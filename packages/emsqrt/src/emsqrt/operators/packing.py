"""Choose the packed width of numbers in a sort: as few bytes as their file's statistics allow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from emsqrt.execution_context import ExecutionContext
from emsqrt.external.layout import KINDS
from emsqrt.io.parquet_facts import Span
from emsqrt.operators.columns import Narrow, PackedKind, field_bytes
from sennit_core.schema import DataType

_WHOLE = ("Int8", "Int16", "Int32", "Int64", "Date")
_SHORT_DIGITS, _SHORT_BYTES = 18, 8
"""Decimals of at most this many digits fit this many bytes."""
_WIDTHS = (1, 2, 4)
NO_SPANS: Mapping[str, Span] = MappingProxyType({})


class RangedRows(Protocol):
    """A scan of files whose statistics contain the range of a column's values."""

    def spans(self) -> dict[str, Span]:
        """Return the ranges of the columns for which all files have them."""


def stored_ranges(rows: Any, run: ExecutionContext) -> Mapping[str, Span]:
    """Return the ranges of a scan's columns, as the integers that are stored.

    Args:
        rows: the input, with or without a meter.
        run: a resumable run uses no ranges, as it may continue from rows that were packed without.
    """
    below = getattr(rows, "passes_on", rows)
    if not hasattr(below, "spans") or run.journal() is not None:
        return NO_SPANS
    scan: RangedRows = below
    return scan.spans()


def packed_kind(of: DataType, span: Span | None) -> PackedKind:
    """Return the representation of a column in packed rows.

    Args:
        of: its type.
        span: its least and largest value as they are stored, None when unknown.
    """
    kind = KINDS[of.name]
    is_short = of.name == "Decimal" and (of.precision or 0) <= _SHORT_DIGITS
    plain = Narrow(kind, _SHORT_BYTES, 0) if is_short else kind
    if span is None or not (is_short or of.name in _WHOLE):
        return plain
    least, most = span
    for width in _WIDTHS:
        # Values are packed less the least one, so only their range counts.
        if most - least < 1 << 8 * width and width < field_bytes(plain):
            return Narrow(kind, width, least)
    return plain
