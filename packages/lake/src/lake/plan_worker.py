"""Executor entry `lake.plan`: verify shards of datasets, then run a plan over them.

Request: as for `emsqrt.plan`, plus `shards` (see `ShardFile.to_json`) that the plan reads.
Response: as for `emsqrt.plan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emsqrt.executor import entry
from emsqrt.executor.entry import FLOOR_BYTES, prepare
from emsqrt.io.file_facts import FileFacts, remembering
from lake.verification import ShardFile, verify_shards

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["FLOOR_BYTES", "prepare", "run"]

_facts = FileFacts()
"""Of the shards that this process has read: objects, which never change in place."""


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Verify the shards, then run the plan."""
    verify_shards(map(ShardFile.from_json, request["shards"]), context)
    with remembering(_facts):
        return entry.run(request, context)
