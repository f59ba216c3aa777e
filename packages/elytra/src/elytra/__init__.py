"""elytra: fluent pipelines over a node or local files, uploads, HTTP endpoints and the scheduler.

Layering, client:  errors, client, tracing, splitter <- local.derived <- pipelines <- local.session
          functions.step <- splitter; functions.program <- pipelines
          node:    splitter (pure) <- service (messages <- scheduled_jobs <- scheduler; work, job_store <- loop <- job_service)
                   service.work <- backends <- service.job_service <- routes
          tests:   service <- testing

Names are loaded on first use; `import elytra` alone loads no heavy dependency.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sennit_core.ownership import check_distribution

check_distribution(__file__, "sennit-elytra")

if TYPE_CHECKING:
    from elytra.client.client import Client, Uploaded
    from elytra.client.job_handle import Job
    from elytra.client.result import Result
    from elytra.client.upload_progress import with_rate
    from elytra.client.upload_sender import SendOptions
    from elytra.errors import StepFailed
    from elytra.pipelines.asynchronous import AsyncElytra
    from elytra.pipelines.pipeline import Pipeline
    from elytra.pipelines.remote import Elytra
    from emsqrt.expr import col, count, lit, when

__all__ = [
    "AsyncElytra",
    "Client",
    "Elytra",
    "Job",
    "Pipeline",
    "Result",
    "SendOptions",
    "StepFailed",
    "Uploaded",
    "col",
    "count",
    "lit",
    "when",
    "with_rate",
]

# Repeats the imports above, which only type checkers see. lazy_loader would derive it from a stub
# file, but its import adds 2 ms to the 50 ms of `import elytra`.
_HOMES = {
    "AsyncElytra": "elytra.pipelines.asynchronous",
    "Client": "elytra.client.client",
    "Elytra": "elytra.pipelines.remote",
    "Job": "elytra.client.job_handle",
    "Pipeline": "elytra.pipelines.pipeline",
    "Result": "elytra.client.result",
    "SendOptions": "elytra.client.upload_sender",
    "StepFailed": "elytra.errors",
    "Uploaded": "elytra.client.client",
    "col": "emsqrt.expr",
    "count": "emsqrt.expr",
    "lit": "emsqrt.expr",
    "when": "emsqrt.expr",
    "with_rate": "elytra.client.upload_progress",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
