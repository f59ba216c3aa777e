"""Check memory bounds after a run: compare each operator's planned memory with its measured peak.

Imports nothing but figures, so that the pyarrow-free process can check its own run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MERGE_OVERHEAD_BYTES = 16 << 10
"""A merge's own state, in addition to a block of each run and one for the output."""


def with_measured(report: Mapping[str, Any], planned: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a run's report with its schedule, and with plan and bound added to each operator.

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
    """Return the measured `peak <= K * b + overhead <= grant` of one operator.

    While an operator collects rows it fills its grant; while it merges, it holds a block of each of
    K runs, one block of the output, and the merge's state. The peak is the larger of the two.
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
