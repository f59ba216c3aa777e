"""Requests that the node answers with a line for each report of their progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sennit_core.errors import Unavailable, error_from_json

if TYPE_CHECKING:
    from elytra.client.transport import Transport

__all__ = ["last_report"]


def last_report(
    transport: Transport,
    path: str,
    document: Mapping[str, Any],
    on_progress: Callable[[Mapping[str, Any]], object],
) -> dict[str, Any]:
    """Send a request, and return the last report.

    Args:
        transport: Sends it.
        path: Of a route that reports.
        document: The body.
        on_progress: Called with each report.

    Raises:
        SennitError: The node's error, also one that came after the first report.
        Unavailable: The reports ended early.
    """
    report: dict[str, Any] = {}
    with transport.stream("POST", path, document=document) as response:
        for line in response.iter_lines():
            report = json.loads(line)
            if "code" in report:
                raise error_from_json(report)
            on_progress(report)
    if not report.get("done"):
        raise Unavailable("the node (its response ended early)", hint="run it again")
    return report
