"""Parts of distributed queries that a node runs over the shards that it holds.

The node that asks sends SQL and names datasets, snapshots and shards. This node checks that each shard is
of a dataset that it shares with the asking node, and then runs the SQL as it would a user's: the statement
is checked, the executor is locked down, and only these shards can be read, and the rows that came with it
(`lake.peers.queries.sent_rows`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lake.peers.queries.sent_rows import SentTable, check_sent, written_rows
from lake.peers.sharing.shared_index import SharedIndex
from lake.peers.transport.messages import BODY_BYTES_MAX, Message
from lake.peers.transport.session import Piece, Session
from lake.peers.transport.stop import SECONDS_MAX, Stop
from sennit_core.errors import BadInput, Corrupt, NotFound
from sennit_core.records import Record

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake.catalog.catalog import Catalog
    from lake.statements.tables import StatementTables

__all__ = [
    "MESSAGES",
    "FragmentPiece",
    "FragmentRequest",
    "FragmentRunner",
    "FragmentTable",
    "LocalFragments",
    "serve_fragment",
    "stream_messages",
    "stream_pieces",
]

OBJECTS_MAX = 2000
"""Shards of a request; their ids are 64 digits each, and a head is bounded."""
_TABLES_MAX = 64
_QUEUED = 4
_DRAIN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class FragmentTable(Record):
    """A table of a fragment.

    Args:
        name: As it is written in the SQL.
        dataset: Id of the dataset.
        snapshot: Id of the snapshot.
        objects: The shards that are read; all those of the snapshot if the table is read whole.
    """

    name: str
    dataset: str
    snapshot: str
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FragmentRequest(Message):
    """Asks the receiver to run a query over some of its shards; answered by an Arrow IPC stream.

    Args:
        sql: One query.
        tables: The tables that it reads.
        user: The user at the asking node; executors are shared fairly between users.
        seconds: Its time limit.
        sent: Further tables that it reads, whose rows are the body.
    """

    kind: ClassVar[str] = "fragment"
    sql: str
    tables: tuple[FragmentTable, ...]
    user: str
    seconds: float
    sent: tuple[SentTable, ...] = ()

    def check(self, body: bytes) -> None:
        """Refuse a request that no node of this version makes.

        Args:
            body: The rows that come with it.

        Raises:
            BadInput: It is too large, or the rows are not those that it names.
        """
        objects = sum(len(table.objects) for table in self.tables)
        if objects > OBJECTS_MAX or len(self.tables) > _TABLES_MAX:
            raise BadInput("a fragment", reason=f"it has {objects} shards")
        if not 0 < self.seconds <= SECONDS_MAX:
            raise BadInput("a fragment", reason=f"its time limit is {self.seconds} seconds")
        check_sent(self.sent, body, [table.name for table in self.tables])


@dataclass(frozen=True, slots=True)
class FragmentPiece(Message):
    """Bytes of the result, in the body."""

    kind: ClassVar[str] = "fragment-piece"


MESSAGES: tuple[type[Message], ...] = (FragmentRequest, FragmentPiece)


class FragmentRunner(Protocol):
    """Runs a fragment somewhere: on this node, or on a peer; `lake.distributed.cluster_queries` runs them on Ray."""

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        """Yield the result as pieces of an Arrow IPC stream; blocks its thread.

        Args:
            request: The fragment.
            stop: Stops it.
            body: The rows that come with it.
        """
        ...


class LocalFragments:
    """Runs fragments in this node's executors.

    Args:
        catalog: The datasets.
        tables: Makes tables of executor requests, and leases their shards.
        pool: The executors.
        staging: Folder for rows that come with fragments.
    """

    def __init__(
        self, catalog: Catalog, tables: StatementTables, pool: ExecutorPool, staging: Path
    ) -> None:
        self._staging = staging
        self._catalog = catalog
        self._tables = tables
        self._pool = pool

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        """Yield the result; as of `FragmentRunner`.

        Raises:
            BadInput: The rows that come with it are not what they should be.
            NotFound: A shard is not one of its snapshot, or is not here.
            SennitError: The error of the query.
        """
        request.check(body)
        with (
            self.held(request) as tables,
            written_rows(request.sent, body, self._staging) as sent,
            self._pool.submit(
                "lake.sql",
                {"sql": request.sql, "tables": tables, "format": "arrow", **sent},
                deadline_seconds=request.seconds,
                user=request.user,
                restartable=True,
            ) as execution,
        ):
            stop.attach(execution.cancel)
            try:
                for payload in execution.payloads():
                    for start in range(0, len(payload), BODY_BYTES_MAX):
                        yield bytes(payload[start : start + BODY_BYTES_MAX])
                execution.result()
            except Corrupt as error:
                # Another holder answers; replication fetches an intact copy for the next query.
                self._tables.repair.set_aside(error, tables)
                raise

    @contextmanager
    def held(self, request: FragmentRequest) -> Iterator[list[dict[str, Any]]]:
        """Lease the shards of a request; return its tables in the form of executor requests."""
        holds = []
        try:
            tables = []
            for each in request.tables:
                purges = self._catalog.rewriter.purges
                snapshot = self._catalog.manifest(each.dataset, each.snapshot).snapshot
                wanted = set(each.objects)
                shards = tuple(s for s in snapshot.shards if s.object in wanted)
                if len({shard.object for shard in shards}) != len(wanted):
                    raise NotFound("shard of a fragment", each.dataset, suggestion=None)
                table, hold = self._tables.hold_snapshot(replace(snapshot, shards=shards), purges)
                holds.append(hold)
                # No node fetches the writer's own shards: a missing one is an error.
                table.pop("writer", None)
                tables.append({**table, "name": each.name, "id": each.dataset})
            yield tables
        finally:
            for hold in holds:
                self._tables.release(hold)


async def serve_fragment(
    runner: FragmentRunner,
    index: SharedIndex,
    session: Session,
    request: FragmentRequest,
    body: bytes,
) -> AsyncGenerator[Piece, None]:
    """Run a fragment for a peer.

    Args:
        runner: Runs it.
        index: Knows what is shared with a peer.
        session: The peer.
        request: The fragment.
        body: The rows that come with it.
    """
    request.check(body)
    for table in request.tables:
        # A table without shards has a schema too.
        if not index.may_read(session.peer, table.dataset, table.snapshot) or not all(
            index.may_send(session.peer, table.dataset, name) for name in table.objects
        ):
            raise NotFound("shard of a fragment", session.peer[:16], suggestion=None)
    asked = replace(request, user=f"{request.user[:64]}@{session.peer[:16]}")
    async with aclosing(stream_pieces(lambda stop: runner.run(asked, stop, body))) as pieces:
        async for piece in pieces:
            yield piece


async def stream_pieces(run: Callable[[Stop], Iterator[bytes]]) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of a result that a thread makes.

    Args:
        run: Makes them; its argument stops it.
    """
    made = stream_messages(lambda stop: ((FragmentPiece(), piece) for piece in run(stop)))
    async with aclosing(made) as pieces:
        async for piece in pieces:
            yield piece


