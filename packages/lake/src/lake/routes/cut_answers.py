"""Answers that ended early: their errors by the id of the answer, for whoever asked for it.

Once an answer has begun, its status cannot change any more. The connection is closed without the end
of the body, so that every HTTP client notices, and the client can ask for the reason here.
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
    """The errors of the last answers that were cut; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: OrderedDict[str, tuple[str, SennitError]] = OrderedDict()

    def add(self, answer_id: str, user: str, error: SennitError) -> None:
        """Remember why an answer was cut."""
        with self._lock:
            self._errors[answer_id] = (user, error)
            if len(self._errors) > _KEPT_MAX:
                self._errors.popitem(last=False)

    def get(self, answer_id: str, requester: Requester) -> SennitError:
        """Return the error of an answer.

        Raises:
            NotFound: the answer was not cut, or was of another user, or it is long ago.
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
    """The route that tells why an answer was cut."""
    routes = APIRouter(tags=["query"])

    @routes.get("/api/answers/{answer_id}")
    async def get_answer(answer_id: str, request: Request) -> dict[str, Any]:
        """Why an answer ended early, by its header Sennit-Answer: an error document."""
        return cut_answers_of(request.app).get(answer_id, requester_of(request)).to_json()

    return routes
