"""The world that a run's operators share: memory, spill, news."""

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

from emsqrt.attempts import LongerRow, longer_row
from emsqrt.behind import STACK_BYTES, Lane
from emsqrt.choices import HASHED, JoinChoice
from emsqrt.memory import Arena, BudgetGuard, MemoryBudget, Slice
from emsqrt.memory.grant_plan import ALL_LIVE, HOLDER_BYTES_MIN, READERS_SHARE, GrantPlan
from emsqrt.metering import Meter, begun
from sennit_core.errors import CapTooSmall, SennitError, TooLarge
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.executor.context import Context
    from emsqrt.kept import JournalPage, KeptRun
    from emsqrt.long_row import Place, RowNeed
    from emsqrt.refusals import Room
    from emsqrt.spill import SpillManager

OUTPUT_BYTES = 1 << 20
"""What a blocking operator's batch takes, as rows and as columns, while it is passed on."""
PAGE_BYTES = mmap.PAGESIZE
STORE_CLIENT_BYTES = 12 << 20
"""What a client of object stores holds beside its buffers, measured."""
STORE_PARTS, PART_BYTES_MIN, PART_BYTES_MAX = 40, 256 << 10, 8 << 20
"""A part that is sent is that share of what is free, within these sizes."""
SECOND_THREAD_SHARE = 32
"""The second thread's stack takes one part in so many of what is free, or there is none."""
STORE_SWEPT_SECONDS = 48 * 3600
"""A run that has written nothing to an object store for so long is taken for dead."""
MORE_BYTES = 4 << 20
"""What readers may take more of a larger cap."""
TELL_SECONDS = 0.2
"""Work that passes nothing on, such as a merge, is told about so often."""
_NOBODY = -1
"""The node of an operator that is run by itself."""


class Algorithm(Protocol):
    """An external algorithm, as far as a run looks at it."""

    @property
    def stats(self) -> object:
        """What it took so far."""

    def close(self) -> None:
        """Remove what was spilled and let go of the memory."""


class Source(Protocol):
    """What a run reads, and how far it is."""

    rows: int
    bytes_total: int

    @property
    def bytes_done(self) -> int:
        """Bytes that have been read."""


@dataclass
class _World:
    """What all views of a run share."""

    sources: list[Source] = field(default_factory=list)
    holders: Counter[int] = field(default_factory=Counter)
    least_parts: dict[int, int] = field(default_factory=dict)
    row_needs: list[RowNeed] = field(default_factory=list)
    rows_in: dict[int, int] = field(default_factory=dict)
    rows_out: dict[int, int] = field(default_factory=dict)
    rows_packed: dict[int, int] = field(default_factory=dict)
    may_begin_anew: Callable[[], bool] = lambda: False
    sharing: GrantPlan = ALL_LIVE
    meters: dict[int, Meter] = field(default_factory=dict)
    grants: dict[int, int] = field(default_factory=dict)
    guards: list[BudgetGuard] = field(default_factory=list)
    choices: Mapping[int, JoinChoice] = field(default_factory=dict)
    arena: Arena | None = None
    store: BudgetGuard | None = None
    lane: Lane = field(default_factory=Lane)
    spill: SpillManager | None = None
    spill_is_charged: bool = False
    spilling: Mapping[str, Any] = field(default_factory=dict)
    reader_bytes: int = 0
    written_bytes: int = 0
    more_bytes: int = 0
    started_at: float = field(default_factory=time.time)
    told_at: float = field(default_factory=time.monotonic)
    phase: str = "read"


