"""A purge removes rows from every version, and every byte of them from the lake's folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.interop.iceberg import publish_iceberg
from sennit_core.errors import (
    Conflict,
    Denied,
    NotFound,
    SennitError,
    SqlError,
    UnknownColumn,
    Unsupported,
    UsageError,
)
from sennit_core.records import DatasetInfo

from .conftest import put
from .served_lake import Client, make_app

SECRET = "zelda.quixote.4711@example.org"


@pytest.fixture
def stored(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    """A lake whose tree is on the disk too."""
    folder = tmp_path / "data"
    with (
        ElkynStore(folder / "elkyn" / "sys", namespace="sys") as tree,
        Lake(folder, tree=tree, pool=pool, cache_bytes=1 << 20, keep_source=True) as lake,
    ):
        yield lake


def people(lake: Lake, name: str = "people") -> DatasetInfo:
    text = f"id,email\n1,ada@example.org\n2,{SECRET}\n3,eve@example.org\n"
    put(lake, f"{name}.csv", text)
    return lake.catalog.get(name)


def files_with(folder: Path, text: str) -> list[str]:
    """Return the files that have the text, in the clear or as Parquet pages have it."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]


def rows_at(lake: Lake, table: str, version: int) -> list[Any]:
    return lake.sql(f"SELECT * FROM {table} AT (VERSION => {version}) ORDER BY ALL").rows


def test_rows_leave_every_version_and_every_file(stored: Lake) -> None:
    people(stored)
    stored.sql(f"INSERT INTO people VALUES (4, '{SECRET}')")
    stored.sql("UPDATE people SET id = id + 10 WHERE id < 3")
    stored.tag("people", "first", 1)
    stored.sql(f"SELECT * FROM people WHERE email = '{SECRET}'")
    publish_iceberg(stored, "people")
    assert files_with(stored.folder, SECRET)

    report = stored.purge("people", "email = ?", params=[SECRET], user="ada")

    assert (report.rows, report.versions, report.still_read) == (2, 3, 0)
    assert files_with(stored.folder, SECRET) == []
    assert len(stored.result_cache) == 0
    assert [row[0] for row in rows_at(stored, "people", 1)] == [1, 3]
    assert [row[0] for row in rows_at(stored, "people", 2)] == [1, 3]
    assert [row[0] for row in rows_at(stored, "people", 3)] == [3, 11]
    assert stored.catalog.get("people").rows == 2
    assert stored.verify().findings == ()
    assert all(map(stored.catalog.references, stored.objects))


def test_a_purge_is_noted_and_keeps_versions_times_and_tags(stored: Lake) -> None:
    people(stored)
    stored.sql("INSERT INTO people VALUES (4, 'x')")
    stored.tag("people", "first", 1)
    before = stored.catalog.snapshots("people")

    stored.purge("people", "id = 2", user="ada")

    after = stored.catalog.snapshots("people")
    for old, new in zip(before, after, strict=True):
        assert old.created_at == new.created_at
        assert (old.snapshot.id, old.snapshot.version) == (new.snapshot.id, new.snapshot.version)
        assert old.snapshot.author == new.snapshot.author
        assert "rows purged" in (new.snapshot.query or "")
        assert "by ada" in (new.snapshot.query or "")
    assert stored.catalog.manifest_at("people", version="first").rows == 2


def test_a_purge_survives_a_restart(stored: Lake) -> None:
    people(stored)
    stored.purge("people", "id = 2")

    with Lake(stored.folder, tree=stored.tree, pool=stored.pool) as again:
        assert again.sql("SELECT count(*) FROM people").value == 2
        again.sql("INSERT INTO people VALUES (5, 'later')")
        assert again.compact("people").rows == 3
        assert again.verify().findings == ()


