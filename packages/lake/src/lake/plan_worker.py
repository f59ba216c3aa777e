"""Executor entry `lake.plan`: verify shards of datasets, then run a plan over them.

Request: as for `emsqrt.plan`, plus `shards` (see `ShardFile.to_json`) that the plan reads, `sources`
(queries whose rows it reads, `lake.sql.plan_source_worker`) and `plain` (if encrypted datasets are read).
Response: as for `emsqrt.plan`.

With `describe`, a source, no plan runs. Response: `schema`, its columns.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from emsqrt.executor import entry
from emsqrt.executor.entry import FLOOR_BYTES, prepare
from emsqrt.io.file_facts import FileFacts, remembering
from lake.objects.verification import ShardFile, verify_shards

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["FLOOR_BYTES", "prepare", "run"]

_facts = FileFacts()
"""Of the shards that this process has read: objects, which never change in place."""


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Verify the shards, then run the plan."""
    if "describe" in request:
        from lake.sql.plan_source_worker import columns_of_source

        return {"schema": columns_of_source(request["describe"], context).to_json()}
    verify_shards(map(ShardFile.from_json, request["shards"]), context)
    with ExitStack() as stack:
        if "plain" in request:
            from lake.sql.encrypted_spill import open_encrypted_spill

            store = stack.enter_context(open_encrypted_spill(context))
            request = {**request, "spilling": {**request.get("spilling", {}), "store": store}}
        else:
            # Nothing of decrypted copies is remembered: it would outlive the job.
            stack.enter_context(remembering(_facts))
        if request.get("sources"):
            from lake.sql.plan_source_worker import with_written_sources

            plan = with_written_sources(request["plan"], request["sources"], context)
            request = {**request, "plan": plan}
        try:
            return entry.run(request, context)
        finally:
            context.spilling = {}
