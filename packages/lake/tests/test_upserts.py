"""Rows merged into a dataset by key."""

from __future__ import annotations

import math
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake import Lake
from sennit_core.errors import BadInput, Conflict, SennitError, UnknownColumn, UsageError


def table(**columns: list[Any]) -> pa.Table:
    return pa.table(columns)


@pytest.fixture
def t(lake: Lake) -> Lake:
    """Two shards, with the keys 1 to 3 and 4 to 5."""
    lake.append("t", table(id=[1, 2, 3], v=["a", "b", "c"]))
    lake.append("t", table(id=[4, 5], v=["d", "e"]))
    return lake


def shards(lake: Lake) -> list[str]:
    return [each.object for each in lake.catalog.manifest("t").snapshot.shards]


def test_rows_with_equal_keys_are_replaced_in_place_and_others_appended(t: Lake) -> None:
    untouched = shards(t)[0]
    info = t.upsert("t", table(id=[9, 5], v=["i", "E"]), key=["ID"])
    assert t.sql("FROM t").rows == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "E"), (9, "i")]
    assert info.rows == 6
    assert shards(t)[0] == untouched
    snapshot = t.catalog.snapshots("t")[0].snapshot
    assert (snapshot.version, snapshot.query) == (3, "upsert by id")


def test_a_file_is_merged_like_a_table(t: Lake, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("id,v\n2,B\n6,f\n")
    t.upsert("t", file, key=["id"])
    assert t.sql("FROM t WHERE id IN (2, 6)").rows == [(2, "B"), (6, "f")]


@pytest.mark.parametrize(
    ("source", "key", "error", "message"),
    [
        (table(id=[5, 7, 5], v=["x", "y", "z"]), ["id"], BadInput, "rows 1 and 3 .* id = 5"),
        (table(id=[5, None], v=["x", "y"]), ["id"], BadInput, "1 rows have no value .* row 2"),
        (table(id=[5], w=["x"]), ["id"], BadInput, "the dataset has id, v"),
        (table(id=["x"], v=["x"]), ["id"], BadInput, "id"),
        (table(id=[5], v=["x"]), ["idd"], UnknownColumn, "idd"),
        (table(id=[5], v=["x"]), [], UsageError, "key"),
        (table(id=[5], v=["x"]), "id", UsageError, "list"),
        (table(id=[5], v=["x"]), ["id", "ID"], UsageError, "twice"),
    ],
)
def test_data_that_has_no_one_meaning_is_refused_and_changes_nothing(
    t: Lake, source: pa.Table, key: Any, error: type[SennitError], message: str
) -> None:
    before = t.catalog.get("t").head
    with pytest.raises(error, match=message):
        t.upsert("t", source, key=key)
    assert t.catalog.get("t").head == before
    assert list(t.staging.iterdir()) == []


def test_options_and_datasets_that_it_cannot_serve_are_refused(t: Lake) -> None:
    t.sql("CREATE VIEW w AS FROM t")
    with pytest.raises(Conflict, match="a view named 'w'"):
        t.upsert("w", table(id=[1]), key=["id"])
    with pytest.raises(UsageError, match="on_bad_row"):
        t.upsert("t", table(id=[1], v=["x"]), key=["id"], on_bad_row="skip")


def test_rows_of_the_dataset_without_a_key_stay(lake: Lake) -> None:
    lake.append("t", table(id=[None, 1], v=["none", "a"]))
    lake.upsert("t", table(id=[1, 2], v=["A", "b"]), key=["id"])
    assert lake.sql("FROM t").rows == [(None, "none"), (1, "A"), (2, "b")]


def test_all_rows_with_the_key_are_replaced(lake: Lake) -> None:
    lake.append("t", table(id=[1, 1], v=["a", "b"]))
    lake.upsert("t", table(id=[1], v=["c"]), key=["id"])
    assert lake.sql("FROM t").rows == [(1, "c"), (1, "c")]


def test_a_key_may_have_odd_columns(lake: Lake) -> None:
    columns = {
        'a "b"': [1.5, math.nan],
        "größe": ["x", "y"],
        "__lake_row": [1, 2],
        "value0": [0, 0],
    }
    lake.append("t", pa.table(columns))
    changed = pa.table({**columns, "__lake_row": [10, 20]})
    lake.upsert("t", changed, key=['A "B"', "größe"])
    assert lake.sql("SELECT __lake_row FROM t").rows == [(10,), (20,)]


def test_shards_from_before_a_change_of_columns_are_merged(t: Lake) -> None:
    for change in (
        "RENAME COLUMN v TO w",
        "ADD COLUMN n BIGINT",
        "ALTER COLUMN id TYPE DECIMAL(20, 1)",
    ):
        t.sql(f"ALTER TABLE t {change}")
    t.upsert("t", table(id=[Decimal("2.0"), Decimal("6.5")], w=["B", "f"], n=[1, 2]), key=["id"])
    rows = t.sql("FROM t WHERE n IS NOT NULL OR id = 1").rows
    assert rows == [(1.0, "a", None), (2.0, "B", 1), (6.5, "f", 2)]


def test_an_empty_dataset_and_an_empty_source(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (id BIGINT, v VARCHAR)")
    lake.upsert("t", table(id=pa.array([], pa.int64()), v=pa.array([], pa.string())), key=["id"])
    assert lake.catalog.get("t").rows == 0
    lake.upsert("t", table(id=[1], v=["a"]), key=["id"])
    lake.sql("DELETE FROM t")
    lake.upsert("t", table(id=[1], v=["b"]), key=["id"])
    assert lake.sql("FROM t").rows == [(1, "b")]


@pytest.mark.slow
def test_concurrent_upserts_and_appends_lose_nothing_and_repeat_no_key(t: Lake) -> None:
    errors: list[SennitError] = []

    def merge(writer: int) -> None:
        try:
            for step in range(4):
                rows = table(id=[1, 100 + step], v=[f"{writer}", f"{writer}.{step}"])
                t.upsert("t", rows, key=["id"])
                t.append("t", table(id=[1000 * (writer + 1) + step], v=["x"]))
        except SennitError as error:
            errors.append(error)

    threads = [threading.Thread(target=merge, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert t.sql("SELECT count(*), count(DISTINCT id) FROM t").rows == [(25, 25)]
    assert t.verify().findings == ()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.dictionaries(st.integers(0, 12), st.integers(), max_size=6), max_size=4))
def test_a_dataset_is_what_a_dict_would_be(lake: Lake, batches: list[dict[int, int]]) -> None:
    lake.sql("CREATE OR REPLACE TABLE d (k BIGINT, v VARCHAR)")
    model: dict[int, str] = {}
    for batch in batches:
        new = {key: str(value) for key, value in batch.items()}
        keys, values = pa.array(list(new), pa.int64()), pa.array(list(new.values()), pa.string())
        lake.upsert("d", pa.table({"k": keys, "v": values}), key=["k"])
        model |= new
    assert lake.sql("FROM d").rows == list(model.items())


def test_a_key_that_another_writer_adds_meanwhile_is_replaced_not_repeated(
    t: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = t._writer.commit
    calls: list[int] = []

    def commit_late(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            t.append("t", table(id=[9], v=["theirs"]))
        return committed(*arguments, **named)

    monkeypatch.setattr(t._writer, "commit", commit_late)
    t.upsert("t", table(id=[9], v=["ours"]), key=["id"])
    assert len(calls) == 2
    assert t.sql("SELECT v FROM t WHERE id = 9").rows == [("ours",)]
