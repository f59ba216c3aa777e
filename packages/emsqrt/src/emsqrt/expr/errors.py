"""Errors of plans and expressions; all are usage errors, drawn here once.

```
UsageError
  BadPlan          a plan's JSON breaks its schema
  BadExpression    an expression's text does not parse
  TypeMismatch     types that do not go together
  ValueOutOfRange  a row's value has no result: overflow, or a cast that does not fit
```
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sennit_core.errors import UsageError


@dataclass(eq=False)
class BadPlan(UsageError):
    """A plan's JSON breaks the schema at `pointer` (RFC 6901, "" is the root)."""

    code = "bad-plan"
    message: str = field(default="", kw_only=True)
    pointer: str
    reason: str = ""

    def describe(self) -> str:
        """Name the place and what is wrong there."""
        return f"plan{f' at {self.pointer}' if self.pointer else ''}: {self.reason}"


@dataclass(eq=False)
class BadExpression(UsageError):
    """An expression's text does not parse; `line` and `column` count from 1, `offset` from 0."""

    code = "bad-expression"
    message: str = field(default="", kw_only=True)
    reason: str
    text: str = ""
    line: int = 1
    column: int = 1
    offset: int = 0

    def describe(self) -> str:
        """Show the line, and a caret under the place."""
        lines = self.text.splitlines() or [""]
        shown = lines[min(self.line, len(lines)) - 1]
        caret = " " * (self.column - 1) + "^"
        return f"line {self.line}, column {self.column}: {self.reason}\n  {shown}\n  {caret}"


@dataclass(eq=False)
class TypeMismatch(UsageError):
    """Values of these `types` do not go together in `expression`."""

    code = "type-mismatch"
    message: str = field(default="", kw_only=True)
    expression: str
    types: tuple[str, ...] = ()
    reason: str = ""

    def describe(self) -> str:
        """Name the expression and what does not fit."""
        return f"{self.reason} in `{self.expression}`"


@dataclass(eq=False)
class ValueOutOfRange(UsageError):
    """A row's value has no result in `expression`: overflow, or a cast that does not fit."""

    code = "value-out-of-range"
    message: str = field(default="", kw_only=True)
    expression: str
    reason: str = ""

    def describe(self) -> str:
        """Name the expression and the value that failed."""
        return f"{self.reason} in `{self.expression}`"
