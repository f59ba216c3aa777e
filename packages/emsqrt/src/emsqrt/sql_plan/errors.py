"""Errors of statements: positions, and constructs that are not covered."""

from __future__ import annotations

from typing import Any, NoReturn

from sennit_core.errors import SqlError, Unsupported


def place_of(node: Any, text: str) -> tuple[int, int, int] | None:
    """Return line and column from 1 and the offset from 0 of a syntax node, if they are known."""
    starts = [each.meta["start"] for each in node.walk() if "start" in each.meta]
    if not starts:
        return None
    offset = min(starts)
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset), offset


def _located(node: Any, text: str) -> str:
    place = place_of(node, text)
    return f"line {place[0]}, column {place[1]}: " if place else ""


def refuse(node: Any, text: str, what: str, hint: str | None = None) -> NoReturn:
    """Raise Unsupported for a construct outside the covered subset, with its name and position."""
    shown = node.sql(dialect="duckdb")
    shown = shown if len(shown) <= 80 else f"{shown[:77]}…"
    raise Unsupported(
        f"{_located(node, text)}{what} is not covered: {shown}",
        hint=hint or "docs/sql.md lists the covered subset; the node's own SQL covers the rest",
    )


def fail(node: Any, text: str, reason: str, hint: str | None = None) -> NoReturn:
    """Raise SqlError at the position of a syntax node."""
    place = place_of(node, text)
    line, column, offset = place or (None, None, None)
    raise SqlError(
        f"{_located(node, text)}{reason}", line=line, column=column, offset=offset, hint=hint
    )
