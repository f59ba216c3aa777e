"""Errors of plans and expressions; all are usage errors.

```
UsageError
  BadPlan          a plan's JSON violates its schema
  BadExpression    an expression's text does not parse
  TypeMismatch     incompatible types
  ValueOutOfRange  an expression has no value for a row: overflow, or a failed cast
```
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sennit_core.errors import UsageError


@dataclass(eq=False)
class BadPlan(UsageError):
    """A plan's JSON violates the schema at `pointer` (RFC 6901, "" is the root)."""

    code = "bad-plan"
    message: str = field(default="", kw_only=True)
    pointer: str
    reason: str = ""

    def describe(self) -> str:
        """Name the position and the problem."""
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
        """Show the line, and a caret under the position."""
        lines = self.text.splitlines() or [""]
        shown = lines[min(self.line, len(lines)) - 1]
        caret = " " * (self.column - 1) + "^"
        return f"line {self.line}, column {self.column}: {self.reason}\n  {shown}\n  {caret}"


@dataclass(eq=False)
class TypeMismatch(UsageError):
    """Values of these `types` are incompatible in `expression`."""

    code = "type-mismatch"
    message: str = field(default="", kw_only=True)
    expression: str
    types: tuple[str, ...] = ()
    reason: str = ""

    def describe(self) -> str:
        """Name the expression and the incompatible operands."""
        return f"{self.reason} in `{self.expression}`"


@dataclass(eq=False)
class ValueOutOfRange(UsageError):
    """`expression` has no value for some row: overflow, or a value that does not fit a cast."""

    code = "value-out-of-range"
    message: str = field(default="", kw_only=True)
    expression: str
    reason: str = ""

    def describe(self) -> str:
        """Name the expression and the value that failed."""
        return f"{self.reason} in `{self.expression}`"
