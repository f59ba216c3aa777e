"""The library entry point: run a plan in a child process of its own and return its manifest."""

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
from emsqrt.manifest import Manifest
from emsqrt.memory.auto import auto_cap, parse_cap
from emsqrt.memory.pool import BudgetPool, left_of
from emsqrt.plan import Plan, Sink, StreamTarget, plan_to_json
from emsqrt.process_setup import require_arrow
from emsqrt.requirement import ESTIMATE_PROCESS_BYTES, MemoryRequirement
from emsqrt.text_engine.child import estimate_in_child, run_in_child
from emsqrt.text_engine.compile import try_compile
from sennit_core.errors import CapTooSmall, MemoryCapExceeded, SennitError, UsageError
from sennit_core.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.executor.execution import Execution, OnProgress
    from emsqrt.executor.pool import ExecutorPool
    from emsqrt.planner import PhysicalProgram
    from emsqrt.te import TeSchedule

# For `_after_fork`. Weak, so that an engine that is no longer used can be collected.
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
# A tenant's name is also the name of a folder: no dots and no slashes.
_TENANT = re.compile("[a-z0-9_-]{1,63}")
_TEXT_ESTIMATE_BYTES = 12 << 20
"""Leased from a shared pool to estimate a text program; a program of few files uses 9 MiB."""


