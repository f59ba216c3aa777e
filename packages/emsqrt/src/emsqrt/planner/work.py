"""Estimate rows and bytes through every operator, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from emsqrt.expr import Column, Expr
from emsqrt.plan import (
    Aggregate,
    DatasetRef,
    Distinct,
    Explode,
    Filter,
    Join,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    TopK,
    Union,
    Window,
    WithColumn,
)
from emsqrt.plan.joining import shared_keys
from emsqrt.plan.tree import fold
from emsqrt.planner.looking import names_looked_at
from emsqrt.planner.sampling import SAMPLE_BYTES
from emsqrt.planner.schemas import schemas_of
from emsqrt.planner.selectivity import fixed_columns, selectivity
from emsqrt.planner.statistics import (
    ColumnStats,
    SourceStats,
    joint_distinct,
    measure_source,
    typical_bytes,
)
from sennit_core.schema import Schema

ITEMS_IN_A_LIST = 4
GROUP_SHARE = 0.1
ROW_HEAD_BYTES = 8
"""A packed row's header; the key's copy is added where there is one."""

# Seconds of a core per input row. Only ratios matter.
_SECONDS = {"scan": 8e-8, "sort": 4e-8, "aggregate": 1e-7, "join": 1.5e-7, "sink": 8e-8}
_SECONDS_PER_ROW = 2e-8

Hints: TypeAlias = Mapping[str, SourceStats]
"""Statistics of sources, by the first path or the dataset's name."""


@dataclass(frozen=True, slots=True)
class NodeWork:
    """The estimated work of one operator.

    Args:
        rows_in: from each input; for a scan, the rows that it reads.
        bytes_in: the same in bytes, as packed rows; for a scan, of its files.
        rows_out: rows of the output.
        row_bytes: mean size of a packed output row.
        groups: distinct keys of an aggregate, a distinct or a join's build side.
        seconds: of one core, roughly; for comparing plans only.
        is_source: whether this is a scan.
    """

    rows_in: tuple[float, ...]
    bytes_in: tuple[float, ...]
    rows_out: float
    row_bytes: float
    groups: float = 0.0
    seconds: float = 0.0
    is_source: bool = False

    @property
    def bytes_out(self) -> float:
        """Output bytes, as packed rows."""
        return self.rows_out * self.row_bytes


