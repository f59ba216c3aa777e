"""From a plan node to the operator that carries it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from emsqrt.memory import MemoryBudget
from emsqrt.operators.aggregate import AggregateRows
from emsqrt.operators.rows import FilterRows, LimitRows, MapColumns
from emsqrt.plan import Aggregate, Filter, Limit, Plan, Project, Rename, WithColumn
from sennit_core.errors import UsageError
from sennit_core.schema import Schema


class Operator(Protocol):
    """A stage of a pipeline: batches go in by `push`, and come out of `push` and `finish`.

    `schema` is that of the batches that come out. Once `done` is true no more input is needed.
    `close` gives back what the operator holds; it is safe at any time and more than once.
    """

    schema: Schema

    @property
    def done(self) -> bool:
        """Whether further input would change nothing."""

    def push(self, batch: Any) -> Iterator[Any]:
        """Take one record batch and give those that are ready."""

    def finish(self) -> Iterator[Any]:
        """Give the rest, after the last `push`."""

    def close(self) -> None:
        """Give back memory."""


def build(node: Plan, input_schema: Schema, budget: MemoryBudget) -> Operator:
    """Return the operator of one node that reads rows of `input_schema`.

    Raises:
        UsageError: the node is a scan or a sink, which the executor carries out itself.
        UnknownColumn, TypeMismatch, Unsupported: as `emsqrt.plan.check`.
    """
    match node:
        case Filter():
            return FilterRows(node, input_schema)
        case Project() | WithColumn() | Rename():
            return MapColumns(node, input_schema)
        case Limit():
            return LimitRows(node, input_schema)
        case Aggregate():
            return AggregateRows(node, input_schema, budget)
    raise UsageError(f"{type(node).__name__.lower()} is not an operator over rows")
