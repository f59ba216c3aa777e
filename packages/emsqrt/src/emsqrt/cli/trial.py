"""Find a plan's smallest cap in a process like the one that would run it.

`python -P -m emsqrt.cli.trial` reads `{"program": …}` (the text tier), `{"plan": …}` (pyarrow) or
`{"planning": …}` (what a command uses before it hands over) as JSON, and prints `{"capBytes",
"because"}`. The first two come with `spilling`, `spillDir` and `findLongest`: whether to search the
input for its longest row. Memory that a process holds before it reads anything is part of every
cap, so the trial must hold the same. It ends itself with `EXIT_CAP` before it exceeds
`ESTIMATE_PROCESS_BYTES`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # lazy imports, as in the measured processes
    from emsqrt.lazy_import import import_lazily, load_untranslated

    import_lazily()

from emsqrt.requirement import ESTIMATE_PROCESS_BYTES, MemoryRequirement
from sennit_core.errors import SennitError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Any cap: it affects the shares that are reported, not the smallest cap that is searched for.
_SOME_CAP_BYTES = 64 << 20
_LARGE_CAP_BYTES = 2 << 30
"""Budget for reading the first lines of JSON, which may be long."""
_PLANNING_BYTES = 512 << 10
"""Memory of a command's own planning when pyarrow runs in the same process."""
_COMPILING_BYTES = 512 << 10
"""How much more planning may need in the next run: peaks are higher when modules are compiled."""


def _begin_verb(document: Mapping[str, Any] | None) -> None:
    """Import and do what a command does before it has its plan."""
    load_untranslated("argparse")
    import emsqrt.cli.status  # noqa: F401
    from emsqrt.cli.arguments import parser
    from sennit_core.units import format_bytes, parse_bytes

    parser()
    # Called for what they allocate, not for their results.
    parse_bytes(format_bytes(_SOME_CAP_BYTES))
    if document is not None:
        from emsqrt.documents import read_document

        read_document(Path(document["path"]), document["values"], os.environ)


def _estimate_planning(request: Mapping[str, Any]) -> dict[str, Any]:
    """Plan as a command does, and return the memory that it needed."""
    _begin_verb(request["document"])
    from emsqrt.cli.running import planning_bytes
    from emsqrt.pipeline import Pipeline
    from emsqrt.plan import plan_from_json
    from emsqrt.text_engine.compile import try_compile

    plan = Pipeline(plan_from_json(request["planning"])).plan
    program = try_compile(plan, Path())
    assert program is not None, "the caller compiled it"
    program.scheduled(_SOME_CAP_BYTES)
    # Measured, not searched for: planning has no smaller variant for a smaller cap.
    return {"capBytes": planning_bytes() + _COMPILING_BYTES, "because": "planning needs this much"}


def _estimate_text(request: Mapping[str, Any]) -> dict[str, Any]:
    """Estimate a program next to what the small process of a command loads."""
    import emsqrt.cli.console
    import emsqrt.cli.status
    import emsqrt.manifest
    import emsqrt.text_engine.process  # noqa: F401
    from emsqrt.local_runner import estimate_text_locally

    program, spilling = request["program"], request["spilling"]
    requirement = estimate_text_locally(
        program,
        _SOME_CAP_BYTES,
        spilling,
        _spill_dir(request),
        ESTIMATE_PROCESS_BYTES,
        find_longest=request.get("findLongest", False),
    )
    return _as_json(MemoryRequirement.from_json(requirement))


def _estimate_plan(request: Mapping[str, Any]) -> dict[str, Any]:
    """Estimate a plan of the arrow tier next to what a command loads before it."""
    import emsqrt.cli.running  # noqa: F401
    from emsqrt.local_runner import ending_at, load_arrow_tier, trial
    from emsqrt.plan import plan_from_json

    _begin_verb(request["document"])
    load_arrow_tier(_SOME_CAP_BYTES)
    from emsqrt.session import estimate_plan

    with (
        ending_at(ESTIMATE_PROCESS_BYTES),
        trial(_SOME_CAP_BYTES, request["spilling"], _spill_dir(request)) as context,
    ):
        plan, find_longest = plan_from_json(request["plan"]), request.get("findLongest", False)
        requirement = estimate_plan(
            plan, context, Path(), _LARGE_CAP_BYTES, find_longest=find_longest
        )
    # Reading the document above has already loaded what planning would.
    return _as_json(requirement, 0 if request["document"] else _PLANNING_BYTES)


def _spill_dir(request: Mapping[str, Any]) -> Path | None:
    return None if request["spillDir"] is None else Path(request["spillDir"])


def _as_json(requirement: MemoryRequirement, more_bytes: int = 0) -> dict[str, Any]:
    return {"capBytes": requirement.cap_bytes + more_bytes, "because": requirement.because}


def _serve() -> None:
    request = json.load(sys.stdin)
    try:
        if "program" in request:
            answer = _estimate_text(request)
        elif "planning" in request:
            answer = _estimate_planning(request)
        else:
            answer = _estimate_plan(request)
    except SennitError as error:
        answer = {"error": error.to_json()}
    print(json.dumps(answer))


if __name__ == "__main__":
    _serve()
