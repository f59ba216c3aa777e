"""Tasks that another node asks for: what is checked before any of it is read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.catalog.node_key import NodeKey
from lake.peers.changes.claims import Claims
from lake.peers.jobs import server as job_server
from lake.peers.jobs.messages import (
    MESSAGES,
    TASK_BYTES_MAX,
    TaskDone,
    TaskPiece,
    TaskProgress,
    TaskRequest,
    TaskShards,
)
from lake.peers.jobs.server import JobServer, TaskCall
from lake.peers.transport.limits import Slots
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.session import Piece
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import BadInput, Busy, Denied, NotFound, TooLarge
from sennit_core.hashing import sha256_hex
from sennit_core.records import Progress

NOW = 1_000_000.0
TEXT = b'{"a": "task"}'


@dataclass
class Runner:
    """Answers with one piece."""

    calls: list[TaskCall] = field(default_factory=list)
    wait: threading.Event | None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(
        self, call: TaskCall, stop: Stop, progressed: Callable[[Progress], object]
    ) -> Iterator[Piece]:
        self.calls.append(call)
        stop.attach(self.stopped.set)
        progressed(Progress(rows=3))
        if self.wait is not None:
            self.wait.wait(20)
        yield TaskPiece(), b"rows"
        yield TaskDone(call.attempt, rows_in=3), b""


class Shared:
    """What Oslo shares: two shards of one dataset, with Rome alone."""

    def may_compute(self, peer: str, dataset: str, names: Collection[str]) -> bool:
        return dataset == "trips" and set(names) <= {"s1", "s2"}


class World:
    def __init__(self, folder: Path) -> None:
        self.oslo, self.rome, self.eve = (NodeKey(folder / n) for n in ("oslo", "rome", "eve"))
        self.runner = Runner()
        claims = Claims(self.oslo, "net")
        self.server = JobServer(
            self.runner, Shared(), claims, lambda: NOW, lambda node: "rome"  # type: ignore[arg-type]
        )  # fmt: skip

    def request(
        self, *, key: NodeKey | None = None, user: str = "ada", now: float = NOW, **members: Any
    ) -> TaskRequest:
        """A request with a claim that is right, unless something is changed."""
        shards = (TaskShards("trips", ("s1", "s2")),)
        request = replace(TaskRequest("a1", sha256_hex(TEXT), shards, 30.0), **members)
        claims = Claims(key or self.rome, "net")
        return replace(request, claim=claims.sign(Requester(user), self.oslo.id, request, now))

    def serve(
        self, request: TaskRequest, body: bytes = TEXT, peer: NodeKey | None = None
    ) -> list[Piece]:
        async def collect() -> list[Piece]:
            session: Any = SimpleNamespace(peer=(peer or self.rome).id)
            handler: Any = self.server.handlers()[TaskRequest]
            async with asyncio.timeout(20):
                return [piece async for piece in handler(session, request, body)]

        return asyncio.run(collect())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_task_runs_for_the_user_of_the_claim(world: World) -> None:
    pieces = world.serve(world.request())
    assert pieces == [(TaskPiece(), b"rows"), (TaskDone("a1", rows_in=3), b"")]
    [call] = world.runner.calls
    assert (call.user.name, call.user.node, call.shown_as) == ("ada", world.rome.id, "ada@rome")
    assert (call.shards, call.text, call.seconds) == ({"trips": ("s1", "s2")}, TEXT, 30.0)
    assert not call.user.is_trusted


def test_what_is_not_shared_with_the_node_is_not_found(world: World) -> None:
    for shards in (
        (TaskShards("trips", ("s1", "s3")),),
        (TaskShards("secret", ("s1",)),),
        (TaskShards("trips", ("s1",)), TaskShards("secret", ("s1",))),
    ):
        with pytest.raises(NotFound):
            world.serve(world.request(shards=shards))
    assert not world.runner.calls


def test_a_claim_is_for_one_task_of_one_node_in_its_time(world: World) -> None:
    right = world.request()
    for request, peer in (
        (replace(right, claim=None), world.rome),
        (right, world.eve),  # replayed by another member
        (world.request(key=world.eve), world.rome),
        (replace(right, seconds=31.0), world.rome),
        (replace(right, shards=(TaskShards("trips", ("s1",)),)), world.rome),
        (world.request(now=NOW - 3600), world.rome),
    ):
        with pytest.raises(Denied):
            world.serve(request, peer=peer)
    with pytest.raises(BadInput, match="not the one that was signed"):
        world.serve(right, b'{"another": "task"}')
    assert not world.runner.calls


def test_a_request_out_of_bounds_is_refused(world: World) -> None:
    many = tuple(f"s{n}" for n in range(2001))
    for members in (
        {"shards": ()},
        {"shards": (TaskShards("trips", many),)},
        {"shards": tuple(TaskShards(f"d{n}", ("s",)) for n in range(65))},
        {"seconds": 0.0},
        {"seconds": 3601.0},
        {"attempt": "a" * 65},
    ):
        with pytest.raises(BadInput):
            world.serve(world.request(**members))
    huge = bytes(TASK_BYTES_MAX + 1)
    with pytest.raises(TooLarge):
        world.serve(world.request(task=sha256_hex(huge)), huge)
    assert not world.runner.calls


def test_a_task_that_waits_sends_signs_of_life(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_server, "_RENEW_SECONDS", 0.01)
    world.runner.wait = threading.Event()

    async def collect() -> list[Piece]:
        session: Any = SimpleNamespace(peer=world.rome.id)
        handler: Any = world.server.handlers()[TaskRequest]
        found: list[Piece] = []
        async for piece in handler(session, world.request(), TEXT):
            found.append(piece)
            if len(found) == 3 and world.runner.wait is not None:
                world.runner.wait.set()
        return found

    pieces = asyncio.run(collect())
    assert pieces[2] == (TaskProgress(Progress(rows=3)), b"")
    assert pieces[-1][0] == TaskDone("a1", rows_in=3)


def test_a_task_that_is_not_wanted_any_more_is_stopped(world: World) -> None:
    world.runner.wait = world.runner.stopped

    async def leave() -> None:
        session: Any = SimpleNamespace(peer=world.rome.id)
        handler: Any = world.server.handlers()[TaskRequest]
        asking = asyncio.ensure_future(anext(handler(session, world.request(), TEXT)))
        while not world.runner.calls:  # noqa: ASYNC110 - the state of a thread has no event
            await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(leave())
    assert world.runner.stopped.is_set()


def test_one_node_cannot_use_all_slots(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.server, "_slots", Slots("tasks", total=4, of_peer=0))
    with pytest.raises(Busy):
        world.serve(world.request())


CODEC = MessageCodec(MESSAGES)
NUMBERS = st.integers(0, (1 << 53) - 1)
SHARDS = st.builds(
    TaskShards, st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3).map(tuple)
)
SENT = st.one_of(
    st.builds(
        TaskRequest, st.text(max_size=8), st.text(max_size=8),
        st.lists(SHARDS, max_size=3).map(tuple), st.floats(0.1, 3600),
    ),
    st.builds(TaskDone, st.text(max_size=8), NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(TaskProgress, st.builds(Progress, bytes_done=NUMBERS, rows=NUMBERS)),
)  # fmt: skip


@given(SENT, st.binary(max_size=20))
def test_messages_arrive_as_they_were_sent(message: Message, body: bytes) -> None:
    found, arrived, _ = CODEC.decode(CODEC.encode(message, body))
    assert (found, bytes(arrived)) == (message, body)
