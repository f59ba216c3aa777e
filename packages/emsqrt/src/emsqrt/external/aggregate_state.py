"""What an aggregate keeps for each group, as the kernel sees it: states, and what becomes of them.

Ops are those of `_kernel/states.h` and `_kernel/finish.h`; kinds those of `_kernel/columns.h`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

I64, U64, F64, DECIMAL, TEXT, BYTES = 4, 8, 10, 11, 12, 13
SKETCH_PRECISION = 12
"""Of approx_count_distinct: 4096 registers, a standard error of 1.6 %."""
NO_COLUMN = -1


class StateOp(IntEnum):
    """What one state collects; see `enum em_part_op`."""

    COUNT_ROWS = 0
    COUNT = 1
    COUNT_SUM = 2
    SUM = 3
    FLOAT_SUM = 4
    FLOAT_SQUARES = 5
    FLOAT_MERGE = 6
    MIN = 7
    MAX = 8
    FIRST = 9
    LAST = 10
    SKETCH = 11
    SKETCH_MERGE = 12


class OutputOp(IntEnum):
    """What becomes of states; see `enum em_output_op`."""

    STATE = 0
    INTEGER = 1
    FLOAT = 2
    MEAN = 3
    VARIANCE = 4
    STDDEV = 5
    ESTIMATE = 6


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column that rows are grouped by.

    Args:
        column: its index in the batch.
        kind: of its values.
        descending: whether groups come out in descending order of it.
        nulls_first: whether NULL comes first.
    """

    column: int
    kind: int
    descending: bool = False
    nulls_first: bool = False

    def as_tuple(self) -> tuple[int, int, bool, bool]:
        """Return it as the kernel takes it."""
        return self.column, self.kind, self.descending, self.nulls_first


@dataclass(frozen=True, slots=True)
class AggregateState:
    """One state of each group.

    Args:
        op: what it collects.
        column: the argument's index in the batch, or NO_COLUMN.
        kind: of the argument's values.
        param: a decimal's scale for float sums; a sketch's precision; 1 when FIRST and LAST are
            those of all rows, NULL or not.
    """

    op: StateOp
    column: int
    kind: int
    param: int = 0

    def as_tuple(self) -> tuple[int, int, int, int]:
        """Return it as the kernel takes it."""
        return int(self.op), self.column, self.kind, self.param


@dataclass(frozen=True, slots=True)
class Output:
    """One column of the result behind the keys.

    Args:
        op: what it is made by.
        part: the first state that it reads; a mean reads two, a variance three.
        kind: of its values.
        scale: of a decimal sum that becomes a mean.
    """

    op: OutputOp
    part: int
    kind: int
    scale: int = 0

    def as_tuple(self) -> tuple[int, int, int, int]:
        """Return it as the kernel takes it."""
        return int(self.op), self.part, self.kind, self.scale


Quantile: TypeAlias = tuple[int, float] | tuple[int, int, int]


@dataclass(slots=True)
class Values:
    """A column whose different values are put in order for each group, and what they fill.

    Args:
        column: its index in the batch.
        kind: of its values.
        scale: of a decimal.
        filled: the parts that take each different value once.
        quantiles: (part, fraction), the part the MIN of an F64 that nothing else fills; or (part,
            numerator, denominator) of a value itself, the part a MIN of the values' kind.
    """

    column: int
    kind: int
    scale: int = 0
    filled: list[int] = field(default_factory=list)
    quantiles: list[Quantile] = field(default_factory=list)
