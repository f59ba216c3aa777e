"""Compile schemas for the C loops that encode and decode slots (`_rows.c`, `_values.c`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sennit_core.errors import UsageError
from strand import _native
from strand.errors import BadMetadata

if TYPE_CHECKING:
    from strand.header import StrandMap

__all__ = ["as_categories", "compile_layout"]


def compile_layout(
    map: StrandMap,  # noqa: A002 - the name that all modules use
    categories: Sequence[str] | None = None,
) -> _native.Layout:
    """Compile a ring's schema.

    Args:
        map: the ring.
        categories: the strings that `utf8_ref` handles refer to; None: the metadata's `intern`.

    Raises:
        BadMetadata: the metadata's intern table is not a list of strings.
        UsageError: `categories` is not one.
    """
    version = map.version
    fields = tuple(
        (
            field.name,
            field.facts.tag,
            offset,
            field.facts.width_in(version),
            field.facts.heap,
            field.facts.heap_align_in(version),
            -1 if null_bit is None else null_bit,
        )
        for field, offset, null_bit in zip(
            map.schema.fields, map.slots.offsets, map.schema.null_bits, strict=True
        )
    )
    intern = _intern_of(map) if categories is None else as_categories(categories)
    return _native.Layout(version, map.slots.stride, fields, intern)


def as_categories(table: Iterable[str]) -> tuple[str, ...]:
    """Check an intern table passed by a caller.

    Raises:
        UsageError: the table is not an iterable of strings, or is a single string.
    """
    if isinstance(table, Iterable) and not isinstance(table, str):
        texts = tuple(table)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise UsageError(f"an intern table is a sequence of strings, not {table!r}")


def _intern_of(map: StrandMap) -> tuple[str, ...]:  # noqa: A002 - see above
    table = map.metadata.get("intern", ())
    if not isinstance(table, list | tuple) or not all(isinstance(text, str) for text in table):
        raise BadMetadata(expected='"intern" with a list of strings', found=repr(table)[:80])
    return tuple(table)
