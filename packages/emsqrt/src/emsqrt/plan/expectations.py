"""Parse and check the row count condition of an `Expect`: `>0`, `<=100`, `==7`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from sennit_core.errors import UsageError

_TESTS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TEXT = re.compile(r"\s*(==?|!=|<=|>=|<|>)\s*([0-9]{1,15})\s*")


def spell_rows(text: str) -> str:
    """Return the canonical form of a comparison with a number of rows: "> 0" is ">0".

    Raises:
        UsageError: the text is no such comparison.
    """
    symbol, count = _parse(text)
    return f"{symbol}{count}"


def rows_hold(text: str, rows: int) -> bool:
    """Return whether a number of rows satisfies `text`."""
    symbol, count = _parse(text)
    return _TESTS[symbol](rows, count)


def _parse(text: str) -> tuple[str, int]:
    found = _TEXT.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} does not compare a number of rows", hint='write ">0", "<=100" or "==7"'
        )
    return {"=": "=="}.get(found[1], found[1]), int(found[2])
