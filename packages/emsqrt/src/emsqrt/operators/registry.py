"""Create the operators of a plan; other packages register theirs here.

A factory accepts a plan node, the operators of its inputs and the run, and returns an operator. A
package registers one under the entry point group `emsqrt.operators`, with the name of its `Custom`
nodes. One that not every plan may have is not registered: the caller of the engine passes it with the
request, as `EntryContext.operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from emsqrt.execution_context import ExecutionContext
from emsqrt.operators.aggregate import AggregateRows
from emsqrt.operators.distinct import DistinctRows
from emsqrt.operators.expect import ExpectRows
from emsqrt.operators.join import JoinRows
from emsqrt.operators.merge import make_sort
from emsqrt.operators.operator import Operator
from emsqrt.operators.rows import FilterRows, LimitRows, MapColumns
from emsqrt.operators.sample import make_sample
from emsqrt.operators.sort import SortRows
from emsqrt.operators.streams import ExplodeRows, UnionRows
from emsqrt.operators.window import WindowRows
from emsqrt.plan import Aggregate, Filter, Limit, Plan, Project, Rename, WithColumn
from emsqrt.plan.nodes import Custom, Distinct, Expect, Explode, Join, Sample, Sort, TopK, Union
from emsqrt.plan.window import Window
from sennit_core.errors import NotFound, UsageError, nearest

Maker = Callable[[Any, Sequence[Operator], ExecutionContext], Operator]

GROUP = "emsqrt.operators"
"""Entry point group of operators in other packages."""


def _make_custom(node: Custom, inputs: Sequence[Operator], run: ExecutionContext) -> Operator:
    if node.name in run.context.operators:
        module, _, name = str(run.context.operators[node.name]["make"]).partition(":")
        passed: Maker = getattr(import_module(module), name)
        return passed(node, inputs, run)
    from importlib.metadata import entry_points  # costs a MiB that most plans do not need

    found = entry_points(group=GROUP, name=node.name)
    if not found:
        names = sorted(point.name for point in entry_points(group=GROUP))
        raise NotFound("operator", node.name, suggestion=nearest(node.name, names))
    # The first of several packages with the same name.
    maker: Maker = next(iter(found)).load()
    return maker(node, inputs, run)


_MAKERS: dict[type[Plan], Maker] = {
    Aggregate: AggregateRows,
    Custom: _make_custom,
    Distinct: DistinctRows,
    Expect: ExpectRows,
    Explode: ExplodeRows,
    Filter: FilterRows,
    Join: JoinRows,
    Limit: LimitRows,
    Project: MapColumns,
    Rename: MapColumns,
    Sample: make_sample,
    Sort: make_sort,
    TopK: SortRows,
    Union: UnionRows,
    Window: WindowRows,
    WithColumn: MapColumns,
}


def make_operator(node: Plan, inputs: Sequence[Operator], run: ExecutionContext) -> Operator:
    """Return the operator of one node that reads from `inputs`.

    Raises:
        UsageError: the node is a scan or a sink, which the session opens itself.
        UnknownColumn, TypeMismatch, Unsupported: as `emsqrt.plan.check`.
    """
    maker = _MAKERS.get(type(node))
    if maker is None:
        raise UsageError(f"{type(node).__name__.lower()} is not an operator over rows")
    return maker(node, inputs, run)