def test_rows_are_found_under_the_names_that_their_columns_have_now(stored: Lake) -> None:
    people(stored)
    stored.sql("ALTER TABLE people RENAME COLUMN email TO mail")
    stored.sql("ALTER TABLE people ADD COLUMN email VARCHAR")
    stored.sql(f"INSERT INTO people VALUES (9, 'x', '{SECRET}')")

    assert stored.purge("people", f"mail = '{SECRET}'").rows == 1

    assert stored.sql("SELECT count(*) FROM people").value == 3
    assert stored.purge("people", f"email = '{SECRET}'").rows == 1
    assert files_with(stored.folder, SECRET) == []


def test_a_dropped_column_keeps_its_values_in_the_other_rows(stored: Lake) -> None:
    people(stored)
    stored.sql("ALTER TABLE people DROP COLUMN email")

    stored.purge("people", "id = 2")

    assert rows_at(stored, "people", 1) == [(1, "ada@example.org"), (3, "eve@example.org")]
    assert files_with(stored.folder, SECRET) == []
    with pytest.raises(UnknownColumn):
        stored.purge("people", "email = 'ada@example.org'")


def test_a_replaced_dataset_is_purged_by_what_its_columns_were_then(stored: Lake) -> None:
    people(stored)
    stored.sql("CREATE OR REPLACE TABLE people AS SELECT 'a' AS email, 2 AS id, 7 AS extra")

    assert stored.purge("people", "id = 2").versions == 2  # by name, not by the column's number
    assert files_with(stored.folder, SECRET) == []
    with pytest.raises(Unsupported, match="extra"):
        stored.purge("people", "extra = 7")
    assert stored.sql("SELECT count(*) FROM people").value == 0


def test_a_condition_that_nothing_meets_changes_no_row(stored: Lake) -> None:
    people(stored)
    report = stored.purge("people", "id > 100")

    assert (report.rows, report.rows_all, report.versions, report.shards) == (0, 0, 0, 0)
    assert stored.sql("SELECT count(*) FROM people").value == 3


def test_all_rows_may_go(stored: Lake) -> None:
    people(stored)
    stored.sql("INSERT INTO people VALUES (4, 'x')")

    assert stored.purge("people", "true").rows == 4

    assert stored.sql("SELECT count(*) FROM people").value == 0
    stored.sql("INSERT INTO people VALUES (5, 'y')")
    assert stored.sql("SELECT id FROM people").value == 5


def test_expired_versions_in_their_grace_time_go_too(tmp_path: Path, pool: ExecutorPool) -> None:
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path / "data", tree=tree, pool=pool, grace_seconds=1e6) as lake,
    ):
        people(lake)
        lake.sql("DELETE FROM people WHERE id = 2")
        lake.expire("people", keep=1)
        assert files_with(lake.folder, SECRET)

        lake.purge("people", "id = 2")

        assert files_with(lake.folder, SECRET) == []
        assert lake.retention.retired == 0


def test_another_dataset_with_the_same_rows_keeps_them(stored: Lake) -> None:
    people(stored)
    put(stored, "copy.csv", f"id,email\n1,ada@example.org\n2,{SECRET}\n3,eve@example.org\n")

    stored.purge("people", "id = 2")

    assert stored.sql("SELECT count(*) FROM copy").value == 3
    assert stored.verify().findings == ()


def test_a_pinned_version_refuses_the_purge(stored: Lake) -> None:
    people(stored)
    info = stored.catalog.get("people")
    assert info.head is not None
    pin = stored.retention.pin(stored.catalog.objects_of(info.id, info.head), "evidence")

    with pytest.raises(Conflict, match=pin.id):
        stored.purge("people", "id = 2")

    assert stored.sql("SELECT count(*) FROM people").value == 3
    stored.retention.unpin(pin.id)
    assert stored.purge("people", "id = 2").rows == 1


def test_readers_of_old_shards_finish_and_are_waited_for(stored: Lake) -> None:
    people(stored)
    shard = stored.catalog.manifest("people").snapshot.shards[0].object
    held = stored.retention.acquire([shard])

    assert stored.purge("people", "id = 2", wait_seconds=0.0).still_read == 1
    assert files_with(stored.folder, SECRET)  # the reader has the file
    stored.retention.release(held)
    assert files_with(stored.folder, SECRET) == []


