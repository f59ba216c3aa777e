"""The maintenance of a lake: its tasks, and what each does for one dataset or folder of objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lake.maintenance.compaction import RunChoice, RunLimits, small_runs
from lake.maintenance.maintenance import Maintenance
from lake.maintenance.scrub_task import ScrubTask
from lake.maintenance.tasks import KeyedTask, Task
from lake.statements.shard_statistics import unmeasured_shards

if TYPE_CHECKING:
    from lake import Lake
    from lake.statements.statements import Statements
    from lake.storage_options import StorageOptions

__all__ = ["open_maintenance"]

_SHARDS_MIN = 8
"""Fewer small shards cost a query less than the new version costs the readers of the history."""
_FOLDERS = tuple(f"{number:02x}" for number in range(256))


def open_maintenance(lake: Lake, statements: Statements, options: StorageOptions) -> Maintenance:
    """Return the maintenance of a lake, not yet started."""
    work = _Work(lake, statements, options.orphan_seconds)

    def datasets() -> tuple[str, ...]:
        return tuple(sorted(lake.catalog.ids()))

    keyed = partial(KeyedTask, tree=lake.tree, clock=lake.clock)
    tasks: list[Task] = [
        ScrubTask(lake.scrubber, options.scrub_days),
        keyed("compact", options.compact_seconds, datasets, work.compact),
        keyed("statistics", options.statistics_seconds, datasets, work.complete_statistics),
        keyed("expire", options.expire_seconds, datasets, work.expire),
        keyed(
            "cleanup",
            options.cleanup_seconds,
            lambda: tuple(sorted(lake.cleanup.PARTS)),
            lake.cleanup.run,
        ),
        keyed("sweep", options.sweep_seconds, lambda: _FOLDERS, work.sweep),
    ]

    def is_busy() -> bool:
        stats = lake.pool.stats()
        return bool(stats.waiting) or stats.busy >= stats.size

    return Maintenance(tasks, is_busy=is_busy, tidy=lake.retention.sweep_retired, clock=lake.clock)


class _Work:
    """What the tasks do for one key; each returns how much it changed."""

    def __init__(self, lake: Lake, statements: Statements, orphan_seconds: float) -> None:
        self._lake = lake
        self._statements = statements
        self._orphan_seconds = orphan_seconds

    def compact(self, dataset: str, check: Callable[[], None]) -> int:
        # One run, of at most 64 MiB, at a time: statements wait for the executor no longer.
        limits = RunLimits(runs_max=1, shards_min=_SHARDS_MIN)
        return self._rewrite(
            dataset, check, "compact", lambda head: small_runs(head.shards, limits)
        )

    def complete_statistics(self, dataset: str, check: Callable[[], None]) -> int:
        if self._lake.catalog.get(dataset).encrypted:  # it has only counts of NULL
            return 0
        return self._rewrite(dataset, check, "statistics", lambda head: unmeasured_shards(head)[:1])

    def expire(self, dataset: str, check: Callable[[], None]) -> int:
        del check
        rule = self._lake.storage.retention_rules.get(dataset)
        if not rule.keep or not self._is_ingested(dataset):
            return 0
        older = rule.older_than_seconds
        return len(self._lake.expire(dataset, keep=rule.keep, older_than_seconds=older))

    def sweep(self, folder: str, check: Callable[[], None]) -> int:
        del check
        self._lake.retention.sweep_retired()
        before = self._lake.clock.now() - self._orphan_seconds
        return len(self._lake.retention.sweep_older(folder, before))

    def _rewrite(
        self, dataset: str, check: Callable[[], None], name: str, choose: RunChoice
    ) -> int:
        commits = 0
        while self._is_ingested(dataset):
            execution = self._statements.rewrite(name, dataset, "", choose)
            if execution is None:
                break
            with execution:
                execution.result()
            commits += 1
            check()
        return commits

    def _is_ingested(self, dataset: str) -> bool:
        """Whether a dataset still exists, and has snapshots that this node makes."""
        info = self._lake.catalog.find(dataset)
        return info is not None and info.head is not None and info.node is None
