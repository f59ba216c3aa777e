"""Plans of SQL over tables whose shards are on several nodes; no network, no DuckDB.

Layering: `tables`, `plan` and `engine` are what a caller passes and gets; `syntax` (with `fidelity` and `trees`) reads a
statement; `decorrelation` rewrites subqueries; `schemes` says what may be split and what is whole where; `equalities` and `distribution` prove it; `aggregates` and `blocks` cut a SELECT
in two; `references`, `shard_pruning`, `estimates`, `drafts` and `fragments` say what runs on which shards
and what it moves; `fallback` gathers; `planner` chooses; `explain` shows; `snapshots` makes tables of the
lake's records. Design 0140 has the reasons.
"""

from lake.peers.sql.engine import EmptyTables, Engine
from lake.peers.sql.explain import StepRun, explain_json, explain_text
from lake.peers.sql.plan import (
    Broadcast,
    Cost,
    DistributedPlan,
    Fragment,
    Gather,
    Merge,
    Step,
    Unit,
)
from lake.peers.sql.snapshots import arrived_table, sharded_table
from lake.peers.sql.tables import Bounds, BucketKey, Column, Shard, Table

__all__ = [
    "Bounds",
    "Broadcast",
    "BucketKey",
    "Column",
    "Cost",
    "DistributedPlan",
    "EmptyTables",
    "Engine",
    "Fragment",
    "Gather",
    "Merge",
    "Shard",
    "Step",
    "StepRun",
    "Table",
    "Unit",
    "arrived_table",
    "explain_json",
    "explain_text",
    "sharded_table",
]
