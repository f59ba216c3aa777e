"""elytra.routes: the HTTP endpoints of jobs.

Layering: jobs; `lake.routes.documents` reads request bodies. Errors are raised as
`SennitError`; the gateway maps them to HTTP statuses.
"""

from __future__ import annotations

from elytra.routes.jobs import router

__all__ = ["router"]
