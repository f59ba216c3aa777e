"""The errors of aborted responses, by response id, for the users who requested them.

Once a response has started, its status cannot change. The connection is closed without the end of
the body, so that every HTTP client notices, and the client can request the error here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from fastapi import APIRouter, FastAPI, Request

from lake.routes.requester import requester_of
from lake.statements.limits import Requester
from sennit_core.errors import NotFound, SennitError
from sennit_core.roles import needs

__all__ = ["AbortedResults", "aborted_results_of", "router"]

_KEPT_MAX = 1000


class AbortedResults:
    """The errors of recently aborted responses; the oldest are evicted first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: OrderedDict[str, tuple[str, SennitError]] = OrderedDict()

    def add(self, result_id: str, user: str, error: SennitError) -> None:
        """Record the error of an aborted response."""
        with self._lock:
            self._errors[result_id] = (user, error)
            if len(self._errors) > _KEPT_MAX:
                self._errors.popitem(last=False)

    def get(self, result_id: str, requester: Requester) -> SennitError:
        """Return the error of an aborted response.

        Raises:
            NotFound: the response was not aborted, belongs to another user, or was evicted.
        """
        with self._lock:
            user, error = self._errors.get(result_id, ("", None))
        if error is None or not (requester.is_admin or requester.name == user):
            raise NotFound(kind="aborted result", name=result_id[:40])
        return error


def aborted_results_of(app: FastAPI) -> AbortedResults:
    """Return the one registry of an application."""
    found: AbortedResults | None = getattr(app.state, "aborted_results", None)
    if found is None:
        found = app.state.aborted_results = AbortedResults()
    return found


def router() -> APIRouter:
    """Return the route for the errors of aborted responses."""
    routes = APIRouter(tags=["query"])

    @routes.get("/api/results/{result_id}", openapi_extra=needs("reader"))
    async def get_result_error(result_id: str, request: Request) -> dict[str, Any]:
        """Return the error of an aborted response, by its header Sennit-Result."""
        return aborted_results_of(request.app).get(result_id, requester_of(request)).to_json()

    return routes
