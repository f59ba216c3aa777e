"""One line of JSON for each request, with its id: the client's, or a generated one."""

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
    """Logs requests at level info; costs next to nothing while that level is disabled."""

    @staticmethod
    def begin(request: Request) -> str | None:
        """Return the id of a request: its own, or a new one when requests are logged."""
        sent = request.headers.get("x-request-id")
        # Checked, because it is written to the log and to a header of the answer.
        if sent is not None and _ID.match(sent):
            return sent
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
            number: from `begin`; sent to the client as a header of `response`.
            request: the request.
            client: the client's address.
            response: None for a stream.
            started: `time.perf_counter()` when the request was received.
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
