"""Rows of an answer as the node writes them in JSON, and as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sennit_core.errors import Unavailable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Rows", "as_rows", "parse_rows", "show"]

_NUMBERS = ("Int", "UInt", "Float", "Decimal")


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns (`name` and `type`) and rows; `truncated` when there are more."""

    columns: Sequence[dict[str, str]]
    rows: Sequence[Sequence[Any]]
    truncated: bool


def parse_rows(body: bytes) -> Rows:
    """Read the JSON form of an answer (CONTRACTS.md); raises `Unavailable` for a part of one."""
    try:
        document = json.loads(body)
        return Rows(document["columns"], document["rows"], bool(document.get("truncated")))
    except (ValueError, KeyError, TypeError) as problem:
        raise Unavailable(
            f"the node (its answer is not complete: {problem})",
            hint="run it again; `platform logs` may say why",
        ) from problem


def as_rows(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, max_rows: int | None = None
) -> Rows:
    """Return the rows of Arrow batches, their values as the node writes them."""
    from emsqrt.io.formats import open_format

    text = bytearray()
    with open_format("json", schema, text.extend, max_rows=max_rows) as writer:
        for batch in batches:
            writer.write(batch)
            if writer.done:
                break
    return parse_rows(bytes(text))


def show(found: Rows) -> None:
    """Print a table: numbers to the right, lists and structs as JSON."""
    from sennit.cli.tables import draw

    names = [each["name"] for each in found.columns]
    right = [each["name"] for each in found.columns if each["type"].startswith(_NUMBERS)]
    draw(None, names, [[_shown(value) for value in row] for row in found.rows], right=right)


def _shown(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
