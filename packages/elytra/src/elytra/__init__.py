"""elytra: fluent pipelines over a node, HTTP endpoints for uploads and jobs, and the job scheduler.

Layering, client:  transport, sse <- uploads.sender, job_handle <- client <- pipeline <- remote
          node:    messages, backends <- scheduler, splitter (pure) <- work, job_store
                   <- backends.local <- backends.table, loop <- job_service <- routes
          tests:   job_service <- testing

Names are loaded on first use; `import elytra` alone loads no heavy dependency.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sennit_core.ownership import check_distribution

check_distribution(__file__, "sennit-elytra")

if TYPE_CHECKING:
    from elytra.client import Client, Uploaded
    from elytra.job_handle import Job
    from elytra.pipeline import Pipeline
    from elytra.remote import Elytra
    from elytra.result import Result
    from elytra.uploads.sender import SendOptions
    from emsqrt.expr import col, count, lit, when

__all__ = [
    "Client",
    "Elytra",
    "Job",
    "Pipeline",
    "Result",
    "SendOptions",
    "Uploaded",
    "col",
    "count",
    "lit",
    "when",
]

# Repeats the imports above, which only type checkers see. lazy_loader would derive it from a stub
# file, but its import adds 2 ms to the 50 ms of `import elytra`.
_HOMES = {
    "Client": "elytra.client",
    "Elytra": "elytra.remote",
    "Job": "elytra.job_handle",
    "Pipeline": "elytra.pipeline",
    "Result": "elytra.result",
    "SendOptions": "elytra.uploads.sender",
    "Uploaded": "elytra.client",
    "col": "emsqrt.expr",
    "count": "emsqrt.expr",
    "lit": "emsqrt.expr",
    "when": "emsqrt.expr",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
