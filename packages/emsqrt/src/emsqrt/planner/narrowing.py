"""Projection pushdown for text, whose scans always give whole records with the bytes they had.

Columns that nobody looks at are cut off where rows are kept, below sorts and joins; elsewhere that
would cost more than to pass over them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emsqrt.expr import Column
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Filter,
    Join,
    Plan,
    Project,
    Scan,
    Sort,
    TopK,
    Union,
    check,
    inputs_of,
    with_inputs,
)
from emsqrt.planner.columns import prune_columns
from emsqrt.planner.schemas import schemas_known
from sennit_core.errors import SennitError

CUT_SHARE = 2 / 3
"""Records are written anew without some of their columns when at most so many are left."""


def narrow(plan: Plan, folder: Path) -> Plan:
    """Cut columns that nobody looks at off the records that a sort or a join keeps."""
    if not schemas_known(plan):
        return plan
    try:
        made = _narrowed(prune_columns(plan, folder), held=False)
        return made if check(made) == check(plan) else plan
    except SennitError:  # a name that was free without the columns that are there after all
        return plan


def _narrowed(plan: Plan, *, held: bool) -> Plan:
    """Give scans all their columns again, and cut those off that were pruned if rows are `held`."""
    below = plan
    while isinstance(below, Filter):
        below = below.input
    if isinstance(below, Scan):
        return _cut(plan, below, held=held)
    match plan:
        case Sort() | TopK() | Join() | Union():
            held = True
        case Aggregate() | Distinct():
            held = False
    return with_inputs(plan, [_narrowed(each, held=held) for each in inputs_of(plan)])


def _cut(plan: Plan, scan: Scan, *, held: bool) -> Plan:
    """Return filters of a scan with all its columns, and perhaps a projection above them."""
    assert scan.schema is not None, "schemas are known"
    kept = scan.columns or scan.schema.names
    whole = _over(plan, replace(scan, columns=None))
    if not held or len(kept) > CUT_SHARE * len(scan.schema):
        return whole
    return Project(whole, tuple((name, Column(name)) for name in kept))


def _over(plan: Plan, scan: Scan) -> Plan:
    return replace(plan, input=_over(plan.input, scan)) if isinstance(plan, Filter) else scan
