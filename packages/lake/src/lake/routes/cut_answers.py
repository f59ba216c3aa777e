"""The errors of aborted responses, by response id, for the users who requested them.

Once a response has started, its status cannot change. The connection is closed without the end of
the body, so that every HTTP client notices, and the client can request the error here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from fastapi import APIRouter, FastAPI, Request

from lake.limits import Requester
from lake.routes.requester import requester_of
from sennit_core.errors import NotFound, SennitError

__all__ = ["CutAnswers", "cut_answers_of", "router"]

_KEPT_MAX = 1000


class CutAnswers:
    """The errors of recently aborted responses; the oldest are evicted first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: OrderedDict[str, tuple[str, SennitError]] = OrderedDict()

    def add(self, answer_id: str, user: str, error: SennitError) -> None:
        """Record the error of an aborted response."""
        with self._lock:
            self._errors[answer_id] = (user, error)
            if len(self._errors) > _KEPT_MAX:
                self._errors.popitem(last=False)

    def get(self, answer_id: str, requester: Requester) -> SennitError:
        """Return the error of an aborted response.

        Raises:
            NotFound: the response was not aborted, belongs to another user, or was evicted.
        """
        with self._lock:
            user, error = self._errors.get(answer_id, ("", None))
        if error is None or not (requester.is_admin or requester.name == user):
            raise NotFound(kind="answer that was cut", name=answer_id[:40])
        return error


def cut_answers_of(app: FastAPI) -> CutAnswers:
    """Return the one registry of an application."""
    found: CutAnswers | None = getattr(app.state, "cut_answers", None)
    if found is None:
        found = app.state.cut_answers = CutAnswers()
    return found


def router() -> APIRouter:
    """Return the route for the errors of aborted responses."""
    routes = APIRouter(tags=["query"])

    @routes.get("/api/answers/{answer_id}")
    async def get_answer(answer_id: str, request: Request) -> dict[str, Any]:
        """Return the error of an aborted response, by its header Sennit-Answer."""
        return cut_answers_of(request.app).get(answer_id, requester_of(request)).to_json()

    return routes
