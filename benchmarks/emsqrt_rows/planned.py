"""The engine's own process alone, its program planned before: what a library call caps."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from emsqrt import scan
from emsqrt.cli.console import RunOptions
from emsqrt.environment import LEAN_ENVIRONMENT
from emsqrt.plan import plan_hash
from emsqrt.race import Attempt, AttemptFiles, Ours, RaceQuery
from emsqrt.text_engine.compile import try_compile
from sennit_core.units import format_bytes

_SCRIPT = 'exec "$0" -P -m emsqrt.text_engine.process --standalone 3 3< "$1"'


class PlannedSort(Ours):
    """Sorts under caps that the command line itself would pass while it plans."""

    def attempts(
        self, work: RaceQuery, cap_bytes: int | None, place: AttemptFiles
    ) -> list[Attempt]:
        assert cap_bytes is not None
        keys = [f"{name}:desc" if descending else name for name, descending in work.keys]
        plan = scan(str(work.source)).sort(*keys).sink(str(place.target)).plan
        program = try_compile(plan, Path())
        assert program is not None
        manifest = place.target.with_name("manifest.json")
        options = RunOptions(cap_bytes, str(place.spill), str(manifest), quiet=True)
        request = place.spill.with_name("request.json")
        request.write_text(
            json.dumps(
                {
                    "program": {**program.scheduled(cap_bytes), "seed": 0},
                    "planHash": plan_hash(plan),
                    "options": asdict(options),
                }
            )
        )
        command = ["sh", "-c", _SCRIPT, sys.executable, str(request)]
        settings = f"the engine's process alone, {format_bytes(cap_bytes)}"
        return [Attempt(settings, command, LEAN_ENVIRONMENT, manifest)]
