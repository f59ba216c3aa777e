"""Datasets with an access policy between real nodes: who sees what, and what reaches the other node."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pytest

from lake.access.rules import ColumnRule, PolicyRule
from lake.peers.copies.chunks import ListRequest
from lake.peers.copies.placement import Placement
from lake.peers.queries.fragments import FragmentRequest, FragmentTable, LocalFragments
from lake.peers.queries.restricted import DescribeRestricted, RestrictedQuery, RestrictedTable
from lake.peers.transport.messages import Message
from lake.peers.transport.session import Piece
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from lake.statements.running import AUDIT_LOGGER
from sennit_core.errors import (
    Cancelled,
    Denied,
    NotFound,
    SennitError,
    Unavailable,
    UnknownColumn,
    Unsupported,
)

from .real_offices import Office, office
from .test_peers_service import eventually

pytestmark = pytest.mark.slow  # real nodes with executors, and times of the protocols
STAFF = pa.table(
    {
        "id": [1, 2, 3, 4],
        "office": ["rome", "rome", "oslo", "oslo"],
        "pay": [10, 20, 777001, 777002],
        "note": ["a", "b", "hidden-oslo", "hidden-too"],
    }
)
HIDDEN = ("777001", "777002", "hidden-oslo", "hidden-too")
ROME = PolicyRule("*@rome", rows="office = 'rome'", columns=(ColumnRule("pay"),))
RULES = [
    ROME,
    PolicyRule("ann@rome", rows="office = 'rome'"),
    PolicyRule("eve@rome", read=False),
    PolicyRule("boss", write=True),
]
Offices = dict[str, Office]


@contextmanager
def network(folder: Path, passphrase: str | None = None) -> Iterator[Offices]:
    """Three nodes; Oslo has a dataset."""
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(office(folder, name, passphrase=passphrase))
            for name in ("oslo", "rome", "bern")
        }
        for name in ("rome", "bern"):
            found[name].peers.join(found["oslo"].peers.invite())
        eventually(lambda: all(len(each.peers.nodes()) == 3 for each in found.values()))
        found["oslo"].lake.append("staff", STAFF)
        yield found


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offices]:
    """Oslo shares its staff with all; users of Rome see a part, and those of Bern nothing."""
    with network(tmp_path_factory.mktemp("restricted")) as offices:
        oslo = offices["oslo"]
        oslo.lake.set_policy("staff", RULES)
        oslo.lake.append("private", pa.table({"x": [4711]}))
        oslo.peers.share("staff", None, Placement(3))
        eventually(lambda: "staff" in offices["rome"].names())
        yield offices


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[Offices]:
    with network(tmp_path) as found:
        yield found


def rows(of: Office, sql: str, user: str = "bob", role: str = "reader") -> list[tuple[object, ...]]:
    with of.lake.run(sql, user=user, role=role) as execution:
        batches = list(execution.batches())
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def ask(asking: Office, asked: Office, message: Message) -> list[Piece]:
    """Send a request as a member would that does not run our code."""

    async def send() -> list[Piece]:
        joined = asking.peers._network
        assert joined is not None
        session = await joined.session(asked.peers.identity.id)
        return [piece async for piece in session.stream(message, timeout_seconds=20)]

    return asyncio.run_coroutine_threadsafe(send(), asking.peers._loop).result()


Claimed = TypeVar("Claimed", DescribeRestricted, RestrictedQuery)


def claimed(by: Office, of: Office, message: Claimed, user: Requester) -> Claimed:
    """Return a request with a claim of a node."""
    joined = by.peers._network
    assert joined is not None
    now = by.lake.clock.now()
    return replace(message, claim=joined.claims.sign(user, of.peers.identity.id, message, now))


def query_of(oslo: Office, sql: str) -> RestrictedQuery:
    info = oslo.lake.catalog.get("staff")
    assert info.head is not None
    return RestrictedQuery(sql, (RestrictedTable("t", info.id, info.head),), "arrow", 20.0)


# What users see


def test_users_see_their_rows_and_columns(restricted: Offices) -> None:
    rome = restricted["rome"]
    assert rows(rome, "SELECT * FROM staff ORDER BY id") == [(1, "rome", "a"), (2, "rome", "b")]
    assert rows(rome, "SELECT sum(pay) FROM staff", user="ann") == [(30,)]
    assert rows(rome, "SELECT count(*) FROM staff") == [(2,)]
    assert rome.query("SELECT count(*) FROM staff") == [(2,)]  # the node's owner, without a name
    with pytest.raises(UnknownColumn):
        rows(rome, "SELECT pay FROM staff")


def test_a_user_without_access_finds_no_dataset(restricted: Offices) -> None:
    for name, user in (("rome", "eve"), ("bern", "ann"), ("bern", "")):
        with pytest.raises(NotFound):
            rows(restricted[name], "SELECT count(*) FROM staff", user=user)
    assert restricted["bern"].names() == set()


def test_names_of_this_node_mean_nothing_at_another(restricted: Offices) -> None:
    """Neither the owner, nor an admin, nor a user with a rule of its own here, is one there."""
    for user, role in (("", "admin"), ("boss", "admin"), ("*", "reader"), ("role:x", "")):
        assert rows(restricted["rome"], "SELECT count(*) FROM staff", user, role) == [(2,)]


STATEMENTS = [
    ("SELECT note FROM staff WHERE id = 2", [("b",)]),
    ("WITH s AS (FROM staff) SELECT a.id, b.id AS c FROM s a JOIN staff b USING (office) ORDER BY 1, 2",
     [(1, 1), (1, 2), (2, 1), (2, 2)]),
    ("SELECT column_name FROM information_schema.columns WHERE table_name = 'staff' ORDER BY 1",
     [("id",), ("note",), ("office",)]),
    ("SELECT column_name FROM (DESCRIBE staff) ORDER BY 1", [("id",), ("note",), ("office",)]),
    ("SELECT 'staff' AS word", [("staff",)]),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), STATEMENTS, ids=[sql for sql, _ in STATEMENTS])
def test_statements_see_the_visible_part(
    restricted: Offices, sql: str, expected: list[tuple[object, ...]]
) -> None:
    assert rows(restricted["rome"], sql) == expected


COMPUTED = [
    "SELECT count(*), sum(id), min(note), avg(id) FROM staff",
    "SELECT office, count(*) AS n FROM staff GROUP BY office",
    "SELECT count(DISTINCT note) FROM staff WHERE id > 1",
    "SELECT office, median(id) AS m FROM staff GROUP BY office",
    "SELECT id, note FROM staff ORDER BY id DESC LIMIT 1",
    "SELECT note FROM staff WHERE id < 0",
    "SELECT id, rank() OVER (ORDER BY note DESC) AS place FROM staff ORDER BY 1",
    "SELECT a.id, b.note AS other FROM staff a JOIN staff b ON a.id < b.id",
    "SELECT id FROM staff WHERE id = (SELECT max(id) FROM staff)",
]


@pytest.mark.sample(3)  # an aggregate, a median and a window
@pytest.mark.parametrize("sql", COMPUTED)
def test_the_writer_computes_what_it_can(
    restricted: Offices, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a table of the visible rows alone, without a copy of these."""
    rome = restricted["rome"]
    monkeypatch.setattr(
        type(rome.lake.remote.restricted), "read", lambda *_: pytest.fail("rows were read whole")
    )
    visible = pa.table({"id": [1, 2], "office": ["rome", "rome"], "note": ["a", "b"]})
    rome.lake.append("visible", visible)
    try:
        assert rows(rome, sql) == rome.query(sql.replace("staff", "visible"))
    finally:
        rome.lake.delete("visible")


