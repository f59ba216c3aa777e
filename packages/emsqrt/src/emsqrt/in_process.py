"""Run a plan in the caller's own process: for debugging and for very short runs.

The cap bounds only what operators, reader and sink reserve; the process holds its own memory in
addition, and no watchdog watches it.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from emsqrt.executor.context import EntryContext
from emsqrt.executor.spill import SpillArea, default_spill_dir
from emsqrt.manifest import Manifest
from emsqrt.memory import MemoryBudget
from emsqrt.plan import Plan, plan_to_json
from emsqrt.process_setup import require_arrow

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Discard:
    """A payload sink that discards everything."""

    payload_bytes_max = 1 << 20

    def write_bytes(self, payload: Buffer) -> None:
        """Drop it."""


def run_here(
    plan: Plan,
    cap_bytes: int,
    spill_dir: Path | None,
    seed: int = 0,
    resume: tuple[str, str] | None = None,
) -> Manifest:
    """Run a plan in this process with `cap_bytes` for its buffers; the manifest records that."""
    require_arrow("a run in the caller's process")
    from emsqrt.session import run_plan

    with closing(SpillArea(spill_dir or default_spill_dir())) as area:
        context = EntryContext(
            "the plan",
            cap_bytes,
            _Discard(),
            lambda _: None,
            area.attempt_dir("inline"),
            budget=MemoryBudget(cap_bytes),
        )
        with closing(context):
            manifest = run_plan(plan_to_json(plan), context, Path(), seed, resume)
            return replace(manifest, held_by="arena")
