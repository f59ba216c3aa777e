"""Expectations of all rows together, checked at each shard and again in the merge.

No two rows of a shard may agree in the unique columns: the task checks that. Its state is these columns of
all its rows, so the merge finds rows of different shards that agree, and their number. It adds no row.
"""

from __future__ import annotations

from dataclasses import replace

from elytra.shard_parts import ROWS, STATE, MergedState, ShardRows
from emsqrt.expr import Cast, Column, Expr, count, lit
from emsqrt.plan import Aggregate, Expect, Filter, Project, check

__all__ = ["checked_again"]

_COUNT = "$rows"


def checked_again(rows: ShardRows, step: Expect) -> ShardRows | str:
    """Return the rows with an expectation that needs all of them; or why it needs one task.

    Args:
        rows: Those below.
        step: The expectation.
    """
    names = check(step).names
    if not step.unique:
        return "an expectation of the number of rows needs them in one place"
    if rows.merged:
        return "an expectation needs the rows that the merge adds"
    if any(name == STATE or name.startswith("$unique") for name in names):
        return "a column is called as one of those that a split expectation adds"
    keys = [f"$unique{at}" for at in range(len(step.unique))]
    state = Project(ROWS, tuple(zip(keys, map(Column, step.unique), strict=True)))
    parts = tuple(replace(part, states=((*(part.steps or ()), state),)) for part in rows.parts)
    # By the columns' own names, which the error has.
    named = Project(ROWS, tuple(zip(step.unique, map(Column, keys), strict=True)))
    found = replace(step, input=ROWS, not_null=())
    # One row that the filter drops, once all have been read: a limit would not read them.
    none = Filter(Aggregate(ROWS, (), ((_COUNT, count()),)), Column(_COUNT) < lit(0))
    nulls: list[tuple[str, Expr]] = [(to.name, Cast(lit(None), to.type)) for to in check(step)]
    steps = (found, none.input, replace(none, input=ROWS), Project(ROWS, tuple(nulls)))
    at_shard = ShardRows(parts).adding(replace(step, rows=None))
    return replace(at_shard, merged=(MergedState(named, steps=steps),))
