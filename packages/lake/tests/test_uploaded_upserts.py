"""Uploads of the mode `upsert`: checked at their start, merged once, and safe to repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from sennit_core.errors import BadInput, SennitError

from .conftest import upload_file
from .served_lake import Client, make_app
from .test_crash import check_nothing_is_left_over, die, opened

OPTIONS = {"name": "t", "key": ["id"]}


@pytest.fixture
def t(lake: Lake) -> Lake:
    lake.sql("CREATE TABLE t AS FROM (VALUES (1, 'a'), (2, 'b')) v(id, v)")
    return lake


def upload(lake: Lake, text: str) -> str:
    return upload_file(lake, "new.csv", text, mode="upsert", options=OPTIONS).id


def test_an_upload_is_merged_by_key(t: Lake) -> None:
    info = t.ingest(upload(t, "id,v\n2,B\n3,c\n"), owner="ada")
    assert t.sql("FROM t").rows == [(1, "a"), (2, "B"), (3, "c")]
    snapshot = t.catalog.snapshots("t")[0].snapshot
    assert (snapshot.id, snapshot.author) == (info.head, "ada")
    assert snapshot.query == "upsert by id"
    with pytest.raises(BadInput, match="rows 1 and 2"):
        t.ingest(upload(t, "id,v\n2,B\n2,c\n"))
    assert t.catalog.get("t").head == info.head


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"name": "t"}, 422, "list of the columns of its key"),
        ({"name": "t", "key": "id"}, 422, "list of the columns of its key"),
        ({"name": "t", "key": [1]}, 422, "list of the columns of its key"),
        ({"name": "t", "key": ["idd"]}, 422, "idd"),
        ({"name": "no"}, 422, "list of the columns of its key"),
        ({"name": "t", "key": ["id"], "encrypt": True}, 409, "not encrypted"),
        ({"name": "t", "key": ["id"], "onBadRow": "skip"}, 422, "on_bad_row"),
    ],
)
def test_what_cannot_be_merged_is_refused_before_the_first_byte(
    t: Lake, options: dict[str, Any], status: int, words: str
) -> None:
    document = {"name": "new.csv", "size": 10, "mode": "upsert", "options": options}
    answer = Client(make_app(t)).post("/api/start-upload", json=document)
    assert answer.status_code in (status, 400), answer.text
    assert words in answer.text
    assert list(t.parts.root.iterdir()) == []


def test_a_key_is_of_no_use_to_other_modes(t: Lake) -> None:
    other = upload_file(t, "new.csv", "id,v\n2,B\n", mode="append", options=OPTIONS)
    with pytest.raises(SennitError, match="unknown ingest option 'key'"):
        t.ingest(other.id)


@pytest.mark.crash
@pytest.mark.parametrize("point", ["write-encoded", "write-manifest", "write-committed"])
def test_an_upsert_that_is_killed_is_merged_once(
    tmp_path: Path, pool: ExecutorPool, point: str
) -> None:
    data = tmp_path / "data"
    with opened(data, pool) as lake, lake.tree:
        lake.sql("CREATE TABLE t AS FROM (VALUES (1, 'a'), (2, 'b')) v(id, v)")
        waiting = upload(lake, "id,v\n2,B\n3,c\n")
    die(data, point, "ingest", waiting)

    with opened(data, pool) as lake, lake.tree:
        # A row that changed after the commit is not merged again.
        lake.sql("UPDATE t SET v = 'newer' WHERE id = 2")
        lake.ingest(waiting)
        merged = "newer" if point == "write-committed" else "B"
        assert lake.sql("FROM t ORDER BY id").rows == [(1, "a"), (2, merged), (3, "c")]
        check_nothing_is_left_over(lake)
        assert list(lake.parts.root.iterdir()) == []
