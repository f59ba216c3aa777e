"""A node killed at any moment of an ingest or a delete: all of it is there, or none of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake._failpoints import POINTS
from lake.bundles import ExportRequest, ImportRequest, export_bundle, import_bundle
from lake.links.linking import LinkRequest
from lake.peers.sharing.seeding import Seeder
from lake.statements.limits import Requester

from .conftest import put, upload_file

pytestmark = pytest.mark.crash

ROWS = 1000
TEXT = "a,b\n" + "".join(f"{i},x{i}\n" for i in range(ROWS))
CHILD = """
import sys
from pathlib import Path
from lake import Lake
from lake.links.linking import LinkRequest

def retire(lake, dataset):
    info = lake.catalog.get(dataset)
    lake.retention.retire(lake.catalog.objects_of(info.id, info.head), 0.0)
    lake.delete(dataset)
    lake.retention.sweep_retired()

def overtaken(lake, file):
    # An append comes between the merge of an upsert and its commit.
    from lake.writes.upsert_execution import UpsertExecution
    run = UpsertExecution._run

    def late(self):
        answer = run(self)
        lake.append("t", file.replace("new", "between"))
        return answer

    UpsertExecution._run = late
    lake.upsert("t", file, key=["a"])

def load(lake, file):
    from lake.bundles import ImportRequest, import_bundle
    from lake.peers.sharing.seeding import Seeder
    list(import_bundle(lake, ImportRequest(Path(file), "correct horse battery"), Seeder(None, lambda: None)))

if __name__ == "__main__":
    folder, verb, what = sys.argv[1:]
    with Lake(folder, memory_bytes="512MiB") as lake:
        verbs = {
            "upsert": lambda what: lake.upsert("t", what, key=["a"]),
            "overtaken": lambda what: overtaken(lake, what),
            "retire": lambda what: retire(lake, what),
            "link": lambda what: lake.linker.link(LinkRequest(what)),
            "purge": lambda what: lake.purge(what, "a < 10"),
            "maintain": lake.maintenance.run,
            "load": lambda what: load(lake, what),
        }
        (verbs.get(verb) or getattr(lake, verb))(what)
