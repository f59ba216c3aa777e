"""From a plan to the operators that carry it out; other packages add theirs here.

A maker takes a plan node, the operators of its inputs and the run, and returns an operator. A
package adds one under the entry point group `emsqrt.operators`, by the name that its `Custom` nodes
carry.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from emsqrt.operators.aggregate import AggregateRows
from emsqrt.operators.join import JoinRows
from emsqrt.operators.operator import Operator
from emsqrt.operators.rows import FilterRows, LimitRows, MapColumns
from emsqrt.operators.sort import SortRows
from emsqrt.operators.streams import ExplodeRows, SampleRows, UnionRows
from emsqrt.plan import Aggregate, Filter, Limit, Plan, Project, Rename, WithColumn
from emsqrt.plan.nodes import Explode, Join, Sample, Sort, TopK, Union
from emsqrt.run import Run
from sennit_core.errors import UsageError


class GatheredRows:
    """An aggregate that is pushed all of its input, and then drained."""

    def __init__(self, node: Aggregate, inputs: Sequence[Operator], run: Run) -> None:
        """Type the aggregate over the input's rows."""
        (self._input,) = inputs
        self._run = run
        self._aggregate = AggregateRows(node, self._input.schema, run.budget)
        self.schema = self._aggregate.schema

    def batches(self) -> Generator[Any]:
        """Yield the groups."""
        with closing(self._aggregate), closing(self._input.batches()) as batches:
            for batch in batches:
                self._run.check()
                yield from self._aggregate.push(batch)
                del batch
            yield from self._aggregate.finish()


Maker = Callable[[Any, Sequence[Operator], Run], Operator]

_MAKERS: dict[type[Plan], Maker] = {
    Aggregate: GatheredRows,
    Explode: ExplodeRows,
    Filter: FilterRows,
    Join: JoinRows,
    Limit: LimitRows,
    Project: MapColumns,
    Rename: MapColumns,
    Sample: SampleRows,
    Sort: SortRows,
    TopK: SortRows,
    Union: UnionRows,
    WithColumn: MapColumns,
}


def make_operator(node: Plan, inputs: Sequence[Operator], run: Run) -> Operator:
    """Return the operator of one node that reads from `inputs`.

    Raises:
        UsageError: the node is a scan or a sink, which a session carries out itself.
        UnknownColumn, TypeMismatch, Unsupported: as `emsqrt.plan.check`.
    """
    maker = _MAKERS.get(type(node))
    if maker is None:
        raise UsageError(f"{type(node).__name__.lower()} is not an operator over rows")
    return maker(node, inputs, run)
