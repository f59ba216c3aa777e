"""Executor entry `lake.sql`: run one step of a query with the engine that the request names.

`engine` is `duckdb` (the default), `plan` (convert the statement to an EM-√ plan, read no data),
`emsqrt` (run such a plan), `history` (find the earlier snapshots that the statement reads), `target` (find
what it changes), `lists`
(choose the lists of shards that it needs), `policy` (check the expressions of an access policy),
`defaults` (compute those of columns), `link` (examine a file to be linked), `distribute` or `merge` (see
`lake.sql.distributed_worker`), `fragment` (see `lake.sql.fragment_worker`). Each imports only
what it needs: planning runs in a separate process, so that the memory of DuckDB and its parser does
not count against the cap of the plan's run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["prepare", "release", "run", "warm"]


def prepare() -> None:
    """Import common modules before the memory cap applies: threads reserve more than they use."""
    from emsqrt.executor import entry

    entry.prepare()


def warm() -> None:
    """Import DuckDB, and open a database once: half a second of CPU that the first query saves."""
    from lake.sql import duckdb_worker

    duckdb_worker.warm()


def release() -> None:
    """Close cached DuckDB instances, because the next task needs their memory."""
    # Not imported for this: a process that has run no DuckDB query should not load DuckDB.
    loaded = sys.modules.get("lake.sql.duckdb_worker")
    if loaded is not None:
        loaded.release()


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Run one step."""
    engine = request.get("engine", "duckdb")
    if engine in _WITHOUT_ROWS:
        return _WITHOUT_ROWS[engine](request)
    # Idle instances are memory under the same cap, which the plan can use instead.
    if engine not in _KEEPS_INSTANCES:
        release()
    if engine == "emsqrt":
        from lake.sql.external import run_query

        return run_query(request, context)
    if engine == "plan":
        from lake.sql.planning import plan_query

        return plan_query(request, context)
    if engine == "distribute":
        from lake.sql.distributed_worker import plan_query as plan_distributed_query

        return plan_distributed_query(request, context)
    if engine == "merge":
        from lake.sql.distributed_worker import merge_query

        return merge_query(request, context)
    if engine == "fragment":
        from lake.sql.fragment_worker import run_fragment

        return run_fragment(request, context)
    if engine == "arrived":
        from lake.sql.arrived_rows import send_arrived

        return send_arrived(request, context)
    if engine == "link":
        from lake.sql.duckdb_worker import limits_of
        from lake.sql.link_probe import probe_link

        return probe_link(request, context, limits_of(request, context))
    from lake.sql import duckdb_worker

    return duckdb_worker.run(request, context)


def _find_history(request: dict[str, Any]) -> dict[str, Any]:
    from lake.sql.history import find_history

    return {"history": find_history(request["sql"])}


def _check_policy(request: dict[str, Any]) -> dict[str, Any]:
    from lake.sql.policy_check import check_policy

    return check_policy(request)


def _choose_lists(request: dict[str, Any]) -> dict[str, Any]:
    from lake.sql.list_worker import choose_lists

    return choose_lists(request)


def _find_target(request: dict[str, Any]) -> dict[str, Any]:
    from lake.sql.target import find_target

    return {"target": find_target(request["sql"], request.get("known") or ())}


def _compute_defaults(request: dict[str, Any]) -> dict[str, Any]:
    from lake.sql.defaults import values_of_defaults

    return values_of_defaults(request)


_KEEPS_INSTANCES = frozenset(("duckdb", "distribute", "merge", "fragment"))
"""Steps that use these instances, or come before one that does in the same query."""
_WITHOUT_ROWS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "history": _find_history,
    "policy": _check_policy,
    "lists": _choose_lists,
    "defaults": _compute_defaults,
    "target": _find_target,
}
"""Steps that read no rows; they leave idle instances of DuckDB as they are."""
