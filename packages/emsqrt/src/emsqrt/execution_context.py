"""The state that a run's operators share: memory, spill, progress."""

from __future__ import annotations

import mmap
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from emsqrt.background import STACK_BYTES, BackgroundWorker
from emsqrt.choices import HASHED, JoinChoice
from emsqrt.memory import Arena, BudgetGuard, MemoryBudget, Slice
from emsqrt.memory.grant_plan import ALL_LIVE, HOLDER_BYTES_MIN, READERS_SHARE, GrantPlan
from emsqrt.metering import Meter, prefetch_first
from emsqrt.retry import RowTooLong, row_of_error
from sennit_core.errors import CapTooSmall, SennitError, TooLarge
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.checkpoint import Checkpoint, JournalPage
    from emsqrt.executor.context import EntryContext
    from emsqrt.long_row import MemoryKind, RowNeed
    from emsqrt.shortfall import Shortfall
    from emsqrt.spill import SpillManager

OUTPUT_BYTES = 1 << 20
"""Memory for a blocking operator's output batch, as rows and as columns, while it is passed on."""
PAGE_BYTES = mmap.PAGESIZE
STORE_CLIENT_BYTES = 12 << 20
"""Memory of an object store client apart from its buffers, measured."""
STORE_PARTS, PART_BYTES_MIN, PART_BYTES_MAX = 40, 256 << 10, 8 << 20
"""An upload part has 1/40 of the free memory, within these sizes."""
SECOND_THREAD_SHARE = 32
"""The second thread is started only if its stack is at most 1/32 of the free memory."""
STORE_SWEPT_SECONDS = 48 * 3600
"""Spill in an object store that is this old without a write belongs to a dead run."""
MORE_BYTES = 4 << 20
"""Upper bound of what readers reserve additionally under a larger cap."""
PROGRESS_SECONDS = 0.2
"""Interval of progress reports by work that passes no rows on, such as a merge."""
_NO_NODE = -1
"""The node id of an operator that runs outside a plan."""


class Algorithm(Protocol):
    """An external algorithm: its statistics and its cleanup."""

    @property
    def stats(self) -> object:
        """What it has done so far."""

    def close(self) -> None:
        """Remove its spilled data and release its memory."""


class ProgressSource(Protocol):
    """An input of the run, with its progress."""

    rows: int
    bytes_total: int

    @property
    def bytes_done(self) -> int:
        """Bytes that have been read."""


@dataclass
class _SharedState:
    """State that all views of a run share."""

    sources: list[ProgressSource] = field(default_factory=list)  # opened inputs
    holders: Counter[int] = field(default_factory=Counter)  # node -> parts of its grant
    least_parts: dict[int, int] = field(default_factory=dict)  # node -> bytes
    row_needs: list[RowNeed] = field(default_factory=list)  # for rows of any length
    rows_in: dict[int, int] = field(default_factory=dict)  # node -> source rows in an input row
    rows_out: dict[int, int] = field(default_factory=dict)  # node -> source rows in an output row
    rows_packed: dict[int, int] = field(default_factory=dict)  # node -> input rows in a packed row
    may_restart: Callable[[], bool] = lambda: False  # True while no output is visible
    grant_plan: GrantPlan = ALL_LIVE  # replaced by `map_working_set`
    meters: dict[int, Meter] = field(default_factory=dict)
    grants: dict[int, int] = field(default_factory=dict)  # node -> bytes; set by `map_working_set`
    guards: list[BudgetGuard] = field(default_factory=list)  # released at the run's end
    choices: Mapping[int, JoinChoice] = field(default_factory=dict)
    arena: Arena | None = None  # W; None before `map_working_set` and if no operator holds rows
    store: BudgetGuard | None = None  # memory that spilling itself needs, outside the arena
    background: BackgroundWorker = field(default_factory=BackgroundWorker)
    spill: SpillManager | None = None  # None until it is first used
    spill_is_charged: bool = False  # spill is in memory, so it is part of the run's peak
    spilling: Mapping[str, Any] = field(default_factory=dict)  # overrides the context's options
    reader_bytes: int = 0  # 0 before `map_working_set`
    written_bytes: int = 0  # for one row, once the readers have released their memory
    more_bytes: int = 0  # added to the cap that a refusal names
    started_at: float = field(default_factory=time.time)  # wall clock, for the manifest
    reported_at: float = field(default_factory=time.monotonic)  # monotonic
    phase: str = "read"


