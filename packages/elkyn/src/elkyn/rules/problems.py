"""What is wrong with a rules file, and where: every problem has its line and column."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from sennit_core.errors import UsageError

__all__ = ["BadRules", "ExpressionError", "Lines", "Problem"]

PROBLEMS_MAX = 100
_SHOWN = 5


class Problem(NamedTuple):
    """One reason for refusing rules; `line` and `column` count from 1, `path` names the rule."""

    line: int
    column: int
    path: str
    text: str

    def __str__(self) -> str:
        at = f" ({self.path})" if self.path else ""
        return f"line {self.line}, column {self.column}{at}: {self.text}"


@dataclass(eq=False)
class BadRules(UsageError):
    """Rules that are refused; `problems` says why, in the order of the file."""

    code = "bad-rules"
    message: str = field(default="", kw_only=True)
    problems: Sequence[Problem]

    def __post_init__(self) -> None:
        self.problems = tuple(Problem(*problem) for problem in self.problems)
        super().__post_init__()

    def describe(self) -> str:
        """Name the first problems."""
        shown = "; ".join(map(str, self.problems[:_SHOWN]))
        more = len(self.problems) - _SHOWN
        return f"{shown}; and {more} more" if more > 0 else shown


class ExpressionError(Exception):
    """An expression breaks at character `at` of its text."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.text = text
        self.at = at


class Lines:
    """Turns offsets into a text to lines and columns, both from 1."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))][:-1]

    def place(self, offset: int) -> tuple[int, int]:
        """Return the line and the column of the character at `offset`."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1
