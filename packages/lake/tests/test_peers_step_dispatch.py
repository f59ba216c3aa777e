"""A step of a distributed query: the order of its results, and errors of the node that coordinates it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lake.peers.queries.distributed_query import DistributedQuery, DistributedTable
from lake.peers.queries.fragments import FragmentPiece, FragmentRequest
from lake.peers.queries.sent_rows import NOTHING_SENT, SentColumn, SentRows, SentTable
from lake.peers.queries.step_dispatch import Coordinator, RowsNotSent, StepDispatch, StepResult
from lake.peers.sql import Fragment, Unit
from lake.peers.transport.limits import ByteLimit
from lake.peers.transport.session import Piece
from lake.peers.transport.stop import Stop
from lake.statements.deadline import Deadline
from sennit_core.errors import TooLarge, Unavailable

UNITS = [f"s{number:03}" for number in range(300)]
"""More than an attempt has, so that there are two."""
FIRST = "s000"
BYTES_MAX = 1000
SPACE: Any = SimpleNamespace(check_disk=lambda _what, _size: None)


class Here:
    """A network of one node, which holds all shards."""

    def holders(self, name: str) -> list[str]:
        return ["here"]

    def known_holders(self, name: str) -> tuple[str, ...]:
        return ("here",)

    async def fetch(self, names: Collection[str]) -> None:
        raise AssertionError("nothing is missing")

    def alive(self) -> list[str]:
        return []

    def has_same_duckdb(self, node: str) -> bool:
        return True

    def may_receive(self, node: str, dataset: str, snapshot: str) -> bool:
        return True

    def name(self, node: str) -> str:
        return node

    async def session(self, node: str) -> Any:
        raise AssertionError("there is no other node")


class Away(Here):
    """A network whose other node holds all shards, and answers without an end."""

    def __init__(self) -> None:
        self.sent = 0

    def holders(self, name: str) -> list[str]:
        return ["there"]

    def alive(self) -> list[str]:
        return ["there"]

    async def session(self, node: str) -> Any:
        return self

    async def stream(
        self, request: object, body: bytes, **_options: object
    ) -> AsyncGenerator[Piece, None]:
        while True:
            self.sent += 100
            yield FragmentPiece(), bytes(100)
            await asyncio.sleep(0)


class LastFirst:
    """Runs fragments; the one with the first unit ends last. A result is the name of its first shard."""

    def __init__(self) -> None:
        self._is_other_done = threading.Event()

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        first = request.tables[0].objects[0]
        if first == FIRST:
            assert self._is_other_done.wait(30)
        yield first.encode()
        if first != FIRST:
            self._is_other_done.set()


class Ends(Here):
    """Two other nodes hold all shards. The first one fails, and then rows may go only to those of `readers`."""

    def __init__(self, readers: Collection[str]) -> None:
        self._readers = readers
        self.asked: dict[str, bytes] = {}

    def holders(self, name: str) -> list[str]:
        return ["first", "second"]

    def alive(self) -> list[str]:
        return ["first", "second"]

    def may_receive(self, node: str, dataset: str, snapshot: str) -> bool:
        assert (dataset, snapshot) == ("words", "7")
        return not self.asked or node in self._readers

    async def session(self, node: str) -> Any:
        async def stream(
            _request: object, body: bytes, **_options: object
        ) -> AsyncGenerator[Piece]:
            is_first = not self.asked
            self.asked[node] = body
            if is_first:
                raise Unavailable(node)
            yield FragmentPiece(), b"rows"

        return SimpleNamespace(stream=stream)


def run(
    folder: Path, placed: Here | None = None, sent: SentRows = NOTHING_SENT, units: int = 300
) -> StepResult:
    shards: Any = SimpleNamespace(
        dataset="d", id="1", shards=[SimpleNamespace(object=name, bytes=1) for name in UNITS]
    )
    chosen = tuple(Unit(name, {"t": (name,)}) for name in UNITS[:units])
    step = Fragment("r", "SELECT 1", "shard", ("t",), (), (), chosen, 1, 1, units)
    query = DistributedQuery("SELECT 1", [DistributedTable("t", shards)], "ann", 60)
    coordinator = Coordinator("here", LastFirst(), placed or Here(), SPACE)

    async def work() -> StepResult:
        dispatch = StepDispatch(
            coordinator, step, query, folder, Deadline(60), Stop(), ByteLimit(BYTES_MAX), sent
        )
        return await dispatch.run()

    return asyncio.run(work())


def test_results_are_in_the_order_of_their_units(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert [Path(file).read_text() for file in found.files] == [FIRST, "s256"]
    assert found.run is not None
    assert found.run.units == {"here": 300}


def test_a_result_that_cannot_be_written_ends_the_query(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "gone")


def test_an_answer_without_an_end_ends_at_the_limit_of_the_query(tmp_path: Path) -> None:
    network = Away()
    with pytest.raises(TooLarge, match="other nodes send"):
        run(tmp_path, network)
    # What came of the attempt that failed first does not count for the other one.
    assert network.sent <= 2 * (BYTES_MAX + 100)
    assert list(tmp_path.iterdir()) == []


WORDS = SentRows(
    (SentTable("__sennit_rows_0", (SentColumn("k", "BIGINT"),), (4,)),), b"rows", (("words", "7"),)
)


def test_rows_go_to_the_next_holder_only_if_it_may_have_them_then(tmp_path: Path) -> None:
    network = Ends(readers=("second",))
    found = run(tmp_path, network, WORDS, units=1)
    assert found.run is not None
    assert found.run.sent == {"first": 4, "second": 4}
    network = Ends(readers=())
    with pytest.raises(RowsNotSent):
        run(tmp_path, network, WORDS, units=1)
    assert network.asked == {"first": b"rows"}


def test_only_holders_that_may_have_the_rows_are_asked(tmp_path: Path) -> None:
    for readers, asked in ((("second",), {"second"}), ((), set[str]())):
        network = Ends(readers)
        network.asked["nobody"] = b""  # so that only these may have them from the beginning
        with nullcontext() if readers else pytest.raises(RowsNotSent):
            run(tmp_path, network, WORDS, units=1)
        assert set(network.asked) - {"nobody"} == asked
