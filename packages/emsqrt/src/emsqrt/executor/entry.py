"""The entry point `emsqrt.plan`: runs a plan in an executor.

Request: `{"plan": plan JSON, "folder": base of relative paths (optional)}`. A stream sink emits its
payloads; with `"copyBytesMax"` a file sink emits its rows as an Arrow IPC stream too, once the file
is complete, if the stream is not longer. The result is the manifest's JSON. With `"estimateCapBytes": cap` nothing is read: the
plan is opened and closed, and the result is the JSON of its `MemoryRequirement`; with
`"findLongest": true` its input is searched for the longest row. `"operators"` are more operators that the
plan may have (`emsqrt.operators.registry`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emsqrt.executor.context import EntryContext
from emsqrt.process_setup import load_arrow

FLOOR_BYTES = 40 << 20
"""pyarrow and numpy use 28 MiB, slack and the ring 5; the rest is for one block at least."""
FLOOR_BECAUSE = "pyarrow and one block need this much"


def prepare() -> None:
    """Import pyarrow with few of its modules, before the engine imports all of them."""
    load_arrow()
    import emsqrt.session  # noqa: F401 - loaded now, used later


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Run the request's plan and return its manifest."""
    from emsqrt.session import run_plan

    folder = Path(request.get("folder", "."))
    context.spilling = request.get("spilling", {})
    context.operators = request.get("operators", {})
    if "estimateCapBytes" in request:
        from emsqrt.plan import plan_from_json
        from emsqrt.session import estimate_plan

        plan = plan_from_json(request["plan"])
        cap_bytes, find_longest = request["estimateCapBytes"], request.get("findLongest", False)
        return estimate_plan(plan, context, folder, cap_bytes, find_longest=find_longest).to_json()
    return run_plan(
        request["plan"],
        context,
        folder,
        request.get("seed", 0),
        request.get("resume"),
        request.get("copyBytesMax", 0),
    ).to_json()
