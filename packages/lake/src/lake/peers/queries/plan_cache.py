"""Plans of distributed queries that are repeated: planning costs more CPU than many a part of a query.

A plan depends on the text, the snapshots, where their shards are, and what nodes can do, so the key has all of that,
and a plan that is found is the one that would be made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lake.peers.sql import DistributedPlan

__all__ = ["PlanCache"]

_PLANS_MAX = 64
_TEXT_MAX = 16 << 10
_SHARDS_MAX = 2000
"""A plan, and its key, name each shard; so 64 of them have at most some 20 MiB."""


class PlanCache:
    """The plans that were used last; for all threads."""

    def __init__(self) -> None:
        self._plans: OrderedDict[Hashable, DistributedPlan] = OrderedDict()
        self._lock = Lock()

    def find(self, key: Hashable) -> DistributedPlan | None:
        """Return the plan of a key; None if it is not kept."""
        with self._lock:
            plan = self._plans.get(key)
            if plan is not None:
                self._plans.move_to_end(key)
            return plan

    def put(self, key: Hashable, plan: DistributedPlan, shards: int) -> None:
        """Keep a plan, unless it is large.

        Args:
            key: What it depends on.
            plan: The plan.
            shards: The number of shards of its tables.
        """
        if len(plan.sql) > _TEXT_MAX or shards > _SHARDS_MAX:
            return
        with self._lock:
            self._plans[key] = plan
            self._plans.move_to_end(key)
            if len(self._plans) > _PLANS_MAX:
                self._plans.popitem(last=False)
