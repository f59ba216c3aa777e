"""Make column names valid for SQL: not empty, and unique case-insensitively."""

from __future__ import annotations

from typing import Any

from sennit_core.errors import BadInput

__all__ = ["COLUMNS_MAX", "check_width", "settle_names"]

COLUMNS_MAX = 16_384
"""The limit of spreadsheets. Types, statistics and the catalog have entries for each column:
100,000 columns would need minutes to ingest and slow down every catalog lookup."""


def check_width(count: int, what: str) -> None:
    """Raise BadInput for a file without columns, or with more than `COLUMNS_MAX`."""
    if not count:
        raise BadInput(what=what, reason="it has no columns")
    if count > COLUMNS_MAX:
        raise BadInput(
            what=what,
            reason=f"it has {count:,} columns; a dataset may have {COLUMNS_MAX:,}",
            hint="convert them to rows (name, value), or set another delimiter",
        )


def settle_names(
    found: list[str], *, strict: bool, what: str
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of all columns, and the changes: `column` (index) `from` `to`.

    An empty name becomes `column_3`; a duplicate, case-insensitively, gets a number.

    Raises:
        BadInput: `strict` is set and a name would have to be changed.
    """
    check_width(len(found), what)
    used: set[str] = set()
    cleaned = ["".join(c for c in raw if c.isprintable()).strip() for raw in found]
    # A number is only added where the result is no other column's own name: a, a, a_2 becomes a,
    # a_3, a_2.
    kept = {name.casefold() for name in cleaned}
    names: list[str] = []
    changes: list[dict[str, Any]] = []
    for index, (raw, wanted) in enumerate(zip(found, cleaned, strict=True)):
        name = wanted or f"column_{index + 1}"
        number = 2
        while name.casefold() in used or (number > 2 and name.casefold() in kept):
            name = f"{wanted or f'column_{index + 1}'}_{number}"
            number += 1
        if name != wanted:
            if strict:
                twice = f"the name {wanted!r} is a duplicate" if wanted else "it has no name"
                raise BadInput(what=what, line=1, reason=f"column {index + 1}: {twice}")
            changes.append({"column": index, "from": raw, "to": name})
        used.add(name.casefold())
        names.append(name)
    return names, changes
