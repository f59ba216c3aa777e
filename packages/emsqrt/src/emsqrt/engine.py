"""The engine as a library: a plan goes to a child process of its own, a manifest comes back."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from emsqrt.config import EngineConfig
from emsqrt.io.locations import folder_of_work
from emsqrt.lean import require_arrow
from emsqrt.manifest import Manifest
from emsqrt.memory.auto import auto_cap, parse_cap
from emsqrt.memory.pool import BudgetPool, left_of
from emsqrt.plan import Plan, Sink, StreamTarget, plan_to_json
from emsqrt.thin.child import run_in_child, weigh_in_child
from emsqrt.thin.compile import try_compile
from emsqrt.weight import WEIGHING_BYTES, Weight
from sennit_core.errors import CapTooSmall, MemoryCapExceeded, SennitError, UsageError
from sennit_core.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.executor.execution import Execution, OnProgress
    from emsqrt.executor.pool import ExecutorPool
    from emsqrt.planner import PhysicalProgram
    from emsqrt.te import TeSchedule

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_TENANT = re.compile("[a-z0-9_-]{1,63}")
_THIN_WEIGHING_BYTES = 12 << 20
"""What looking at a text program takes of a shared pool; a program of few files takes 9 MiB."""


class Engine:
    """Runs plans. As a context manager it keeps its executor warm between them.

    Args:
        config: settings; those of the environment when None.
        pool: memory shared with other engines; each run takes its cap out of it while it goes on,
            and no process is kept warm, for that would hold memory that nobody has leased.
        tenant: in whose name; it spills into a folder of its own.
    """

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        pool: BudgetPool | None = None,
        tenant: str | None = None,
    ) -> None:
        self.config = config or EngineConfig.from_environment()
        self._shared = pool
        self._tenant = tenant or "default"
        if tenant is not None:
            self.config = replace(self.config, spill_dir=_tenant_folder(self.config, tenant))
        self._lock = threading.Lock()
        self._keeps = False
        self._pool: ExecutorPool | None = None
        _engines.add(self)

    def run(  # noqa: PLR0913 - settings, all but two by keyword
        self,
        plan: Plan | PhysicalProgram,
        schedule: TeSchedule | None = None,
        *,
        mem_cap: str | int | None = None,
        in_process: bool = False,
        deadline_seconds: float | None = None,
        on_progress: OnProgress | None = None,
        cancel: threading.Event | None = None,
        resume: str | None = None,
    ) -> Manifest:
        """Run a plan that ends in a file sink, and wait.

        Args:
            plan: ends in a `Sink`; or what `lower_to_physical` made of it.
            schedule: what `plan_te` made of that: its cap is the run's, and its shares are taken
                once more of what the process leaves of it, which is then known and not estimated.
            mem_cap: such as "64MiB"; the schedule's or the configured cap when None.
            in_process: run it here instead of in a child: only what operators reserve is then
                bounded, not what the process holds.
            deadline_seconds: give up after this.
            on_progress: called with each new `Progress`; be quick.
            cancel: set by another thread to give up waiting for the shared pool.
            resume: a name for the run. When it is killed, its finished runs are kept for a day; the
                next run of the same name, plan and inputs goes on from them.

        Raises:
            CapTooSmall: told before the first row is read, with the cap that would do.
            MemoryCapExceeded: it reached its cap all the same.
            DeadlineExceeded, Cancelled: it was given up, in the queue or at work.
        """
        if not isinstance(plan, Plan):
            plan = plan.logical
        cap_bytes = self.config.mem_cap_bytes if schedule is None else schedule.cap_bytes
        if mem_cap is not None:
            cap_bytes = parse_cap(mem_cap)
        if isinstance(plan, Sink) and isinstance(plan.target, StreamTarget):
            raise UsageError("a stream has nobody to read it here", hint="use Engine.batches")
        if deadline_seconds is not None and not deadline_seconds >= 0:
            raise UsageError(f"a deadline is a number of seconds from now, not {deadline_seconds}")
        started = time.monotonic()
        with (
            self._telling_whole(plan, cap_bytes, deadline_seconds, cancel),
            self._leasing(cap_bytes, deadline_seconds, cancel),
        ):
            left_seconds = left_of(deadline_seconds, started)
            manifest = self._run(
                plan, cap_bytes, left_seconds, on_progress, in_process=in_process, resume=resume
            )
        if self._shared is not None:
            self._shared.note_spill(self._tenant, manifest.spilled_bytes)
        return manifest

    def _run(
        self,
        plan: Plan,
        cap_bytes: int,
        deadline_seconds: float | None,
        on_progress: OnProgress | None,
        *,
        in_process: bool,
        resume: str | None,
    ) -> Manifest:
        kept = None if resume is None else self._kept_place(resume)
        if in_process:
            from emsqrt.inline import run_here

            return run_here(plan, cap_bytes, self.config.spill_dir, self.config.seed, kept)
        program = try_compile(plan, folder_of_work(), cap_bytes, self.config.spilling)
        if program is not None:
            report = run_in_child(
                program.scheduled(cap_bytes) | {"seed": self.config.seed, "resume": kept},
                cap_bytes=cap_bytes,
                spill_dir=self.config.spill_dir,
                spilling=self.config.spilling,
                deadline_seconds=deadline_seconds,
                on_progress=on_progress,
            )
            return Manifest.from_json(report)
        with self._executing(plan, cap_bytes, deadline_seconds, on_progress, kept) as execution:
            return Manifest.from_json(execution.result())

    def batches(self, plan: Plan, *, mem_cap: str | int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield a plan's rows as they come; a slow reader slows the engine down.

        Args:
            plan: without a sink, or with an Arrow stream as its sink.
            mem_cap: such as "64MiB"; the configured cap when None.
        """
        cap_bytes = self.config.mem_cap_bytes if mem_cap is None else parse_cap(mem_cap)
        if not isinstance(plan, Sink):
            plan = Sink(plan, StreamTarget("arrow"))
        with (
            self._telling_whole(plan, cap_bytes),
            self._leasing(cap_bytes),
            self._executing(plan, cap_bytes) as execution,
        ):
            yield from execution.batches()

    def weigh(
        self,
        plan: Plan,
        *,
        mem_cap: str | int | None = None,
        deadline_seconds: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Weight:
        """Return the smallest cap that a plan runs under, and what it would have under another.

        A process like the one that would carry it out opens the plan; nothing is read but heads and
        footers. Where memory is shared, that process takes its part in its turn: 12 MiB for a plan
        over text, 40 MiB where pyarrow is needed, and twice that each time that it was too little.

        Args:
            plan: one without a sink is taken for one that gives batches.
            mem_cap: such as "64MiB"; the configured cap when None.
            deadline_seconds: give up after this.
            cancel: set by another thread to give up waiting for the shared pool.

        Raises:
            CapTooSmall: the tenant's share, or the pool, holds no process that could look.
            MemoryCapExceeded: all of that is too little to open the plan.
        """
        cap_bytes = self.config.mem_cap_bytes if mem_cap is None else parse_bytes(mem_cap)
        if not isinstance(plan, Sink):
            plan = Sink(plan, StreamTarget("arrow"))
        return self._weigh(plan, cap_bytes, deadline_seconds, cancel, looks=False)

    def _weigh(
        self,
        plan: Plan,
        cap_bytes: int,
        deadline_seconds: float | None,
        cancel: threading.Event | None,
        *,
        looks: bool,
    ) -> Weight:
        """Weigh a plan; `looks` has its input looked through for the longest row."""
        program = try_compile(plan, folder_of_work(), cap_bytes, self.config.spilling)
        if program is None:
            room_bytes = max(cap_bytes, WEIGHING_BYTES)
            return self._weigh_with_arrow(
                plan, cap_bytes, room_bytes, deadline_seconds, cancel, looks=looks
            )

        def look(room_bytes: int | None, left_seconds: float | None) -> Weight:
            spilling, spill_dir = self.config.spilling, self.config.spill_dir
            return weigh_in_child(
                program, cap_bytes, spilling, spill_dir, room_bytes, left_seconds, looks=looks
            )

        if self._shared is None:
            return look(None, deadline_seconds)
        size_bytes = _THIN_WEIGHING_BYTES
        return self._shared.lease_enough(
            self._tenant, size_bytes, look, deadline_seconds=deadline_seconds, cancel=cancel
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that are kept warm now."""
        return () if self._pool is None else self._pool.stats().pids

    def close(self) -> None:
        """End the executor, if one is kept."""
        with self._lock:
            pool, self._pool, self._keeps = self._pool, None, False
        if pool is not None:
            pool.close()

    def _forget_pool(self) -> None:
        """Leave the executors to the process that started them; this is its fork."""
        self._lock = threading.Lock()
        self._pool = None

    def __enter__(self) -> Self:
        self._keeps = self._shared is None
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leasing(
        self,
        cap_bytes: int,
        deadline_seconds: float | None = None,
        cancel: threading.Event | None = None,
    ) -> AbstractContextManager[None]:
        """Hold a run's cap out of the shared pool, where there is one."""
        if self._shared is None:
            return nullcontext()
        return self._shared.lease(
            self._tenant, cap_bytes, deadline_seconds=deadline_seconds, cancel=cancel
        )

    @property
    def _limit_bytes(self) -> int:
        """The most that the tenant may hold of a shared pool at once."""
        return sys.maxsize if self._shared is None else self._shared.limit_bytes(self._tenant)

    @contextmanager
    def _executing(
        self,
        plan: Plan,
        cap_bytes: int,
        deadline_seconds: float | None = None,
        on_progress: OnProgress | None = None,
        resume: tuple[str, str] | None = None,
    ) -> Iterator[Execution]:
        kept = self._kept_pool()
        fits = kept is not None and cap_bytes <= kept.executor_bytes
        pool = kept if kept is not None and fits else self._open_pool(cap_bytes)
        try:
            with pool.submit(
                "emsqrt.plan",
                self._request(plan) | {"seed": self.config.seed, "resume": resume},
                mem_cap_bytes=cap_bytes,
                deadline_seconds=deadline_seconds,
                on_progress=on_progress,
            ) as execution:
                yield execution
        finally:
            if pool is not kept:
                pool.close()

    def _request(self, plan: Plan) -> dict[str, Any]:
        return {
            "plan": plan_to_json(plan),
            "folder": str(folder_of_work()),
            "spilling": self.config.spilling,
        }

    @contextmanager
    def _telling_whole(
        self,
        plan: Plan,
        cap_bytes: int,
        deadline_seconds: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[None]:
        """Tell a refusal for the libraries' sake as that of the plan, where it takes still more.

        A process that runs nothing opens the plan for it, if there may be one of that size. In the
        same way a cap that not even the planning had room in. And refuse a cap that is more than
        the tenant may hold, with what the plan takes.
        """
        started = time.monotonic()
        if cap_bytes > self._limit_bytes:
            raise self._over_share(plan, cap_bytes, deadline_seconds, cancel)
        try:
            yield
        except CapTooSmall as error:
            from emsqrt.executor.entry import FLOOR_BYTES

            room_bytes = min(WEIGHING_BYTES, auto_cap().cap_bytes)
            if error.needed_bytes != FLOOR_BYTES or room_bytes < FLOOR_BYTES:
                raise
            whole, left_seconds = None, left_of(deadline_seconds, started)
            with suppress(SennitError):
                whole = self._weigh_with_arrow(
                    plan, FLOOR_BYTES, room_bytes, left_seconds, cancel, looks=True
                )
            if whole is None or whole.cap_bytes <= FLOOR_BYTES:
                raise
            raise CapTooSmall(
                cap_bytes=error.cap_bytes, needed_bytes=whole.cap_bytes, because=whole.because
            ) from None
        except MemoryCapExceeded:
            needed = None
            with suppress(SennitError):
                left_seconds = left_of(deadline_seconds, started)
                needed = self._weigh(plan, cap_bytes, left_seconds, cancel, looks=True)
            if needed is None or needed.cap_bytes <= cap_bytes:
                raise
            raise CapTooSmall(
                cap_bytes=cap_bytes, needed_bytes=needed.cap_bytes, because=needed.because
            ) from None

    def _over_share(
        self,
        plan: Plan,
        cap_bytes: int,
        deadline_seconds: float | None,
        cancel: threading.Event | None,
    ) -> CapTooSmall:
        """Return the refusal of a cap that is more than the tenant may hold at once."""
        share_bytes = self._limit_bytes
        try:
            least = self._weigh(plan, share_bytes, deadline_seconds, cancel, looks=True)
        except CapTooSmall as error:
            return CapTooSmall(share_bytes, error.needed_bytes, error.because)
        if least.cap_bytes > share_bytes:
            return CapTooSmall(share_bytes, least.cap_bytes, least.because)
        because = f"a run of {self._tenant} asks for that much of the shared pool"
        hint = (
            f"the plan itself takes {format_bytes(least.cap_bytes)}: "
            f"ask for no more than {format_bytes(share_bytes)}"
        )
        return CapTooSmall(share_bytes, cap_bytes, because, hint=hint)

    def _weigh_with_arrow(
        self,
        plan: Plan,
        cap_bytes: int,
        room_bytes: int,
        deadline_seconds: float | None,
        cancel: threading.Event | None,
        *,
        looks: bool = False,
    ) -> Weight:
        """Weigh a plan in a process with so much room, or, where that is shared, as it must have."""

        def look(room_bytes: int, left_seconds: float | None) -> Weight:
            request = {**self._request(plan), "weighs": cap_bytes, "looks": looks}
            with (
                self._open_pool(room_bytes) as pool,
                pool.submit("emsqrt.plan", request, deadline_seconds=left_seconds) as execution,
            ):
                return Weight.from_json(execution.result())

        if self._shared is None:
            return look(room_bytes, deadline_seconds)
        from emsqrt.executor.entry import FLOOR_BECAUSE, FLOOR_BYTES

        if self._limit_bytes < FLOOR_BYTES:
            raise CapTooSmall(self._limit_bytes, FLOOR_BYTES, FLOOR_BECAUSE)
        return self._shared.lease_enough(
            self._tenant, FLOOR_BYTES, look, deadline_seconds=deadline_seconds, cancel=cancel
        )

    def _kept_place(self, name: str) -> tuple[str, str]:
        """Return where a run of that name is kept: the spill folder and the name."""
        from emsqrt.spill.placement import default_spill_dir

        return str(self.config.spill_dir or default_spill_dir()), name

    def _kept_pool(self) -> ExecutorPool | None:
        """Return the pool that outlives a run, opened when a plan first wants it."""
        with self._lock:
            if self._keeps and self._pool is None:
                self._pool = self._open_pool(self.config.mem_cap_bytes)
            return self._pool

    def _open_pool(self, cap_bytes: int) -> ExecutorPool:
        require_arrow("this plan")
        from emsqrt.executor.pool import ExecutorPool

        size = self.config.max_parallel_tasks if self._shared is None else 1
        return ExecutorPool(size, memory_bytes=cap_bytes * size, spill_dir=self.config.spill_dir)


def _after_fork() -> None:
    for engine in tuple(_engines):
        engine._forget_pool()  # noqa: SLF001 - one module, two halves


os.register_at_fork(after_in_child=_after_fork)


def _tenant_folder(config: EngineConfig, tenant: str) -> Path:
    """Return where a tenant spills: a folder of its own below the one of all."""
    if not _TENANT.fullmatch(tenant):
        raise UsageError(f'"{tenant}" names no tenant: a-z, 0-9, - and _, at most 63 of them')
    from emsqrt.spill.placement import default_spill_dir

    return (config.spill_dir or default_spill_dir()) / tenant
