"""Named points where a crash test kills the process; costs one comparison otherwise."""

from __future__ import annotations

import os
import signal

__all__ = ["POINTS", "reached"]

POINTS = (
    "ingest-sealed",
    "ingest-encoded",
    "ingest-half-adopted",
    "ingest-adopted",
    "ingest-manifest",
    "ingest-committed",
    "delete-uncataloged",
)
_VARIABLE = "SENNIT_LAKE_CRASH_AT"

crash_at = os.environ.get(_VARIABLE)


def reached(point: str) -> None:
    """Die as by `kill -9` when a test has asked for it at `point`."""
    if crash_at is not None and crash_at == point:
        os.kill(os.getpid(), signal.SIGKILL)
