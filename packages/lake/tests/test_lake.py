"""Uploads become datasets; datasets are appended to, replaced, deleted; nothing half-visible."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake, UploadIncomplete, ingestor
from sennit_core.errors import BadInput, Cancelled, Conflict, Corrupt, NotFound, UsageError
from sennit_core.records import DatasetInfo, Progress
from sennit_core.schema import Schema

from .conftest import FLIGHTS, put, upload_file


def test_an_upload_becomes_a_dataset_and_goes(lake: Lake) -> None:
    upload = put(lake, "flights.csv", FLIGHTS, part_bytes=16)

    info = lake.catalog.get("flights")
    assert (info.id, info.rows, info.shards) == (upload.dataset, 4, 1)
    assert info.schema == Schema.of(
        carrier="Utf8", distance="Int64", dep_delay="Float64", day="Date"
    )
    with pytest.raises(NotFound):
        lake.parts.get(upload.id)


def test_the_snapshot_reports_shards_and_how_the_file_was_read(flights: Lake) -> None:
    snapshot, paths = flights.resolve("flights")
    manifest = flights.catalog.manifest("flights")

    assert snapshot.shards[0].byte_end == len(FLIGHTS)
    assert snapshot.shards[0].stats["distance"] == {"nulls": 0, "min": 200, "max": 1576}
    assert snapshot.stats["dep_delay"] == {"nulls": 1}
    assert flights.objects.verify(paths[0].name).size == snapshot.shards[0].bytes
    assert manifest.ingest is not None
    assert manifest.ingest["source"]["delimiter"] == ","


def test_the_live_tree_shows_an_upload_until_it_is_a_dataset(lake: Lake) -> None:
    upload = upload_file(lake, "a.csv", "a\n1\n", part_bytes=2)
    assert lake.tree.get(f"/uploads/{upload.id}") == {
        "name": "a.csv",
        "size": 4,
        "bytesDone": 4,
        "state": "receiving",
    }

    lake.ingest(upload.id)

    assert lake.tree.get(f"/uploads/{upload.id}") is None
    assert lake.tree.get(f"/datasets/{upload.dataset}")["name"] == "a"


def test_a_name_in_use_is_refused_before_a_byte_is_sent(flights: Lake) -> None:
    with pytest.raises(Conflict, match="exists"):
        flights.parts.start("FLIGHTS.csv", 10)
    flights.parts.start("flights.csv", 10, options={"name": "flights2"})


def test_append_adds_rows_and_keeps_the_older_snapshot(flights: Lake) -> None:
    before = flights.catalog.get("flights")
    put(flights, "more.csv", FLIGHTS, mode="append", options={"name": "flights"})

    info = flights.catalog.get("flights")
    assert (info.id, info.rows, info.shards) == (before.id, 8, 2)
    snapshots = flights.catalog.snapshots("flights")
    assert [s.snapshot.id for s in snapshots] == [info.head, before.head]
    assert snapshots[0].snapshot.parent == before.head
    assert [s.rows for s in flights.catalog.manifest("flights").snapshot.shards] == [4, 4]
    assert flights.sql("SELECT count(*) FROM flights").value == 8


def test_append_of_other_values_or_columns_changes_nothing(flights: Lake) -> None:
    for text in ("carrier,distance,dep_delay,day\nUA,far,1,2013-01-01\n", "a,b\n1,2\n"):
        with pytest.raises(BadInput):
            put(flights, "more.csv", text, mode="append", options={"name": "flights"})

    assert flights.catalog.get("flights").rows == 4


def test_replace_changes_the_columns_of_the_dataset(flights: Lake) -> None:
    put(flights, "new.csv", "x\n1\n", mode="replace", options={"name": "flights"})

    assert flights.sql("FROM flights").rows == [(1,)]
    assert len(flights.catalog.snapshots("flights")) == 2


def test_a_file_that_cannot_be_read_leaves_the_upload_and_no_dataset(lake: Lake) -> None:
    upload = upload_file(lake, "bad.csv", "a,b\n1,2\n3\n")

    with pytest.raises(BadInput, match="line 3"):
        lake.ingest(upload.id)

    assert lake.catalog.list() == []
    assert list(lake.objects) == []
    assert lake.tree.get(f"/uploads/{upload.id}/state") == "failed"
    assert lake.parts.get(upload.id).state == "sealed"


def test_an_incomplete_upload_is_not_ingested(lake: Lake) -> None:
    upload = lake.parts.start("a.csv", 10, part_bytes=5)

    with pytest.raises(UploadIncomplete):
        lake.ingest(upload.id)


@pytest.mark.slow
def test_an_ingest_can_be_cancelled_and_done_again(lake: Lake) -> None:
    upload = upload_file(lake, "a.csv", "a\n" + "1\n" * 2_000_000)

    with pytest.raises(Cancelled):
        lake.ingest(upload.id, cancelled=lambda: True)

    assert lake.catalog.list() == []
    assert lake.ingest(upload.id).rows == 2_000_000


def test_a_cancel_after_the_file_was_read_leaves_no_dataset(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = upload_file(lake, "a.csv", "a\n1\n")
    passed: list[str] = []
    monkeypatch.setattr(ingestor, "reached", passed.append)

    with pytest.raises(Cancelled):
        lake.ingest(upload.id, cancelled=lambda: "ingest-encoded" in passed)

    assert passed == ["ingest-encoded", "ingest-half-adopted", "ingest-adopted"]
    assert lake.catalog.list() == []
    assert lake.ingest(upload.id).rows == 1


@pytest.mark.slow
def test_an_ingest_that_ends_between_two_looks_is_done(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestor, "_POLL_SECONDS", 0)  # so that it always ends between two
    for n in range(20):
        upload = upload_file(lake, f"a{n}.csv", "a\n1\n")
        assert lake.ingest(upload.id, cancelled=lambda: False).rows == 1


def test_two_ingests_of_one_upload_make_one_dataset(lake: Lake) -> None:
    upload = upload_file(lake, "a.csv", "a\n" + "1\n" * 2_000_000)
    encoding = threading.Event()

    def second() -> DatasetInfo:
        assert encoding.wait(30)
        return lake.ingest(upload.id)

    with ThreadPoolExecutor(1) as threads:
        later = threads.submit(second)
        first = lake.ingest(upload.id, on_progress=lambda _: encoding.set())
        assert later.result(60) == first

    assert first.rows == 2_000_000
    assert len(lake.catalog.snapshots("a")) == 1


def test_an_ingest_that_waits_for_another_can_be_cancelled(lake: Lake) -> None:
    upload = upload_file(lake, "a.csv", "a\n" + "1\n" * 2_000_000)
    encoding, go_on = threading.Event(), threading.Event()

    def first(_: Progress) -> None:
        encoding.set()
        assert go_on.wait(30)

    with ThreadPoolExecutor(1) as threads:
        earlier = threads.submit(lake.ingest, upload.id, on_progress=first)
        assert encoding.wait(30)
        with pytest.raises(Cancelled, match=upload.id):
            lake.ingest(upload.id, cancelled=lambda: True)
        assert not earlier.done()
        go_on.set()
        assert earlier.result(60).rows == 2_000_000


def test_ingesting_again_after_the_commit_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    upload = upload_file(lake, "a.csv", "a\n1\n")
    folder = lake.parts.folder(upload.id)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    first = lake.ingest(upload.id)
    folder.mkdir()
    for name, data in kept.items():
        (folder / name).write_bytes(data)

    assert lake.ingest(upload.id) == first
    assert lake.catalog.get("a").rows == 1
    assert not folder.exists()


def test_deleting_frees_objects_without_other_references(flights: Lake) -> None:
    put(flights, "copy.csv", FLIGHTS)
    shared = flights.catalog.manifest("flights").snapshot.shards[0].object

    flights.delete("flights")

    assert shared in flights.objects
    assert flights.sql("SELECT count(*) FROM copy").value == 4
    flights.delete("copy")
    assert list(flights.objects) == []


def test_a_source_that_is_kept_can_be_read_again_and_goes_with_the_dataset(lake: Lake) -> None:
    put(lake, "flights.csv", FLIGHTS, part_bytes=10, options={"keepSource": True})

    (shard,) = lake.resolve("flights")[0].shards
    assert shard.source_object is not None
    assert b"".join(lake.objects.read(shard.source_object)) == FLIGHTS.encode()
    assert lake.retention.sweep() == []
    lake.delete("flights")
    assert list(lake.objects) == []


def test_a_deleted_dataset_is_gone_at_once(flights: Lake) -> None:
    flights.delete("flights")

    with pytest.raises(NotFound):
        flights.sql("FROM flights")
    with pytest.raises(NotFound):
        flights.delete("flights")


def test_a_query_continues_while_its_dataset_is_deleted(flights: Lake) -> None:
    with flights.run("SELECT * FROM flights, range(200000)") as execution:
        rows = 0
        for batch in execution.batches():
            if not rows:
                flights.delete("flights")
                assert len(list(flights.objects)) == 1
            rows += batch.num_rows

    assert rows == 800_000
    assert list(flights.objects) == []


@pytest.mark.slow
def test_library_use_needs_a_folder_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "trips.csv"
    source.write_text("a,b\n1,x\n")
    with Lake(tmp_path / "data") as lake:
        lake.append("trips", source)
        lake.append("trips", pa.table({"a": [2], "b": ["y"]}))
    with Lake(tmp_path / "data") as lake:
        assert lake.sql("FROM trips").rows == [(1, "x"), (2, "y")]


def test_append_names_what_it_cannot_store(lake: Lake) -> None:
    with pytest.raises(NotFound):
        lake.append("t", "/no/such/file.csv")
    with pytest.raises(UsageError, match="dict"):
        lake.append("t", {"a": [1]})


def test_objects_that_a_crash_left_go_at_the_start(tmp_path: Path, pool: ExecutorPool) -> None:
    with ElkynStore(mode="memory") as tree:
        with Lake(tmp_path, tree=tree, pool=pool) as lake:
            put(lake, "a.csv", "a\n1\n")
            orphan = lake.objects.put_bytes(b"orphan").object
        # A crash leaves no such mark.
        (tmp_path / "lake" / "ended-cleanly").unlink()
        with Lake(tmp_path, tree=tree, pool=pool) as lake:
            assert orphan not in lake.objects
            assert lake.sql("FROM a").value == 1


def test_a_missing_shard_is_an_error_and_never_fewer_rows(flights: Lake) -> None:
    _, paths = flights.resolve("flights")
    paths[0].unlink()

    for engine in ("duckdb", "emsqrt"):
        with pytest.raises(Corrupt, match=r'"flights": .*shard 0 .*No such file'):
            flights.sql("FROM flights", engine=engine)


def test_two_lines_are_enough(tmp_path: Path) -> None:
    code = (
        "import lake\n"
        f"print(lake.open({str(tmp_path / 'new')!r}).sql('SELECT 6 * 7 AS answer').rows)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[(42,)]\n", "")
