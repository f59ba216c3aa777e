"""Merge files that are each sorted already: no row is sorted again, and few of each are in memory.

With room for all files at once, rows go from their batches to the output. If there are more files than
the memory has room for, neighbours are merged first, into runs that are spilled and then merged.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Protocol, runtime_checkable

from emsqrt.execution_context import ExecutionContext
from emsqrt.external.fan_in import FAN_IN_MAX
from emsqrt.external.input_merge import ROW_SLACK_BYTES, InputMerge
from emsqrt.external.output_buffer import OutputBuffer
from emsqrt.external.runs import Runs
from emsqrt.operators.long_rows import room_for, varies
from emsqrt.operators.operator import Operator
from emsqrt.operators.sort import SortRows, block_bytes
from emsqrt.operators.sort_layout import SortLayout
from emsqrt.plan.nodes import Sort

_READING_SHARE = 4
"""Batches of files that are read at the same time may use at most this fraction of free memory."""
_PART_BYTES = 64 << 10
"""Memory for the rows of a file, at least: smaller parts are refilled too often."""
_ROWS_HELD = 4


@runtime_checkable
class SortedFiles(Protocol):
    """An input whose files can be read at the same time."""

    file_names: Sequence[str]
    """The files, in order."""
    file_bytes: int
    """Memory to read one of them; that of the first one is reserved."""

    def files(self) -> list[Generator[Any]]:
        """Return the batches of each file."""


def make_sort(node: Sort, inputs: Sequence[Operator], run: ExecutionContext) -> Operator:
    """Return the operator of a sort: a merge, if the plan says that files are sorted."""
    (below,) = inputs
    # A resumed run continues with sorted runs that it finds, which a merge of files does not make.
    if node.merge and isinstance(below, SortedFiles) and below.file_names and not run.is_resumable:
        return MergeRows(node, below, run)
    return SortRows(node, inputs, run)


class MergeRows:
    """The rows of sorted files in the order of their keys; equal ones in the order of the files."""

    def __init__(self, node: Sort, files: SortedFiles, run: ExecutionContext) -> None:
        """Type the keys, and reserve memory to read several files at the same time."""
        self._files = files
        self.schema = files.schema  # type: ignore[attr-defined]  # it is an operator, too
        self._run = run
        self._layout = SortLayout(node.keys, self.schema)
        keys = 1 + any(field.type.name in ("Utf8", "Binary") for field in self._layout.key_fields)
        self._long_bytes = keys * run.row_bytes if varies(self.schema) else 0
        count, size = len(files.file_names), max(1, files.file_bytes)
        together = max(2, run.budget.free_bytes // _READING_SHARE // size)
        # Two, if a row was too long for the parts of more files.
        self._fan_in = min(count, FAN_IN_MAX, 2 if run.met is not None else together)
        run.admit(
            (self._fan_in - 1) * files.file_bytes,
            "scan",
            f"{self._fan_in} sorted files are read at the same time",
        )
        run.expect_packed_growth(keys)
        least = _ROWS_HELD * (self._long_bytes + ROW_SLACK_BYTES) + 3 * _PART_BYTES
        run.expect_holder(_ROWS_HELD, least)
        run.expect_rows(2, "free")

    def yield_as_stored(self, dictionary_bytes_max: int, value_count_max: int) -> None:
        """Yield columns as Parquet stores them; see `SortRows`."""
        self._layout.yield_as_stored(dictionary_bytes_max, value_count_max)

    def batches(self) -> Generator[Any]:
        """Yield the merged rows."""
        with self._run.acquire_working_memory("merge") as held:
            out_bytes = min(block_bytes(len(held.memory)), len(held.memory) // 3)
            cut = len(held.memory) - out_bytes
            with held.memory[:cut] as memory, held.memory[cut:] as out:
                runs = Runs(memory, self._run.spill, name="merge", check=self._run.check)
                with self._run.working(_Stats(runs)):
                    yield from self._merged(memory, out, runs)

    def _merged(self, memory: memoryview, out: memoryview, runs: Runs) -> Generator[Any]:
        count = len(self._files.file_names)
        fan_in = max(2, min(self._fan_in, len(memory) // _PART_BYTES))
        with ExitStack() as stack:
            files = [stack.enter_context(closing(each)) for each in self._files.files()]
            if count <= fan_in:
                with (
                    room_for(self._long_bytes, out, self._run, "merge") as room,
                    self._merge_of(files, range(count), memory) as merge,
                ):
                    yield from self._unpacked(merge.blocks(OutputBuffer(room), None, None), room)
                return
            for first in range(0, count, fan_in):
                group = range(first, min(count, first + fan_in))
                with self._merge_of(files, group, memory) as merge, runs.create() as writer:
                    merge.write_to(writer, OutputBuffer(out[: runs.block_bytes]), None)
                    runs.row_bytes_max = max(runs.row_bytes_max, merge.row_bytes_max)
                    runs.add(writer.finish())
                if runs.has_too_many():
                    runs.merge_some(None)
        runs.merge_to_last_pass(None)
        with room_for(runs.row_bytes_max, out, self._run, "merge") as room:
            yield from self._unpacked(runs.blocks(room, None), room)

    def _merge_of(
        self, files: Sequence[Generator[Any]], group: range, memory: memoryview
    ) -> InputMerge:
        return InputMerge(
            memory,
            [map(self._layout.pack, files[each]) for each in group],
            [self._files.file_names[each] for each in group],
            self._layout.spec,
            self._layout.payload,
            self._run.check,
        )

    def _unpacked(self, blocks: Iterator[tuple[int, int]], room: memoryview) -> Generator[Any]:
        for size, rows in blocks:
            self._run.check()
            yield self._layout.unpack(room[:size], rows)


class _Stats:
    """The runs of a merge, as an algorithm with statistics."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    @property
    def stats(self) -> object:
        """Those of the runs; none, if all files were merged at once."""
        return self._runs.stats

    def close(self) -> None:
        """Remove the runs."""
        self._runs.close()
