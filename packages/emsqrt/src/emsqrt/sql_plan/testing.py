"""Plans worked out row by row in Python, for tests: slow, plain, and so a judge of what makes plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

import pyarrow as pa

from emsqrt.expr import Agg, Expr
from emsqrt.expr.evaluate import Evaluator
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Files,
    Filter,
    Join,
    Limit,
    Plan,
    Project,
    Rename,
    Scan,
    Sort,
    SortKey,
    TopK,
    Union,
    Window,
    WindowCall,
    WithColumn,
    check,
)
from sennit_core.schema import Schema

Row = tuple[Any, ...]
Tables = dict[str, pa.Table]


def answer(plan: Plan, tables: Tables) -> list[Row]:
    """Return the rows of `plan`, whose scans read from `tables` by their file's name."""
    return _RULES[type(plan)](plan, tables)


def _values(expr: Expr, rows: list[Row], schema: Schema) -> list[Any]:
    arrays = [
        pa.array([row[i] for row in rows], field.type.to_arrow()) for i, field in enumerate(schema)
    ]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema.to_arrow())
    found: list[Any] = Evaluator(expr, schema)(batch).to_pylist()
    return found


def _scan(plan: Scan, tables: Tables) -> list[Row]:
    assert isinstance(plan.source, Files)
    table = tables[plan.source.paths[0]].select(check(plan).names)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _filter(plan: Filter, tables: Tables) -> list[Row]:
    rows = answer(plan.input, tables)
    kept = _values(plan.predicate, rows, check(plan.input))
    return [row for row, true in zip(rows, kept, strict=True) if true]


def _project(plan: Project, tables: Tables) -> list[Row]:
    rows, schema = answer(plan.input, tables), check(plan.input)
    columns = [_values(expr, rows, schema) for _, expr in plan.columns]
    return list(zip(*columns, strict=True))


def _with_column(plan: WithColumn, tables: Tables) -> list[Row]:
    rows, schema = answer(plan.input, tables), check(plan.input)
    made = {name: _values(expr, rows, schema) for name, expr in plan.columns}
    names = check(plan).names
    held = dict(zip(schema.names, zip(*rows, strict=True), strict=True)) if rows else {}
    return list(zip(*({**held, **made}[name] for name in names), strict=True)) if rows else []


def _same(plan: Any, tables: Tables) -> list[Row]:
    return answer(plan.input, tables)


def _order(rows: list[Row], keys: tuple[SortKey, ...], schema: Schema) -> list[int]:
    """Return the rows' numbers in order; equal ones as they come."""
    columns = [_values(key.expr, rows, schema) for key in keys]

    def compare(one: int, two: int) -> int:
        for key, column in zip(keys, columns, strict=True):
            a, b = column[one], column[two]
            if a is None or b is None:
                if (a is None) != (b is None):
                    return -1 if (a is None) == key.nulls_first else 1
            elif a != b:
                return -1 if (a < b) != key.descending else 1
        return one - two

    return sorted(range(len(rows)), key=cmp_to_key(compare))


def _sort(plan: Sort, tables: Tables) -> list[Row]:
    rows = answer(plan.input, tables)
    return [rows[i] for i in _order(rows, plan.keys, check(plan.input))]


def _top_k(plan: TopK, tables: Tables) -> list[Row]:
    return _sort(Sort(plan.input, plan.keys), tables)[plan.offset : plan.offset + plan.count]


def _limit(plan: Limit, tables: Tables) -> list[Row]:
    return answer(plan.input, tables)[plan.offset : plan.offset + plan.count]


def _distinct(plan: Distinct, tables: Tables) -> list[Row]:
    assert plan.columns is None
    return list(dict.fromkeys(answer(plan.input, tables)))


def _union(plan: Union, tables: Tables) -> list[Row]:
    return [row for each in plan.inputs for row in answer(each, tables)]


def _aggregate(plan: Aggregate, tables: Tables) -> list[Row]:
    rows, schema = answer(plan.input, tables), check(plan.input)
    keys = list(zip(*(_values(expr, rows, schema) for _, expr in plan.keys), strict=True))
    groups: dict[Row, list[int]] = {} if plan.keys else {(): list(range(len(rows)))}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    columns = [(agg, _argument(agg, rows, schema)) for _, agg in plan.aggs]
    return [
        (*key, *(_reduced(agg.fn, [column[i] for i in members], agg) for agg, column in columns))
        for key, members in groups.items()
    ]


