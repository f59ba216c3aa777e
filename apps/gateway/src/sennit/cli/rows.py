"""Parse the JSON rows of a result, and print rows as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sennit_core.errors import Unavailable
from sennit_core.text import escape_controls

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Rows", "as_rows", "parse_rows", "show"]

# Of EXPLAIN, in DuckDB: a plan is a drawing of many lines.
_PLAN_COLUMNS = ["explain_key", "explain_value"]
_NUMBERS = ("Int", "UInt", "Float", "Decimal")


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns (`name` and `type`) and rows; `truncated` if there are more rows."""

    columns: Sequence[dict[str, str]]
    rows: Sequence[Sequence[Any]]
    truncated: bool


def parse_rows(body: bytes) -> Rows:
    """Parse a result in JSON (CONTRACTS.md); raise `Unavailable` if it is incomplete."""
    try:
        document = json.loads(body)
        return Rows(document["columns"], document["rows"], bool(document.get("truncated")))
    except (ValueError, KeyError, TypeError) as problem:
        raise Unavailable(
            f"the node (its response is incomplete: {problem})",
            hint="run the query again; `platform logs` may show the reason",
        ) from problem


def as_rows(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, max_rows: int | None = None
) -> Rows:
    """Return the rows of Arrow batches, with values formatted as by the node."""
    from emsqrt.io.formats import open_format

    text = bytearray()
    with open_format("json", schema, text.extend, max_rows=max_rows) as writer:
        for batch in batches:
            writer.write(batch)
            if writer.done:
                break
    return parse_rows(bytes(text))


def show(found: Rows) -> None:
    """Print a table: numbers right-aligned, lists and structs as JSON; a plan as its lines."""
    from sennit.cli.tables import draw

    names = [each["name"] for each in found.columns]
    if names == _PLAN_COLUMNS:
        print("\n\n".join(f"{key}:\n{_plain(text)}" for key, text in found.rows))
        return
    right = [each["name"] for each in found.columns if each["type"].startswith(_NUMBERS)]
    draw(None, names, [[_shown(value) for value in row] for row in found.rows], right=right)


def _shown(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _plain(text: str) -> str:
    return "\n".join(map(escape_controls, text.rstrip("\n").split("\n")))
