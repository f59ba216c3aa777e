"""Rows that go along with parts of queries: to holders that may have them, and to no others; hostile ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.access.rules import PolicyRule
from lake.peers import joined
from lake.peers.copies.placement import Placement
from lake.peers.data import DataParts
from lake.peers.queries.fragments import FragmentRequest, FragmentRunner, FragmentTable
from lake.peers.queries.plan_cache import PlanCache
from lake.peers.queries.sent_rows import SENT_BYTES_MAX, SentColumn, SentTable
from lake.peers.transport import hello
from lake.peers.transport.stop import Stop
from sennit_core.errors import BadInput, SennitError, SqlError, TooLarge, Unavailable

from .real_offices import Office, big, office
from .test_peers_service import eventually

pytestmark = pytest.mark.slow  # real nodes with executors, and times of the protocols

JOIN = "SELECT word, count(*), sum(v) FROM big JOIN words USING (k) GROUP BY word ORDER BY word"
_OF = {k: [n * 3 for n in range(3000) if n % 7 == k] for k in (4, 5)}
EXPECTED = [(word, len(_OF[k]), sum(_OF[k])) for word, k in (("five", 5), ("four", 4), ("vier", 4))]


@dataclass
class Recorded:
    """Runs fragments, and remembers what came with them; may refuse those with rows."""

    inner: FragmentRunner
    refuses: bool = False
    requests: list[FragmentRequest] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        self.requests.append(request)
        self.bodies.append(body)
        if body and self.refuses:
            raise Unavailable("the rows")
        return self.inner.run(request, stop, body)

    @property
    def received(self) -> bytes:
        return b"".join(self.bodies)


@dataclass
class World:
    """Oslo has the large dataset, Rome asks and has a small one, Bern is a member."""

    offices: dict[str, Office]
    recorded: dict[str, Recorded]

    @property
    def rome(self) -> Office:
        return self.offices["rome"]

    def share_words(self, *nodes: str) -> None:
        """Share the small dataset with nodes, and wait until Oslo has read what is published of it."""
        self.rome.peers.share("words", list(nodes) or None, Placement(1))
        if nodes in ((), ("oslo",)):
            eventually(lambda: "words" in self.offices["oslo"].names())
        else:
            eventually(lambda: "words" in self.offices["bern"].names())

    def text(self, sql: str) -> str:
        [_, (_, text)] = self.rome.query(sql)
        return str(text)


@contextmanager
def opened(folder: Path) -> Iterator[World]:
    recorded: dict[str, Recorded] = {}

    def record(name: str) -> Callable[[DataParts], DataParts]:
        def change(data: DataParts) -> DataParts:
            recorded[name] = Recorded(data.fragments)
            return replace(data, fragments=recorded[name])

        return change

    with ExitStack() as stack:
        offices = {
            name: stack.enter_context(office(folder, name, capacity=0, change=record(name)))
            for name in ("oslo", "rome", "bern")
        }
        for name in ("rome", "bern"):
            offices[name].peers.join(offices["oslo"].peers.invite())
        big(offices)
        words = {"k": [4, 5, 9, 4], "word": ["four", "five", "nine", "vier"]}
        offices["rome"].lake.append("words", pa.table(words))
        yield World(offices, recorded)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for tests that leave it as it is, in which all nodes read the small dataset."""
    with opened(tmp_path_factory.mktemp("sharing")) as found:
        found.share_words()
        yield found


@pytest.fixture
def shared(sharing: World) -> World:
    for recorded in sharing.recorded.values():
        recorded.requests.clear()
        recorded.bodies.clear()
    return sharing


