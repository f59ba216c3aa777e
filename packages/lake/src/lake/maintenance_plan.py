"""The maintenance of a lake: its tasks, and what each does for one dataset or folder of objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lake.compaction import RunLimits
from lake.maintenance import Maintenance
from lake.maintenance_tasks import KeyedTask, Task
from lake.scrub_task import ScrubTask

if TYPE_CHECKING:
    from lake import Lake
    from lake.statements import Statements
    from lake.storage_options import StorageOptions

__all__ = ["open_maintenance"]

_SHARDS_MIN = 8
"""Fewer small shards cost a query less than the new version costs the readers of the history."""
_FOLDERS = tuple(f"{number:02x}" for number in range(256))


def open_maintenance(lake: Lake, statements: Statements, options: StorageOptions) -> Maintenance:
    """Return the maintenance of a lake, not yet started."""
    clock = lake.clock

    def keyed(
        name: str,
        period_seconds: float,
        work: Callable[[str, Callable[[], None]], int],
        keys: Callable[[], tuple[str, ...]] = lambda: tuple(sorted(lake.catalog.ids())),
    ) -> Task:
        return KeyedTask(name, period_seconds, keys, work, tree=lake.tree, clock=clock)

    def compact(dataset: str, check: Callable[[], None]) -> int:
        commits = 0
        # One run, of at most 64 MiB, at a time: statements wait for the executor no longer.
        limits = RunLimits(runs_max=1, shards_min=_SHARDS_MIN)
        while _is_ingested(lake, dataset):
            execution = statements.compact(dataset, "", limits)
            if execution is None:
                break
            with execution:
                execution.result()
            commits += 1
            check()
        return commits

    def expire(dataset: str, check: Callable[[], None]) -> int:
        del check
        rule = lake.storage.retention_rules.get(dataset)
        if not rule.keep or not _is_ingested(lake, dataset):
            return 0
        older = rule.older_than_seconds
        return len(lake.expire(dataset, keep=rule.keep, older_than_seconds=older))

    def sweep(folder: str, check: Callable[[], None]) -> int:
        del check
        lake.retention.sweep_retired()
        before = clock.now() - options.orphan_seconds
        return len(lake.retention.sweep_older(folder, before))

    def is_busy() -> bool:
        stats = lake.pool.stats()
        return bool(stats.waiting) or stats.busy >= stats.size

    tasks = [
        ScrubTask(lake.scrubber, options.scrub_days),
        keyed("compact", options.compact_seconds, compact),
        keyed("expire", options.expire_seconds, expire),
        keyed("sweep", options.sweep_seconds, sweep, lambda: _FOLDERS),
    ]
    return Maintenance(tasks, is_busy=is_busy, tidy=lake.retention.sweep_retired, clock=clock)


def _is_ingested(lake: Lake, dataset: str) -> bool:
    """Return whether a dataset still exists and has snapshots; a linked file has none."""
    info = lake.catalog.find(dataset)
    return info is not None and info.head is not None
