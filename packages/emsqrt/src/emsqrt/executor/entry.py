"""The entry point `emsqrt.plan`: runs a plan in an executor.

Request: `{"plan": plan JSON, "folder": where relative paths start (optional)}`. A stream sink
emits its payloads; the result is the manifest's JSON. With `"weighs": cap` nothing is read: the
plan is opened and closed, and the result is the JSON of its `Weight`; with `"looks": true` its input
is looked through for the longest row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emsqrt.executor.context import Context
from emsqrt.lean import load_arrow

FLOOR_BYTES = 40 << 20
"""pyarrow and numpy take 28 MiB, slack and the ring 5; the rest is for one block at least."""
FLOOR_BECAUSE = "pyarrow and one block take that much"


def prepare() -> None:
    """Load pyarrow, lightly, and then the engine, which would load it otherwise."""
    load_arrow()
    import emsqrt.session  # noqa: F401 - loaded now, used later


def run(request: dict[str, Any], context: Context) -> dict[str, Any]:
    """Run the request's plan and return its manifest."""
    from emsqrt.session import run_plan

    folder = Path(request.get("folder", "."))
    context.spilling = request.get("spilling", {})
    if "weighs" in request:
        from emsqrt.plan import plan_from_json
        from emsqrt.session import weigh_plan

        plan = plan_from_json(request["plan"])
        cap_bytes, looks = request["weighs"], request.get("looks", False)
        return weigh_plan(plan, context, folder, cap_bytes, looks=looks).to_json()
    return run_plan(
        request["plan"], context, folder, request.get("seed", 0), request.get("resume")
    ).to_json()
