"""Untrusted JSON to plan nodes, strictly: every complaint carries a JSON Pointer."""

from __future__ import annotations

from collections.abc import Callable

from emsqrt.expr import Agg
from emsqrt.expr.document import EXACT_INTEGER_MAX, Entry, Json
from emsqrt.expr.errors import BadPlan
from emsqrt.expr.wire import read_expr
from emsqrt.plan.nodes import (
    FILE_FORMATS,
    NODES_MAX,
    PHASES,
    STREAM_FORMATS,
    TARGET_FORMATS,
    Aggregate,
    DatasetRef,
    Files,
    FileTarget,
    Filter,
    Limit,
    Named,
    NamedAgg,
    Plan,
    Project,
    Rename,
    Scan,
    Sink,
    Source,
    StreamTarget,
    Target,
    WithColumn,
)
from sennit_core.errors import SennitError, Unsupported
from sennit_core.schema import Schema

RESERVED_OPERATORS = (
    *("sort", "top_k", "distinct", "join", "union", "window", "explode", "sample"),
    *("map_rows", "flat_map_rows", "map_batches", "reduce"),
)


def read_plan(root: Entry) -> Plan:
    """Return the plan at `root`: found from the outside in, built from the Scan out."""
    entries = [root]
    while isinstance(entries[-1].value, dict) and "input" in entries[-1].value:
        if len(entries) >= NODES_MAX:
            raise BadPlan(pointer="", reason=f"more than {NODES_MAX} operators")
        entries.append(entries[-1].at("input"))
    plan: Plan | None = None
    for entry in reversed(entries):
        plan = _read_operator(entry, plan)
    assert plan is not None
    return plan


def _read_operator(entry: Entry, below: Plan | None) -> Plan:
    if not isinstance(entry.value, dict) or "op" not in entry.value:
        entry.members(("op",), list(entry.value) if isinstance(entry.value, dict) else ())
    name = entry.at("op").text()
    if name in RESERVED_OPERATORS:
        raise Unsupported(f"operator {name} is reserved, and no engine has it yet")
    entry.at("op").choice(["scan", *_READERS])
    if name == "scan":
        return _read_scan(entry)
    if below is None:
        entry.fail("member 'input' is missing: only a scan reads from nothing")
    return _READERS[name](entry, below)


def _read_scan(entry: Entry) -> Scan:
    entry.members(("op", "source"), ("schema", "columns"))
    schema, columns = entry.find("schema"), entry.find("columns")
    return Scan(
        _read_source(entry.at("source")),
        None if schema is None else _read_schema(schema),
        None if columns is None else tuple(item.text() for item in columns.items(minimum=1)),
    )


def _read_source(entry: Entry) -> Source:
    if isinstance(entry.value, dict) and "dataset" in entry.value:
        entry.members(("dataset",), ("snapshot",))
        snapshot = entry.find("snapshot")
        return DatasetRef(entry.at("dataset").text(), None if snapshot is None else snapshot.text())
    entry.members(("files", "format"), ("options",))
    options = entry.find("options")
    return Files(
        tuple(item.text() for item in entry.at("files").items(minimum=1)),
        entry.at("format").choice(FILE_FORMATS),
        {} if options is None else _read_options(options),
    )


def _read_options(entry: Entry) -> Json:
    if not isinstance(entry.value, dict):
        entry.members(())
    _check_integers(entry)
    return dict(entry.value)


def _check_integers(entry: Entry) -> None:
    """Refuse what canonical JSON cannot carry exactly."""
    if isinstance(entry.value, int) and abs(entry.value) > EXACT_INTEGER_MAX:
        entry.fail(f"{entry.value} is beyond 2^53 - 1")
    keys = entry.value if isinstance(entry.value, dict) else ()
    for child in keys or (range(len(entry.value)) if isinstance(entry.value, list) else ()):
        _check_integers(entry.at(child))


def _read_schema(entry: Entry) -> Schema:
    try:
        return Schema.from_json(entry.value)
    except Unsupported:
        raise
    except (SennitError, KeyError, TypeError, ValueError, AttributeError) as error:
        entry.fail(f"not a schema: {error}")


def _read_target(entry: Entry) -> Target:
    if isinstance(entry.value, dict) and "stream" in entry.value:
        return StreamTarget(entry.members(("stream",)).at("stream").choice(STREAM_FORMATS))
    entry.members(("file", "format"))
    return FileTarget(entry.at("file").text(), entry.at("format").choice(TARGET_FORMATS))


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


def _read_filter(entry: Entry, below: Plan) -> Plan:
    entry.members(("op", "input", "predicate"))
    return Filter(below, read_expr(entry.at("predicate")))


def _read_project(entry: Entry, below: Plan) -> Plan:
    return Project(
        below, _read_named(entry.members(("op", "input", "columns")).at("columns"), minimum=1)
    )


def _read_rename(entry: Entry, below: Plan) -> Plan:
    names = entry.members(("op", "input", "names")).at("names").items(minimum=1)
    pairs = [item.members(("from", "to")) for item in names]
    return Rename(below, tuple((pair.at("from").text(), pair.at("to").text()) for pair in pairs))


def _read_with_column(entry: Entry, below: Plan) -> Plan:
    return WithColumn(
        below, _read_named(entry.members(("op", "input", "columns")).at("columns"), minimum=1)
    )


def _read_aggregate(entry: Entry, below: Plan) -> Plan:
    entry.members(("op", "input", "keys", "aggs"), ("phase",))
    phase = entry.find("phase")
    word = "full" if phase is None else phase.choice(PHASES)
    return Aggregate(
        below,
        _read_named(entry.at("keys"), minimum=0),
        _read_aggs(entry.at("aggs")),
        next(known for known in PHASES if known == word),
    )


def _read_limit(entry: Entry, below: Plan) -> Plan:
    entry.members(("op", "input", "count"), ("offset",))
    offset = entry.find("offset")
    return Limit(below, entry.at("count").count(), 0 if offset is None else offset.count())


def _read_sink(entry: Entry, below: Plan) -> Plan:
    return Sink(below, _read_target(entry.members(("op", "input", "target")).at("target")))


_READERS: dict[str, Callable[[Entry, Plan], Plan]] = {
    "filter": _read_filter,
    "project": _read_project,
    "rename": _read_rename,
    "with_column": _read_with_column,
    "aggregate": _read_aggregate,
    "limit": _read_limit,
    "sink": _read_sink,
}
