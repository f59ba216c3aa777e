"""What a query may take, and on whose behalf it runs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["QueryLimits", "Requester"]


@dataclass(frozen=True, slots=True)
class Requester:
    """The user of a request.

    Args:
        name: users take turns at the executors by it.
        is_admin: whether a deadline may be longer than the limit.
    """

    name: str = ""
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits of queries that come over HTTP.

    Args:
        seconds: how long a query may take, from its request to its last byte; None for no limit.
        json_rows: rows of a JSON answer whose request does not say how many; None for all.
    """

    seconds: float | None = None
    json_rows: int | None = None

    def deadline_seconds(self, asked: float | None, requester: Requester) -> float | None:
        """Return how long a query may take: what was asked for, which only an admin may lengthen."""
        if asked is None or self.seconds is None:
            return self.seconds if asked is None else asked
        return asked if requester.is_admin else min(asked, self.seconds)

    def rows(self, asked: int | None, format_name: str) -> int | None:
        """Return after how many rows an answer is cut and marked as truncated; None for never."""
        return self.json_rows if asked is None and format_name == "json" else asked
