"""Compile plans to text programs, in the calling process; the small child only runs them.

A program is JSON: steps in postfix order, each after its inputs. Names, types and files are
resolved here, so the child imports neither plans nor expressions.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from emsqrt.expr import Column, Expr, infer
from emsqrt.expr.program import compile_program
from emsqrt.external.layout import KINDS, lay_out
from emsqrt.io import codecs
from emsqrt.io.csv_options import CsvOptions
from emsqrt.io.json_lines import first_lines, infer_lines
from emsqrt.io.locations import parse_location
from emsqrt.io.outputs import codec_by_name
from emsqrt.io.sources import ByteSource
from emsqrt.plan import Files, FileTarget, Plan, Scan, Sink
from emsqrt.plan.check import node_schema
from emsqrt.plan.joining import LEFT_ONLY, join_key_types, right_names, shared_keys
from emsqrt.plan.nodes import (
    Aggregate,
    Distinct,
    Filter,
    Join,
    Limit,
    Project,
    Rename,
    Sort,
    TopK,
    Union,
    WithColumn,
)
from emsqrt.plan.states import state_fields
from emsqrt.plan.tree import inputs_of, walk
from emsqrt.planner import TEXT_RULES, optimize
from emsqrt.text_engine.facts import TextProgram, with_schemas
from emsqrt.text_engine.libraries import arrow_spills, refuse_arrow_locations
from emsqrt.text_engine.scan import CsvHead, infer_text_schema, open_sources
from emsqrt.text_engine.text import STANDARD, TextUnsupported
from sennit_core.schema import Schema

Step = dict[str, Any]
_SAMPLE_BYTES = 1 << 20
_OPTIONS = {
    "csv": ("delimiter", "quote", "header", "nullValues", "recordBytesMax", "encoding"),
    "jsonl": ("recordBytesMax",),
}
"""Reader options that the text engine supports; others need the arrow tier."""
# A step that changes nothing, but checks and counts records: for a plan that nothing else parses.
_COUNTED: Step = {"op": "select", "columns": None}


@dataclass(slots=True)
class Compiled:
    """The compiled rows of a node: their steps, their columns, and whether they were counted."""

    steps: list[Step]
    schema: Schema
    counted: bool = False


def why_not_text(plan: Plan) -> str | None:
    """Return why the text tier cannot run a plan, None if it may; inspects only the plan."""
    if not isinstance(plan, Sink):
        return "it has no sink"
    if any(isinstance(node, Sink) for node in walk(plan.input)):
        return "a sink is not its last step"
    for node in walk(plan):
        reason = _CHECKS.get(type(node), _unknown)(node)
        if reason is not None:
            return reason
    return None


def try_compile(
    plan: Plan,
    folder: Path,
    cap_bytes: int | None = None,
    spilling: Mapping[str, Any] = MappingProxyType({}),
) -> TextProgram | None:
    """Return a plan's program, None when only the arrow tier can run it; raises as `compile_text`.

    The planner's rules are applied as far as the text tier can run their result. The arguments are
    those of `compile_text`, and `EngineConfig.spilling`.
    """
    if why_not_text(plan) is not None or arrow_spills(spilling):
        return None
    try:
        # Twice: the first time finds the schemas of the files, without which the optimizer does
        # nothing.
        steps = compile_text(plan, folder, cap_bytes)
    except TextUnsupported:
        return None
    written = with_schemas(plan, steps)
    # A rule may produce a node that only the arrow tier has; then the plan runs as it was
    # written.
    better = optimize(written, folder, TEXT_RULES)
    if why_not_text(better) is None:
        with suppress(TextUnsupported):
            return TextProgram(compile_text(better, folder), plan, better, folder)
    return TextProgram(steps, plan, written, folder)


def compile_text(plan: Plan, folder: Path, cap_bytes: int | None = None) -> Step:
    """Compile a plan that `why_not_text` accepts.

    Args:
        plan: ends in a sink.
        folder: base of relative paths.
        cap_bytes: the run's cap, as for `first_lines`.

    Returns:
        `{"steps": [...], "target": path, "name": target as the plan has it, "format": csv or
        jsonl}`, paths absolute.

    Raises:
        TextUnsupported: the text tier does not support one of the files.
        UnknownColumn, TypeMismatch, NotFound, BadInput: the plan or a file is invalid.
    """
    assert isinstance(plan, Sink), "why_not_text checked it"
    assert isinstance(plan.target, FileTarget), "why_not_text checked it"
    done: list[Compiled] = []
    # Postfix order: the steps of a node follow those of its inputs.
    for place, node in enumerate(walk(plan.input)):
        first = len(done) - len(inputs_of(node))
        inputs, done[first:] = done[first:], []
        if isinstance(node, Scan):
            rows = _scan(node, folder, cap_bytes)
        else:
            rows = _COMPILERS[type(node)](node, inputs, folder)
        for step in rows.steps:
            # Steps of inputs have their own node already.
            step.setdefault("node", place)
        done.append(rows)
    (rows,) = done
    last = {"op": plan.target.format} if plan.target.format == "jsonl" else _COUNTED
    # Every record must be parsed once, so that damaged ones are found and rows are counted.
    steps = rows.steps if rows.counted and last is _COUNTED else [*rows.steps, last]
    if any(field.type.name in ("List", "Struct") for field in rows.schema):
        raise TextUnsupported("columns hold lists or structures")
    target = parse_location(plan.target.path, folder)
    refuse_arrow_locations([target])
    if codecs.zstd_needs_arrow() and codec_by_name(target) == "zstd":
        raise TextUnsupported("writing zstd needs pyarrow")
    return {
        "steps": steps,
        "target": str(target),
        "name": plan.target.path,
        "format": plan.target.format,
    }


def _unknown(node: Plan) -> str:
    return f"{type(node).__name__.lower()} runs in the arrow tier"


def _check_scan(node: Scan) -> str | None:
    if not isinstance(node.source, Files) or node.source.format not in _OPTIONS:
        return "the scan reads neither CSV nor JSON Lines"
    options = node.source.options
    if node.columns is not None or not set(options) <= set(_OPTIONS[node.source.format]):
        return "the scan selects columns or uses options of the arrow tier"
    if options.get("header", True) not in (True, False):
        return "the header is not the first line"
    return None


def _check_sink(node: Sink) -> str | None:
    target = node.target
    if not isinstance(target, FileTarget) or target.format not in _OPTIONS or target.options:
        return "the sink writes neither plain CSV nor JSON Lines"
    return None


def _check_order(node: Sort | TopK) -> str | None:
    if any(not isinstance(key.expr, Column) for key in node.keys):
        return "it sorts by an expression"
    return None


def _check_aggregate(node: Aggregate) -> str | None:
    return None if node.phase == "full" else "it produces or merges partial states"


_CHECKS: dict[type[Plan], Callable[[Any], str | None]] = {
    Scan: _check_scan,
    Sink: _check_sink,
    Sort: _check_order,
    TopK: _check_order,
    Project: lambda _: None,
    WithColumn: lambda _: None,
    Filter: lambda _: None,
    Rename: lambda _: None,
    Join: lambda _: None,
    Union: lambda node: "columns are found by name" if node.by_name else None,
    Limit: lambda _: None,
    Aggregate: _check_aggregate,
    Distinct: lambda node: None if node.columns is None else "it keeps whole rows",
}


def _scan(node: Scan, folder: Path, cap_bytes: int | None) -> Compiled:
    assert isinstance(node.source, Files), "why_not_text checked it"
    refuse_arrow_locations([parse_location(path, folder) for path in node.source.paths])
    sources = open_sources(node.source.paths, folder)
    if codecs.zstd_needs_arrow() and any(_is_zstd(source) for source in sources):
        raise TextUnsupported("reading zstd needs pyarrow")
    if node.source.format == "jsonl":
        return _scan_jsonl(node, sources, cap_bytes)
    options = CsvOptions.from_json(node.source.options)
    schema = node.schema or infer_text_schema(sources[0], options)
    for source in sources:
        names = CsvHead(source, options).names
        # All files are read as one stream, so they must have the same columns in the same order.
        if names != schema.names:
            raise TextUnsupported(f"the columns of {source.name} are {', '.join(names)}")
    step = {
        "op": "scan",
        "format": "csv",
        "paths": [source.name if source.can_reopen else "-" for source in sources],
        "options": dict(node.source.options),
        "fields": _spelled(schema),
    }
    return Compiled([step, *_to_standard(options, schema)], schema)


def _to_standard(options: CsvOptions, schema: Schema) -> list[Step]:
    """Return the step that converts records of another dialect to the engine's own."""
    # Operators compare and copy fields as bytes, so there must be one spelling of NULL.
    if options.null_values != ("",):  # values are rewritten, with NULL as an empty field
        places = list(range(len(schema)))
        names = list(schema.names)
        step = {"op": "compute", "reads": names, "programs": [], "order": places}
        return [{**step, "fields": _spelled(schema), "nullValues": options.null_values}]
    if options.dialect != STANDARD:
        return [{"op": "select", "columns": [[name, name] for name in schema.names]}]
    return []


