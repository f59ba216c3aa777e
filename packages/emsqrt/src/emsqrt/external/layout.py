"""Translate the aggregates of a plan into states, outputs and sorted values, for both tiers.

A batch has the key columns first, then the columns that `Layout.arguments` lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from emsqrt.expr.nodes import Agg
from emsqrt.external.aggregate_state import (
    BYTES,
    DECIMAL,
    F64,
    I64,
    NO_COLUMN,
    SKETCH_PRECISION,
    AggregateState,
    KeyColumn,
    Output,
    OutputOp,
    Quantile,
    StateOp,
    Values,
)
from emsqrt.plan.nodes import Phase
from emsqrt.plan.states import QUANTILES
from sennit_core.errors import Unsupported
from sennit_core.schema import DataType, Field

PARTS_MAX = 65_535
"""Columns of states in one table: `EM_PARTS_MAX` of `_kernel/states.h`."""
KINDS = {
    "Bool": 0,
    "Int8": 1,
    "Int16": 2,
    "Int32": 3,
    "Int64": 4,
    "UInt8": 5,
    "UInt16": 6,
    "UInt32": 7,
    "UInt64": 8,
    "Float32": 9,
    "Float64": 10,
    "Decimal": 11,
    "Utf8": 12,
    "Binary": 13,
    "Date": 3,
    "Timestamp": 4,
    "Time": 4,
    "Duration": 4,
}
"""The kernel's kind of each type: `enum em_kind` of columns.h."""

_KEPT = {"min": StateOp.MIN, "max": StateOp.MAX, "first": StateOp.FIRST, "last": StateOp.LAST}
_SUMS = ("isum", "usum", "dsum")
_LISTS = ("set", "values")


def kind_of(kind: DataType, doing: str) -> int:
    """Return the kernel's kind of a type; Unsupported for nested types, which have no order."""
    if kind.name not in KINDS:
        raise Unsupported(f"{doing} values of type {kind}")
    return KINDS[kind.name]


def check_keys(columns: int, doing: str) -> None:
    """Raise Unsupported for more columns than a table of groups can have."""
    if columns > PARTS_MAX:
        raise Unsupported(
            f"{columns} columns to {doing}, over {PARTS_MAX}",
            hint="use fewer, and first() of the columns that depend on them",
        )


@dataclass(frozen=True, slots=True)
class ListState:
    """A state column that lists values: all of a group, or the distinct ones, in order.

    Args:
        values: the index in `Layout.values` of the column that sorts them.
        output: the index of the output, a count, that is the length of each list.
        item: the type of its values.
        repeated: whether duplicates are listed.
    """

    values: int
    output: int
    item: DataType
    repeated: bool


@dataclass(slots=True)
class Layout:
    """How the aggregates of one plan node are computed.

    Args:
        phase: the node's phase.
        keys: the columns that rows are grouped by: the first columns of a batch.
        arguments: the meaning of each further column of a batch: (index of the aggregate, index
            among its states). In phase final it is a state, else the argument.
        parts: the states of each group.
        outputs: the result's columns after the keys.
        values: columns whose values are sorted.
        lists: state columns that are lists, by the output that holds their lengths; in phase final
            the list columns that are read, by argument.
    """

    phase: Phase
    keys: list[KeyColumn]
    arguments: list[tuple[int, int]] = field(default_factory=list)
    parts: list[AggregateState] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)
    lists: dict[int, ListState] = field(default_factory=dict)


def lay_out(
    phase: Phase,
    keys: Sequence[DataType],
    aggs: Sequence[tuple[Agg, DataType | None, Sequence[Field]]],
) -> Layout:
    """Return the layout of a node's aggregates.

    Args:
        phase: the node's phase.
        keys: the keys' types.
        aggs: each aggregate, the type of its argument (phase final and `count()`: None) and its
            state columns.

    Raises:
        Unsupported: a key or an argument of a nested type; more keys or states than a table holds.
    """
    check_keys(len(keys), "group by")
    layout = Layout(
        phase, [KeyColumn(at, kind_of(of, "grouping by")) for at, of in enumerate(keys)]
    )
    for at, (agg, kind, states) in enumerate(aggs):
        _Builder(layout, at, agg, kind, states).build()
    if len(layout.parts) > PARTS_MAX:
        raise Unsupported(
            f"{len(aggs)} aggregates keep {len(layout.parts)} columns of states, over {PARTS_MAX}",
            hint="spread them over several aggregations, and join those by their keys",
        )
    return layout


