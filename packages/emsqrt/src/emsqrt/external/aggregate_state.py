"""The states that an aggregate keeps for each group, and the outputs computed from them.

Ops are those of `_kernel/states.h` and `_kernel/finish.h`; kinds those of `_kernel/columns.h`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

# `enum em_kind` of columns.h.
I64, U64, F64, DECIMAL, TEXT, BYTES = 4, 8, 10, 11, 12, 13
SKETCH_PRECISION = 12
"""Precision of approx_count_distinct: 4096 registers, a standard error of 1.6 %."""
NO_COLUMN = -1


class StateOp(IntEnum):
    """How a state is accumulated; see `enum em_part_op`."""

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
    """How an output is computed from states; see `enum em_output_op`."""

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
        kind: the kind of its values.
        descending: whether groups are in descending order of it.
        nulls_first: whether NULL comes first.
    """

    column: int
    kind: int
    descending: bool = False
    nulls_first: bool = False

    def as_tuple(self) -> tuple[int, int, bool, bool]:
        """Return the tuple that the kernel expects."""
        return self.column, self.kind, self.descending, self.nulls_first


@dataclass(frozen=True, slots=True)
class AggregateState:
    """One state of each group.

    Args:
        op: how it is accumulated.
        column: the argument's index in the batch, or NO_COLUMN.
        kind: the kind of the argument's values.
        param: a decimal's scale for float sums; a sketch's precision; 1 if FIRST and LAST include
            NULL.
    """

    op: StateOp
    column: int
    kind: int
    param: int = 0

    def as_tuple(self) -> tuple[int, int, int, int]:
        """Return the tuple that the kernel expects."""
        return int(self.op), self.column, self.kind, self.param


@dataclass(frozen=True, slots=True)
class Output:
    """One column of the result after the keys.

    Args:
        op: how it is computed.
        part: the first state that it reads; a mean reads two, a variance three.
        kind: the kind of its values.
        scale: the scale of a decimal sum that a mean is computed from.
    """

    op: OutputOp
    part: int
    kind: int
    scale: int = 0

    def as_tuple(self) -> tuple[int, int, int, int]:
        """Return the tuple that the kernel expects."""
        return int(self.op), self.part, self.kind, self.scale


Quantile: TypeAlias = tuple[int, float] | tuple[int, int, int]


@dataclass(slots=True)
class Values:
    """A column whose distinct values are sorted for each group, and the states that they fill.

    Args:
        column: its index in the batch.
        kind: the kind of its values.
        scale: the scale of a decimal.
        filled: the states that are filled with each distinct value once.
        quantiles: (state, fraction), where the state is the MIN of an F64 that nothing else fills;
            or (state, numerator, denominator) for a quantile that is one of the values, where the
            state is a MIN of the values' kind.
    """

    column: int
    kind: int
    scale: int = 0
    filled: list[int] = field(default_factory=list)
    quantiles: list[Quantile] = field(default_factory=list)