async def stream_messages(
    run: Callable[[Stop], Iterator[Piece]],
    idle: tuple[float, Callable[[], Piece]] | None = None,
) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of an answer that a thread makes.

    Args:
        run: Makes them; its argument stops it.
        idle: After how many seconds without a piece another one is sent, and what makes that.
    """
    stop = Stop()
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Piece | None](maxsize=_QUEUED)

    def work() -> None:
        # In one thread, as the executor's pieces are waited for. Sending is slowed down to what the
        # peer accepts by the queue.
        try:
            for piece in run(stop):
                asyncio.run_coroutine_threadsafe(queue.put(piece), loop).result()
        finally:
            asyncio.run_coroutine_threadsafe(queue.put(None), loop).result()

    working = asyncio.create_task(asyncio.to_thread(work))
    working.add_done_callback(_note_end)
    seconds, make_idle = idle or (None, None)
    try:
        while True:
            try:
                async with asyncio.timeout(seconds):
                    piece = await queue.get()
            except TimeoutError:
                assert make_idle is not None, "without it there is no time limit"
                yield make_idle()
                continue
            if piece is None:
                break
            yield piece
        await working
    finally:
        stop.stop()
        while not working.done():  # so that the thread is not left waiting for room
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await queue.get()


def _note_end(working: asyncio.Task[None]) -> None:
    # Its error is raised where it is awaited; after a stop, which led to it, it is not.
    if not working.cancelled():
        working.exception()