def test_a_purge_waits_for_a_reader_that_ends(stored: Lake) -> None:
    people(stored)
    shard = stored.catalog.manifest("people").snapshot.shards[0].object
    held = stored.retention.acquire([shard])
    timer = threading.Timer(0.3, stored.retention.release, [held])
    timer.start()

    assert stored.purge("people", "id = 2", wait_seconds=60).still_read == 0

    timer.join()
    assert files_with(stored.folder, SECRET) == []


def test_a_statement_that_read_the_rows_does_not_bring_them_back(
    stored: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(stored)
    commit = stored._writer.commit
    purged: list[Any] = []

    def purge_first(*args: Any) -> Any:
        if not purged:
            purged.append(stored.purge("people", "id = 2", wait_seconds=0.0))
        return commit(*args)

    monkeypatch.setattr(stored._writer, "commit", purge_first)
    stored.sql("INSERT INTO people SELECT id + 100, email FROM people")

    assert stored.sql("SELECT id FROM people ORDER BY id").rows == [(1,), (3,), (101,), (103,)]
    assert files_with(stored.folder, SECRET) == []


def test_appends_during_a_purge_are_examined_too(
    stored: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(stored)
    purge = stored.statements.purge
    appended: list[Any] = []

    def append_after(*args: Any) -> None:
        purge(*args)
        if not appended:
            appended.append(stored.append("people", pa.table({"id": [2, 7], "email": ["b", "c"]})))

    monkeypatch.setattr(stored.statements, "purge", append_after)

    assert stored.purge("people", "id = 2").rows == 2
    assert stored.sql("SELECT id FROM people ORDER BY id").rows == [(1,), (3,), (7,)]


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("", UsageError),
        ("id = 2; DROP TABLE people", SennitError),
        ("id = 2) OR (true", SennitError),
        ("id = 2 RETURNING *", SennitError),
        ("id IN (SELECT id FROM people)", Unsupported),
        ("id IN (SELECT id FROM other)", Unsupported),
        ("id = ", SqlError),
        ("nothing = 2", UnknownColumn),
        ("id = (SELECT 1 FROM read_csv('/etc/passwd'))", SennitError),
        ("getenv('HOME') = 'x'", SennitError),
        ("x" * (1 << 20) + " = 1", UsageError),
    ],
)
def test_hostile_conditions_change_nothing(stored: Lake, where: str, error: type) -> None:
    people(stored)
    with pytest.raises(error):
        stored.purge("people", where)
    assert stored.sql("SELECT count(*) FROM people").value == 3
    assert all(map(stored.catalog.references, stored.objects))
    assert list((stored.folder / "lake" / "staging").iterdir()) == []


def test_an_unknown_dataset_and_a_linked_one_are_refused(stored: Lake, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        stored.purge("nothing", "id = 2")


def test_an_encrypted_dataset_is_purged(tmp_path: Path, pool: ExecutorPool) -> None:
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path / "data", tree=tree, pool=pool, passphrase="correct horse") as lake,
    ):
        lake.append("t", pa.table({"id": [1, 2], "email": ["a", SECRET]}), encrypt=True)
        lake.sql("SELECT * FROM t")
        assert files_with(lake.storage.vault.cache.folder, "PAR1")

        assert lake.purge("t", "id = 2").rows == 1

        assert lake.sql("SELECT * FROM t").rows == [(1, "a")]
        assert lake.verify().findings == ()


def test_the_route_needs_the_owner_or_an_admin(stored: Lake) -> None:
    people(stored)
    client = Client(make_app(stored))

    body = {"where": "email = ?", "params": [SECRET]}
    found = client.post("/api/datasets/people/purge", json=body).json()
    assert (found["rows"], found["stillRead"]) == (1, 0)
    assert client.post("/api/datasets/people/purge", json={"where": ""}).status_code in (400, 422)
    assert client.post("/api/datasets/no/purge", json={"where": "true"}).status_code == 404
    from lake.statements.limits import Requester

    with pytest.raises(Denied, match="owner or an admin"):
        stored.policies.check_manage("people", Requester("eve", role="writer", may_write=True))
