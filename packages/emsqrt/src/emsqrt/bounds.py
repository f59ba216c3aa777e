"""Bounds checked after a run: what was planned for each operator beside what it took.

Needs nothing but the figures, so that the lean process checks its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MERGE_OVERHEAD_BYTES = 16 << 10
"""A merge's own state, beside a block of each run and one for the output."""


def with_measured(report: Mapping[str, Any], planned: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a run's report with its schedule, and for each operator plan and bound.

    Args:
        report: the JSON of a `Manifest`, with `blocks`.
        planned: the JSON of a `TeSchedule`, None when there was none.
    """
    figures = {each["node"]: each for each in (planned or {}).get("operators", ())}
    blocks = [
        {**block, "planned": figures.get(block["node"], {})} for block in report.get("blocks", ())
    ]
    bounds = [bound_of(block) for block in blocks if block["grantedBytes"]]
    measured = {
        "bounds": bounds,
        "holds": all(bound["holds"] for bound in bounds),
        "spillBytes": sum(block["spilledBytes"] for block in blocks),
        "workingPeakBytes": report["reservedByTag"].get("working set", 0),
    }
    return {**report, "blocks": blocks, "te": {**(planned or {}), "measured": measured}}


def bound_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return `peak <= K * b + overhead <= grant` of one operator, as it was measured.

    What gathers fills its grant; what merges holds a block of each of K runs, one of the output,
    and the merge's state. The peak is the greater of the two.
    """
    merging = 0
    if block["fanIn"]:
        merging = (block["fanIn"] + 1) * block["blockBytes"] + MERGE_OVERHEAD_BYTES
    granted = block["grantedBytes"]
    return {
        "node": block["node"],
        "peakBytes": block["peakBytes"],
        "mergeBytes": merging,
        "grantedBytes": granted,
        "holds": block["peakBytes"] <= granted and merging <= granted,
    }
