"""Convert JSON to the operators above a scan: the members of each, and their readers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from emsqrt.expr import Agg, Literal, SortKey
from emsqrt.expr.document import EXACT_INTEGER_MAX, Entry
from emsqrt.expr.literals import read_literal
from emsqrt.expr.wire import read_expr
from emsqrt.plan.expectations import spell_rows
from emsqrt.plan.nodes import (
    JOIN_KINDS,
    PHASES,
    SUFFIX,
    Aggregate,
    Distinct,
    Expect,
    Explode,
    Filter,
    Join,
    Limit,
    Named,
    NamedAgg,
    Plan,
    Project,
    Rename,
    Sample,
    Sort,
    TopK,
    Union,
    WithColumn,
)
from emsqrt.plan.window import FRAME_UNITS, WINDOW_FUNCTIONS, Frame, Window, WindowCall
from sennit_core.errors import UsageError
from sennit_core.schema import DataType

Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True)
class Reader:
    """How one operator is read: its members, and the function that constructs the node."""

    read: Callable[[Entry, list[Plan]], Plan]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("input",)


def _read_named(entry: Entry, minimum: int) -> tuple[Named, ...]:
    items = [item.members(("name", "expr")) for item in entry.items(minimum)]
    return tuple((item.at("name").text(), read_expr(item.at("expr"))) for item in items)


def _read_aggs(entry: Entry) -> tuple[NamedAgg, ...]:
    aggs = []
    for item in entry.items():
        agg = read_expr(item.members(("name", "agg")).at("agg"))
        if not isinstance(agg, Agg):
            item.at("agg").fail("expected an aggregate: an object with a member 'agg'")
        aggs.append((item.at("name").text(), agg))
    return tuple(aggs)


def _read_keys(entry: Entry, minimum: int = 1) -> tuple[SortKey, ...]:
    return tuple(_read_key(item) for item in entry.items(minimum))


def _read_key(entry: Entry) -> SortKey:
    entry.members(("expr",), ("descending", "nullsFirst"))
    return SortKey(
        read_expr(entry.at("expr")), _flag(entry, "descending"), _flag(entry, "nullsFirst")
    )


def _read_names(entry: Entry | None, minimum: int = 0) -> tuple[str, ...]:
    return () if entry is None else tuple(item.text() for item in entry.items(minimum))


def _flag(entry: Entry, name: str) -> bool:
    member = entry.find(name)
    return member is not None and member.boolean()


def _number(entry: Entry, name: str, default: int = 0) -> int:
    member = entry.find(name)
    return default if member is None else member.count()


def _text(entry: Entry, name: str) -> str | None:
    member = entry.find(name)
    return None if member is None else member.text()


def _word(entry: Entry | None, known: tuple[Word, ...], default: Word) -> Word:
    if entry is None:
        return default
    word = entry.choice(known)
    return next(each for each in known if each == word)


def _read_rename(entry: Entry, inputs: list[Plan]) -> Plan:
    pairs = [item.members(("from", "to")) for item in entry.at("names").items(minimum=1)]
    names = tuple((pair.at("from").text(), pair.at("to").text()) for pair in pairs)
    return Rename(inputs[0], names)


def _read_aggregate(entry: Entry, inputs: list[Plan]) -> Plan:
    return Aggregate(
        inputs[0],
        _read_named(entry.at("keys"), minimum=0),
        _read_aggs(entry.at("aggs")),
        _word(entry.find("phase"), PHASES, "full"),
    )


def _read_distinct(entry: Entry, inputs: list[Plan]) -> Plan:
    columns = entry.find("columns")
    return Distinct(inputs[0], None if columns is None else _read_names(columns, minimum=1))


def _read_join(entry: Entry, inputs: list[Plan]) -> Plan:
    on = entry.find("on")
    pairs = [] if on is None else [item.members(("left", "right")) for item in on.items()]
    suffix = _text(entry, "suffix")
    return Join(
        inputs[0],
        inputs[1],
        tuple((pair.at("left").text(), pair.at("right").text()) for pair in pairs),
        _word(entry.find("how"), JOIN_KINDS, "inner"),
        SUFFIX if suffix is None else suffix,
    )


def _read_window(entry: Entry, inputs: list[Plan]) -> Plan:
    partition_by, order_by = entry.find("partitionBy"), entry.find("orderBy")
    functions = [i.members(("name", "call")) for i in entry.at("functions").items(minimum=1)]
    return Window(
        inputs[0],
        () if partition_by is None else tuple(map(read_expr, partition_by.items())),
        () if order_by is None else _read_keys(order_by, minimum=0),
        tuple((item.at("name").text(), _read_call(item.at("call"))) for item in functions),
    )


def _read_call(entry: Entry) -> WindowCall:
    entry.members(("window",), ("arg", "params", "frame"))
    arg, params, frame = (entry.find(name) for name in ("arg", "params", "frame"))
    return WindowCall(
        entry.at("window").choice(WINDOW_FUNCTIONS),
        None if arg is None else read_expr(arg),
        () if params is None else tuple(_read_constant(item) for item in params.items()),
        None if frame is None else _read_frame(frame),
    )


def _read_constant(entry: Entry) -> Literal:
    constant = read_expr(entry)
    if not isinstance(constant, Literal):
        entry.fail("expected a constant: an object with a member 'lit'")
    return constant


def _read_frame(entry: Entry) -> Frame:
    entry.members(("unit",), ("start", "end"))
    unit = _word(entry.at("unit"), FRAME_UNITS, "rows")
    return Frame(unit, _read_bound(entry.find("start")), _read_bound(entry.find("end")))


def _read_bound(entry: Entry | None) -> int | None:
    if entry is None:
        return None
    value = entry.value
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > EXACT_INTEGER_MAX:
        entry.fail("expected a whole number of rows before (-) or after (+) the current one")
    return value


def _read_explode(entry: Entry, inputs: list[Plan]) -> Plan:
    return Explode(
        inputs[0],
        entry.at("column").text(),
        _text(entry, "as"),
        _flag(entry, "outer"),
        _text(entry, "position"),
    )


def _read_sample(entry: Entry, inputs: list[Plan]) -> Plan:
    fraction, count = entry.find("fraction"), entry.find("count")
    if (fraction is None) == (count is None):
        entry.fail("a sample has either a 'fraction' or a 'count'")
    return Sample(
        inputs[0],
        None if fraction is None else _read_fraction(fraction),
        None if count is None else count.count(),
        _number(entry, "seed"),
        _number(entry, "firstRow"),
        _word(entry.find("phase"), PHASES, "full"),
    )


def _read_fraction(entry: Entry) -> float:
    value: Any = read_literal(entry, DataType("Float64"))
    if math.isnan(value) or not 0 <= value <= 1:
        entry.fail(f"{value!r} is not between 0 and 1")
    return float(value)


def _read_expect(entry: Entry, inputs: list[Plan]) -> Plan:
    rows = _text(entry, "rows")
    try:
        spelled = None if rows is None else spell_rows(rows)
    except UsageError as error:
        entry.at("rows").fail(str(error), hint=error.hint)
    if spelled != rows:
        entry.at("rows").fail(f"{rows!r} is not the canonical form", hint=f"write {spelled!r}")
    unique, not_null = entry.find("unique"), entry.find("notNull")
    return Expect(inputs[0], _read_names(unique), _read_names(not_null), rows)


READERS: dict[str, Reader] = {
    "filter": Reader(
        lambda entry, inputs: Filter(inputs[0], read_expr(entry.at("predicate"))), ("predicate",)
    ),
    "project": Reader(
        lambda entry, inputs: Project(inputs[0], _read_named(entry.at("columns"), minimum=1)),
        ("columns",),
    ),
    "rename": Reader(_read_rename, ("names",)),
    "with_column": Reader(
        lambda entry, inputs: WithColumn(inputs[0], _read_named(entry.at("columns"), minimum=1)),
        ("columns",),
    ),
    "aggregate": Reader(_read_aggregate, ("keys", "aggs"), ("phase",)),
    "limit": Reader(
        lambda entry, inputs: Limit(inputs[0], entry.at("count").count(), _number(entry, "offset")),
        ("count",),
        ("offset",),
    ),
    "sort": Reader(
        lambda entry, inputs: Sort(inputs[0], _read_keys(entry.at("keys")), _flag(entry, "merge")),
        ("keys",),
        ("merge",),
    ),
    "top_k": Reader(
        lambda entry, inputs: TopK(
            inputs[0],
            _read_keys(entry.at("keys")),
            entry.at("count").count(),
            _number(entry, "offset"),
        ),
        ("keys", "count"),
        ("offset",),
    ),
    "distinct": Reader(_read_distinct, (), ("columns",)),
    "join": Reader(_read_join, (), ("on", "how", "suffix"), ("left", "right")),
    "union": Reader(
        lambda entry, inputs: Union(tuple(inputs), _flag(entry, "byName")),
        (),
        ("byName",),
        ("inputs",),
    ),
    "window": Reader(_read_window, ("functions",), ("partitionBy", "orderBy")),
    "explode": Reader(_read_explode, ("column",), ("as", "outer", "position")),
    "sample": Reader(_read_sample, (), ("fraction", "count", "seed", "firstRow", "phase")),
    "expect": Reader(_read_expect, (), ("unique", "notNull", "rows")),
}
