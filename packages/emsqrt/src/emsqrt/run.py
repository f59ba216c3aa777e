"""The world that a run's operators share: memory, spill, news."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from emsqrt.memory import Arena, MemoryBudget, Slice
from sennit_core.errors import CapTooSmall, TooLarge
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.executor.context import Context
    from emsqrt.spill import SpillManager

WORKING_BYTES_MIN = 1 << 20
"""The least that a blocking operator works in."""
OUTPUT_BYTES = 1 << 20
"""What a blocking operator's batch takes, as rows and as columns, while it is passed on."""


READERS_SHARE = 16
"""One part in so many of what is left over is for records that are longer than a block."""


class Source(Protocol):
    """What a run reads, and how far it is."""

    rows: int
    bytes_total: int

    @property
    def bytes_done(self) -> int:
        """Bytes that have been read."""


class Run:
    """One run's memory, spill and news, shared by its operators. A context manager.

    Args:
        context: the cap, the budget, cancelling and progress.
        folder: where relative paths start.
        seed: for sampling.
        output_bytes: what each operator that holds rows takes beside its working memory.
    """

    def __init__(
        self,
        context: Context,
        folder: Path = Path(),
        seed: int = 0,
        output_bytes: int = OUTPUT_BYTES,
    ) -> None:
        self.context = context
        self.folder = folder
        self.seed = seed
        self._output_bytes = output_bytes
        self._sources: list[Source] = []
        self._started_at = time.time()
        self._arena: Arena | None = None
        self.reader_bytes = 0
        """What readers may take beyond their blocks, for records that are longer."""
        self._holders = 0
        self._spill: SpillManager | None = None

    @property
    def budget(self) -> MemoryBudget:
        """Where memory outside the working set is asked for."""
        return self.context.budget

    @property
    def spill(self) -> SpillManager:
        """Where rows go that do not fit; opened when first used."""
        if self._spill is None:
            from emsqrt.spill import SpillManager

            self._spill = SpillManager(self.context.spill_dir, check=self.check)
        return self._spill

    @property
    def spilled_bytes(self) -> int:
        """Bytes written to spill so far."""
        return 0 if self._spill is None else self._spill.stats.written_bytes

    def check(self) -> None:
        """Return if the work should go on; call it often. Raises as `Context.check` does."""
        self.context.check()

    def expect_holder(self) -> None:
        """Say, while the plan is being opened, that one more operator will hold working memory."""
        self._holders += 1

    def map_working_set(self) -> None:
        """Map what reader and sink left over; called once, when all of them are open.

        Raises:
            CapTooSmall: too little is left for the operators that hold rows.
        """
        self.reader_bytes = self.budget.free_bytes // (READERS_SHARE if self._holders else 2)
        if not self._holders:
            return
        aside = self._holders * self._output_bytes + self.reader_bytes
        size = self.budget.free_bytes - aside
        needed = self._holders * WORKING_BYTES_MIN
        if size < needed:
            each = format_bytes(WORKING_BYTES_MIN + self._output_bytes)
            because = f"{self._holders} operators of the plan hold rows, and need {each} each"
            raise self.too_small((needed - size) * READERS_SHARE // (READERS_SHARE - 1), because)
        self._arena = Arena(size, self.budget)

    def too_small(self, missing_bytes: int, because: str) -> CapTooSmall:
        """Return the error that says which cap would do."""
        whole_bytes = self.budget.whole_bytes
        return CapTooSmall(
            cap_bytes=whole_bytes,
            needed_bytes=whole_bytes + missing_bytes + missing_bytes // 15 + 4096,
            because=because,
        )

    @contextmanager
    def judging_sizes(self) -> Iterator[None]:
        """Tell an operator's want of working memory as a want of cap, for the length of a `with`."""
        try:
            yield
        except CapTooSmall as error:
            whole_bytes = self.budget.whole_bytes
            if error.cap_bytes == whole_bytes:
                raise
            missing = (error.needed_bytes - error.cap_bytes) * max(self._holders, 1)
            raise self.too_small(missing * READERS_SHARE, error.because) from error
        except TooLarge as error:
            missing = (error.actual_bytes or 0) * 4 * max(self._holders, 1)
            raise self.too_small(missing * READERS_SHARE, error.describe()) from error

    def take_working_memory(self, tag: str) -> Slice:
        """Return one operator's share of the working set; it gives it back at its end."""
        assert self._arena is not None, "expect_holder was called before map_working_set"
        return self._arena.take(self._arena.size_bytes // self._holders - 4096, tag)

    def reads(self, source: Source) -> None:
        """Count what a source gives among the run's input."""
        self._sources.append(source)

    def tell(self, phase: str) -> None:
        """Tell whoever waits how far the run is."""
        self.context.progress(
            bytes_done=sum(source.bytes_done for source in self._sources),
            bytes_total=sum(source.bytes_total for source in self._sources),
            rows=sum(source.rows for source in self._sources),
            spilled_bytes=self.spilled_bytes,
            phase=phase,
        )

    def report(self, sinks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Say what was done, at the end: the JSON of a `Manifest`, without the plan's hash.

        Args:
            sinks: what was written, as the JSON of `SinkInfo`.
        """
        budget = self.budget
        return {
            "rowsIn": sum(source.rows for source in self._sources),
            "bytesIn": sum(source.bytes_done for source in self._sources),
            "rowsOut": sum(sink["rows"] for sink in sinks),
            "bytesOut": sum(sink["bytes"] for sink in sinks),
            "sinks": list(sinks),
            "capBytes": self.context.cap_bytes,
            "budgetBytes": budget.cap_bytes,
            "reservedBytes": budget.peak_bytes,
            "reservedByTag": budget.peak_by_tag(),
            "peakBytes": self.context.measure_peak(),
            "startedAt": self._started_at,
            "finishedAt": time.time(),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give memory and spill back."""
        if self._spill is not None:
            self._spill.close()
        if self._arena is not None:
            self._arena.__exit__(kind, error, trace)