class ExecutionContext:
    """The memory, spill and progress of one run, shared by its operators. A context manager.

    `at` returns a view for each operator; memory is requested under the view's node id.

    Args:
        context: the cap, the budget, cancellation and progress.
        folder: the folder that relative paths refer to.
        seed: for sampling.
        output_bytes: memory of each operator that holds rows, in addition to its working memory.
        checkpoint: the checkpoint to spill to and to record finished sorted runs in, for a
            resumable run.
        met: the longest row that an earlier attempt met and could not fit.
    """

    def __init__(
        self,
        context: EntryContext,
        folder: Path = Path(),
        seed: int = 0,
        output_bytes: int = OUTPUT_BYTES,
        checkpoint: Checkpoint | None = None,
        met: RowTooLong | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self.met = met
        self.context = context
        self.folder = folder
        self.seed = seed
        self.node = _NO_NODE
        self._output_bytes = output_bytes
        self._shared = _SharedState()  # the same object in all views: `view` copies shallowly

    def at(self, node: int, operator: str = "", inputs: Sequence[int] = ()) -> ExecutionContext:
        """Register an operator and return its view of this run.

        Args:
            node: the operator's id in the physical plan.
            operator: such as "sort".
            inputs: the ids of the operators that it reads from.
        """
        meters = self._shared.meters
        meters[node] = Meter(node, operator, [meters[each] for each in inputs if each in meters])
        rows_out = self._shared.rows_out
        parts = [rows_out.get(each, 1) for each in inputs]
        self._shared.rows_in[node] = max(parts, default=1)
        rows_out[node] = sum(parts) if operator == "join" else max(parts, default=1)
        return self.view(node)

    def knows(self, node: int) -> bool:
        """Return whether the operator is registered."""
        return node in self._shared.meters

    def view(self, node: int) -> ExecutionContext:
        """Return a registered operator's view of this run."""
        view = copy(self)
        view.node = node
        return view

    def choose(self, choices: Mapping[int, JoinChoice]) -> None:
        """Set how joins are carried out, by the ids of their nodes."""
        self._shared.choices = choices

    @property
    def choice(self) -> JoinChoice:
        """How the join of this view is carried out."""
        choice = self._shared.choices.get(self.node, HASHED)
        if self._checkpoint is None:
            return choice
        # A resumed run skips rows by their count, so their order must be reproducible.
        return replace(choice, ordered=True, build_left=False)

    def trial(self, budget: MemoryBudget) -> ExecutionContext:
        """Return this run in its initial state with another budget; only for admission."""
        context = self.context.trial(budget)
        return ExecutionContext(context, self.folder, self.seed, self._output_bytes, met=self.met)

    @property
    def meter(self) -> Meter:
        """The figures of this view's operator."""
        return self._shared.meters.setdefault(self.node, Meter(self.node, ""))

    @property
    def meters(self) -> list[Meter]:
        """The figures of all operators, by their ids."""
        found = self._shared.meters
        return [found[node] for node in sorted(found) if node != _NO_NODE]

    @property
    def budget(self) -> MemoryBudget:
        """The budget for memory outside the working set."""
        return self.context.budget

    @property
    def spill(self) -> SpillManager:
        """The spill for rows that do not fit in memory; opened on first use."""
        if self._shared.spill is None and self._checkpoint is not None:
            self._shared.spill = self._checkpoint.open_spill(check=self.check)
        if self._shared.spill is None:
            from emsqrt.spill import open_spill

            settings = {**self.context.spilling, **self._shared.spilling}
            self._shared.spill = open_spill(self.context, settings, self.check, self.background)
        return self._shared.spill

    @property
    def background(self) -> BackgroundWorker:
        """The queue of background work; on a second thread if the run may use one."""
        return self._shared.background

    @property
    def spilled_bytes(self) -> int:
        """Bytes written to spill so far."""
        spill = self._shared.spill
        return 0 if spill is None else spill.stats.written_bytes

    def check(self) -> None:
        """Raise if the run was cancelled, as `EntryContext.check`; call it often."""
        self.context.check()
        if time.monotonic() - self._shared.reported_at > PROGRESS_SECONDS:
            self.report_progress("merge" if self._shared.phase == "read" else self._shared.phase)

    def admit(self, size_bytes: int, tag: str, because: str) -> BudgetGuard:
        """Reserve memory that an operator cannot do without, until the run's end at the latest.

        An operator that is never pulled from, such as below `limit 0`, never releases memory
        itself.

        Raises:
            CapTooSmall: the budget is too small.
        """
        guard = self.budget.admit(size_bytes, tag, because)
        self._shared.guards.append(guard)
        return guard

    def expect_holder(self, rows: int = 0, least_bytes: int = 0) -> None:
        """Declare, while the plan is opened, that the operator will hold working memory.

        Args:
            rows: the memory must hold this many rows of any length.
            least_bytes: its minimum, however short and few the rows are.
        """
        least_parts = self._shared.least_parts
        self._shared.holders[self.node] += 1
        whole_pages = -(-least_bytes // PAGE_BYTES) * PAGE_BYTES
        least_parts[self.node] = max(whole_pages, least_parts.get(self.node, 0))
        self.expect_rows(rows, "grant")

    def expect_more(self, size_bytes: int) -> None:
        """Declare that a sink reserves this much more under a larger cap."""
        self._shared.more_bytes += size_bytes

    def expect_written(self, size_bytes: int) -> None:
        """Declare that a sink needs this much more for long rows, once all rows are read."""
        self._shared.written_bytes = size_bytes

    def expect_rows(self, rows: int, memory: MemoryKind) -> None:
        """Declare that one kind of memory must hold this many rows of any length."""
        if rows:
            self._shared.row_needs.append((self.node, rows, memory))

    @property
    def row_bytes(self) -> int:
        """Length of the operator's longest input row; 0 while no long row is known."""
        return self._row_bytes * self._shared.rows_in.get(self.node, 1)

    @property
    def row_bytes_out(self) -> int:
        """The same for its output rows; a row of a join's output contains a row of each side."""
        return self._row_bytes * self._shared.rows_out.get(self.node, 1)

    @property
    def _row_bytes(self) -> int:
        return 0 if self.met is None else self.met.room_bytes

    def allow_restart(self, may: Callable[[], bool]) -> None:
        """Let the run restart when it meets a row that is longer than every known row.

        Args:
            may: returns whether the run has produced no visible output yet.
        """
        self._shared.may_restart = may

    def expect_packed_growth(self, rows: int) -> None:
        """Declare that packed rows are up to `rows` times as long as the operator's input rows."""
        self._shared.rows_packed[self.node] = rows

    def expect_output_growth(self, rows: int) -> None:
        """Declare that output rows are up to `rows` times as long as the operator's input rows."""
        self._shared.rows_out[self.node] = rows * self._shared.rows_in.get(self.node, 1)

    @property
    def reader_bytes(self) -> int:
        """How much readers may reserve beyond their blocks, for records that are longer."""
        return self._shared.reader_bytes

    @property
    def working_bytes(self) -> int:
        """W, once the working set is mapped."""
        return 0 if self._shared.arena is None else self._shared.arena.size_bytes

    @property
    def minimums(self) -> dict[int, int]:
        """Minimum memory of the operators that hold rows, in whole pages, by their nodes."""
        shared = self._shared
        return {node: parts * shared.least_parts[node] for node, parts in shared.holders.items()}

    def map_working_set(self, grant_plan: GrantPlan = ALL_LIVE) -> None:
        """Map what reader and sink have left of the budget; called once, when all of them are open.

        Args:
            grant_plan: which operators hold memory at the same time; all holders, when unknown.

        Raises:
            CapTooSmall: too little is left for the operators that hold rows.
        """
        shared = self._shared
        if shared.holders and "uri" in self.context.spilling:
            self._open_store()
        elif shared.holders and "force_shared_memory" in self.context.spilling:
            self._set_spill_aside()
        self._open_background()  # before the division below: its stack is part of the budget
        free_bytes = self.budget.free_bytes
        shared.reader_bytes = free_bytes // (READERS_SHARE if shared.holders else 2)
        if self.met is not None:
            shared.reader_bytes = max(shared.reader_bytes, self._bytes_outside())
        if not shared.holders:
            if self.met is not None and shared.reader_bytes > free_bytes:
                raise self.too_small(shared.reader_bytes - free_bytes, self.met.because)
            return
        grant_plan = grant_plan.with_holders(shared.holders, self.minimums)
        live = grant_plan.live_max
        size = self.budget.free_bytes - live * self._output_bytes - shared.reader_bytes
        size = size // PAGE_BYTES * PAGE_BYTES
        needed = grant_plan.needed_bytes
        if size < needed:
            all_bytes = format_bytes(needed + live * self._output_bytes)
            because = f"{live} operators of the plan hold rows at one time, and need {all_bytes}"
            # Readers get 1/16 of what a larger cap adds; only the rest reaches the working set.
            raise self.too_small((needed - size) * READERS_SHARE // (READERS_SHARE - 1), because)
        shared.arena = Arena(size, self.budget)
        shared.grant_plan, shared.grants = grant_plan, grant_plan.grants(size)

    def _bytes_outside(self) -> int:
        """Return the memory needed outside the working set for the longest known row."""
        wanted: Counter[MemoryKind] = Counter()
        for node, rows, memory in self._shared.row_needs:
            row_bytes = self.view(node).row_bytes * self._shared.rows_packed.get(node, 1)
            wanted[memory] = max(wanted[memory], rows * row_bytes)
        written = wanted["free"] + self._shared.written_bytes
        return max(written, wanted["read"] + wanted["passing"])

    def _open_background(self) -> None:
        """Start a second thread if the run may use one and its stack is a small part of memory."""
        threads = int(self.context.spilling.get("threads", 2))
        if threads == 1 or self.budget.free_bytes < SECOND_THREAD_SHARE * STACK_BYTES:
            return
        guard = self.budget.try_acquire(STACK_BYTES, "second thread")
        if guard is not None:
            self._shared.guards.append(guard)
            self._shared.background = BackgroundWorker(threads)

    def _open_store(self) -> None:
        """Reserve memory for an object store's client and buffers, which are outside the arena."""
        settings = self.context.spilling
        part_bytes = min(max(self.budget.free_bytes // STORE_PARTS, PART_BYTES_MIN), PART_BYTES_MAX)
        buffer_bytes = part_bytes * (int(settings["concurrency"]) + 1)
        self._shared.store = self.budget.admit(
            2 * buffer_bytes + STORE_CLIENT_BYTES,
            "spill",
            "an object store's client and its buffers need this much",
        )
        options = settings.get("options", {})
        if not self.context.is_trial:  # a trial must not delete objects
            self._sweep_store(settings["uri"], settings["retry_max_ms"], options)
        sizes = {"part_bytes": part_bytes, "buffer_bytes": buffer_bytes}
        self._shared.spilling = {"options": {**sizes, **options}}

    def _set_spill_aside(self) -> None:
        """If the spill folder is in memory, reserve half of what is free as the spill quota."""
        from emsqrt.spill.placement import is_in_memory

        if not is_in_memory(self.context.spill_place):
            return
        quota_bytes = self.context.spilling.get("quota_bytes", sys.maxsize)
        quota_bytes = min(self.budget.free_bytes // 2, quota_bytes)
        self._shared.store = self.budget.admit(quota_bytes, "spill", "what is spilled is memory")
        self._shared.spill_is_charged = True
        self._shared.spilling = {"quota_bytes": quota_bytes}

    def _sweep_store(self, uri: str, retry_max_ms: int, options: Mapping[str, Any]) -> None:
        """Remove spill of runs killed long ago; ignore errors, which spilling itself reports."""
        from emsqrt.spill.clients import RequestFailed
        from emsqrt.spill.objects import sweep_objects

        with suppress(SennitError, RequestFailed):
            sweep_objects(uri, STORE_SWEPT_SECONDS, retry_max_ms, **options)

    def too_small(self, missing_bytes: int, because: str) -> CapTooSmall:
        """Return the error that names a sufficient cap."""
        whole_bytes = self.budget.whole_bytes
        # 1/15: the slack grows by 6 % of what is added to a cap (`EntryContext`), the budget by
        # less.
        return CapTooSmall(
            cap_bytes=whole_bytes,
            needed_bytes=whole_bytes + missing_bytes + missing_bytes // 15 + 4096,
            because=because,
        )

    def _too_small_by(self, missing_bytes: int, because: str) -> CapTooSmall:
        # Sinks and readers reserve a little more under a larger cap.
        more_bytes = missing_bytes // 8 + min(missing_bytes, MORE_BYTES)
        if missing_bytes:
            more_bytes += self._shared.more_bytes
        return self.too_small(missing_bytes + more_bytes, because)

    @property
    def _shortfall(self) -> Shortfall:
        self.context.make_room_for_error()
        from emsqrt.shortfall import Shortfall

        shared, budget = self._shared, self.budget
        free = shared.reader_bytes + (self._output_bytes if shared.holders else 0)
        return Shortfall(
            budget.cap_bytes,
            self.working_bytes,
            free,
            shared.grant_plan,
            shared.holders,
            shared.row_needs,
        )

    @contextmanager
    def translate_memory_errors(self) -> Iterator[None]:
        """Convert a lack of working memory inside a `with` into a refusal that names a cap.

        Raises:
            RowTooLong: a row is longer than every known row, and the run may restart.
        """
        whole_bytes = self.budget.whole_bytes
        try:
            yield
        except CapTooSmall as error:
            if error.cap_bytes == whole_bytes:  # it names a whole cap already
                raise
            self._raise_longer(error, error.because)
            missing = self._shortfall.missing(error, self.node)
            raise self._too_small_by(missing, error.because) from error
        except TooLarge as error:
            self._raise_longer(error, error.describe())
            missing = self._shortfall.missing_for_row(error.actual_bytes or 0)
            raise self._too_small_by(missing or whole_bytes, error.describe()) from error

    def _raise_longer(self, error: CapTooSmall | TooLarge, because: str) -> None:
        """Raise `RowTooLong` for a row longer than every known row, if the run can restart."""
        shared = self._shared
        sure = max((getattr(each, "sure_row_bytes", 0) for each in shared.sources), default=0)
        rows = shared.rows_packed.get(self.node, 1) * shared.rows_in.get(self.node, 1)
        longer = row_of_error(error, because, rows, sure)
        if longer.exceeds(self.met) and shared.may_restart():
            raise longer from None

    def acquire_working_memory(self, tag: str) -> Slice:
        """Return the operator's grant, or less when memory is short; the operator releases it.

        Call this when the first row arrives, not before. An operator that called `expect_holder`
        more than once receives its grant in as many parts.
        """
        shared = self._shared
        assert shared.arena is not None, "expect_holder was called before map_working_set"
        share = shared.grants[self.node] // shared.holders[self.node]
        least = min(max(HOLDER_BYTES_MIN, shared.least_parts[self.node]), share)
        size = max(least, min(share, self.context.room_bytes()))
        held = shared.arena.allocate_most(size // PAGE_BYTES * PAGE_BYTES, least, tag)
        self.meter.granted_bytes += held.size
        return held

    @property
    def is_resumable(self) -> bool:
        """Whether the run keeps a checkpoint, from which another process may continue it."""
        return self._checkpoint is not None

    def journal(self) -> JournalPage | None:
        """Return where the operator records its sorted runs, None if the run cannot be resumed."""
        if self._checkpoint is None or self._shared.holders[self.node] != 1:
            return None
        return self._checkpoint.page(self.node)

    def prefetch_first(self, stream: Generator[Any]) -> AbstractContextManager[Iterator[Any]]:
        """Return a stream once its first item has arrived; at once if the operator may not read it.

        That is the case when an earlier run left a state of an operator that read all of its input.
        """
        journal = self.journal()
        left_something = journal is not None and journal.state()[1]
        return closing(stream) if left_something else prefetch_first(stream)

    @contextmanager
    def working(self, algorithm: Algorithm) -> Iterator[None]:
        """Close an external algorithm at the end of a `with`, and record its statistics.

        A lack of memory is converted into a refusal that names a cap.
        """
        try:
            with self.translate_memory_errors():
                yield
        finally:
            self.meter.note(algorithm.stats)
            algorithm.close()

    def add_source(self, source: ProgressSource) -> None:
        """Add a source to the run's input."""
        self._shared.sources.append(source)

    def report_progress(self, phase: str) -> None:
        """Report progress to the caller; spilled bytes count as to be read once more.

        Args:
            phase: "write" or "finish"; reported as "read" while input is left.
        """
        shared = self._shared
        shared.reported_at, shared.phase = time.monotonic(), phase
        done = sum(source.bytes_done for source in shared.sources)
        total = sum(source.bytes_total for source in shared.sources)
        stats = None if shared.spill is None else shared.spill.stats
        self.context.progress(
            bytes_done=done + (0 if stats is None else stats.read_bytes),
            bytes_total=total + (0 if stats is None else stats.raw_bytes),
            rows=sum(source.rows for source in shared.sources),
            spilled_bytes=self.spilled_bytes,
            phase="read" if done < total else phase,
        )

    def report(self, sinks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the JSON of the run's `Manifest`, without the plan's hash.

        Args:
            sinks: what was written, as the JSON of `SinkInfo`.
        """
        budget = self.budget
        return {
            "rowsIn": sum(source.rows for source in self._shared.sources),
            "bytesIn": sum(_bytes_read(source) for source in self._shared.sources),
            "rowsOut": sum(sink["rows"] for sink in sinks),
            "bytesOut": sum(sink["bytes"] for sink in sinks),
            "sinks": list(sinks),
            "capBytes": self.context.cap_bytes,
            "budgetBytes": budget.cap_bytes,
            "reservedBytes": budget.peak_bytes,
            "reservedByTag": budget.peak_by_tag(),
            "peakBytes": self.context.measure_peak() + self._charged_spill_bytes(),
            "startedAt": self._shared.started_at,
            "finishedAt": time.time(),
            "blocks": [meter.to_json() for meter in self.meters],
            "seed": self.seed,
            "spilledBytes": self.spilled_bytes,
        }

    def _charged_spill_bytes(self) -> int:
        """Return the most bytes of spill at one time if spill is in memory, else 0."""
        shared = self._shared
        return shared.spill.stats.peak_bytes if shared.spill and shared.spill_is_charged else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release memory and spill."""
        self._shared.background.close()  # first: its work may use spill and arena
        for guard in self._shared.guards:
            guard.release()
        if self._shared.spill is not None:
            self._shared.spill.close()
        if self._checkpoint is not None:
            self._checkpoint.close()
        if self._shared.arena is not None:
            self._shared.arena.__exit__(kind, error, trace)
        if self._shared.store is not None:
            self._shared.store.release()
        if error is None:
            self._shared.background.wait()  # raises the last background error
        else:
            self._shared.sources.clear()  # sources refer to buffers that the search for a cap needs


def _bytes_read(source: ProgressSource) -> int:
    """Return the bytes that a source has read; a resumed run skips what an earlier run read."""
    return source.bytes_done - int(getattr(source, "bytes_skipped", 0))