def test_the_small_side_of_a_join_goes_to_the_holders_of_the_large_one(shared: World) -> None:
    assert shared.rome.query(JOIN) == EXPECTED
    oslo = shared.recorded["oslo"]
    [request] = oslo.requests
    assert [table.name for table in request.tables] == ["big"]
    [sent] = request.sent
    assert sorted((c.name, c.type) for c in sent.columns) == [("k", "BIGINT"), ("word", "VARCHAR")]
    assert (sum(sent.streams), b"vier" in oslo.received) == (len(oslo.received), True)
    assert not shared.rome.has_all("big")
    for each in shared.offices.values():
        assert not list(each.lake.staging.glob("sent-*"))
        assert not list(each.lake.staging.glob("distributed-*"))


@pytest.mark.nightly
def test_explain_says_what_goes_along(shared: World) -> None:
    planned = shared.text(f"EXPLAIN {JOIN}")
    assert " sent along, of words\n  at oslo: 3 units\n" in planned
    assert not shared.recorded["oslo"].requests
    ran = shared.text(f"EXPLAIN ANALYZE {JOIN}")
    size = len(shared.recorded["oslo"].received)
    assert f" bytes, {size} bytes sent along\n" in ran
    assert f", {size} of them sent along\n" in ran


# Results that are computed here first, also from each other and from parts; rows of two datasets; no rows.
COMPUTED = [
    "SELECT count(*) FROM big WHERE v > (SELECT 1000 * avg(k) FROM words)",
    "SELECT k, count(*) FROM big WHERE k IN (SELECT k FROM words WHERE word < 'o') GROUP BY k",
    "SELECT count(*), sum(v) FROM big SEMI JOIN (SELECT k + 1 AS k FROM words GROUP BY ALL) USING (k)",
    "SELECT count(*) FROM big WHERE v = (SELECT max(v) - 3 FROM big WHERE k = (SELECT min(k) FROM words))",
    "SELECT count(*), min(word) FROM big LEFT JOIN (FROM words WHERE k > 100) USING (k)",
    """SELECT sum(n), count(*) FROM big AS b JOIN (SELECT k, count(*) AS n FROM words GROUP BY k) AS w
    ON b.k = w.k WHERE b.v > (SELECT sum(k) FROM words)""",
]


@pytest.mark.nightly
def test_results_that_are_sent_along_are_those_of_one_duckdb(shared: World) -> None:
    found = []
    for sql in COMPUTED:
        before = len(shared.recorded["oslo"].received)
        found.append(shared.rome.query(sql))
        assert len(shared.recorded["oslo"].received) > before, sql
    assert not shared.rome.has_all("big")
    words = "(SELECT unnest([4, 5, 9, 4]) AS k, unnest(['four', 'five', 'nine', 'vier']) AS word)"
    for sql, rows in zip(COMPUTED, found, strict=True):
        assert rows == shared.offices["oslo"].query(sql.replace("words", words)), sql


@pytest.mark.nightly
def test_rows_with_ties_are_chosen_once(shared: World) -> None:
    sql = (
        "WITH one AS (SELECT k FROM words ORDER BY k // 100 LIMIT 1) SELECT (SELECT k FROM one),"
        " (SELECT DISTINCT k FROM big WHERE k IN (SELECT k FROM one)), count(*) FROM big WHERE k IN (FROM one)"
    )
    [(chosen, other, count)] = shared.rome.query(sql)
    assert (chosen, count) == (other, 428) or (chosen, other, count) == (9, None, 0)


def restrict(world: World) -> None:
    world.share_words()
    world.rome.lake.set_policy("words", [PolicyRule("ann", rows="k = 4"), PolicyRule("*")])


PRIVATE: dict[str, Callable[[World], None]] = {
    "private": lambda world: None,
    "shared with another node": lambda world: world.share_words("bern"),
    "restricted": restrict,
}


@pytest.mark.nightly
@pytest.mark.parametrize("how", PRIVATE)
def test_rows_that_a_holder_may_not_have_stay_here(world: World, how: str) -> None:
    PRIVATE[how](world)
    assert world.rome.query(JOIN) == EXPECTED
    for sql in COMPUTED:
        world.rome.query(sql)
    assert world.recorded["oslo"].received == world.recorded["bern"].received == b""
    assert not any("words" in request.sql for request in world.recorded["oslo"].requests)