def _argument(agg: Agg, rows: list[Row], schema: Schema) -> list[Any]:
    return [True] * len(rows) if agg.arg is None else _values(agg.arg, rows, schema)


def _reduced(fn: str, values: list[Any], agg: Agg | None = None) -> Any:
    held = [value for value in values if value is not None]
    if agg is not None and agg.distinct:
        held = list(dict.fromkeys(held))
    if fn == "count":
        return len(held)
    if not held:
        return None
    reductions: dict[str, Callable[[], Any]] = {
        "sum": lambda: sum(held),
        "min": lambda: min(held),
        "max": lambda: max(held),
        "avg": lambda: float(sum(held)) / len(held),
    }
    return reductions[fn]()


def _join(plan: Join, tables: Tables) -> list[Row]:
    left, right = answer(plan.left, tables), answer(plan.right, tables)
    ours, theirs = check(plan.left).names, check(plan.right).names
    pairs = [(ours.index(a), theirs.index(b)) for a, b in plan.on]
    assert not set(ours) & set(theirs), "the names of both sides are apart"
    made: list[Row] = []
    matched: set[int] = set()
    for row in left:
        found = [
            number
            for number, other in enumerate(right)
            if all(row[a] is not None and row[a] == other[b] for a, b in pairs)
        ]
        matched |= set(found)
        if plan.how in ("semi", "anti"):
            made += [row] if bool(found) == (plan.how == "semi") else []
            continue
        made += [(*row, *right[number]) for number in found]
        if not found and plan.how in ("left", "full"):
            made.append((*row, *([None] * len(theirs))))
    if plan.how in ("right", "full"):
        made += [(*([None] * len(ours)), *row) for i, row in enumerate(right) if i not in matched]
    return made


def _window(plan: Window, tables: Tables) -> list[Row]:
    rows, schema = answer(plan.input, tables), check(plan.input)
    keys = list(zip(*(_values(part, rows, schema) for part in plan.partition_by), strict=True))
    order = _order(rows, plan.order_by, schema)
    ranks = [_values(key.expr, rows, schema) for key in plan.order_by]
    made: list[list[Any]] = [[None] * len(plan.functions) for _ in rows]
    for key in dict.fromkeys(keys or [()] * len(rows)):
        members = [i for i in order if (keys[i] if keys else ()) == key]
        for at, (_, call) in enumerate(plan.functions):
            values = [None] * len(rows) if call.arg is None else _values(call.arg, rows, schema)
            peers = [tuple(rank[i] for rank in ranks) for i in members]
            for place, i in enumerate(members):
                made[i][at] = _windowed(call, plan, [values[j] for j in members], peers, place)
    return [(*row, *made[i]) for i, row in enumerate(rows)]


def _windowed(
    call: WindowCall, plan: Window, values: list[Any], peers: list[Row], place: int
) -> Any:
    first = peers.index(peers[place])
    match call.fn:
        case "row_number":
            return place + 1
        case "rank":
            return first + 1
        case "dense_rank":
            return len(dict.fromkeys(peers[: place + 1]))
        case "lag" | "lead":
            at = place - call.number if call.fn == "lag" else place + call.number
            default = None if call.default is None else call.default.value
            return values[at] if 0 <= at < len(values) else default
    frame = call.frame_in(plan.order_by)
    low = 0 if frame.start is None else max(0, place + frame.start)
    high = len(values) if frame.end is None else max(0, place + frame.end + 1)
    if frame.unit == "range":
        assert frame.start is None, "RANGE without offsets"
        high = len(values) if frame.end is None else len(peers) - peers[::-1].index(peers[place])
    inside = values[low:high]
    if call.fn == "count" and call.arg is None:
        return len(inside)
    if call.fn in ("first_value", "last_value"):
        return None if not inside else inside[0 if call.fn == "first_value" else -1]
    return _reduced(call.fn, inside)


_RULES: dict[type, Callable[[Any, Tables], list[Row]]] = {
    Scan: _scan,
    Filter: _filter,
    Project: _project,
    WithColumn: _with_column,
    Rename: _same,
    Aggregate: _aggregate,
    Limit: _limit,
    Sort: _sort,
    TopK: _top_k,
    Distinct: _distinct,
    Union: _union,
    Join: _join,
    Window: _window,
}


def plain(rows: list[Row]) -> Iterator[Row]:
    """Yield rows with numbers that compare across engines: decimals as floats, NaN as a word."""
    for row in rows:
        yield tuple(_plain(value) for value in row)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return "nan" if value != value else round(value, 9) + 0.0
    return value