@dataclass(frozen=True, slots=True)
class Work:
    """The estimated work of a plan: one entry for each node, in the order of `emsqrt.plan.walk`."""

    nodes: tuple[NodeWork, ...]

    @property
    def rows_in(self) -> float:
        """Rows read from all sources."""
        return sum(node.rows_in[0] for node in self.nodes if node.is_source)

    @property
    def bytes_in(self) -> float:
        """Bytes of all sources, as they are stored."""
        return sum(node.bytes_in[0] for node in self.nodes if node.is_source)

    @property
    def rows_out(self) -> float:
        """Rows of the plan's output."""
        return self.nodes[-1].rows_out

    @property
    def seconds(self) -> float:
        """Of one core, roughly."""
        return sum(node.seconds for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Flow:
    """The estimate of rows between two operators: their number, and statistics of their columns."""

    rows: float
    columns: Mapping[str, ColumnStats]
    groups: float = 0.0

    @property
    def row_bytes(self) -> float:
        """Mean size of a packed row."""
        return ROW_HEAD_BYTES + sum(stats.bytes for stats in self.columns.values())


def estimate_work(
    plan: Plan,
    hints: Hints | None = None,
    folder: Path | None = None,
    *,
    sample_bytes: int = SAMPLE_BYTES,
) -> Work:
    """Estimate rows and bytes through every operator of a plan.

    Args:
        plan: with the schemas of its scans.
        hints: statistics of sources; other files are inspected.
        folder: base of relative paths.
        sample_bytes: how much of text files to read.
    """
    nodes: list[NodeWork] = []
    _flow_through(plan, hints, folder, sample_bytes, nodes)
    return Work(tuple(nodes))


def estimate_flow(
    plan: Plan,
    hints: Hints | None = None,
    folder: Path | None = None,
    *,
    sample_bytes: int = SAMPLE_BYTES,
) -> Flow:
    """Estimate the output of a plan; arguments as of `estimate_work`."""
    return _flow_through(plan, hints, folder, sample_bytes, [])


def _flow_through(
    plan: Plan,
    hints: Hints | None,
    folder: Path | None,
    sample_bytes: int,
    nodes: list[NodeWork],
) -> Flow:
    schemas, looked_at = schemas_of(plan), names_looked_at(plan)

    def visit(node: Plan, inputs: tuple[Flow, ...]) -> Flow:
        if isinstance(node, Scan):
            stats = _source_stats(node, hints or {}, folder, sample_bytes, looked_at)
            flow = _scan_flow(stats, schemas[id(node)])
            rows_in: tuple[float, ...] = (stats.rows,)
            bytes_in: tuple[float, ...] = (float(stats.bytes),)
        else:
            flow = _flow(node, inputs, schemas[id(node)])
            rows_in = tuple(each.rows for each in inputs)
            bytes_in = tuple(each.rows * each.row_bytes for each in inputs)
        seconds = _seconds(node, rows_in)
        nodes.append(
            NodeWork(
                rows_in,
                bytes_in,
                flow.rows,
                flow.row_bytes,
                flow.groups,
                seconds,
                is_source=isinstance(node, Scan),
            )
        )
        return flow

    return fold(plan, visit)


def _source_stats(
    scan: Scan,
    hints: Hints,
    folder: Path | None,
    sample_bytes: int,
    looked_at: frozenset[str] | None,
) -> SourceStats:
    source = scan.source
    name = source.dataset if isinstance(source, DatasetRef) else (*source.paths, "")[0]
    if name in hints:
        return hints[name]
    return measure_source(scan, folder, sample_bytes, looked_at)


def _scan_flow(stats: SourceStats, schema: Schema) -> Flow:
    columns = {
        field.name: stats.columns.get(field.name) or ColumnStats(typical_bytes(field.type))
        for field in schema
    }
    return Flow(stats.rows, columns)


def _flow(node: Plan, inputs: tuple[Flow, ...], schema: Schema) -> Flow:
    rule = _FLOWS.get(type(node))
    # A rule returns statistics of the columns that it knows; all others are of typical size.
    flow = inputs[0] if rule is None else rule(node, inputs)
    columns = {
        field.name: flow.columns.get(field.name) or ColumnStats(typical_bytes(field.type))
        for field in schema
    }
    return replace(flow, rows=max(0.0, flow.rows), columns=columns)


def _filter(node: Filter, inputs: tuple[Flow, ...]) -> Flow:
    (flow,) = inputs
    share = selectivity(node.predicate, flow.columns)
    fixed_names = fixed_columns(node.predicate)
    columns = {
        name: _kept(stats, flow.rows, share, fixed=name in fixed_names)
        for name, stats in flow.columns.items()
    }
    return replace(flow, rows=flow.rows * share, columns=columns)


def _kept(stats: ColumnStats, rows: float, share: float, *, fixed: bool) -> ColumnStats:
    """Return a column's statistics after a share of the rows was kept (Cardenas, 1975)."""
    if stats.distinct is None or share >= 1:
        return stats
    if fixed:
        return replace(stats, distinct=min(1.0, stats.distinct), nulls=0.0)
    # D · (1 - (1 - share)^(rows of a value)): a value is lost only if all its rows are.
    each = rows * (1 - stats.nulls) / max(1.0, stats.distinct)
    left = stats.distinct * -math.expm1(each * math.log1p(-share))
    return replace(stats, distinct=max(min(1.0, stats.distinct), left))


def _made(columns: tuple[tuple[str, Expr], ...], flow: Flow) -> dict[str, ColumnStats]:
    """Return statistics of output columns: unknown if computed, unchanged if passed on."""
    return {
        name: flow.columns[expr.name]
        for name, expr in columns
        if isinstance(expr, Column) and expr.name in flow.columns
    }


def _project(node: Project, inputs: tuple[Flow, ...]) -> Flow:
    return Flow(inputs[0].rows, _made(node.columns, inputs[0]))


def _with_column(node: WithColumn, inputs: tuple[Flow, ...]) -> Flow:
    made = {name for name, _ in node.columns}
    kept = {name: stats for name, stats in inputs[0].columns.items() if name not in made}
    return Flow(inputs[0].rows, {**kept, **_made(node.columns, inputs[0])})


def _rename(node: Rename, inputs: tuple[Flow, ...]) -> Flow:
    names = dict(node.names)
    columns = {names.get(name, name): stats for name, stats in inputs[0].columns.items()}
    return Flow(inputs[0].rows, columns)


def _limit(node: Limit | TopK, inputs: tuple[Flow, ...]) -> Flow:
    rows = min(float(node.count), max(0.0, inputs[0].rows - node.offset))
    return Flow(rows, inputs[0].columns)


def _aggregate(node: Aggregate, inputs: tuple[Flow, ...]) -> Flow:
    (flow,) = inputs
    if not node.keys:
        return Flow(1.0, {}, 1.0)
    groups = groups_of([expr for _, expr in node.keys], flow)
    return Flow(groups, _made(node.keys, flow), groups)


def _distinct(node: Distinct, inputs: tuple[Flow, ...]) -> Flow:
    (flow,) = inputs
    names = node.columns or tuple(flow.columns)
    groups = groups_of([Column(name) for name in names], flow)
    return Flow(groups, flow.columns, groups)


def groups_of(keys: list[Expr], flow: Flow) -> float:
    """Estimate the number of distinct keys: at most the rows, and at most all combinations.

    Columns of one sampled source are counted together, because one may determine another.
    """
    columns: list[ColumnStats] = []
    unknown = False
    for key in dict.fromkeys(key.name for key in keys if isinstance(key, Column)):
        stats = flow.columns.get(key)
        if stats is None or stats.distinct is None:
            unknown = True
        else:
            columns.append(stats)
    unknown |= any(not isinstance(key, Column) for key in keys)
    product = math.prod(_values(stats) for stats in columns)
    together = joint_distinct(columns, flow.rows) if len(columns) > 1 else None
    if together is not None:
        product = min(product, max(together, *map(_values, columns)))
    # An expression, or a column without statistics: a tenth of the rows is assumed at least.
    if unknown:
        product = max(product, flow.rows * GROUP_SHARE)
    return max(min(1.0, flow.rows), min(flow.rows, product))


def _values(stats: ColumnStats) -> float:
    # NULL is a group of its own.
    return (stats.distinct or 0.0) + (stats.nulls > 0)


def _key_counts(left: Flow, right: Flow, on: Sequence[tuple[str, str]]) -> tuple[float, float]:
    if not on:
        return 1.0, 1.0
    one: list[Expr] = [Column(name) for name, _ in on]
    other: list[Expr] = [Column(name) for _, name in on]
    return groups_of(one, left), groups_of(other, right)


def match_rows(left: Flow, right: Flow, on: Sequence[tuple[str, str]]) -> float:
    """Estimate the rows of an inner join, assuming that the keys of the side with fewer all match.

    (Selinger et al., "Access path selection in a relational database management system", 1979.)
    """
    return left.rows * right.rows / max(1.0, *_key_counts(left, right, on))


def _join(node: Join, inputs: tuple[Flow, ...]) -> Flow:
    left, right = inputs
    pairs = left.rows * right.rows
    keys_left, keys_right = _key_counts(left, right, node.on)
    inner = match_rows(left, right, node.on)
    # The share of the left keys that exist on the right.
    matched = left.rows * min(1.0, keys_right / max(1.0, keys_left))
    # Unmatched rows of a kept side add to the matches: at least one row for each row of that side.
    rows = {
        "left": max(inner, left.rows),
        "right": max(inner, right.rows),
        "full": max(inner, left.rows + right.rows - min(left.rows, right.rows)),
        "semi": matched,
        "anti": left.rows - matched,
        "cross": pairs,
    }.get(node.how, inner)
    columns = dict(left.columns)
    shared = shared_keys(node)
    for name, stats in right.columns.items():
        if name not in shared:
            columns[name + node.suffix if name in left.columns else name] = stats
    return Flow(rows, columns, keys_right)


def _union(node: Union, inputs: tuple[Flow, ...]) -> Flow:
    rows = sum(flow.rows for flow in inputs)
    sizes: dict[str, ColumnStats] = {}
    # Of a union only the mean size of a column is known: its values may or may not be the same.
    for index, name in enumerate(inputs[0].columns):
        parts = [list(flow.columns.values())[index : index + 1] for flow in inputs]
        known = [
            (flow.rows, part[0].bytes) for flow, part in zip(inputs, parts, strict=True) if part
        ]
        total = sum(count for count, _ in known) or 1.0
        sizes[name] = ColumnStats(sum(count * size for count, size in known) / total)
    return Flow(rows, {} if node.by_name else sizes)


def _explode(node: Explode, inputs: tuple[Flow, ...]) -> Flow:
    kept = {name: stats for name, stats in inputs[0].columns.items() if name != node.column}
    return Flow(inputs[0].rows * ITEMS_IN_A_LIST, kept)


def _sample(node: Sample, inputs: tuple[Flow, ...]) -> Flow:
    rows = inputs[0].rows
    kept = rows * node.fraction if node.fraction is not None else min(rows, float(node.count or 0))
    return Flow(kept, inputs[0].columns)


def _window(node: Window, inputs: tuple[Flow, ...]) -> Flow:
    return replace(inputs[0], groups=groups_of(list(node.partition_by), inputs[0]))


_FLOWS: dict[type[Plan], Callable[[Any, tuple[Flow, ...]], Flow]] = {
    Filter: _filter,
    Project: _project,
    WithColumn: _with_column,
    Rename: _rename,
    Limit: _limit,
    TopK: _limit,
    Aggregate: _aggregate,
    Distinct: _distinct,
    Join: _join,
    Union: _union,
    Explode: _explode,
    Sample: _sample,
    Window: _window,
}
"""Nodes that are not listed pass all rows on unchanged."""


def _seconds(node: Plan, rows_in: tuple[float, ...]) -> float:
    rows = sum(rows_in)
    each = _SECONDS.get(type(node).__name__.lower(), _SECONDS_PER_ROW)
    if type(node).__name__ in ("Sort", "Window"):
        # Comparisons: n log n.
        each *= math.log2(max(2.0, rows)) / 4
    return rows * each
