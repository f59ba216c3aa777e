"""What a caller asks of `lake.statements.statements`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester

__all__ = ["StatementRequest"]


@dataclass(frozen=True, slots=True)
class StatementRequest:
    """A statement, and how it is to be run.

    Args:
        sql: One statement over datasets, by name or id.
        params: A list for `?` and `$1`, a dict for `$name`.
        arrow_params: Instead of `params`, an Arrow IPC stream whose columns are the values, and the
            number of the row to use. It may come from a client: only executors read it.
        format: Of the result: `arrow` (IPC stream), `json`, `csv`, `jsonl`, `parquet` or `xlsx`.
        max_rows: Row limit of a query; a longer result is cut and marked `truncated`.
        deadline_seconds: Time limit of the executors, after which the statement is stopped and a
            change is not made.
        engine: `duckdb`; `ray`, which is DuckDB at the workers of a Ray cluster; `emsqrt`, which stays within the executor's memory cap for any query; or
            `auto`, which retries with EM-√ if DuckDB runs out of memory before the first byte of
            its result was sent.
        user: The user, who is the author of a change; executors are shared fairly between users.
        role: The user's role, for access policies; they apply unless user and role are "".
        node: The id of the node whose user it is; "" for this one.
        read_only: Whether to refuse a statement that is no query, with `Denied`.
        use_cache: Whether the result of a query may come from the cache, and be kept there.
        priority: `interactive`, or `batch` to wait while interactive statements do.
        describe: Whether to return the columns of a query without running it; parameters are not
            needed for that.
        allow_partial: Whether a query may leave out shards that no node has which can be reached; its
            report then says so in `missing`.
        returned_bytes_max: Limit of the size of what RETURNING returns, if it is sent to another node.
        queue: Whether an INSERT into a dataset that another node writes waits here if that is away.
        stop: Stops it while it starts, which may be long if other nodes compute parts of it: until
            then there is nothing else to cancel.
    """

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    arrow_params: tuple[bytes, int] | None = None
    format: str = "arrow"
    max_rows: int | None = None
    deadline_seconds: float | None = None
    engine: str = "auto"
    user: str = ""
    role: str = ""
    node: str = ""
    read_only: bool = False
    use_cache: bool = True
    describe: bool = False
    priority: str = "interactive"
    allow_partial: bool = False
    returned_bytes_max: int | None = None
    queue: bool = False
    stop: Stop | None = None

    @property
    def requester(self) -> Requester:
        """The user, as policies know them."""
        return Requester(
            self.user,
            # A role at another node is none here.
            is_admin=self.role == "admin" and not self.node,
            role=self.role,
            node=self.node,
        )
