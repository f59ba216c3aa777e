"""A verb's plan run in this process, in the tier that fits it."""

from __future__ import annotations

from pathlib import Path

from emsqrt.manifest import Manifest
from emsqrt.plan import Plan, plan_hash, plan_to_json
from emsqrt.solo import (
    QUIET,
    Listeners,
    load_arrow_tier,
    run_plan_alone,
    run_text_alone,
    trial,
)
from emsqrt.thin.compile import try_compile


def run_here(
    plan: Plan,
    cap_bytes: int,
    spill_dir: Path | None = None,
    listeners: Listeners = QUIET,
) -> Manifest:
    """Run a plan under a cap on this process, and say what was done.

    Args:
        plan: ends in a file sink.
        cap_bytes: what the kernel may charge this process at most.
        spill_dir: where it may spill; a folder of this user's when None.
        listeners: told about progress and trouble.
    """
    program = try_compile(plan, Path())
    if program is None:
        return run_plan_alone(plan_to_json(plan), cap_bytes, spill_dir, listeners)
    report = run_text_alone(program, cap_bytes, spill_dir, listeners)
    return Manifest.from_json({**report, "planHash": plan_hash(plan)})


def try_admit(plan: Plan, cap_bytes: int) -> None:
    """Open what a plan needs under a cap, read nothing, and close it again.

    Raises:
        CapTooSmall: the cap cannot do it; says which could.
    """
    program = try_compile(plan, Path())
    if program is not None:
        from emsqrt.thin.session import admit_text

        with trial(cap_bytes) as context:
            admit_text(program, context)
        return
    load_arrow_tier(cap_bytes)
    from emsqrt.session import admit_plan

    with trial(cap_bytes) as context:
        admit_plan(plan, context, Path())
