"""Problems of a rules file, with line and column."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from elkyn.errors import BadRules, Problem

__all__ = ["BadRules", "ExpressionError", "Lines", "Problem"]

PROBLEMS_MAX = 100


class ExpressionError(Exception):
    """An expression is invalid at character `at` of its text."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.text = text
        self.at = at


class Lines:
    """Converts offsets in a text to lines and columns, both from 1."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))][:-1]

    def place(self, offset: int) -> tuple[int, int]:
        """Return the line and the column of the character at `offset`."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1
