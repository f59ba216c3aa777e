"""Run a query's plan with EM-√ under the executor's memory cap, and stream its result.

Request: `plan` `inputs` `shards` (from `lake.sql.planning`) `format` `maxRows`.
Response: as of DuckDB's worker, plus the run's `peakBytes` `capBytes` `spilledBytes`.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from emsqrt.execution_context import ExecutionContext
from emsqrt.io.formats import open_format, type_name
from emsqrt.plan import Files, Plan, Scan, Sink, plan_from_json
from emsqrt.plan.tree import rewrite
from emsqrt.session import admit_prepared, prepare
from lake.objects.verification import ShardFile, verify_shards

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["run_query"]


def run_query(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Run the plan and stream its rows.

    Raises:
        CapTooSmall: The memory cap is too small; names the needed size.
        Corrupt: A shard is damaged; nothing was sent.
    """
    verify_shards(map(ShardFile.from_json, request["shards"]), context)
    with ExitStack() as stack:
        if "plain" in request:
            from lake.sql.encrypted_spill import open_encrypted_spill

            store = stack.enter_context(open_encrypted_spill(context))
            context.spilling = {**context.spilling, "store": store}
            stack.callback(lambda: setattr(context, "spilling", {}))
        return _run(request, context, stack)


def _run(request: dict[str, Any], context: EntryContext, stack: ExitStack) -> dict[str, Any]:
    # Before `prepare`, which reads the schema of every file.
    submitted = rewrite(plan_from_json(request["plan"]), lambda node: _with_files(node, context))
    assert isinstance(submitted, Sink)
    run = ExecutionContext(context)
    rows, _ = admit_prepared(prepare(submitted, Path()), run, stack)
    schema = rows.schema.to_arrow()
    writer = open_format(
        request.get("format") or "arrow",
        schema,
        context.emit,
        max_rows=request.get("maxRows"),
    )
    batches = stack.enter_context(closing(rows.batches()))
    with run.translate_memory_errors(), writer:
        for batch in batches:
            writer.write(batch)
            # Otherwise this batch stays in memory while the next one is produced.
            del batch
            run.report_progress("write")
            if writer.done:
                break
    # Before the stack closes the spill.
    spilled_bytes = run.spilled_bytes
    return {
        "rows": writer.rows,
        "bytes": writer.bytes,
        "truncated": writer.truncated,
        "columns": [{"name": field.name, "type": type_name(field)} for field in schema],
        "inputs": request["inputs"],
        "engine": "emsqrt",
        "peakBytes": context.measure_peak(),
        "capBytes": context.cap_bytes,
        "spilledBytes": spilled_bytes,
    }


def _with_files(node: Plan, context: EntryContext) -> Plan:
    """Replace datasets without shards with a file without rows."""
    if not isinstance(node, Scan) or not isinstance(node.source, Files) or node.source.paths:
        return node
    assert node.schema is not None, "the catalog knows every dataset's columns"
    # By its columns: several empty datasets may be in one statement.
    path = context.spill_dir / "no-rows.arrow"
    path = path.with_stem(f"no-rows-{node.schema.fingerprint()}")
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, node.schema.to_arrow()),
    ):
        pass
    return replace(node, source=Files((str(path),), "arrow"))