def _scan_jsonl(node: Scan, sources: Sequence[ByteSource], cap_bytes: int | None) -> Compiled:
    assert isinstance(node.source, Files), "why_not_text checked it"
    schema = node.schema
    if schema is None:
        lines = first_lines(sources[0], _SAMPLE_BYTES, cap_bytes)
        schema = infer_lines(lines, sources[0].name)
    if any(field.type.name in ("List", "Struct") for field in schema):
        raise TextUnsupported("members hold lists or objects")
    step = {
        "op": "scan",
        "format": "jsonl",
        "paths": [source.name if source.can_reopen else "-" for source in sources],
        "options": dict(node.source.options),
        "fields": _spelled(schema),
    }
    return Compiled([step], schema, counted=True)


def _is_zstd(source: ByteSource) -> bool:
    return source.codec == "zstd"


def _spelled(schema: Schema) -> list[list[str]]:
    return [[field.name, str(field.type)] for field in schema]


def _sort(node: Sort | TopK, inputs: Sequence[Compiled], _: Path) -> Compiled:
    (rows,) = inputs
    schema = node_schema(node, (rows.schema,))
    keys = [[_column(key.expr), key.descending, key.nulls_first] for key in node.keys]
    limit = node.offset + node.count if isinstance(node, TopK) else None
    steps = [*rows.steps, {"op": "sort", "keys": keys, "limit": limit}]
    if isinstance(node, TopK) and node.offset:
        steps.append({"op": "limit", "count": node.count, "skip": node.offset})
    return Compiled(steps, schema, counted=True)