def test_it_is_joined_with_what_parts_make_of_other_datasets(
    restricted: Offices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts name the other dataset alone, and none has a value of the restricted one."""
    oslo, rome = restricted["oslo"], restricted["rome"]
    numbers = range(5000)
    trips = {"id": [n % 5 for n in numbers], "km": list(numbers), "to": [str(n) for n in numbers]}
    oslo.lake.append("trips", pa.table(trips))
    oslo.peers.share("trips", None)
    eventually(lambda: "trips" in rome.names())
    asked: list[FragmentRequest] = []
    run = LocalFragments.run

    def record(
        self: LocalFragments, request: FragmentRequest, stop: Stop, body: bytes
    ) -> Iterator[bytes]:
        asked.append(request)
        assert not body, "rows of a restricted dataset go along with no part"
        return run(self, request, stop, body)

    monkeypatch.setattr(LocalFragments, "run", record)
    try:
        sql = (
            "SELECT note, total FROM (SELECT id, sum(km) AS total FROM trips GROUP BY id) AS t"
            " JOIN staff USING (id) WHERE id > (SELECT min(id) FROM staff) ORDER BY note"
        )
        assert rows(rome, sql) == [("b", sum(numbers[2::5]))]
        assert [[table.name for table in request.tables] for request in asked] == [["trips"]]
        assert not {"staff", "note", "office"} & set(re.findall(r"\w+", asked[0].sql))
        assert not rome.has_all("trips")
        with pytest.raises(NotFound):
            rows(rome, sql, user="eve")
    finally:
        oslo.peers.unshare("trips")
        eventually(lambda: "trips" not in rome.names())


def test_what_is_seen_can_be_copied_and_used_by_a_view(restricted: Offices) -> None:
    lake = restricted["rome"].lake
    lake.sql("CREATE TABLE mine AS FROM staff")
    lake.sql("CREATE VIEW offices AS SELECT DISTINCT office FROM staff")
    try:
        assert lake.sql("SELECT count(*) FROM mine").value == 2
        assert lake.sql("FROM offices").rows == [("rome",)]
        with lake.run("SELECT count(*) FROM staff WHERE id > ?", params=[1], user="b") as execution:
            assert execution.result()["rows"] == 1
    finally:
        lake.sql("DROP VIEW offices")
        lake.delete("mine")


def test_only_queries_use_it(restricted: Offices) -> None:
    rome = restricted["rome"].lake
    for sql in ("DELETE FROM staff", "SELECT count(*) FROM staff AT (VERSION => 1)"):
        with pytest.raises((Denied, Unsupported)):
            rome.sql(sql)
    with pytest.raises(Unsupported):
        rome.resolve("staff")
    with pytest.raises(Denied, match="writes"):
        rome.set_policy("staff", [PolicyRule("*")])


def test_lists_show_no_counts_and_no_hidden_columns(restricted: Offices) -> None:
    policies = restricted["rome"].lake.policies
    [info] = policies.list(Requester("bob", role="reader"))
    assert (info.rows, info.bytes, info.shards, info.head) == (0, 0, 0, None)
    assert info.schema.names == ("id", "office", "note")
    assert policies.list(Requester("eve", role="reader")) == []


# Attacks

HOSTILE = [
    "SELECT pay FROM t",
    "SELECT t.pay FROM t JOIN (SELECT 1 AS pay) USING (pay)",
    "SELECT CAST(note AS INT) FROM t WHERE office = 'oslo'",
    "SELECT error(note) FROM t WHERE office <> 'rome'",
    "SELECT 1 / (id - 3) FROM t",
    "SELECT bitstring_agg(id) FROM t",
    "SELECT stats(note) FROM t",
    "SUMMARIZE t",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM information_schema.views",
    "SELECT * FROM private",
    "SELECT * FROM staff",
    "EXPLAIN ANALYZE SELECT * FROM t",
    "EXPLAIN SELECT * FROM t WHERE id > 2",
    "SELECT * FROM glob('/**')",
    "FROM read_text('/etc/hostname')",
    "DELETE FROM t",
    "CREATE TABLE x AS FROM t",
    "FROM t AT (VERSION => 1)",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_no_query_of_a_hostile_node_gets_a_hidden_value(restricted: Offices, sql: str) -> None:
    oslo, rome = restricted["oslo"], restricted["rome"]
    message = claimed(rome, oslo, query_of(oslo, sql), Requester("bob", role="reader"))
    try:
        found = b"".join(body for _, body in ask(rome, oslo, message)).decode("latin-1")
    except SennitError as error:
        found = str(error.to_json())
    assert not any(value in found for value in (*HIDDEN, "4711", "office = 'rome'"))


def test_queries_of_other_nodes_are_in_the_audit_log(
    restricted: Offices, caplog: pytest.LogCaptureFixture
) -> None:
    oslo, rome = restricted["oslo"], restricted["rome"]
    caplog.set_level("INFO", AUDIT_LOGGER)
    for sql in ("SELECT id FROM t", "SELECT * FROM private"):
        message = claimed(rome, oslo, query_of(oslo, sql), Requester("bob", role="reader"))
        with suppress(SennitError):
            ask(rome, oslo, message)
    found = [vars(each)["fields"] for each in caplog.records if each.name == AUDIT_LOGGER]
    of_rome = [each for each in found if each.get("node") == rome.peers.identity.id]
    assert [(f["user"], f["statement"], f["outcome"]) for f in of_rome] == [
        ("bob@rome", "SELECT id FROM t", "ok"),
        ("bob@rome", "SELECT * FROM private", "not-found"),
    ]


def test_queries_of_other_nodes_are_listed_and_stopped_by_the_owner(restricted: Offices) -> None:
    oslo, rome = restricted["oslo"], restricted["rome"]
    sql = "SELECT count(*) FROM t, range(1000000) a, range(1000000) b"
    message = claimed(rome, oslo, query_of(oslo, sql), Requester("bob", role="reader"))
    running = oslo.lake.running
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, rome, oslo, message)
        eventually(lambda: any(each.state == "running" for each in running.list(Requester())))
        [query] = running.list(Requester())
        assert (query.user, query.statement) == ("bob@rome", sql)
        for other in ("bob", "bob@rome", "ann"):
            assert running.list(Requester(other, role="writer")) == []
            with pytest.raises(NotFound):
                running.stop(query.id, Requester(other, role="writer"))
        owner = oslo.lake.catalog.get("staff").owner
        assert running.list(Requester(owner, role="writer", is_admin=not owner)) == [query]
        running.stop(query.id, Requester(owner, is_admin=not owner))
        with pytest.raises(Cancelled):
            asked.result(30)
    assert running.list(Requester()) == []


def test_a_claim_counts_for_its_node_user_and_request_alone(restricted: Offices) -> None:
    oslo, rome, bern = (restricted[name] for name in ("oslo", "rome", "bern"))
    query = query_of(oslo, "SELECT sum(pay) FROM t")
    ann = claimed(rome, oslo, query, Requester("ann"))
    bob = claimed(rome, oslo, query, Requester("bob"))
    assert ask(rome, oslo, ann)
    assert ann.claim is not None
    assert bob.claim is not None
    forged = replace(bob.claim, body={**bob.claim.body, "user": "ann"})
    for asking, message in (
        (bern, ann),  # stolen
        (rome, replace(bob, claim=forged)),
        (rome, replace(ann, sql="SELECT max(pay) FROM t")),
        (rome, replace(ann, claim=None)),
        (rome, claimed(rome, bern, query, Requester("ann"))),  # for another node
        (bern, claimed(bern, oslo, query, Requester("ann", node=rome.peers.identity.id))),
    ):
        with pytest.raises((Denied, NotFound)):
            ask(asking, oslo, message)


def test_objects_and_fragments_of_it_are_served_to_no_one(restricted: Offices) -> None:
    oslo = restricted["oslo"]
    info = oslo.lake.catalog.get("staff")
    assert info.head is not None
    manifest, _ = oslo.lake.catalog.adopter.manifest_of(info, info.head)
    [shard] = oslo.lake.catalog.manifest("staff").snapshot.shards
    table = FragmentTable("t", info.id, info.head, (shard.object,))
    for name in ("rome", "bern"):
        for message in (
            ListRequest(manifest),
            ListRequest(shard.object),
            FragmentRequest("FROM t", (table,), "", 20.0),
        ):
            with pytest.raises(NotFound):
                ask(restricted[name], oslo, message)


def test_a_dataset_that_is_not_shared_is_not_found_by_its_id(restricted: Offices) -> None:
    oslo, rome = restricted["oslo"], restricted["rome"]
    private = oslo.lake.catalog.get("private")
    assert private.head is not None
    table = RestrictedTable("p", private.id, private.head)
    both = (*query_of(oslo, "").tables, table)
    for message in (
        claimed(rome, oslo, DescribeRestricted(private.id), Requester("ann")),
        claimed(rome, oslo, RestrictedQuery("FROM p", both, "arrow", 20.0), Requester("ann")),
    ):
        with pytest.raises(NotFound):
            ask(rome, oslo, message)


def test_a_node_whose_users_see_nothing_is_told_nothing(restricted: Offices) -> None:
    oslo, bern = restricted["oslo"], restricted["bern"]
    described = DescribeRestricted(oslo.lake.catalog.get("staff").id)
    with pytest.raises(NotFound):
        ask(bern, oslo, claimed(bern, oslo, described, Requester("ann")))
    joined = bern.peers._network
    assert joined is not None
    assert "staff" not in str([item for _, _, item in joined.logs.items()])


def test_no_hidden_value_is_on_the_disk_of_another_node(restricted: Offices) -> None:
    rome = restricted["rome"]
    assert rows(rome, "SELECT count(*) FROM staff", user="ann") == [(2,)]
    files = [path for path in rome.lake.folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        assert not any(value.encode() in data for value in HIDDEN), path
    assert not list(rome.lake.staging.glob("arrived-*"))


# Changes of the policy


def test_a_shared_dataset_that_gets_a_policy_is_withdrawn_with_its_copies(offices: Offices) -> None:
    oslo, rome, bern = (offices[name] for name in ("oslo", "rome", "bern"))
    oslo.peers.share("staff", None, Placement(3))
    eventually(lambda: all("staff" in each.names() for each in (rome, bern)))
    eventually(lambda: rome.has_all("staff") and bern.has_all("staff"))
    [shard] = oslo.lake.catalog.manifest("staff").snapshot.shards

    oslo.lake.set_policy("staff", RULES)
    with pytest.raises(NotFound):  # at once
        ask(rome, oslo, ListRequest(shard.object))
    eventually(lambda: not any(shard.object in each.lake.objects for each in (rome, bern)))
    eventually(lambda: bern.names() == set() and "staff" in rome.names())
    assert rows(rome, "SELECT count(*) FROM staff") == [(2,)]

    oslo.lake.policies.remove(oslo.lake.catalog.get("staff").id)
    eventually(lambda: rome.names() == bern.names() == {"staff"})
    eventually(lambda: rome.lake.catalog.get("staff").head is not None)
    assert rows(rome, "SELECT count(*), max(pay) FROM staff") == [(4, 777002)]


def test_a_changed_policy_counts_for_the_next_query(offices: Offices) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    oslo.lake.set_policy("staff", RULES)
    oslo.peers.share("staff", ["rome"])
    eventually(lambda: "staff" in rome.names())
    sql = "SELECT count(*) FROM staff"
    assert (rows(rome, sql, "ann"), rows(rome, sql, "eve" * 2)) == ([(2,)], [(2,)])
    oslo.lake.set_policy("staff", [PolicyRule("ann@rome")])
    assert rows(rome, sql, "ann") == [(4,)]
    with pytest.raises(NotFound):
        rows(rome, sql, "bob")
    oslo.lake.set_policy("staff", [PolicyRule("*"), PolicyRule("role:reader"), PolicyRule("ann")])
    with pytest.raises(NotFound):
        rows(rome, sql, "ann")
    eventually(lambda: rome.names() == set())


@pytest.fixture
def encrypting(tmp_path: Path) -> Iterator[Offices]:
    with network(tmp_path, passphrase="a passphrase of the test") as found:
        yield found


def test_an_encrypted_dataset_is_read_at_its_writer(encrypting: Offices) -> None:
    oslo, rome = encrypting["oslo"], encrypting["rome"]
    oslo.lake.append("secrets", pa.table({"word": ["canary-4711"], "n": [1]}), encrypt=True)
    oslo.peers.share("secrets", ["rome"])
    eventually(lambda: "secrets" in rome.names())
    assert rows(rome, "SELECT word, n FROM secrets") == [("canary-4711", 1)]
    with pytest.raises(Unsupported, match="encrypted"):
        rome.lake.sql("CREATE TABLE mine AS FROM secrets")
    rome.lake.sql("CREATE TABLE mine WITH (encrypt = true) AS FROM secrets")
    assert rome.query("SELECT word FROM mine") == [("canary-4711",)]
    for path in rome.lake.folder.rglob("*"):
        assert not path.is_file() or b"canary-4711" not in path.read_bytes(), path
    assert rows(rome, "SELECT count(*) FROM secrets") == [(1,)]
    [shard] = oslo.lake.catalog.manifest("secrets").snapshot.shards
    with pytest.raises(NotFound):
        ask(rome, oslo, ListRequest(shard.object))


def test_without_the_writer_only_it_is_unavailable(offices: Offices) -> None:
    oslo, rome = offices["oslo"], offices["rome"]
    oslo.lake.set_policy("staff", RULES)
    oslo.peers.share("staff", None)
    eventually(lambda: "staff" in rome.names())
    rome.lake.append("own", pa.table({"staff": [5]}))
    oslo.peers.close()
    with pytest.raises(Unavailable):
        rows(rome, "SELECT count(*) FROM staff")
    assert rows(rome, "SELECT staff FROM own") == [(5,)]


# Copies of encrypted datasets


def lose(oslo: Office, shard: str) -> None:
    """Flip a bit of a shard of the writer, which its scrub finds."""
    path = oslo.lake.objects.place(shard)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    oslo.lake.verify()


@pytest.mark.nightly
def test_copies_of_an_encrypted_dataset_are_ciphertext_that_restores_it(
    encrypting: Offices,
) -> None:
    oslo, rome, bern = (encrypting[name] for name in ("oslo", "rome", "bern"))
    for number in range(2):
        rows_of = pa.table({"word": [f"canary-{number}"] * 100, "n": [number] * 100})
        oslo.lake.append("secrets", rows_of, **({} if number else {"encrypt": True}))
    oslo.lake.set_policy("secrets", [PolicyRule("*@bern", rows="n = 0")])
    oslo.peers.share("secrets", None, Placement(3))
    shards = [shard.object for shard in oslo.lake.catalog.manifest("secrets").snapshot.shards]
    assert len(shards) == 2
    eventually(lambda: all(s in each.lake.objects for s in shards for each in (rome, bern)))

    for holder in (rome, bern):
        for path in holder.lake.folder.rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            assert not any(word in data for word in (b"canary", b"PAR1")), path
        [copy] = [name for name in holder.names() if name.startswith("ciphertext")]
        with pytest.raises(Denied, match="only that node"):
            holder.query(f'FROM "{copy}"')
        assert [i.name for i in holder.lake.policies.list(Requester("bob", role="reader"))] == (
            ["secrets"] if holder is bern else []
        )
    assert rows(bern, "SELECT DISTINCT word FROM secrets") == [("canary-0",)]

    lose(oslo, shards[0])
    eventually(lambda: shards[0] in oslo.lake.objects and oslo.lake.objects.verify(shards[0]))
    oslo.lake.verify()
    assert oslo.query("SELECT word, count(*) FROM secrets GROUP BY ALL ORDER BY 1") == [
        ("canary-0", 100), ("canary-1", 100),
    ]  # fmt: skip

    oslo.peers.unshare("secrets")
    eventually(lambda: rome.names() == bern.names() == set())
    eventually(lambda: not any(s in each.lake.objects for s in shards for each in (rome, bern)))
    assert oslo.lake.retention.pins() == []
