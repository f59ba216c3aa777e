"""Reads restricted datasets at their writers, for statements of this node's users."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lake.distributed.remote_shards import RestrictedColumns
from lake.peers.queries.fragments import FragmentPiece
from lake.peers.queries.restricted import (
    SQL_BYTES_MAX,
    DescribeRestricted,
    RestrictedDescription,
    RestrictedQuery,
    RestrictedTable,
)
from lake.peers.transport.limits import ByteLimit
from lake.peers.transport.stop import Stop
from lake.sql.types import quoted
from lake.statements.limits import Requester
from sennit_core.errors import Cancelled, DeadlineExceeded, StorageFull, Unavailable, Unsupported
from sennit_core.private_files import FILE_MODE

if TYPE_CHECKING:
    from lake.objects.disk_space import DiskSpace
    from lake.peers.changes.claims import Claims
    from lake.peers.transport.session import Session

__all__ = ["RestrictedClient"]

T = TypeVar("T")
_DESCRIBE_SECONDS = 30.0
_READ_SECONDS = 300.0


class RestrictedNetwork(Protocol):
    """What a reader needs of the network."""

    claims: Claims

    def wall(self) -> float:
        """Return Unix seconds."""
        ...

    async def session(self, node: str) -> Session:
        """Return a session with a node."""
        ...


class RestrictedClient:
    """See `lake.distributed.remote_shards.RestrictedRows`; for any thread but the loop's.

    Args:
        submit: Runs a coroutine in the loop.
        network: Returns the network; None while the node is in none.
        space: The disk.
        bytes_max: Bytes that may come for one statement; 0 for no limit.
    """

    def __init__(
        self,
        submit: Callable[[Coroutine[Any, Any, Any]], Future[Any]],
        network: Callable[[], RestrictedNetwork | None],
        space: DiskSpace,
        bytes_max: int,
    ) -> None:
        self._submit = submit
        self._network = network
        self._space = space
        self._bytes_max = bytes_max

    def describe(self, dataset: str, writer: str, user: Requester) -> RestrictedColumns:
        """Return what a user sees of a dataset."""
        found = self._run(self._describe(dataset, writer, user), _DESCRIBE_SECONDS)
        return RestrictedColumns(dataset, writer, user, found.snapshot, found.columns, found.secret)

    def read(self, table: RestrictedColumns, place: Path, bytes_max: int | None) -> None:
        """Write the rows that a user sees to a Parquet file."""
        columns = ", ".join(map(quoted, table.columns.names))
        sql = f"SELECT {columns} FROM t"
        if len(sql.encode()) > SQL_BYTES_MAX:
            raise Unsupported(f"reading {len(table.columns)} columns of another node at once")
        query = RestrictedQuery(
            sql, (RestrictedTable("t", table.dataset, table.snapshot),), "parquet", _READ_SECONDS
        )
        self._run(self._receive(query, table, place, bytes_max), _READ_SECONDS)

    def query(
        self,
        sql: str,
        tables: Mapping[str, RestrictedColumns],
        place: Path,
        seconds: float,
        stop: Stop,
    ) -> None:
        """Write what a query for a user returns at the writer to a file."""
        if len(sql.encode("utf-8", "surrogatepass")) > SQL_BYTES_MAX:
            raise Unsupported(f"sending a query of more than {SQL_BYTES_MAX} bytes to another node")
        named = tuple(
            RestrictedTable(name, each.dataset, each.snapshot) for name, each in tables.items()
        )
        first = next(iter(tables.values()))
        query = RestrictedQuery(sql, named, "arrow", seconds)
        self._run(self._receive(query, first, place, None), seconds, stop)

    async def _describe(self, dataset: str, writer: str, user: Requester) -> RestrictedDescription:
        network = self._required(writer)
        message = DescribeRestricted(dataset)
        claim = network.claims.sign(user, writer, message, network.wall())
        session = await network.session(writer)
        found, _ = await session.call(
            replace(message, claim=claim), timeout_seconds=_DESCRIBE_SECONDS
        )
        if not isinstance(found, RestrictedDescription):
            raise _wrong(writer)
        return found

    async def _receive(
        self, query: RestrictedQuery, table: RestrictedColumns, place: Path, bytes_max: int | None
    ) -> None:
        network = self._required(table.writer)
        claim = network.claims.sign(table.user, table.writer, query, network.wall())
        session = await network.session(table.writer)
        pieces = session.stream(replace(query, claim=claim), timeout_seconds=query.seconds)
        size = 0
        # The rows that came before for the same statement are in the same folder.
        before = sum(each.stat().st_size for each in place.parent.iterdir())
        limit = ByteLimit(self._bytes_max, before)
        await asyncio.to_thread(place.touch, FILE_MODE)
        async with aclosing(pieces):
            with place.open("wb") as file:
                async for message, body in pieces:
                    if not isinstance(message, FragmentPiece):
                        raise _wrong(table.writer)
                    limit.add(len(body))
                    size += len(body)
                    if bytes_max is None:
                        self._space.check_disk("rows of another node", len(body))
                    elif size > bytes_max:
                        raise StorageFull("the memory for decrypted data", size, bytes_max)
                    await asyncio.to_thread(file.write, body)

    def _required(self, writer: str) -> RestrictedNetwork:
        network = self._network()
        if network is None:
            raise Unavailable(f"node {writer[:16]}", hint="this node is in no network")
        return network

    def _run(self, work: Coroutine[Any, Any, T], seconds: float, stop: Stop | None = None) -> T:
        future: Future[T] = self._submit(work)
        if stop is not None:
            stop.attach(future.cancel)
        try:
            return future.result(seconds)
        except FutureTimeout:
            future.cancel()
            raise DeadlineExceeded("reading rows of another node", seconds) from None
        except FutureCancelled:
            raise Cancelled("the query") from None


def _wrong(writer: str) -> Unavailable:
    return Unavailable(f"node {writer[:16]}", hint="it sent a wrong answer")