class _Builder:
    """Adds one aggregate to a layout."""

    def __init__(
        self,
        layout: Layout,
        at: int,
        agg: Agg,
        kind: DataType | None,
        states: Sequence[Field],
    ) -> None:
        self._layout = layout
        self._at = at
        self._agg = agg
        self._final = layout.phase == "final"
        self._states = states
        # A state column is named `<output>$<part>` (emsqrt.plan.states); the part decides how it is
        # merged.
        self._names = [state.name.rpartition("$")[2] for state in states]
        # The element type of a list is that of the argument, which phase final does not have.
        lists = self._names[0] in _LISTS
        self._kind = states[0].type.item if lists else kind
        self._lists = lists
        # The aggregate's first state; its others follow without a gap.
        self._first = len(layout.parts)

    def build(self) -> None:
        layout = self._layout
        if self._lists:
            self._build_list()
            return
        column = -1
        for index, (name, state) in enumerate(zip(self._names, self._states, strict=True)):
            if self._final:
                column = self._argument(index)
            # All states of an aggregate read one argument, which is added to the batch once.
            elif index == 0 and self._kind is not None:
                column = self._argument(0)
            layout.parts.append(self._part(name, column, state.type))
        if layout.phase == "partial":
            layout.outputs += [
                Output(OutputOp.STATE, self._first + index, _state_kind(name, state.type))
                for index, (name, state) in enumerate(zip(self._names, self._states, strict=True))
            ]
        else:
            layout.outputs.append(self._result(self._names[0], self._states[0].type))

    def _argument(self, index: int) -> int:
        self._layout.arguments.append((self._at, index))
        return len(self._layout.keys) + len(self._layout.arguments) - 1

    def _part(self, name: str, column: int, of: DataType) -> AggregateState:
        if self._final:
            kind = KINDS[of.name]
            scale = 0
        else:
            kind = I64 if self._kind is None else KINDS[self._kind.name]
            scale = 0 if self._kind is None else self._kind.scale or 0
        if name in _KEPT:
            return AggregateState(_KEPT[name], column, kind)
        if name in _SUMS:
            return AggregateState(StateOp.SUM, column, kind)
        # Counts of a partial phase are added up; `count()` counts rows, `count(x)` values that are
        # not NULL.
        if name == "count":
            if self._final:
                return AggregateState(StateOp.COUNT_SUM, column, I64)
            op = StateOp.COUNT_ROWS if self._kind is None else StateOp.COUNT
            return AggregateState(op, column, kind)
        if name == "sketch":
            op = StateOp.SKETCH_MERGE if self._final else StateOp.SKETCH
            return AggregateState(op, column, kind, SKETCH_PRECISION)
        if self._final:
            return AggregateState(StateOp.FLOAT_MERGE, column, BYTES)
        # Float sums: of the values (`fsum`), or of their squares (`fsum2`, for var and stddev).
        op = StateOp.FLOAT_SUM if name == "fsum" else StateOp.FLOAT_SQUARES
        return AggregateState(op, column, kind, scale)

    def _result(self, name: str, of: DataType) -> Output:
        first = self._first
        match self._agg.fn:
            case "count" | "min" | "max" | "first" | "last":
                return Output(OutputOp.STATE, first, _state_kind(name, of))
            case "approx_count_distinct":
                return Output(OutputOp.ESTIMATE, first, I64)
            case "sum":
                if name == "dsum":
                    return Output(OutputOp.STATE, first, DECIMAL)
                if name == "fsum":
                    return Output(OutputOp.FLOAT, first, F64)
                return Output(
                    OutputOp.INTEGER, first, KINDS["UInt64" if name == "usum" else "Int64"]
                )
            case "avg":
                return Output(OutputOp.MEAN, first, F64, of.scale or 0)
            case "var":
                return Output(OutputOp.VARIANCE, first, F64)
        return Output(OutputOp.STDDEV, first, F64)

    # Values in order ------------------------------------------------------------------------
    def _build_list(self) -> None:
        layout, kind = self._layout, self._kind
        assert kind is not None, "a list has a type of values"
        column = self._argument(0)
        # Lists are never stored as a state: their values are sorted with the keys in a second
        # table, and folded to states, or written as lists, group by group.
        values = Values(column, KINDS[kind.name], kind.scale or 0)
        layout.values.append(values)
        if layout.phase == "partial":
            self._list_state(values, column, kind)
            return
        if self._final:
            at = len(layout.arguments) - 1
            layout.lists[at] = ListState(len(layout.values) - 1, -1, kind, repeated=False)
        if self._agg.fn in QUANTILES:
            fraction = 0.5 if self._agg.fn == "median" else _fraction(self._agg)
            of = F64
            quantile: Quantile = (self._first, fraction)
            if self._agg.fn == "quantile_disc":
                of, quantile = KINDS[kind.name], (self._first, *ratio_of(fraction))
            # The fold writes the quantile into this state, once per group, so MIN just keeps it.
            layout.parts.append(AggregateState(StateOp.MIN, NO_COLUMN, of))
            values.quantiles.append(quantile)
            layout.outputs.append(Output(OutputOp.STATE, self._first, of))
            return
        # COUNT(DISTINCT), SUM(DISTINCT) and the like: the usual states, filled with each distinct
        # value once.
        layout.parts += [
            AggregateState(op, NO_COLUMN, kind_, scale) for op, kind_, scale in self._fed(kind)
        ]
        values.filled += range(self._first, len(layout.parts))
        name = "fsum" if kind.is_float else "usum" if kind.name == "UInt64" else "isum"
        name = "dsum" if kind.name == "Decimal" else name
        name = "count" if self._agg.fn == "count" else name
        layout.outputs.append(self._result(name, INT64 if name == "count" else kind))

    def _fed(self, kind: DataType) -> list[tuple[StateOp, int, int]]:
        """Return the states that are filled with each distinct value once."""
        of, scale = KINDS[kind.name], kind.scale or 0
        count = (StateOp.COUNT, of, 0)
        total = (StateOp.FLOAT_SUM, of, 0) if kind.is_float else (StateOp.SUM, of, 0)
        match self._agg.fn:
            case "count":
                return [count]
            case "sum":
                return [total]
            case "avg":
                return [total, count]
        # A variance is computed from sum, sum of squares and count.
        return [(StateOp.FLOAT_SUM, of, scale), (StateOp.FLOAT_SQUARES, of, scale), count]

    def _list_state(self, values: Values, column: int, kind: DataType) -> None:
        layout = self._layout
        repeated = self._agg.fn in QUANTILES
        if repeated:
            # The length of the list: all values that are not NULL, or below, the distinct ones.
            layout.parts.append(AggregateState(StateOp.COUNT, column, KINDS[kind.name]))
        else:
            layout.parts.append(AggregateState(StateOp.COUNT, NO_COLUMN, KINDS[kind.name]))
            values.filled.append(self._first)
        layout.outputs.append(Output(OutputOp.STATE, self._first, I64))
        output = len(layout.outputs) - 1
        layout.lists[output] = ListState(len(layout.values) - 1, output, kind, repeated=repeated)


INT64 = DataType("Int64")
_SMALLEST = Decimal("1e-18")


def ratio_of(fraction: float) -> tuple[int, int]:
    """Return a fraction from 0 to 1 as the ratio of its shortest decimal form: 0.1 as (1, 10)."""
    # `repr` is the shortest decimal that is this double: 0.1 is meant as 1/10, and not as the
    # slightly larger binary fraction, which would move a quantile that is exactly at a boundary.
    digits = Decimal(repr(fraction)).quantize(_SMALLEST, ROUND_CEILING)
    return int(digits / _SMALLEST), int(1 / _SMALLEST)


def _fraction(agg: Agg) -> float:
    value = agg.params[0].value
    assert isinstance(value, float), "checked when the aggregate was made"
    return value


def _state_kind(name: str, of: DataType) -> int:
    return I64 if name == "count" else KINDS[of.name]
