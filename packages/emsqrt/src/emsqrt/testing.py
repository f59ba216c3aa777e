"""Test helpers: watch a process from outside, and run a single operator."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.operators import Operator
    from emsqrt.plan import Plan
    from sennit_core.schema import Schema

_CODE = """
import sys, time
from emsqrt.race.watch import TreeReader
peak = 0
with TreeReader(int(sys.argv[1])) as tree:
    print("ready", flush=True)
    while held := tree.charged_bytes():
        peak = max(peak, held)
        time.sleep(0.0005)
print(peak)
"""


class PeakPoller:
    """Polls RssAnon + RssShmem of a process tree twice a millisecond, from a process of its own.

    The sum is what a memory cgroup would charge it, less page cache. A context manager.
    """

    def __init__(self, pid: int) -> None:
        """Start polling process `pid` and its descendants; return just before the first reading."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(pid)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def peak(self) -> int:
        """Return the most bytes seen, once the process has ended."""
        out, _ = self._process.communicate(timeout=60)
        return int(out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class InputRows:
    """An operator that yields the batches it was created with, and counts the batches pulled.

    Args:
        schema: of the batches.
        batches: record batches, or an iterable of them.
    """

    def __init__(self, schema: Schema, batches: Iterable[Any]) -> None:
        self.schema = schema
        self.pulled = 0
        self._batches = batches

    def batches(self) -> Generator[Any]:
        """Yield them."""
        for batch in self._batches:
            self.pulled += 1
            yield batch


def run_operator(
    node: Plan, *inputs: Operator, memory_bytes: int = 64 << 20, spill_dir: Path | None = None
) -> list[Any]:
    """Run one plan node over some inputs and return its output batches.

    Args:
        node: its own inputs are ignored.
        inputs: its inputs, such as `InputRows`.
        memory_bytes: its budget; everything must be released at the end.
        spill_dir: where it may spill; a temporary folder when None.
    """
    from emsqrt.execution_context import ExecutionContext
    from emsqrt.executor.context import EntryContext
    from emsqrt.memory import MemoryBudget
    from emsqrt.operators import make_operator

    with tempfile.TemporaryDirectory() as scratch, MemoryBudget(memory_bytes) as budget:
        folder = spill_dir or Path(scratch) / "spill"
        context = EntryContext(
            "the test", memory_bytes, _Discard(), lambda _: None, folder, None, budget
        )
        with closing(context), ExecutionContext(context, Path(scratch)) as run:
            operator = make_operator(node, inputs, run)
            run.map_working_set()
            with closing(operator.batches()) as batches:
                return list(batches)


class _Discard:
    payload_bytes_max = 1 << 20

    def write_bytes(self, payload: Buffer) -> None:
        """Drop it."""
