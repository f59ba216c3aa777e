"""In how many bytes a number travels through a sort: as few as its file says that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from emsqrt.external.layout import KINDS
from emsqrt.io.parquet_facts import Span
from emsqrt.operators.columns import Narrow, PackedKind, field_bytes
from emsqrt.run import Run
from sennit_core.schema import DataType

_WHOLE = ("Int8", "Int16", "Int32", "Int64", "Date")
_SHORT_DIGITS, _SHORT_BYTES = 18, 8
"""Decimals of so many digits fit so many bytes."""
_WIDTHS = (1, 2, 4)
NO_SPANS: Mapping[str, Span] = MappingProxyType({})


class ToldRows(Protocol):
    """A scan of files that tell between which numbers a column's values lie."""

    def spans(self) -> dict[str, Span]:
        """Return these, of the columns for which all files tell it."""


def told_spans(rows: Any, run: Run) -> Mapping[str, Span]:
    """Return between which integers, as they are stored, columns of a scan lie.

    Args:
        rows: what is read from, with or without a meter.
        run: one that is written down may go on with rows that were packed before.
    """
    below = getattr(rows, "passes_on", rows)
    if not hasattr(below, "spans") or run.journal() is not None:
        return NO_SPANS
    scan: ToldRows = below
    return scan.spans()


def packed_kind(of: DataType, span: Span | None) -> PackedKind:
    """Return how a column lies in packed rows.

    Args:
        of: its type.
        span: its least and largest value as they are stored, where they are known.
    """
    kind = KINDS[of.name]
    is_short = of.name == "Decimal" and (of.precision or 0) <= _SHORT_DIGITS
    plain = Narrow(kind, _SHORT_BYTES, 0) if is_short else kind
    if span is None or not (is_short or of.name in _WHOLE):
        return plain
    least, most = span
    for width in _WIDTHS:
        if most - least < 1 << 8 * width and width < field_bytes(plain):
            return Narrow(kind, width, least)
    return plain
