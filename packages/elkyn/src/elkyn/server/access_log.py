"""One line of JSON for each request, with the id that the client sent or gets."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time

from elkyn.server.request import Request, Response
from sennit_core.logs import get_logger

__all__ = ["AccessLog"]

_ID = re.compile(r"[\w.:-]{1,64}\Z", re.ASCII)
_PATH_CHARS_MAX = 300

_log = get_logger("elkyn.access")


class AccessLog:
    """Logs requests at level info; costs next to nothing while nobody listens."""

    @staticmethod
    def begin(request: Request) -> str | None:
        """Return the id of a request: its own, or a new one when requests are logged."""
        given = request.headers.get("x-request-id")
        if given is not None and _ID.match(given):
            return given
        return secrets.token_hex(8) if _log.isEnabledFor(logging.INFO) else None

    @staticmethod
    def end(
        number: str | None,
        request: Request,
        client: str,
        response: Response | None,
        started: float,
    ) -> None:
        """Log a request that was answered, or whose stream has ended.

        Args:
            number: from `begin`; told to the client with `response`.
            request: what was asked.
            client: the address it came from.
            response: None for a stream.
            started: `time.perf_counter()` when the request came.
        """
        if number is None:
            return
        if response is not None:
            response.headers += (("x-request-id", number),)
        if not _log.isEnabledFor(logging.INFO):
            return
        line = {
            "id": number,
            "method": request.method,
            "path": request.raw_path[:_PATH_CHARS_MAX],
            "ns": request.query.get("ns", "default"),
            "status": 200 if response is None else response.status,
            "ms": round((time.perf_counter() - started) * 1000, 3),
            "client": client,
        }
        _log.info("%s", json.dumps(line))
