"""Named points at which a crash test kills the process; otherwise each costs one comparison."""

from __future__ import annotations

import os
import signal

__all__ = ["POINTS", "reached"]

POINTS = (
    "link-written",
    "link-committed",
    "reuse-linked",
    "ingest-sealed",
    "ingest-encoded",
    "ingest-half-adopted",
    "ingest-adopted",
    "ingest-manifest",
    "ingest-committed",
    "upsert-overtaken",
    "write-encoded",
    "write-adopted",
    "write-manifest",
    "write-committed",
    "transaction-staged",
    "commit-prepared",
    "transaction-committed",
    "delete-uncataloged",
    "expire-uncataloged",
    "retired-deleted",
    "trash-retired",
    "trash-moved",
    "trash-restored",
    "trash-forgotten",
    "maintenance-examined",
    "purge-adopted",
    "purge-manifests",
    "purge-committed",
    "purge-deleted",
    "bundle-object",
    "bundle-stored",
    "rotate-wrapped",
    "rotate-written",
    "append-pinned",
    "append-queued",
    "append-sending",
    "append-dropped",
)
_VARIABLE = "SENNIT_LAKE_CRASH_AT"

crash_at = os.environ.get(_VARIABLE)


def reached(point: str) -> None:
    """Kill this process, as `kill -9` would, if a test has selected `point`."""
    if crash_at is not None and crash_at == point:
        os.kill(os.getpid(), signal.SIGKILL)
