"""Run entry points in processes of their own, under a memory cap, with results over a Strand ring.

Layering: frames <- control <- payload_sender, context <- process (the executor itself);
frames, loop, spill <- worker, execution <- pool (its parent).

Each public name is loaded on first use, because an executor process imports this and stays small.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsqrt.executor.context import EntryContext
    from emsqrt.executor.execution import Execution
    from emsqrt.executor.pool import ExecutorPool, PoolStats

__all__ = ["EntryContext", "Execution", "ExecutorPool", "PoolStats"]

_HOMES = {
    "EntryContext": "emsqrt.executor.context",
    "Execution": "emsqrt.executor.execution",
    "ExecutorPool": "emsqrt.executor.pool",
    "PoolStats": "emsqrt.executor.pool",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
