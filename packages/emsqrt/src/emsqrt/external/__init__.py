"""emsqrt.external: sorting, grouping and joining more rows than memory holds.

Layering: fan_in (arithmetic) <- runs (spilled, merged) <- sort; join_output, partition <-
nested_loop <- partitioned_join <- join; merge_join and cross are alternatives to join. Each
algorithm works in memory of a fixed size that its caller passes, and spills through `emsqrt.spill`.
No third-party package. A name is imported when it is first used: a run needs one algorithm, and
every imported module counts against its cap.
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
    "JoinStats": "join_output",
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
