"""Why something is not distributed. These never leave the planner: each becomes a reason in the plan."""

from __future__ import annotations

__all__ = ["NotDistributed", "NotSent"]


class NotDistributed(Exception):
    """A query, or a block of one, for which no rule proves that parts of it can run on shards.

    Args:
        reason: Why, as part of a sentence for EXPLAIN.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotSent(NotDistributed):
    """Rows that a fragment reads cannot be sent along with it."""
