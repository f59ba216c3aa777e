"""emsqrt.external: sorting, grouping and joining more rows than memory holds.

Layering: fan_in (arithmetic) <- runs (spilled, merged) <- sort; joined, partition <- nested_loop <-
partitioned_join <- join; merge_join and cross stand beside it. Each algorithm works in a memory of
fixed size that its caller hands in, and spills through `emsqrt.spill`. No third-party package; a
name is loaded when it is first used, because a run needs one algorithm and pays for each in its cap.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsqrt.external.aggregate import AggregateStats, ExternalAggregate
    from emsqrt.external.cross import CrossJoin
    from emsqrt.external.fan_in import SortPlan, plan_sort
    from emsqrt.external.join import ExternalJoin
    from emsqrt.external.join_output import JoinStats
    from emsqrt.external.merge_join import MergeJoin
    from emsqrt.external.runs import Runs, RunStats
    from emsqrt.external.sort import ExternalSort, SortStats

__all__ = [
    "AggregateStats",
    "CrossJoin",
    "ExternalAggregate",
    "ExternalJoin",
    "ExternalSort",
    "JoinStats",
    "MergeJoin",
    "RunStats",
    "Runs",
    "SortPlan",
    "SortStats",
    "plan_sort",
]

_HOMES = {
    "AggregateStats": "aggregate",
    "CrossJoin": "cross",
    "ExternalAggregate": "aggregate",
    "ExternalJoin": "join",
    "ExternalSort": "sort",
    "JoinStats": "joined",
    "MergeJoin": "merge_join",
    "RunStats": "runs",
    "Runs": "runs",
    "SortPlan": "fan_in",
    "SortStats": "sort",
    "plan_sort": "fan_in",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