STOPPED: dict[str, Callable[[Office], object]] = {
    "unshared": lambda rome: rome.peers.unshare("words"),
    "shared with another node": lambda rome: rome.peers.share("words", ["bern"], Placement(1)),
    "restricted": lambda rome: rome.lake.set_policy("words", [PolicyRule("*")]),
}


@pytest.mark.nightly
@pytest.mark.parametrize("how", STOPPED)
def test_rows_stay_here_if_sharing_ends_after_the_plan(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.share_words()
    planned: list[bool] = []
    put = PlanCache.put

    def end_sharing(plans: PlanCache, key: Any, plan: Any, shards: int) -> None:
        put(plans, key, plan, shards)
        planned.append(any(fragment.broadcasts for fragment in plan.fragments))
        if len(planned) == 1:
            STOPPED[how](world.rome)

    monkeypatch.setattr(PlanCache, "put", end_sharing)
    assert world.rome.query(JOIN) == EXPECTED
    assert planned[0]
    # Nor does the plan that was kept send them.
    assert world.rome.query(JOIN) == EXPECTED
    assert world.recorded["oslo"].received == b""


@pytest.mark.nightly
def test_a_node_without_the_feature_gets_no_rows(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.share_words()
    rome = world.rome
    recorded: list[Recorded] = []

    def record(data: DataParts) -> DataParts:
        recorded.append(Recorded(data.fragments))
        return replace(data, fragments=recorded[0])

    with monkeypatch.context() as patch, office(tmp_path, "lima", change=record) as lima:
        old = tuple(each for each in hello.FEATURES if each != "broadcast")
        patch.setattr(joined, "FEATURES", old)
        lima.peers.join(world.offices["oslo"].peers.invite())
        lima.lake.append("far", pa.table({"k": [4, 5] * 3000, "v": list(range(6000))}))
        lima.peers.share("far", None)
        eventually(lambda: "far" in rome.names() and "words" in lima.names())
        found = rome.query(JOIN.replace("big", "far"))
        assert [row[:2] for row in found] == [("five", 3000), ("four", 3000), ("vier", 3000)]
        assert not recorded[0].received


@pytest.mark.nightly
def test_a_holder_that_refuses_rows_costs_a_plan_and_not_the_query(world: World) -> None:
    world.share_words()
    oslo = world.recorded["oslo"]
    oslo.refuses = True
    assert world.rome.query(JOIN) == EXPECTED
    assert oslo.received


@pytest.mark.nightly
def test_more_rows_than_fit_are_not_sent_along(world: World) -> None:
    # Planned as short texts; they are too many bytes when they are there.
    words = pa.table({"k": list(range(100)), "word": [f"{n:012000}" for n in range(100)]})
    world.rome.lake.append("words", words)
    world.share_words()
    sql = "SELECT max(word), count(*) FROM big JOIN words USING (k)"
    assert " sent along" in world.text(f"EXPLAIN {sql}")
    assert world.rome.query(sql) == [("vier", 3000 + 428 * 2 + 428)]
    assert world.recorded["oslo"].received == b""


# A peer that does not run our code.


def ask(asking: Office, asked: Office, request: FragmentRequest, body: bytes) -> pa.Table:
    async def send() -> bytes:
        network = asking.peers._network
        assert network is not None
        session = await network.session(asked.peers.identity.id)
        pieces = session.stream(request, body, timeout_seconds=30)
        return b"".join([bytes(part) async for _, part in pieces])

    found = asyncio.run_coroutine_threadsafe(send(), asking.peers._loop).result()
    return pa.ipc.open_stream(found).read_all()


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


NAME = "__sennit_rows_0"
ROWS = pa.table({"k": [4, 5]})


def request_of(oslo: Office, sql: str, *sent: SentTable) -> FragmentRequest:
    snapshot = oslo.lake.catalog.manifest("big").snapshot
    objects = tuple(shard.object for shard in snapshot.shards)
    table = FragmentTable("big", snapshot.dataset, snapshot.id, objects)
    return FragmentRequest(sql, (table,), "mallory", 30.0, sent)


def sent(*streams: bytes, name: str = NAME, kind: str = "BIGINT", column: str = "k") -> SentTable:
    return SentTable(name, (SentColumn(column, kind),), tuple(map(len, streams)))


SQL = f'SELECT count(*) AS n FROM big JOIN "{NAME}" AS s USING (k)'


def test_a_holder_refuses_rows_that_are_not_what_they_should_be(shared: World) -> None:
    oslo, bern = shared.offices["oslo"], shared.offices["bern"]
    good = stream(ROWS)
    assert ask(bern, oslo, request_of(oslo, SQL, sent(good)), good).to_pydict() == {"n": [856]}
    bomb = stream(pa.table({"k": pa.array([0] * 400_000, pa.int64())}), "zstd")
    assert len(bomb) < SENT_BYTES_MAX // 10
    texts = stream(pa.table({"k": ["a", "b"]}))
    wide = stream(pa.table({"k": [4], "x": [5]}))
    bad: list[tuple[tuple[SentTable, ...], bytes, type[SennitError]]] = [
        ((sent(good[:-20]),), good[:-20], BadInput),
        ((sent(b"x" * 300),), b"x" * 300, BadInput),
        ((sent(bomb),), bomb, TooLarge),
        ((sent(texts),), texts, BadInput),
        ((sent(wide),), wide, BadInput),
        ((sent(good),), good + b"more", BadInput),
        ((sent(good),), b"", BadInput),
        ((), good, BadInput),
        ((sent(good, b""),), good, BadInput),
        ((sent(good), sent(good)), good * 2, BadInput),
        ((sent(good, name="big"),), good, BadInput),
        ((sent(good, name='__sennit_"; DROP'),), good, BadInput),
        ((sent(good, kind="BIGINT); ATTACH 'x'; --"),), good, BadInput),
        ((sent(good, kind="BIGINT[]"),), good, BadInput),
        ((SentTable(NAME, (), (len(good),)),), good, BadInput),
        (tuple(sent(good, name=f"{NAME}{n}") for n in range(17)), good * 17, BadInput),
        ((replace(sent(good), streams=(-1, len(good) + 1)),), good, BadInput),
    ]
    for tables, body, error in bad:
        with pytest.raises(error):
            ask(bern, oslo, request_of(oslo, SQL, *tables), body)
    assert ask(bern, oslo, request_of(oslo, SQL, sent(good)), good).to_pydict() == {"n": [856]}
    assert not list(oslo.lake.staging.glob("sent-*"))


def test_a_statement_over_rows_is_checked_as_any_other(shared: World) -> None:
    oslo, bern = shared.offices["oslo"], shared.offices["bern"]
    oslo.lake.append("secret", pa.table({"k": [1]}))
    good = stream(ROWS)
    for sql in (
        f'CREATE TABLE x AS FROM "{NAME}"',
        f'INSERT INTO "{NAME}" VALUES (1)',
        f'FROM "{NAME}"; FROM "{NAME}"',
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT getenv('HOME')",
        "FROM secret",
        f"COPY \"{NAME}\" TO '/tmp/x'",
    ):
        with pytest.raises(SennitError) as refused:
            ask(bern, oslo, request_of(oslo, sql, sent(good)), good)
        assert not isinstance(refused.value, Unavailable), sql
    with pytest.raises(SqlError):
        ask(bern, oslo, request_of(oslo, SQL.replace("(k)", "(j)"), sent(good)), good)
    # Rows of one request are gone with it.
    with pytest.raises(SennitError, match=NAME):
        ask(bern, oslo, request_of(oslo, SQL), b"")
