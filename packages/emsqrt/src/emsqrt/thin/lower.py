"""From a plan to operators over text, or the reason why only the arrow tier can run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from emsqrt.expr import Column
from emsqrt.io.csv_options import CsvOptions
from emsqrt.plan import Files, FileTarget, Plan, Scan, Sink
from emsqrt.plan.check import output_schema
from emsqrt.plan.joining import (
    LEFT_ONLY,
    join_key_types,
    join_schema,
    right_names,
    shared_keys,
    union_schema,
)
from emsqrt.plan.nodes import Join, Limit, Project, Rename, Sort, SortKey, TopK, Union
from emsqrt.plan.tree import fold, walk, with_inputs
from emsqrt.run import Run
from emsqrt.thin.join import JoinText
from emsqrt.thin.scan import CsvHead, ScanText, infer_text_schema, open_sources
from emsqrt.thin.sort import Key, SortText
from emsqrt.thin.steps import LimitText, RenameText, SelectText, UnionText
from emsqrt.thin.text import STANDARD, NotThin, TextRows

_OPTIONS = ("delimiter", "quote", "header", "recordBytesMax")
"""What the thin tier knows of the CSV reader's options; others are the arrow tier's."""


def why_not_thin(plan: Plan) -> str | None:
    """Return why the thin tier cannot run a plan, None when it can; only the plan is looked at."""
    if not isinstance(plan, Sink):
        return "it has no sink"
    for node in walk(plan):
        reason = _CHECKS.get(type(node), _unknown)(node)
        if reason is not None:
            return reason
    return None


def find_text_schemas(plan: Plan, folder: Path) -> Plan:
    """Give every scan without a schema the one that its first file suggests.

    Raises:
        NotThin: files of one scan have different headers.
    """

    def visit(node: Plan, inputs: tuple[Plan, ...]) -> Plan:
        if not isinstance(node, Scan):
            return with_inputs(node, inputs)
        if node.schema is not None:
            return node
        files = _files(node)
        source = open_sources(files.paths, folder)[0]
        return replace(node, schema=infer_text_schema(source, CsvOptions.from_json(files.options)))

    return fold(plan, visit)


def lower(plan: Plan, run: Run) -> TextRows:
    """Return the operator of a node and of all below it.

    Raises:
        NotThin: a file is not as the plan's schema has it.
        CapTooSmall: reading takes more than there is.
    """
    rows = fold(plan, lambda node, inputs: _MAKERS[type(node)](node, inputs, run))
    return SelectText(rows, None, run) if isinstance(rows, ScanText | UnionText) else rows


def _unknown(node: Plan) -> str:
    return f"{type(node).__name__.lower()} runs in the arrow tier"


def _check_scan(node: Scan) -> str | None:
    if not isinstance(node.source, Files) or node.source.format != "csv":
        return "the scan reads something else than CSV"
    if node.columns is not None or not set(node.source.options) <= set(_OPTIONS):
        return "the scan chooses columns or asks for options of the arrow tier"
    if CsvOptions.from_json(node.source.options).dialect != STANDARD:
        return "records of another dialect are written anew"
    return None


def _check_sink(node: Sink) -> str | None:
    target = node.target
    if not isinstance(target, FileTarget) or target.format != "csv" or target.options:
        return "the sink writes something else than plain CSV"
    return None


def _check_order(node: Sort | TopK) -> str | None:
    if any(not isinstance(key.expr, Column) for key in node.keys):
        return "it sorts by an expression"
    return None


def _check_project(node: Project) -> str | None:
    if any(not isinstance(expr, Column) for _, expr in node.columns):
        return "it works columns out"
    return None


def _check_join(node: Join) -> str | None:
    if node.how == "cross":
        return "a cross join runs in the arrow tier"
    if node.how in ("right", "full") and shared_keys(node):
        return "a key is taken from the side that has a row"
    return None


_CHECKS: dict[type[Plan], Callable[[Any], str | None]] = {
    Scan: _check_scan,
    Sink: _check_sink,
    Sort: _check_order,
    TopK: _check_order,
    Project: _check_project,
    Rename: lambda _: None,
    Join: _check_join,
    Union: lambda node: "columns are found by name" if node.by_name else None,
    Limit: lambda _: None,
}


def _files(node: Scan) -> Files:
    assert isinstance(node.source, Files), "a check has seen that"
    return node.source


def _make_scan(node: Scan, _: Sequence[TextRows], run: Run) -> TextRows:
    files = _files(node)
    options = CsvOptions.from_json(files.options)
    sources = open_sources(files.paths, run.folder)
    assert node.schema is not None, "a rule has found it"
    for source in sources:
        names = CsvHead(source, options).names
        if names != node.schema.names:
            raise NotThin(f"the columns of {source.name} are {', '.join(names)}")
    return ScanText(sources, options, node.schema, run)


def _sort_keys(keys: Sequence[SortKey]) -> list[Key]:
    return [(cast("Column", key.expr).name, key.descending, key.nulls_first) for key in keys]


def _make_top_k(node: TopK, inputs: Sequence[TextRows], run: Run) -> TextRows:
    first = SortText(inputs[0], _sort_keys(node.keys), run, node.offset + node.count)
    return LimitText(first, node.count, node.offset, run) if node.offset else first


def _make_project(node: Project, inputs: Sequence[TextRows], run: Run) -> TextRows:
    return SelectText(
        inputs[0], [(name, cast("Column", expr).name) for name, expr in node.columns], run
    )


def _make_join(node: Join, inputs: Sequence[TextRows], run: Run) -> TextRows:
    left, right = inputs
    types = join_key_types(node, left.schema, right.schema)
    for pair, of in zip(node.on, types, strict=True):
        if left.schema.field(pair[0]).type != of or right.schema.field(pair[1]).type != of:
            raise NotThin(f"the keys {pair[0]} and {pair[1]} have different types")
    assert node.how != "cross", "a check has seen that"
    joined = JoinText(left, right, node.on, types, node.how, run)
    if node.how in LEFT_ONLY:
        return joined
    wanted = join_schema(node, left.schema, right.schema)
    renamed = right_names(node, left.schema, right.schema)
    fields = [(name, f"left{at}") for at, name in enumerate(left.schema.names)]
    fields += [
        (renamed[name], f"right{at}")
        for at, name in enumerate(right.schema.names)
        if name in renamed
    ]
    if len(fields) < len(joined.schema):
        return SelectText(joined, fields, run)
    return RenameText(joined, wanted)


def _make_union(node: Union, inputs: Sequence[TextRows], _: Run) -> TextRows:
    schema = union_schema(node, [rows.schema for rows in inputs])
    for rows in inputs:
        if [field.type for field in rows.schema] != [field.type for field in schema]:
            raise NotThin("the inputs of the union have different types")
        if rows.dialect != inputs[0].dialect:
            raise NotThin("the inputs of the union have different dialects")
    return RenameText(UnionText(inputs), schema)


_MAKERS: dict[type[Plan], Callable[[Any, Sequence[TextRows], Run], TextRows]] = {
    Scan: _make_scan,
    Sort: lambda node, inputs, run: SortText(inputs[0], _sort_keys(node.keys), run),
    TopK: _make_top_k,
    Project: _make_project,
    Rename: lambda node, inputs, _: RenameText(inputs[0], output_schema(node, inputs[0].schema)),
    Join: _make_join,
    Union: _make_union,
    Limit: lambda node, inputs, run: LimitText(inputs[0], node.count, node.offset, run),
}