class Run:
    """One run's memory, spill and news, shared by its operators. A context manager.

    `at` gives each operator a view of its own, under whose node memory is asked for.

    Args:
        context: the cap, the budget, cancelling and progress.
        folder: where relative paths start.
        seed: for sampling.
        output_bytes: what each operator that holds rows takes beside its working memory.
        kept: where it spills to and writes down finished runs, when it can be resumed.
        met: the longest row that an earlier attempt met and had no room for.
    """

    def __init__(
        self,
        context: Context,
        folder: Path = Path(),
        seed: int = 0,
        output_bytes: int = OUTPUT_BYTES,
        kept: KeptRun | None = None,
        met: LongerRow | None = None,
    ) -> None:
        self._kept = kept
        self.met = met
        self.context = context
        self.folder = folder
        self.seed = seed
        self.node = _NOBODY
        self._output_bytes = output_bytes
        self._world = _World()

    def at(self, node: int, operator: str = "", inputs: Sequence[int] = ()) -> Run:
        """Return this run as one operator sees it.

        Args:
            node: the operator's id in the physical plan.
            operator: such as "sort".
            inputs: the ids of what it reads from.
        """
        meters = self._world.meters
        meters[node] = Meter(node, operator, [meters[each] for each in inputs if each in meters])
        rows_out = self._world.rows_out
        parts = [rows_out.get(each, 1) for each in inputs]
        self._world.rows_in[node] = max(parts, default=1)
        rows_out[node] = sum(parts) if operator == "join" else max(parts, default=1)
        return self.view(node)

    def knows(self, node: int) -> bool:
        """Return whether the plan's operators were told, this one among them."""
        return node in self._world.meters

    def view(self, node: int) -> Run:
        """Return this run as an operator sees it that was told already."""
        view = copy(self)
        view.node = node
        return view

    def choose(self, choices: Mapping[int, JoinChoice]) -> None:
        """Tell how joins are carried out, by the ids of their nodes."""
        self._world.choices = choices

    @property
    def choice(self) -> JoinChoice:
        """How the join whose view this is is carried out."""
        choice = self._world.choices.get(self.node, HASHED)
        if self._kept is None:
            return choice
        # Whoever resumes counts rows, and so can tell their order.
        return replace(choice, ordered=True, build_left=False)

    def trial(self, budget: MemoryBudget) -> Run:
        """Return a run that is as this one at its beginning, but for the budget; only to admit."""
        context = self.context.trial(budget)
        return Run(context, self.folder, self.seed, self._output_bytes, met=self.met)

    @property
    def meter(self) -> Meter:
        """The figures of the operator whose view this is."""
        return self._world.meters.setdefault(self.node, Meter(self.node, ""))

    @property
    def meters(self) -> list[Meter]:
        """The figures of all operators, by their ids."""
        found = self._world.meters
        return [found[node] for node in sorted(found) if node != _NOBODY]

    @property
    def budget(self) -> MemoryBudget:
        """Where memory outside the working set is asked for."""
        return self.context.budget

    @property
    def spill(self) -> SpillManager:
        """Where rows go that do not fit; opened when first used."""
        if self._world.spill is None and self._kept is not None:
            self._world.spill = self._kept.open_spill(check=self.check)
        if self._world.spill is None:
            from emsqrt.spill import SpillManager

            place = self.context.spill_dir
            told = {**self.context.spilling, **self._world.spilling}
            place = told.pop("uri", place)
            told.pop("threads", None)
            self._world.spill = SpillManager(place, check=self.check, lane=self.lane, **told)
        return self._world.spill

    @property
    def lane(self) -> Lane:
        """Where work is done behind the operators' backs, on a second thread if there may be one."""
        return self._world.lane

    @property
    def spilled_bytes(self) -> int:
        """Bytes written to spill so far."""
        spill = self._world.spill
        return 0 if spill is None else spill.stats.written_bytes

    def check(self) -> None:
        """Return if the work should go on; call it often. Raises as `Context.check` does."""
        self.context.check()
        if time.monotonic() - self._world.told_at > TELL_SECONDS:
            self.tell("merge" if self._world.phase == "read" else self._world.phase)

    def admit(self, size_bytes: int, tag: str, because: str) -> BudgetGuard:
        """Reserve what an operator cannot do without; given back at the run's end at the latest.

        An operator that is never pulled from, below a limit of no rows, never gives anything back.

        Raises:
            CapTooSmall: there is not that much.
        """
        guard = self.budget.admit(size_bytes, tag, because)
        self._world.guards.append(guard)
        return guard

    def expect_holder(self, rows: int = 0, least_bytes: int = 0) -> None:
        """Say, while the plan is being opened, that the operator will hold working memory.

        Args:
            rows: it must be so many times as long as any row.
            least_bytes: what it cannot do without, however short and few the rows are.
        """
        least_parts = self._world.least_parts
        self._world.holders[self.node] += 1
        whole_pages = -(-least_bytes // PAGE_BYTES) * PAGE_BYTES
        least_parts[self.node] = max(whole_pages, least_parts.get(self.node, 0))
        self.expect_rows(rows, "grant")

    def expect_more(self, size_bytes: int) -> None:
        """Say that a sink takes so much more of a larger cap."""
        self._world.more_bytes += size_bytes

    def expect_written(self, size_bytes: int) -> None:
        """Say that a sink takes so much more, for long rows, once all rows are read."""
        self._world.written_bytes = size_bytes

    def expect_rows(self, rows: int, place: Place) -> None:
        """Say that a row, however long it is, must fit a part of memory so many times."""
        if rows:
            self._world.row_needs.append((self.node, rows, place))

    @property
    def row_bytes(self) -> int:
        """What the longest row that the operator takes in has; 0 while none was met that is long."""
        return self._row_bytes * self._world.rows_in.get(self.node, 1)

    @property
    def row_bytes_out(self) -> int:
        """The same of the rows that it gives, of which a join's have those of both sides."""
        return self._row_bytes * self._world.rows_out.get(self.node, 1)

    @property
    def _row_bytes(self) -> int:
        return 0 if self.met is None else self.met.room_bytes

    def let_begin_anew(self, may: Callable[[], bool]) -> None:
        """Have a row that is longer than all that are known told to whoever carries the run out.

        Args:
            may: asked then whether nothing was seen of the run so far.
        """
        self._world.may_begin_anew = may

    def packs_rows(self, rows: int) -> None:
        """Say that the operator's own rows are up to so many times as long as those that come."""
        self._world.rows_packed[self.node] = rows

    def gives_rows(self, rows: int) -> None:
        """Say that those which it gives are."""
        self._world.rows_out[self.node] = rows * self._world.rows_in.get(self.node, 1)

    @property
    def reader_bytes(self) -> int:
        """What readers may take beyond their blocks, for records that are longer."""
        return self._world.reader_bytes

    @property
    def working_bytes(self) -> int:
        """W, once the working set is mapped."""
        return 0 if self._world.arena is None else self._world.arena.size_bytes

    @property
    def leasts(self) -> dict[int, int]:
        """What operators that hold memory cannot do without, in whole pages, by their nodes."""
        world = self._world
        return {node: parts * world.least_parts[node] for node, parts in world.holders.items()}

    def map_working_set(self, sharing: GrantPlan = ALL_LIVE) -> None:
        """Map what reader and sink left over; called once, when all of them are open.

        Args:
            sharing: who holds memory together; all who hold, when nothing is known.

        Raises:
            CapTooSmall: too little is left for the operators that hold rows.
        """
        world = self._world
        if world.holders and "uri" in self.context.spilling:
            self._open_store()
        elif world.holders and "force_shared_memory" in self.context.spilling:
            self._set_spill_aside()
        self._open_lane()
        free_bytes = self.budget.free_bytes
        world.reader_bytes = free_bytes // (READERS_SHARE if world.holders else 2)
        if self.met is not None:
            world.reader_bytes = max(world.reader_bytes, self._bytes_beside())
        if not world.holders:
            if self.met is not None and world.reader_bytes > free_bytes:
                raise self.too_small(world.reader_bytes - free_bytes, self.met.because)
            return
        sharing = sharing.with_holders(world.holders, self.leasts)
        live = sharing.live_max
        size = self.budget.free_bytes - live * self._output_bytes - world.reader_bytes
        size = size // PAGE_BYTES * PAGE_BYTES
        needed = sharing.needed_bytes
        if size < needed:
            all_bytes = format_bytes(needed + live * self._output_bytes)
            because = f"{live} operators of the plan hold rows at one time, and need {all_bytes}"
            raise self.too_small((needed - size) * READERS_SHARE // (READERS_SHARE - 1), because)
        world.arena = Arena(size, self.budget)
        world.sharing, world.grants = sharing, sharing.grants(size)

    def _bytes_beside(self) -> int:
        """Return what must be beside the working set for the longest row that was met."""
        wanted: Counter[Place] = Counter()
        for node, rows, place in self._world.row_needs:
            row_bytes = self.view(node).row_bytes * self._world.rows_packed.get(node, 1)
            wanted[place] = max(wanted[place], rows * row_bytes)
        written = wanted["beside"] + self._world.written_bytes
        return max(written, wanted["read"] + wanted["passing"])

    def _open_lane(self) -> None:
        """Let a second thread work where that is wanted, and its stack is a small part."""
        threads = int(self.context.spilling.get("threads", 2))
        if threads == 1 or self.budget.free_bytes < SECOND_THREAD_SHARE * STACK_BYTES:
            return
        guard = self.budget.try_acquire(STACK_BYTES, "second thread")
        if guard is not None:
            self._world.guards.append(guard)
            self._world.lane = Lane(threads)

    def _open_store(self) -> None:
        """Open the object store to spill to: its client and its buffers lie beside the arena."""
        told = self.context.spilling
        part_bytes = min(max(self.budget.free_bytes // STORE_PARTS, PART_BYTES_MIN), PART_BYTES_MAX)
        buffer_bytes = part_bytes * (int(told["concurrency"]) + 1)
        self._world.store = self.budget.admit(
            2 * buffer_bytes + STORE_CLIENT_BYTES,
            "spill",
            "an object store's client and its buffers take that much",
        )
        options = told.get("options", {})
        if not self.context.is_trial:
            self._sweep_store(told["uri"], told["retry_max_ms"], options)
        sizes = {"part_bytes": part_bytes, "buffer_bytes": buffer_bytes}
        self._world.spilling = {"options": {**sizes, **options}}

    def _set_spill_aside(self) -> None:
        """Keep half of what is free for spill, where its folder is memory: that much may lie there."""
        from emsqrt.spill.placement import is_in_memory

        if not is_in_memory(self.context.spill_place):
            return
        quota_bytes = self.context.spilling.get("quota_bytes", sys.maxsize)
        quota_bytes = min(self.budget.free_bytes // 2, quota_bytes)
        self._world.store = self.budget.admit(quota_bytes, "spill", "what is spilled is memory")
        self._world.spill_is_charged = True
        self._world.spilling = {"quota_bytes": quota_bytes}

    def _sweep_store(self, uri: str, retry_max_ms: int, options: Mapping[str, Any]) -> None:
        """Remove what runs left there that were killed long ago; spilling itself tells trouble."""
        from emsqrt.spill.clients import RequestFailed
        from emsqrt.spill.objects import sweep_objects

        with suppress(SennitError, RequestFailed):
            sweep_objects(uri, STORE_SWEPT_SECONDS, retry_max_ms, **options)

    def too_small(self, missing_bytes: int, because: str) -> CapTooSmall:
        """Return the error that says which cap would do."""
        whole_bytes = self.budget.whole_bytes
        return CapTooSmall(
            cap_bytes=whole_bytes,
            needed_bytes=whole_bytes + missing_bytes + missing_bytes // 15 + 4096,
            because=because,
        )

    def _too_small_by(self, missing_bytes: int, because: str) -> CapTooSmall:
        # Sinks and readers take a little more of a larger cap.
        more_bytes = missing_bytes // 8 + min(missing_bytes, MORE_BYTES)
        if missing_bytes:
            more_bytes += self._world.more_bytes
        return self.too_small(missing_bytes + more_bytes, because)

    @property
    def _room(self) -> Room:
        self.context.make_room_for_error()
        from emsqrt.refusals import Room

        world, budget = self._world, self.budget
        beside = world.reader_bytes + (self._output_bytes if world.holders else 0)
        return Room(
            budget.cap_bytes,
            self.working_bytes,
            beside,
            world.sharing,
            world.holders,
            world.row_needs,
        )

    @contextmanager
    def judging_sizes(self) -> Iterator[None]:
        """Tell an operator's want of working memory as a want of cap, for the length of a `with`.

        Raises:
            LongerRow: a row was met that is longer than all that are known; whoever carries the run
                out may begin anew.
        """
        whole_bytes = self.budget.whole_bytes
        try:
            yield
        except CapTooSmall as error:
            if error.cap_bytes == whole_bytes:
                raise
            self._tell_longer(error, error.because)
            missing = self._room.missing(error, self.node)
            raise self._too_small_by(missing, error.because) from error
        except TooLarge as error:
            self._tell_longer(error, error.describe())
            missing = self._room.missing_for_row(error.actual_bytes or 0)
            raise self._too_small_by(missing or whole_bytes, error.describe()) from error

    def _tell_longer(self, error: CapTooSmall | TooLarge, because: str) -> None:
        """Raise the news of a row that is longer than all that are known, where that is of use."""
        world = self._world
        sure = max((getattr(each, "sure_row_bytes", 0) for each in world.sources), default=0)
        rows = world.rows_packed.get(self.node, 1) * world.rows_in.get(self.node, 1)
        longer = longer_row(error, because, rows, sure)
        if longer.is_news_to(self.met) and world.may_begin_anew():
            raise longer from None

    def take_working_memory(self, tag: str) -> Slice:
        """Return the operator's grant, or less when memory is short; it gives it back at its end.

        Take it when the first row comes in, not before. An operator that said `expect_holder` more
        than once has its grant in as many parts.
        """
        world = self._world
        assert world.arena is not None, "expect_holder was called before map_working_set"
        share = world.grants[self.node] // world.holders[self.node]
        least = min(max(HOLDER_BYTES_MIN, world.least_parts[self.node]), share)
        size = max(least, min(share, self.context.room_bytes()))
        held = world.arena.allocate_most(size // PAGE_BYTES * PAGE_BYTES, least, tag)
        self.meter.granted_bytes += held.size
        return held

    def journal(self) -> JournalPage | None:
        """Return where the operator writes down its runs, None when nobody would resume it."""
        if self._kept is None or self._world.holders[self.node] != 1:
            return None
        return self._kept.page(self.node)

    def begun(self, stream: Generator[Any]) -> AbstractContextManager[Iterator[Any]]:
        """Give a stream once its first item has come; at once where nobody may want it any more.

        That is where an earlier run left something of an operator that took all of it in.
        """
        journal = self.journal()
        left_something = journal is not None and journal.state()[1]
        return closing(stream) if left_something else begun(stream)

    @contextmanager
    def working(self, algorithm: Algorithm) -> Iterator[None]:
        """Close an external algorithm at the end of a `with`, and note what it took.

        What it lacks of its memory is told as a want of cap.
        """
        try:
            with self.judging_sizes():
                yield
        finally:
            self.meter.note(algorithm.stats)
            algorithm.close()

    def reads(self, source: Source) -> None:
        """Count what a source gives among the run's input."""
        self._world.sources.append(source)

    def tell(self, phase: str) -> None:
        """Tell whoever waits how far the run is; what is spilled is to be read back once more.

        Args:
            phase: "write" or "finish"; it is "read" all the same while input is left.
        """
        world = self._world
        world.told_at, world.phase = time.monotonic(), phase
        done = sum(source.bytes_done for source in world.sources)
        total = sum(source.bytes_total for source in world.sources)
        stats = None if world.spill is None else world.spill.stats
        self.context.progress(
            bytes_done=done + (0 if stats is None else stats.read_bytes),
            bytes_total=total + (0 if stats is None else stats.raw_bytes),
            rows=sum(source.rows for source in world.sources),
            spilled_bytes=self.spilled_bytes,
            phase="read" if done < total else phase,
        )

    def report(self, sinks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Say what was done, at the end: the JSON of a `Manifest`, without the plan's hash.

        Args:
            sinks: what was written, as the JSON of `SinkInfo`.
        """
        budget = self.budget
        return {
            "rowsIn": sum(source.rows for source in self._world.sources),
            "bytesIn": sum(_bytes_read(source) for source in self._world.sources),
            "rowsOut": sum(sink["rows"] for sink in sinks),
            "bytesOut": sum(sink["bytes"] for sink in sinks),
            "sinks": list(sinks),
            "capBytes": self.context.cap_bytes,
            "budgetBytes": budget.cap_bytes,
            "reservedBytes": budget.peak_bytes,
            "reservedByTag": budget.peak_by_tag(),
            "peakBytes": self.context.measure_peak() + self._charged_spill_bytes(),
            "startedAt": self._world.started_at,
            "finishedAt": time.time(),
            "blocks": [meter.to_json() for meter in self.meters],
            "seed": self.seed,
            "spilledBytes": self.spilled_bytes,
        }

    def _charged_spill_bytes(self) -> int:
        """Return the most that was spilled at once, where that is memory."""
        world = self._world
        return world.spill.stats.peak_bytes if world.spill and world.spill_is_charged else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give memory and spill back."""
        self._world.lane.close()
        for guard in self._world.guards:
            guard.release()
        if self._world.spill is not None:
            self._world.spill.close()
        if self._kept is not None:
            self._kept.close()
        if self._world.arena is not None:
            self._world.arena.__exit__(kind, error, trace)
        if self._world.store is not None:
            self._world.store.release()
        if error is None:
            self._world.lane.wait()  # raises what nobody has waited for
        else:
            self._world.sources.clear()  # who looks for a cap has no use for what they found


def _bytes_read(source: Source) -> int:
    """Return the bytes that a source read; who begins where an earlier run ended skipped some."""
    return source.bytes_done - int(getattr(source, "bytes_skipped", 0))
