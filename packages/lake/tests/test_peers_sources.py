"""Changes of another node's dataset that read datasets of this node: their rows are sent with the change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest

from lake.access.rules import PolicyRule
from lake.sql.target import find_target
from sennit_core.errors import Denied, NotFound

from .real_offices import Office, office
from .test_peers_service import eventually

ROWS = "SELECT id, name FROM trips ORDER BY id"


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[dict[str, Office]]:
    """Oslo writes `trips`, and makes changes of Rome, which has `mine`."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(office(tmp_path, name)) for name in ("oslo", "rome")}
        oslo, rome = found["oslo"], found["rome"]
        rome.peers.join(oslo.peers.invite())
        eventually(lambda: all(len(each.peers.nodes()) == 2 for each in found.values()))
        oslo.lake.append("trips", pa.table({"id": [1, 2, 3], "name": ["a", "b", None]}))
        rome.lake.append("mine", pa.table({"id": [2, 7], "name": ["m", "n"]}))
        rome.lake.sql("CREATE VIEW v AS SELECT id + 1 AS id FROM mine")
        oslo.peers.share("trips", ["rome"])
        dataset = oslo.lake.catalog.get("trips").id
        eventually(lambda: rome.peers.accepts_changes(dataset) and "trips" in rome.names())
        yield found


STATEMENTS = [
    ("INSERT INTO trips SELECT id, name FROM mine WHERE id NOT IN (SELECT id FROM trips)",
     [(1, "a"), (2, "b"), (3, None), (7, "n")]),
    ("UPDATE trips SET name = m.name FROM mine AS m WHERE m.id = trips.id",
     [(1, "a"), (2, "m"), (3, None)]),
    ("DELETE FROM trips USING v WHERE trips.id = v.id", [(1, "a"), (2, "b")]),
    ("""MERGE INTO trips USING mine AS m ON trips.id = m.id WHEN MATCHED THEN DELETE
     WHEN NOT MATCHED THEN INSERT VALUES (m.id, m.name)""", [(1, "a"), (3, None), (7, "n")]),
    ("WITH mine AS (SELECT 9 AS id) INSERT INTO trips SELECT id, 'c' FROM mine",
     [(1, "a"), (2, "b"), (3, None), (9, "c")]),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize(("sql", "left"), STATEMENTS)
def test_the_rows_of_other_datasets_are_sent(
    offices: dict[str, Office], sql: str, left: list[tuple[object, ...]]
) -> None:
    rome, oslo = offices["rome"], offices["oslo"]
    before = sorted(rome.names())
    rome.lake.sql(sql)
    assert oslo.query(ROWS) == left
    assert rome.query(ROWS) == left
    assert sorted(rome.names()) == before
    assert "mine" not in oslo.names()
    # Neither node keeps the rows that were sent.
    network = rome.peers._network
    assert network is not None
    assert network.exchange is not None
    assert not network.exchange._index.offers._offered


@pytest.mark.slow
def test_rows_under_a_policy_are_not_sent(offices: dict[str, Office]) -> None:
    rome, oslo = offices["rome"].lake, offices["oslo"]
    rome.set_policy("mine", [PolicyRule("*", write=True)])
    for name in ("mine", "v"):
        with pytest.raises(Denied, match="sending rows of dataset 'mine'"):
            rome.sql(f"INSERT INTO trips(id) SELECT id FROM {name}")
    assert oslo.query("SELECT count(*) FROM trips") == [(3,)]


@pytest.mark.slow
def test_rows_of_a_third_node_are_sent_to_those_that_it_shares_them_with(
    offices: dict[str, Office], tmp_path: Path
) -> None:
    rome, oslo = offices["rome"], offices["oslo"]
    with office(tmp_path, "bern") as bern:
        bern.peers.join(oslo.peers.invite())
        eventually(lambda: len(bern.peers.nodes()) == len(rome.peers.nodes()) == 3)
        bern.lake.append("own", pa.table({"id": [5]}))
        bern.peers.share("own", ["rome"])
        eventually(lambda: "own" in rome.names())
        sql = "INSERT INTO trips(id) SELECT id FROM own"
        with pytest.raises(Denied, match="sending rows of dataset 'own'"):
            rome.lake.sql(sql)
        bern.peers.share("own", None)
        dataset = rome.lake.catalog.get("own").id
        eventually(lambda: rome.peers.may_have(dataset, oslo.peers.identity.id))
        assert rome.lake.sql(sql).value == 1


@pytest.mark.slow
def test_what_is_not_here_is_not_found_and_what_is_at_the_writer_is_not_read(
    offices: dict[str, Office],
) -> None:
    rome, oslo = offices["rome"].lake, offices["oslo"]
    oslo.lake.append("secret", pa.table({"id": [7]}))
    for name in ("secret", "nothing"):
        with pytest.raises(NotFound):
            rome.sql(f"INSERT INTO trips(id) SELECT id FROM {name}")


READS = [
    ("INSERT INTO t SELECT * FROM a JOIN b USING (x)", ["a", "b"]),
    ("INSERT INTO t VALUES (1)", []),
    ("WITH a AS (FROM c) INSERT INTO t FROM a, T", ["T", "c"]),
    ("UPDATE t SET x = (SELECT max(x) FROM a), y = DEFAULT FROM b WHERE t.x IN (FROM c)",
     ["a", "b", "c", "t"]),
    ("DELETE FROM t AS u USING a WHERE u.x = a.x", ["a", "t"]),
    ("TRUNCATE t", ["t"]),
    ("MERGE INTO t USING a ON t.x = a.x WHEN MATCHED AND EXISTS (FROM b) THEN DELETE",
     ["a", "b", "t"]),
    ('INSERT INTO t FROM "more.csv"', ["more.csv"]),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "reads"), READS)
def test_what_a_statement_reads_is_found_without_its_columns(sql: str, reads: list[str]) -> None:
    assert sorted(find_target(sql, ["more.csv"])["reads"]) == reads
