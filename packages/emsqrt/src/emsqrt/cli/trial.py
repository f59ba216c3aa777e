"""The smallest cap of a plan, told by a process like the one that would carry it out.

`python -P -m emsqrt.cli.trial` reads `{"program": …}` (the lean tier), `{"plan": …}` (pyarrow) or
`{"planning": …}` (what a verb takes before it hands over) as JSON, and prints
`{"capBytes", "because"}`. What a process holds before it reads anything is part of every cap, so the
trial must hold the same.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # as in the processes that it stands for: some things are loaded late
    from emsqrt.late import load_late, load_untranslated

    load_late()

from sennit_core.errors import CapTooSmall, SennitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STEP_BYTES = 128 << 10
"""How close it is looked, and what a process may hold more the next time."""
_SOME_CAP_BYTES = 64 << 20
_PLANNING_BYTES = 512 << 10
"""What a verb holds of its own planning when pyarrow runs in the same process."""
_COMPILING_BYTES = 512 << 10
"""What planning may take more the next time: peaks differ where modules have to be compiled."""


def _search(admit: Callable[[int], None]) -> dict[str, Any]:
    """Ask for what refusals say until there is none, then halve what lies between."""
    from emsqrt.admission import climb, halve

    first = CapTooSmall(
        cap_bytes=0, needed_bytes=_STEP_BYTES, because="nothing is too small for it"
    )
    tried = partial(_refusal, admit)
    refused, cap_bytes = halve(tried, *climb(tried, first, _STEP_BYTES), _STEP_BYTES)
    cap_bytes = -(-cap_bytes // _STEP_BYTES) * _STEP_BYTES
    return {"capBytes": cap_bytes, "because": refused.because}


def _refusal(admit: Callable[[int], None], cap_bytes: int) -> CapTooSmall | None:
    try:
        admit(cap_bytes)
    except CapTooSmall as refusal:
        return refusal
    return None


def _admit_text(program: Mapping[str, Any], cap_bytes: int) -> None:
    from emsqrt.solo import trial
    from emsqrt.thin.session import admit_text

    with trial(cap_bytes, lean=True) as context:
        admit_text(program, context)


def _admit_plan(document: Mapping[str, Any], cap_bytes: int) -> None:
    from emsqrt.plan import plan_from_json
    from emsqrt.solo import load_arrow_tier, trial

    load_arrow_tier(cap_bytes)
    from emsqrt.session import admit_plan

    with trial(cap_bytes) as context:
        admit_plan(plan_from_json(document), context, Path())


def _begin_verb(document: Mapping[str, Any] | None) -> None:
    """Load and do what a verb does before it has its plan."""
    load_untranslated("argparse")
    import emsqrt.cli.status  # noqa: F401
    from emsqrt.cli.arguments import parser
    from sennit_core.units import format_bytes, parse_bytes

    parser()
    parse_bytes(format_bytes(_SOME_CAP_BYTES))
    if document is not None:
        from emsqrt.documents import read_document

        read_document(Path(document["path"]), document["values"], os.environ)


def _plan_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Plan as a verb does, and return what that took."""
    _begin_verb(request["document"])
    from emsqrt.cli.running import planning_bytes
    from emsqrt.pipeline import Pipeline
    from emsqrt.plan import plan_from_json
    from emsqrt.thin.compile import try_compile

    plan = Pipeline(plan_from_json(request["planning"])).plan
    program = try_compile(plan, Path())
    assert program is not None, "it was compiled before"
    program.scheduled(_SOME_CAP_BYTES)
    return {"capBytes": planning_bytes() + _COMPILING_BYTES, "because": "planning takes that"}


def _serve() -> None:
    request = json.load(sys.stdin)
    try:
        if "program" in request:
            # what the lean process of a verb loads
            import emsqrt.cli.console
            import emsqrt.cli.status
            import emsqrt.manifest
            import emsqrt.thin.process
            import emsqrt.thin.session
            from emsqrt.thin.build import load_operators

            load_operators(request["program"]["steps"])
            answer = _search(lambda cap_bytes: _admit_text(request["program"], cap_bytes))
        elif "planning" in request:
            answer = _plan_alone(request)
        else:
            import emsqrt.cli.running  # noqa: F401

            _begin_verb(request["document"])
            answer = _search(lambda cap_bytes: _admit_plan(request["plan"], cap_bytes))
            answer["capBytes"] += 0 if request["document"] else _PLANNING_BYTES
    except SennitError as error:
        answer = {"error": error.to_json()}
    print(json.dumps(answer))


if __name__ == "__main__":
    _serve()
