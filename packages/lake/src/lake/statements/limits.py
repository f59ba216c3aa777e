"""Limits of queries, and the user for whom a query runs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["QueryLimits", "Requester"]


@dataclass(frozen=True, slots=True)
class Requester:
    """The user of a request.

    Args:
        name: the user name, by which executors are shared fairly.
        is_admin: whether a deadline may exceed the limit.
        may_write: whether a statement may change datasets.
        is_owner: whether the request has the admin token of the data folder, which no issued token
            is.
        role: the role, for access policies; "" for none.
        node: the id of the node whose user it is; "" for this one. Nothing that is said of users of
            this node is true of a user of another one (`lake.distributed.foreign_users`).
    """

    name: str = ""
    is_admin: bool = False
    may_write: bool = False
    is_owner: bool = False
    role: str = ""
    node: str = ""

    @property
    def quota_key(self) -> str:
        """Whose quota counts for statements: a node's for all of its users, as it says who they are."""
        return f"*@{self.node}" if self.node else self.name

    @property
    def is_trusted(self) -> bool:
        """Whether no policy applies: to admins, and to the process that opened the lake itself."""
        return not self.node and (self.is_admin or not (self.name or self.role))


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits of queries over HTTP.

    Args:
        seconds: time limit of a query, from its request to its last byte; None for no limit.
        json_rows: row limit of JSON results without an explicit limit; None for all rows.
        engine: engine of queries that name none.
    """

    seconds: float | None = None
    json_rows: int | None = None
    engine: str = "auto"

    def deadline_seconds(self, asked: float | None, requester: Requester) -> float | None:
        """Return a query's time limit: the requested one; only an admin may exceed the default."""
        if asked is None or self.seconds is None:
            return self.seconds if asked is None else asked
        return asked if requester.is_admin else min(asked, self.seconds)

    def rows(self, asked: int | None, format_name: str) -> int | None:
        """Return the number of rows after which a result is truncated; None for no limit."""
        return self.json_rows if asked is None and format_name == "json" else asked