class Engine:
    """Run plans. As a context manager it keeps its executor process warm between runs.

    Args:
        config: settings; those of the environment when None.
        pool: memory shared with other engines; each run leases its cap from it for its duration. No
            process is kept warm then, because it would hold memory that is not leased.
        tenant: on whose behalf plans run; each tenant spills into a folder of its own.
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
        # `_lock` guards `_pool`. `_keeps` is True inside `with`, unless memory is leased from a
        # shared pool; `_pool` is None until the first plan inside `with` needs an executor.
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
            plan: ends in a `Sink`; or the result of `lower_to_physical`.
            schedule: the result of `plan_te`: its cap is the run's cap. The memory shares are
                computed again from what the process leaves of the cap, which is measured by then.
            mem_cap: such as "64MiB"; the schedule's or the configured cap when None.
            in_process: run in this process instead of a child: the cap then bounds only what
                operators reserve, not what the process holds.
            deadline_seconds: cancel the run after this.
            on_progress: called with each new `Progress`; must return quickly.
            cancel: set it from another thread to stop waiting for the shared pool.
            resume: a name for the run. When the run is killed, its finished sorted runs are kept
                for a day; the next run with the same name, plan and inputs continues from them.

        Raises:
            CapTooSmall: raised before the first row is read, with a cap that is large enough.
            MemoryCapExceeded: the process reached its cap nevertheless.
            DeadlineExceeded, Cancelled: stopped while it waited for memory or ran.
        """
        if not isinstance(plan, Plan):
            plan = plan.logical
        cap_bytes = self.config.mem_cap_bytes if schedule is None else schedule.cap_bytes
        if mem_cap is not None:
            cap_bytes = parse_cap(mem_cap)
        if isinstance(plan, Sink) and isinstance(plan.target, StreamTarget):
            raise UsageError("run() does not read streams", hint="use Engine.batches")
        if deadline_seconds is not None and not deadline_seconds >= 0:
            raise UsageError(f"a deadline is a number of seconds from now, not {deadline_seconds}")
        started = time.monotonic()
        with (
            # Outside the lease: when the run was refused, it estimates the plan under a lease of
            # its own, which could wait forever for the memory of this one.
            self._requiring_whole_plan(plan, cap_bytes, deadline_seconds, cancel),
            self._leasing(cap_bytes, deadline_seconds, cancel),
        ):
            # Waiting for the lease counts towards the deadline.
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
        checkpoint = None if resume is None else self._checkpoint_place(resume)
        if in_process:
            from emsqrt.in_process import run_here

            return run_here(plan, cap_bytes, self.config.spill_dir, self.config.seed, checkpoint)
        # A plan over text runs without pyarrow, in a process with a much smaller floor.
        program = try_compile(plan, folder_of_work(), cap_bytes, self.config.spilling)
        if program is not None:
            report = run_in_child(
                program.scheduled(cap_bytes) | {"seed": self.config.seed, "resume": checkpoint},
                cap_bytes=cap_bytes,
                spill_dir=self.config.spill_dir,
                spilling=self.config.spilling,
                deadline_seconds=deadline_seconds,
                on_progress=on_progress,
            )
            return Manifest.from_json(report)
        with self._executing(
            plan, cap_bytes, deadline_seconds, on_progress, checkpoint
        ) as execution:
            return Manifest.from_json(execution.result())

    def batches(self, plan: Plan, *, mem_cap: str | int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield a plan's rows as batches; a slow reader slows the engine down.

        Args:
            plan: without a sink, or with an Arrow stream as its sink.
            mem_cap: such as "64MiB"; the configured cap when None.
        """
        with self.open_execution(plan, mem_cap=mem_cap) as execution:
            yield from execution.batches()

    @contextmanager
    def open_execution(
        self,
        plan: Plan,
        *,
        mem_cap: str | int | None = None,
        deadline_seconds: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Execution]:
        """Start a plan whose batches are read inside the `with`; leaving it stops the run.

        Args:
            plan: without a sink, or with an Arrow stream as its sink.
            mem_cap: such as "64MiB"; the configured cap when None.
            deadline_seconds: cancel the run after this.
            on_progress: called with each new `Progress`; must return quickly.
        """
        cap_bytes = self.config.mem_cap_bytes if mem_cap is None else parse_cap(mem_cap)
        if not isinstance(plan, Sink):
            plan = Sink(plan, StreamTarget("arrow"))
        with (
            self._requiring_whole_plan(plan, cap_bytes),
            self._leasing(cap_bytes),
            self._executing(plan, cap_bytes, deadline_seconds, on_progress) as execution,
        ):
            yield execution

    def estimate(
        self,
        plan: Plan,
        *,
        mem_cap: str | int | None = None,
        deadline_seconds: float | None = None,
        cancel: threading.Event | None = None,
    ) -> MemoryRequirement:
        """Return the smallest cap that a plan runs under, and its memory shares under another cap.

        A process like the one that would run the plan opens it; of the input, only headers and
        footers are read. With a shared pool, that process leases memory like any run: 12 MiB for a
        plan over text, 40 MiB where pyarrow is needed, and twice as much each time that this was
        too little.

        Args:
            plan: one without a sink is treated as one that yields batches.
            mem_cap: such as "64MiB"; the configured cap when None.
            deadline_seconds: cancel after this.
            cancel: set it from another thread to stop waiting for the shared pool.

        Raises:
            CapTooSmall: the tenant's share, or the pool, is too small for the process that would
                look.
            MemoryCapExceeded: even that much memory is too little to open the plan.
        """
        cap_bytes = self.config.mem_cap_bytes if mem_cap is None else parse_bytes(mem_cap)
        if not isinstance(plan, Sink):
            plan = Sink(plan, StreamTarget("arrow"))
        return self._estimate(plan, cap_bytes, deadline_seconds, cancel, find_longest=False)

    def _estimate(
        self,
        plan: Plan,
        cap_bytes: int,
        deadline_seconds: float | None,
        cancel: threading.Event | None,
        *,
        find_longest: bool,
    ) -> MemoryRequirement:
        """Estimate a plan's memory; `find_longest` also searches the input for its longest row."""
        program = try_compile(plan, folder_of_work(), cap_bytes, self.config.spilling)
        if program is None:
            # The cap in question may be too small even to open the plan, so the process that looks
            # gets at least this much.
            room_bytes = max(cap_bytes, ESTIMATE_PROCESS_BYTES)
            return self._estimate_with_arrow(
                plan, cap_bytes, room_bytes, deadline_seconds, cancel, find_longest=find_longest
            )

        def look(room_bytes: int | None, left_seconds: float | None) -> MemoryRequirement:
            spilling, spill_dir = self.config.spilling, self.config.spill_dir
            return estimate_in_child(
                program,
                cap_bytes,
                spilling,
                spill_dir,
                room_bytes,
                left_seconds,
                find_longest=find_longest,
            )

        if self._shared is None:
            return look(None, deadline_seconds)
        size_bytes = _TEXT_ESTIMATE_BYTES
        return self._shared.lease_enough(
            self._tenant, size_bytes, look, deadline_seconds=deadline_seconds, cancel=cancel
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """The ids of the warm processes."""
        return () if self._pool is None else self._pool.stats().pids

    def close(self) -> None:
        """Close the executor, if one is kept warm."""
        with self._lock:
            # `_keeps` is reset as well, so that no later plan opens another pool that is never
            # closed.
            pool, self._pool, self._keeps = self._pool, None, False
        # Outside the lock: closing waits for processes to end.
        if pool is not None:
            pool.close()

    def _forget_pool(self) -> None:
        """After a fork, drop the executors in the child: they belong to the parent process."""
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
        """Lease a run's cap from the shared pool, if there is one."""
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
        # A warm executor has the cap that it was opened with; a plan with a larger cap runs in a
        # process of its own, which ends with the run.
        kept = self._warm_pool()
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
    def _requiring_whole_plan(
        self,
        plan: Plan,
        cap_bytes: int,
        deadline_seconds: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[None]:
        """Raise the plan's own requirement when a run is refused for a smaller reason.

        A cap below what the libraries need is refused before the plan is opened, and the plan may
        need still more: so a process that runs nothing opens it, if memory allows such a process.
        The same goes for a cap in which not even planning fitted. A cap above the tenant's share is
        refused with the plan's requirement.
        """
        started = time.monotonic()
        # Such a cap would never be leased, so the request would not be queued but refused; find out
        # what the plan itself needs.
        if cap_bytes > self._limit_bytes:
            raise self._over_share(plan, cap_bytes, deadline_seconds, cancel)
        try:
            yield
        except CapTooSmall as error:
            from emsqrt.executor.entry import FLOOR_BYTES

            room_bytes = min(ESTIMATE_PROCESS_BYTES, auto_cap().cap_bytes)
            # Only the refusal for pyarrow's own memory comes before the plan is opened; any other
            # names what the whole plan needs.
            if error.needed_bytes != FLOOR_BYTES or room_bytes < FLOOR_BYTES:
                raise
            whole, left_seconds = None, left_of(deadline_seconds, started)
            # A failed estimate must not replace the refusal.
            with suppress(SennitError):
                whole = self._estimate_with_arrow(
                    plan, FLOOR_BYTES, room_bytes, left_seconds, cancel, find_longest=True
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
                needed = self._estimate(plan, cap_bytes, left_seconds, cancel, find_longest=True)
            # The plan would be admitted under this cap: then the run itself exceeded it, and no cap
            # is known that would be enough.
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
            least = self._estimate(plan, share_bytes, deadline_seconds, cancel, find_longest=True)
        except CapTooSmall as error:
            return CapTooSmall(share_bytes, error.needed_bytes, error.because)
        if least.cap_bytes > share_bytes:
            return CapTooSmall(share_bytes, least.cap_bytes, least.because)
        because = f"a run of {self._tenant} asks for that much of the shared pool"
        hint = (
            f"the plan itself needs {format_bytes(least.cap_bytes)}: "
            f"ask for no more than {format_bytes(share_bytes)}"
        )
        return CapTooSmall(share_bytes, cap_bytes, because, hint=hint)

    def _estimate_with_arrow(
        self,
        plan: Plan,
        cap_bytes: int,
        room_bytes: int,
        deadline_seconds: float | None,
        cancel: threading.Event | None,
        *,
        find_longest: bool = False,
    ) -> MemoryRequirement:
        """Estimate a plan in a process of `room_bytes`, or of as much as a shared pool leases."""

        def look(room_bytes: int, left_seconds: float | None) -> MemoryRequirement:
            request = {
                **self._request(plan),
                "estimateCapBytes": cap_bytes,
                "findLongest": find_longest,
            }
            with (
                self._open_pool(room_bytes) as pool,
                pool.submit("emsqrt.plan", request, deadline_seconds=left_seconds) as execution,
            ):
                return MemoryRequirement.from_json(execution.result())

        if self._shared is None:
            return look(room_bytes, deadline_seconds)
        from emsqrt.executor.entry import FLOOR_BECAUSE, FLOOR_BYTES

        if self._limit_bytes < FLOOR_BYTES:
            raise CapTooSmall(self._limit_bytes, FLOOR_BYTES, FLOOR_BECAUSE)
        return self._shared.lease_enough(
            self._tenant, FLOOR_BYTES, look, deadline_seconds=deadline_seconds, cancel=cancel
        )

    def _checkpoint_place(self, name: str) -> tuple[str, str]:
        """Return where a run of that name is stored: the spill folder and the name."""
        from emsqrt.spill.placement import default_spill_dir

        return str(self.config.spill_dir or default_spill_dir()), name

    def _warm_pool(self) -> ExecutorPool | None:
        """Return the pool of warm executors; open it when the first plan needs it."""
        with self._lock:
            if self._keeps and self._pool is None:
                self._pool = self._open_pool(self.config.mem_cap_bytes)
            return self._pool

    def _open_pool(self, cap_bytes: int) -> ExecutorPool:
        require_arrow("this plan")
        from emsqrt.executor.pool import ExecutorPool

        # One lease covers one process.
        size = self.config.max_parallel_tasks if self._shared is None else 1
        return ExecutorPool(size, memory_bytes=cap_bytes * size, spill_dir=self.config.spill_dir)


def _after_fork() -> None:
    for engine in tuple(_engines):
        engine._forget_pool()  # noqa: SLF001 - one module, two halves


os.register_at_fork(after_in_child=_after_fork)


def _tenant_folder(config: EngineConfig, tenant: str) -> Path:
    """Return a tenant's spill folder, a folder of its own below the configured one."""
    if not _TENANT.fullmatch(tenant):
        raise UsageError(
            f'"{tenant}" is no valid tenant name',
            hint="use a-z, 0-9, - and _, at most 63 characters",
        )
    from emsqrt.spill.placement import default_spill_dir

    return (config.spill_dir or default_spill_dir()) / tenant
