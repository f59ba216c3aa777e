"""Projection pushdown for text, whose scans yield whole records with their original bytes.

Unused columns are dropped where rows are kept, below sorts and joins; elsewhere dropping them costs
more than skipping them.
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
"""Records are rewritten without some of their columns when at most this fraction is left."""


def narrow(plan: Plan, folder: Path) -> Plan:
    """Drop unused columns from the records that a sort or a join keeps."""
    if not schemas_known(plan):
        return plan
    try:
        # Pruning finds which columns are used; they are cut off only where rows are kept.
        made = _narrowed(prune_columns(plan, folder), held=False)
        return made if check(made) == check(plan) else plan
    except SennitError:  # a name that was only free without the restored columns
        return plan


def _narrowed(plan: Plan, *, held: bool) -> Plan:
    """Restore all columns of scans, and drop those that were pruned again if rows are `held`."""
    below = plan
    while isinstance(below, Filter):
        below = below.input
    if isinstance(below, Scan):
        return _cut(plan, below, held=held)
    match plan:
        # Rows are kept whole by these, up to the scan or to an operator that keeps only keys and
        # states.
        case Sort() | TopK() | Join() | Union():
            held = True
        case Aggregate() | Distinct():
            held = False
    return with_inputs(plan, [_narrowed(each, held=held) for each in inputs_of(plan)])


def _cut(plan: Plan, scan: Scan, *, held: bool) -> Plan:
    """Return filters of a scan with all its columns, possibly with a projection above them."""
    assert scan.schema is not None, "schemas were resolved"
    kept = scan.columns or scan.schema.names
    whole = _over(plan, replace(scan, columns=None))
    if not held or len(kept) > CUT_SHARE * len(scan.schema):
        return whole
    return Project(whole, tuple((name, Column(name)) for name in kept))


def _over(plan: Plan, scan: Scan) -> Plan:
    return replace(plan, input=_over(plan.input, scan)) if isinstance(plan, Filter) else scan