def _limit(node: Limit, inputs: Sequence[Compiled], _: Path) -> Compiled:
    (rows,) = inputs
    schema = node_schema(node, (rows.schema,))
    step = {"op": "limit", "count": node.count, "skip": node.offset}
    return Compiled([*rows.steps, step], schema, rows.counted)


def _filter(node: Filter, inputs: Sequence[Compiled], _: Path) -> Compiled:
    (rows,) = inputs
    node_schema(node, (rows.schema,))
    reads = _Reads(rows.schema)
    program = reads.program(node.predicate)
    step = {"op": "filter", "reads": reads.names, "program": program}
    return Compiled([*rows.steps, step], rows.schema, counted=True)


def _project(node: Project, inputs: Sequence[Compiled], _: Path) -> Compiled:
    (rows,) = inputs
    schema = node_schema(node, (rows.schema,))
    if all(isinstance(expr, Column) for _, expr in node.columns):
        columns = [[name, _column(expr)] for name, expr in node.columns]
        step: Step = {"op": "select", "columns": columns}
    else:
        step = _compute([expr for _, expr in node.columns], rows.schema, schema)
    return Compiled([*rows.steps, step], schema, counted=True)


def _with_column(node: WithColumn, inputs: Sequence[Compiled], _: Path) -> Compiled:
    (rows,) = inputs
    schema = node_schema(node, (rows.schema,))
    made = dict(node.columns)
    exprs = [made.get(name, Column(name)) for name in schema.names]
    step = _compute(exprs, rows.schema, schema)
    return Compiled([*rows.steps, step], schema, counted=True)


def _compute(exprs: Sequence[Expr], before: Schema, after: Schema) -> Step:
    reads = _Reads(before)
    order = [reads.place(expr) for expr in exprs]
    return {
        "op": "compute",
        "reads": reads.names,
        "programs": reads.programs,
        "order": [reads.settled(place) for place in order],
        "fields": [[field.name, str(field.type)] for field in after],
    }


class _Reads:
    """The columns that are parsed from text, and the programs computed from them."""

    def __init__(self, schema: Schema) -> None:
        self.names: list[str] = []
        self.programs: list[Step] = []
        self._schema = schema

    def place(self, expr: Expr) -> int:
        """Return the place of a value: a column's index, or -1 - its index among the programs."""
        if isinstance(expr, Column):
            return self._column(self._schema.field(expr.name).name)
        self.programs.append(self.program(expr))
        # Programs are numbered after the columns, whose number is not known yet: negative until
        # `settled`.
        return -len(self.programs)

    def settled(self, place: int) -> int:
        """Return a place as an index into columns and programs, once all columns are known."""
        return place if place >= 0 else len(self.names) - place - 1

    def program(self, expr: Expr) -> Step:
        """Return the program of an expression.

        Raises:
            TextUnsupported: it cannot be compiled to a kernel program.
        """
        program = compile_program(expr, self._schema)
        if program is None:
            raise TextUnsupported(f"computing {expr!s} needs pyarrow")
        return {
            "code": base64.b64encode(program.code).decode(),
            "constants": base64.b64encode(program.constants).decode(),
            "count": program.constant_count,
            "columns": [self._column(name) for name in program.columns],
            "kind": KINDS[program.type.name],
            "width": _WIDTHS[program.type.name],
            "blames": {str(at): blame for at, blame in program.blames.items()},
        }

    def _column(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)


_WIDTHS = {"Bool": 0, "Int64": 8, "UInt64": 8, "Float64": 8, "Decimal": 16}
"""Bytes of a program's values; 0 for a bit."""


