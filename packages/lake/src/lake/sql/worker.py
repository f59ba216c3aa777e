"""Executor entry `lake.sql`: one step of a query, by the engine that the request names.

`engine` is `duckdb` (the default), `plan` (the statement as a plan of EM-√, nothing read) or
`emsqrt` (such a plan, run). Each loads what it needs and nothing else: planning in a process of its
own leaves the memory of DuckDB and of the parser out of the cap that the plan runs under.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsqrt.executor import Context

__all__ = ["prepare", "release", "run"]


def prepare() -> None:
    """Load what every engine needs before the cap is watched: threads reserve more than they use."""
    from emsqrt.executor import entry

    entry.prepare()


def release() -> None:
    """Close the DuckDB instances that earlier queries left: what follows needs the memory."""
    loaded = sys.modules.get("lake.sql.duckdb_worker")
    if loaded is not None:
        loaded.release()


def run(request: dict[str, Any], context: Context) -> dict[str, Any]:
    """Carry out one step."""
    engine = request.get("engine", "duckdb")
    if engine != "duckdb":
        release()
    if engine == "emsqrt":
        from lake.sql.external import run_query

        return run_query(request, context)
    if engine == "plan":
        from lake.sql.planning import plan_query

        return plan_query(request, context)
    from lake.sql import duckdb_worker

    return duckdb_worker.run(request, context)