"""


def die(folder: Path, point: str, verb: str, what: str, child: str = CHILD) -> None:
    script = folder.parent / "child.py"
    script.write_text(child)
    environment = {"SENNIT_LAKE_CRASH_AT": point, "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(script), str(folder), verb, what]
    died = subprocess.run(command, env=environment, timeout=100, check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()


def opened(folder: Path, pool: ExecutorPool) -> Lake:
    return Lake(folder, tree=ElkynStore(folder / "elkyn" / "sys", namespace="sys"), pool=pool)


def check_nothing_is_left_over(lake: Lake) -> None:
    assert all(map(lake.catalog.references, lake.objects))
    assert lake.verify().findings == ()
    assert list((lake.folder / "lake" / "staging").iterdir()) == []
    for name in lake.objects:
        lake.objects.verify(name)


@pytest.mark.sample(1)
@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("ingest")])
def test_an_ingest_killed_anywhere_can_be_finished(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        upload = upload_file(lake, "a.csv", TEXT, part_bytes=1000)

    die(folder, point, "ingest", upload.id)

    with opened(folder, pool) as lake, lake.tree:
        committed = [info.rows for info in lake.catalog.list()]
        assert committed == ([ROWS] if point == "ingest-committed" else [])
        check_nothing_is_left_over(lake)
        assert lake.ingest(upload.id).rows == ROWS
        assert lake.sql("SELECT count(DISTINCT a), count(*) FROM a").rows == [(ROWS, ROWS)]
        assert lake.parts.list() == []
        check_nothing_is_left_over(lake)


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("link")])
def test_a_link_killed_anywhere_is_whole_or_can_be_repeated(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder, file = tmp_path / "data", tmp_path / "a.csv"
    file.write_text(TEXT)

    die(folder, point, "link", str(file))

    with opened(folder, pool) as lake, lake.tree:
        if point == "link-written":
            assert lake.catalog.list() == []
            assert list((folder / "lake" / "links").iterdir()) == []
            assert lake.parts.list() == []
            lake.linker.link(LinkRequest(str(file)))
        assert lake.sql("SELECT count(*) FROM a").value == ROWS
        (upload,) = lake.linker.uploads()
        assert lake.ingest(upload).rows == ROWS
        assert list((folder / "lake" / "links").iterdir()) == []
        check_nothing_is_left_over(lake)


@pytest.mark.sample(1)
@pytest.mark.parametrize("point", ["ingest-sealed", "ingest-adopted", "ingest-committed"])
def test_an_ingest_of_a_linked_file_killed_anywhere_can_be_finished(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder, file = tmp_path / "data", tmp_path / "a.csv"
    file.write_text(TEXT)
    with opened(folder, pool) as lake, lake.tree:
        upload = lake.linker.link(LinkRequest(str(file))).upload
        assert upload is not None

    die(folder, point, "ingest", upload)

    with opened(folder, pool) as lake, lake.tree:
        assert lake.sql("SELECT count(*) FROM a").value == ROWS
        assert lake.ingest(upload).rows == ROWS
        assert lake.parts.list() == []
        assert lake.linker.link_of("a") is None
        check_nothing_is_left_over(lake)


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("delete")])
def test_a_delete_killed_anywhere_is_finished_at_the_next_start(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        put(lake, "a.csv", TEXT)
        put(lake, "b.csv", TEXT)

    die(folder, point, "delete", "a")

    with opened(folder, pool) as lake, lake.tree:
        assert [info.name for info in lake.catalog.list()] == ["b"]
        check_nothing_is_left_over(lake)
        assert lake.sql("SELECT count(*) FROM b").value == ROWS


def test_a_sweep_of_retired_objects_killed_before_its_rows_are_removed_is_repeated(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        put(lake, "a.csv", TEXT)

    die(folder, "retired-deleted", "retire", "a")

    with opened(folder, pool) as lake, lake.tree:
        assert list(lake.objects) == []
        assert lake.retention.retired == 0


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("write")])
def test_an_upsert_killed_anywhere_is_done_or_not_and_may_be_repeated(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder, file = tmp_path / "data", tmp_path / "new.csv"
    file.write_text("a,b\n1,B\n3,C\n")
    with opened(folder, pool) as lake, lake.tree:
        lake.sql("CREATE TABLE t AS FROM (VALUES (1::BIGINT, 'a'), (2, 'b')) r(a, b)")

    die(folder, point, "upsert", str(file))

    with opened(folder, pool) as lake, lake.tree:
        done = [(1, "B"), (2, "b"), (3, "C")]
        before = lake.sql("FROM t").rows
        assert before == (done if point == "write-committed" else [(1, "a"), (2, "b")])
        check_nothing_is_left_over(lake)
        lake.upsert("t", file, key=["a"])
        assert lake.sql("FROM t").rows == done
        check_nothing_is_left_over(lake)


@pytest.mark.parametrize("point", ["upsert-overtaken", "write-adopted", "write-committed"])
def test_an_upsert_killed_while_it_merges_what_was_appended_is_done_or_not(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder, file = tmp_path / "data", tmp_path / "new.csv"
    file.write_text("a,b\n1,B\n3,C\n")
    (tmp_path / "between.csv").write_text("a,b\n3,c\n4,d\n")
    with opened(folder, pool) as lake, lake.tree:
        lake.sql("CREATE TABLE t AS FROM (VALUES (1::BIGINT, 'a'), (2, 'b')) r(a, b)")

    die(folder, point, "overtaken", str(file))

    with opened(folder, pool) as lake, lake.tree:
        done = [(1, "B"), (2, "b"), (3, "C"), (4, "d")]
        appended = [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
        assert lake.sql("FROM t").rows == (done if point == "write-committed" else appended)
        check_nothing_is_left_over(lake)
        lake.upsert("t", file, key=["a"])
        assert lake.sql("FROM t").rows == done


@pytest.mark.parametrize("point", ["bundle-object", "bundle-stored", "commit-prepared"])
def test_an_import_of_a_bundle_killed_anywhere_shows_nothing_and_can_be_repeated(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder, file = tmp_path / "data", tmp_path / "b"
    with opened(tmp_path / "other", pool) as other, other.tree:
        for name in ("trips", "plans"):
            other.sql(f"CREATE TABLE {name} AS FROM range({ROWS})")
        request = ExportRequest(("trips", "plans"), file, "correct horse battery", Requester())
        list(export_bundle(other, request))
    with opened(folder, pool) as lake, lake.tree:
        lake.sql("CREATE TABLE mine AS SELECT 1 AS one")

    die(folder, point, "load", str(file))

    with opened(folder, pool) as lake, lake.tree:
        assert [info.name for info in lake.catalog.list()] == ["mine"]
        check_nothing_is_left_over(lake)
        alone = Seeder(lambda _work: pytest.fail("there is no network"), lambda: None)
        list(import_bundle(lake, ImportRequest(file, "correct horse battery"), alone))
        assert lake.sql("SELECT count(*) FROM trips JOIN plans USING (range)").value == ROWS
        check_nothing_is_left_over(lake)


def test_every_point_is_tried() -> None:
    # Those of a rotation of keys are in test_encryption, of queued appends in test_queued_appends, of
    # the trash in test_cleanup, of taken parts in test_part_reuse.
    kinds = (
        "link", "ingest", "write", "delete", "expire", "retired", "rotate", "transaction",
        "commit", "maint", "purge", "upsert", "bundle", "append", "trash", "reuse")  # fmt: skip
    tried = [point for point in POINTS if point.startswith(kinds)]

    assert tried == list(POINTS)


@pytest.mark.sample(2)
@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("write")])
@pytest.mark.parametrize(
    ("statement", "sum_before", "sum_after"),
    [
        ("UPDATE t SET a = a + 1 WHERE a % 2 = 0", 190, 200),
        ("INSERT INTO t VALUES (1000, 'x')", 190, 1190),
        ("DELETE FROM t WHERE a < 10", 190, 145),
        ("CREATE OR REPLACE TABLE t AS SELECT sum(a) + 1 AS a FROM t", 190, 191),
    ],
)
def test_a_statement_killed_anywhere_is_done_or_not(
    point: str, statement: str, sum_before: int, sum_after: int, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        for start in (0, 10):
            lake.sql("CREATE TABLE IF NOT EXISTS t (a BIGINT, b VARCHAR)")
            lake.sql(f"INSERT INTO t SELECT i, 'x' FROM range({start}, {start + 10}) r(i)")

    die(folder, point, "sql", statement)

    with opened(folder, pool) as lake, lake.tree:
        done = point == "write-committed"
        assert lake.sql("SELECT sum(a) FROM t").value == (sum_after if done else sum_before)
        check_nothing_is_left_over(lake)
        lake.sql("INSERT INTO t (a) VALUES (0)")


TRANSACTION = """
BEGIN;
INSERT INTO t VALUES (1), (2);
UPDATE t SET a = a + 10;
CREATE TABLE new_table AS SELECT a FROM t WHERE a > 10;
INSERT INTO u SELECT count(*) FROM new_table;
COMMIT
"""


@pytest.mark.parametrize(
    "point",
    [
        "write-encoded",
        "write-adopted",
        "write-manifest",
        "write-committed",
        "transaction-staged",
        "commit-prepared",
        "transaction-committed",
    ],
)
def test_a_transaction_killed_anywhere_is_done_or_not(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        lake.sql("CREATE TABLE t AS SELECT 0::BIGINT AS a; CREATE TABLE u (n BIGINT)")

    die(folder, point, "sql", TRANSACTION)

    with opened(folder, pool) as lake, lake.tree:
        done = point == "transaction-committed"
        assert lake.sql("FROM t").rows == ([(10,), (11,), (12,)] if done else [(0,)])
        assert lake.sql("FROM u").rows == ([(2,)] if done else [])
        names = [info.name for info in lake.catalog.list()]
        assert names == (["new_table", "t", "u"] if done else ["t", "u"])
        check_nothing_is_left_over(lake)
        lake.sql(TRANSACTION.replace("new_table", "other"))
        check_nothing_is_left_over(lake)


@pytest.mark.sample(1)
@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("write")])
def test_a_compaction_killed_anywhere_is_done_or_not(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        lake.sql("CREATE TABLE t (a BIGINT)")
        for number in range(3):
            lake.sql(f"INSERT INTO t VALUES ({number})")

    die(folder, point, "compact", "t")

    with opened(folder, pool) as lake, lake.tree:
        assert lake.catalog.get("t").shards == (1 if point == "write-committed" else 4)
        assert lake.sql("FROM t").rows == [(0,), (1,), (2,)]
        check_nothing_is_left_over(lake)


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("expire")])
def test_an_expiry_killed_anywhere_is_finished_at_the_next_start(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        for number in range(3):
            lake.sql(f"CREATE OR REPLACE TABLE t AS SELECT {number} AS a")
        before = len(list(lake.objects))

    die(folder, point, "expire", "t")

    with opened(folder, pool) as lake, lake.tree:
        assert len(list(lake.objects)) == before - 4
        assert [each.snapshot.version for each in lake.catalog.snapshots("t")] == [3]
        assert lake.sql("FROM t").rows == [(2,)]
        check_nothing_is_left_over(lake)


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("purge")])
def test_a_purge_killed_anywhere_has_not_begun_or_is_finished_at_the_next_start(
    point: str, tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        put(lake, "t.csv", TEXT)
        lake.sql("INSERT INTO t VALUES (5, 'again')")
        rejects = lake.storage.rejects
        file = lake.staging / "rows"
        file.write_text("5,x5")
        rejects.keep(lake.catalog.get("t").id, lake.catalog.manifest("t").snapshot.id, file)

    die(folder, point, "purge", "t")

    with opened(folder, pool) as lake, lake.tree:
        done = point in ("purge-committed", "purge-deleted")
        assert lake.sql("SELECT count(*) FROM t").value == ROWS + 1 - 11 * done
        first = "SELECT count(*) FROM t AT (VERSION => 1)"
        assert lake.sql(first).value == ROWS - 10 * done
        assert any((folder / "lake" / "rejects").iterdir()) != done
        assert not lake.tree.get("/purges")
        check_nothing_is_left_over(lake)
        assert lake.purge("t", "a < 10").rows == (0 if done else 11)
        check_nothing_is_left_over(lake)


def test_maintenance_killed_between_datasets_continues_after_the_last_one(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    folder = tmp_path / "data"
    with opened(folder, pool) as lake, lake.tree:
        for name in "ab":
            lake.sql(f"CREATE TABLE {name} AS SELECT 0 AS i")
            for number in range(1, 9):
                lake.sql(f"INSERT INTO {name} VALUES ({number})")

    die(folder, "maintenance-examined", "maintain", "compact")

    with opened(folder, pool) as lake, lake.tree:
        assert sorted(info.shards for info in lake.catalog.list()) == [1, 9]
        assert lake.maintenance.tasks["compact"].state.cursor
        step = lake.maintenance.run("compact")
        assert (step.examined, step.changed) == (2, 2)
        assert [info.rows for info in lake.catalog.list()] == [9, 9]
        assert {info.shards for info in lake.catalog.list()} == {1}
        check_nothing_is_left_over(lake)
