"""Open a node for `BackendContract`: real stores, a real pool, a job service with one more backend."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from elkyn import open_namespaces
from elytra.backends.table import BACKENDS, OpenBackend
from elytra.service.job_service import JobService
from elytra.testing.backend_contract import BackendWorld
from emsqrt.executor import ExecutorPool
from lake import Lake

__all__ = ["open_world"]


def open_world(  # noqa: PLR0913 - the last two by keyword
    folder: Path,
    owned: ExitStack,
    engine: str,
    open_backend: OpenBackend,
    worker_of: Callable[[Any], str],
    *,
    busy_count: Callable[[Any], int] | None = None,
    pids: Callable[[Any], tuple[int, ...]] | None = None,
) -> BackendWorld:
    """Open a node in a folder.

    Args:
        folder: An empty folder.
        owned: Closes the node.
        engine: The backend's name.
        open_backend: Opens it.
        worker_of: Returns one of its workers; may wait for it.
        busy_count: Returns how many tasks its workers run; None for the node's executors.
        pids: Returns their processes; None for the node's executors.
    """
    stores = open_namespaces(folder / "elkyn")
    owned.callback(stores.close)
    pool = owned.enter_context(ExecutorPool(2, memory_bytes=1 << 30, spill_dir=folder / "spill"))
    tree = stores["sys"]
    lake = owned.enter_context(Lake(folder, tree=tree, pool=pool))
    opened: list[Any] = []

    def opening(node: Any) -> Any:
        opened.append(open_backend(node))
        return opened[-1]

    jobs = JobService(tree, lake, pool, whole_bytes=0, backends={**BACKENDS, engine: opening})
    owned.callback(jobs.close)
    (backend,) = opened

    def kill() -> None:
        for pid in pool.stats().pids if pids is None else pids(backend):
            with suppress(ProcessLookupError):  # its end is not known here yet
                os.kill(pid, signal.SIGKILL)

    def busy() -> int:
        return pool.stats().busy if busy_count is None else busy_count(backend)

    return BackendWorld(jobs, lake, tree, folder, engine, backend, worker_of(backend), busy, kill)
