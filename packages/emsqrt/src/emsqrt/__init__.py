"""emsqrt: an external-memory engine that runs plans over files under a hard memory cap.

Layering: memory <- expr <- plan <- operators, io <- rules, session (one run, in the capped
process) <- executor (the processes) <- engine, pipeline <- cli.

`scan(...)` builds a pipeline; `.run(mem_cap="64MiB")` runs it in a child process. Importing this
package imports no third-party module: each public name is loaded on first use.
"""

from typing import TYPE_CHECKING, Any

from sennit_core.ownership import check_distribution

check_distribution(__file__, "sennit-emsqrt")

if TYPE_CHECKING:
    from emsqrt.config import EngineConfig
    from emsqrt.engine import Engine
    from emsqrt.expr import col, lit, when
    from emsqrt.manifest import Manifest
    from emsqrt.memory.pool import BudgetPool
    from emsqrt.pipeline import Pipeline, scan
    from emsqrt.sql_plan import sql

__all__ = [
    "BudgetPool",
    "Engine",
    "EngineConfig",
    "Manifest",
    "Pipeline",
    "col",
    "lit",
    "scan",
    "sql",
    "when",
]

_HOMES = {
    "BudgetPool": "emsqrt.memory.pool",
    "Engine": "emsqrt.engine",
    "EngineConfig": "emsqrt.config",
    "Manifest": "emsqrt.manifest",
    "Pipeline": "emsqrt.pipeline",
    "col": "emsqrt.expr",
    "lit": "emsqrt.expr",
    "scan": "emsqrt.pipeline",
    "sql": "emsqrt.sql_plan",
    "when": "emsqrt.expr",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
