"""Distributed queries that are stopped, and nodes that die or hang while they run a part."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pytest

from lake.peers.copies.placement import Placement
from lake.peers.data import DataParts
from lake.peers.queries.fragments import FragmentRequest, FragmentRunner
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import Cancelled, DeadlineExceeded

from .real_offices import Office, big, office
from .served_lake import make_app
from .test_peers_service import eventually

pytestmark = pytest.mark.slow  # real nodes with executors, and times of the protocols
ROWS = 1_000_000
HEAVY = "SELECT sum(length(md5(repeat(s, 2000)))) FROM heavy WHERE v >= 0"
"""Half a minute for one executor."""


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[dict[str, Office]]:
    with office(tmp_path, "oslo") as oslo, office(tmp_path, "rome", capacity=0) as rome:
        rome.peers.join(oslo.peers.invite())
        rows = [str(number) for number in range(ROWS)]
        oslo.lake.append("heavy", pa.table({"v": list(range(ROWS)), "s": rows}))
        oslo.peers.share("heavy", None)
        eventually(lambda: "heavy" in rome.names())
        yield {"oslo": oslo, "rome": rome}


def is_busy(found: Office) -> bool:
    return found.lake.pool.stats().busy > 0


def in_thread(work: Callable[[], object]) -> tuple[Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    thread = Thread(target=run)
    thread.start()
    return thread, errors


def test_a_query_that_is_stopped_ends_at_all_nodes(offices: dict[str, Office]) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    thread, errors = in_thread(lambda: rome.query(HEAVY))
    eventually(lambda: is_busy(oslo))
    ada = Requester("ada", is_admin=True)
    [running] = rome.lake.running.list(ada)
    rome.lake.running.stop(running.id, ada)
    thread.join(20)
    assert isinstance(errors[0], Cancelled)
    eventually(lambda: not is_busy(oslo))
    assert not list(rome.lake.staging.glob("distributed-*"))


def test_a_deadline_ends_the_parts_at_other_nodes(offices: dict[str, Office]) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    with pytest.raises(DeadlineExceeded):
        rome.lake.sql(HEAVY, deadline_seconds=2.0)
    eventually(lambda: not is_busy(oslo))


def test_a_client_that_disconnects_ends_the_parts(offices: dict[str, Office]) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    app = make_app(rome.lake)
    body = json.dumps({"sql": HEAVY}).encode()
    headers = [(b"content-type", b"application/json"), (b"accept", b"text/csv")]
    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": "/api/query", "raw_path": b"/api/query",
        "query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http",
        "root_path": "", "server": ("node", 80), "client": ("here", 1),
    }  # fmt: skip
    left = Event()
    pieces = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        for piece in pieces:
            return piece
        await asyncio.to_thread(left.wait)
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        pass

    thread, _ = in_thread(lambda: asyncio.run(app(scope, receive, send)))
    eventually(lambda: is_busy(oslo))
    left.set()
    thread.join(20)
    assert not thread.is_alive()
    eventually(lambda: not is_busy(oslo))


@dataclass
class Faulty:
    """Runs fragments, but the first fails halfway, or hangs."""

    inner: FragmentRunner
    fault: Callable[[], object]
    hangs: bool
    asked: int = 0
    stopped: Event = field(default_factory=Event)

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        self.asked += 1
        if self.asked > 1:
            yield from self.inner.run(request, stop, body)
            return
        result = b"".join(self.inner.run(request, stop, body))
        self.stopped.clear()
        stop.attach(self.stopped.set)
        if not self.hangs:
            yield result[: len(result) // 2]
            Thread(target=self.fault).start()
        assert self.stopped.wait(60), "the other node does not stop it"


# A part is asked again after four times the time of the others.
HANGS = pytest.param(True, id="hangs", marks=pytest.mark.nightly)


@pytest.fixture(params=[pytest.param(False, id="dies"), HANGS])
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Office, Faulty]]:
    """Rome, which has no shard, and the runner of Oslo, which has the same shards as Bern."""
    runners: list[Faulty] = []

    def faulty(data: DataParts) -> DataParts:
        runners.append(Faulty(data.fragments, lambda: found["oslo"].peers.close(), request.param))
        return replace(data, fragments=runners[0])

    with ExitStack() as stack:
        found = {
            "oslo": stack.enter_context(office(tmp_path, "oslo", change=faulty)),
            "rome": stack.enter_context(office(tmp_path, "rome", capacity=0)),
            "bern": stack.enter_context(office(tmp_path, "bern")),
        }
        for name in ("rome", "bern"):
            found[name].peers.join(found["oslo"].peers.invite())
        big(found)
        found["oslo"].peers.share("big", None, Placement(2))
        eventually(lambda: "big" in found["bern"].names() and found["bern"].has_all("big"))
        objects = [s.object for s in found["bern"].lake.catalog.manifest("big").snapshot.shards]
        network = found["rome"].peers._network
        assert network is not None
        eventually(lambda: all(len(network.holders(name)) == 2 for name in objects))
        yield found["rome"], runners[0]


def test_the_shards_of_a_node_that_is_lost_are_counted_once(copied: tuple[Office, Faulty]) -> None:
    rome, oslo = copied
    found = rome.query("SELECT count(*), sum(v), max(v) FROM big")
    assert found == [(3000, 3 * sum(range(3000)), 8997)]
    assert oslo.asked == 1
    assert oslo.stopped.is_set()
    assert rome.query("SELECT k, v FROM big WHERE v % 300 = 0 ORDER BY v")[-1] == (2, 8700)


@pytest.mark.nightly
def test_rows_that_go_along_are_counted_once_if_a_holder_is_lost(
    copied: tuple[Office, Faulty],
) -> None:
    rome, oslo = copied
    rome.lake.append("words", pa.table({"k": [4, 4, 9], "word": ["four", "vier", "nine"]}))
    rome.peers.share("words", None, Placement(1))
    network = rome.peers._network
    assert network is not None
    words = rome.lake.catalog.manifest("words").snapshot
    others = network.alive()
    eventually(lambda: all(network.may_receive(n, words.dataset, words.id) for n in others))
    sql = "SELECT word, count(*) FROM big JOIN words USING (k) GROUP BY word ORDER BY word"
    assert rome.query(sql) == [("four", 428), ("vier", 428)]
    assert oslo.asked == 1
    assert oslo.stopped.is_set()