def _rename(node: Rename, inputs: Sequence[Compiled], _: Path) -> Compiled:
    (rows,) = inputs
    schema = node_schema(node, (rows.schema,))
    return Compiled([*rows.steps, _names(schema)], schema, rows.counted)


def _join(node: Join, inputs: Sequence[Compiled], _: Path) -> Compiled:
    left, right = inputs
    schema = node_schema(node, (left.schema, right.schema))
    types = join_key_types(node, left.schema, right.schema)
    for (one, other), of in zip(node.on, types, strict=True):
        # Keys are compared as bytes (`pack_join_rows`), so both must be of the type of comparison.
        if left.schema.field(one).type != of or right.schema.field(other).type != of:
            raise TextUnsupported(f"the keys {one} and {other} have different types")
    kept = right_names(node, left.schema, right.schema)
    both = node.how in ("right", "full")
    dropped = [] if both else list(shared_keys(node))
    join = {"op": "join", "on": node.on, "how": node.how, "dropped": dropped}
    steps = [*left.steps, *right.steps, join]
    if node.how in LEFT_ONLY:
        return Compiled(steps, schema, counted=True)
    if not both or len(kept) == len(right.schema):
        return Compiled([*steps, _names(schema)], schema, counted=True)
    # In right and full joins a shared key comes from either side. The join writes both, under names
    # that are free of clashes, and the select puts the right value where the left one is empty.
    rights = {name: f"right{at}" for at, name in enumerate(right.schema.names)}
    lefts = {name: f"left{at}" for at, name in enumerate(left.schema.names)}
    columns = [[name, place] for name, place in lefts.items()]
    columns += [[kept[name], place] for name, place in rights.items() if name in kept]
    instead = {lefts[name]: rights[name] for name in shared_keys(node)}
    select = {"op": "select", "columns": columns, "instead": instead}
    return Compiled([*steps, select], schema, counted=True)


def _aggregate(node: Aggregate, inputs: Sequence[Compiled], _: Path) -> Compiled:
    (rows,) = inputs
    schema = node_schema(node, (rows.schema,))
    kinds = [None if agg.arg is None else infer(agg.arg, rows.schema) for _, agg in node.aggs]
    states = [
        state_fields(name, agg, kind) for (name, agg), kind in zip(node.aggs, kinds, strict=True)
    ]
    aggs = [agg for _, agg in node.aggs]
    layout = lay_out(
        "full",
        [infer(expr, rows.schema) for _, expr in node.keys],
        list(zip(aggs, kinds, states, strict=True)),
    )
    reads = _Reads(rows.schema)
    order = [reads.place(expr) for _, expr in node.keys]
    order += [reads.place(cast("Expr", aggs[at].arg)) for at, _ in layout.arguments]
    step = {
        "op": "aggregate",
        "reads": reads.names,
        "programs": reads.programs,
        "order": [reads.settled(place) for place in order],
        "keys": [key.as_tuple() for key in layout.keys],
        "parts": [part.as_tuple() for part in layout.parts],
        "outputs": [output.as_tuple() for output in layout.outputs],
        "values": [
            {
                "column": (values.column, values.kind, values.scale),
                "filled": values.filled,
                "quantiles": values.quantiles,
            }
            for values in layout.values
        ],
        "fields": [[field.name, str(field.type)] for field in schema],
        "aggs": [str(agg) for agg in aggs],
    }
    return Compiled([*rows.steps, step], schema, counted=True)


def _distinct(node: Distinct, inputs: Sequence[Compiled], folder: Path) -> Compiled:
    names = inputs[0].schema.names
    # Distinct rows are groups without aggregates.
    keys = tuple((name, Column(name)) for name in names)
    return _aggregate(Aggregate(node.input, keys, ()), inputs, folder)


def _union(node: Union, inputs: Sequence[Compiled], _: Path) -> Compiled:
    schema = node_schema(node, tuple(rows.schema for rows in inputs))
    for rows in inputs:
        if [field.type for field in rows.schema] != [field.type for field in schema]:
            raise TextUnsupported("the inputs of the union have different types")
    steps = [step for rows in inputs for step in rows.steps]
    steps += [{"op": "union", "inputs": len(inputs)}, _names(schema)]
    return Compiled(steps, schema, all(rows.counted for rows in inputs))


def _column(expr: Any) -> str:
    return cast("Column", expr).name


def _names(schema: Schema) -> Step:
    return {"op": "rename", "names": list(schema.names)}


_COMPILERS: dict[type[Plan], Callable[[Any, Sequence[Compiled], Path], Compiled]] = {
    Aggregate: _aggregate,
    Distinct: _distinct,
    Filter: _filter,
    Join: _join,
    Limit: _limit,
    Project: _project,
    Rename: _rename,
    Sort: _sort,
    TopK: _sort,
    Union: _union,
    WithColumn: _with_column,
}
