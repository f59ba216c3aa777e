"""Files that are appended: their columns are matched by name, their notation is that of the file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake import Lake
from sennit_core.errors import BadInput, SennitError, UsageError

DAY = datetime.date


def csv(folder: Path, text: str) -> Path:
    file = folder / "more.csv"
    file.write_text(text)
    return file


def parquet(folder: Path, **columns: list[Any]) -> Path:
    file = folder / "more.parquet"
    pq.write_table(pa.table(columns), file)
    return file


@pytest.fixture
def t(lake: Lake) -> Lake:
    lake.append("t", pa.table({"id": [1], "Name": ["a"], "km": [1.5]}))
    return lake


@pytest.mark.slow
def test_columns_may_be_in_any_order_and_case(t: Lake, tmp_path: Path) -> None:
    t.append("t", csv(tmp_path, "KM,id,name\n2.5,2,b\n"))
    t.append("t", parquet(tmp_path, name=["c"], km=[3.5], id=[3]))
    t.append("t", pa.table({"km": [4.5], "Name": ["d"], "id": [4]}))
    file = tmp_path / "more.jsonl"
    file.write_text('{"km": 5.5, "id": 5, "Name": "e"}\n')
    t.append("t", file)
    assert t.sql("FROM t").rows == [(n + 1, "abcde"[n], n + 1.5) for n in range(5)]
    assert [field.name for field in t.catalog.get("t").schema] == ["id", "Name", "km"]


@pytest.mark.slow
def test_columns_that_a_file_does_not_have_are_null_and_noted(t: Lake, tmp_path: Path) -> None:
    t.append("t", csv(tmp_path, "id,km\n2,2.5\n"))
    t.append("t", parquet(tmp_path, km=[3.5]))
    file = tmp_path / "more.jsonl"
    file.write_text('{"id": 4}\n{"id": 5, "Name": "e"}\n')
    t.append("t", file)
    assert t.sql("FROM t OFFSET 1").rows == [
        (2, None, 2.5), (None, None, 3.5), (4, None, None), (5, "e", None),
    ]  # fmt: skip
    ingest = t.catalog.manifest("t").ingest
    assert ingest is not None
    assert [note["column"] for note in ingest["report"]["notes"]] == ["km"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,Name,km,more", "its columns are id, Name, km, more; the dataset has id, Name, km"),
        ("id,nmae,km", "'Name'"),
        ("x,y,z", "ADD COLUMN"),
    ],
)
def test_columns_that_the_dataset_does_not_have_are_refused(
    t: Lake, tmp_path: Path, header: str, message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        t.append("t", csv(tmp_path, f"{header}\n{','.join('1' * len(header.split(',')))}\n"))
    assert message in f"{refused.value} {refused.value.hint}"
    assert t.catalog.get("t").rows == 1


@pytest.mark.slow
def test_a_column_that_is_not_null_has_to_be_there(t: Lake, tmp_path: Path) -> None:
    t.sql("ALTER TABLE t ALTER km SET NOT NULL")
    with pytest.raises(BadInput) as refused:
        t.append("t", csv(tmp_path, "id,Name\n2,b\n"))
    assert "'km'" in str(refused.value.hint)
    t.append("t", csv(tmp_path, "id,km\n2,1\n"))


@pytest.mark.slow
def test_an_upsert_has_to_have_all_columns(t: Lake, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the dataset has"):
        t.upsert("t", csv(tmp_path, "id,km\n1,2.5\n"), key=["id"])
    t.upsert("t", csv(tmp_path, "km,Name,id\n2.5,b,1\n"), key=["id"])
    assert t.sql("FROM t").rows == [(1, "b", 2.5)]


NOTATIONS = [
    ("DATE", "31/12/2025", DAY(2025, 12, 31)),
    ("DATE", "12/31/2025", DAY(2025, 12, 31)),
    ("DATE", "1.2.2026", DAY(2026, 2, 1)),
    ("DATE", "2026/01/02", DAY(2026, 1, 2)),
    ("DATE", "2026-01-02", DAY(2026, 1, 2)),
    ("TIMESTAMP", "31/12/2025 10:30", datetime.datetime.fromisoformat("2025-12-31T10:30")),
    ("DOUBLE", '"1.234,5"', 1234.5),
    ("DOUBLE", '"1,234.5"', 1234.5),
    ("DOUBLE", '"1,5"', 1.5),
    ("BIGINT", '"1,234"', 1234),
]


@pytest.mark.sample(3)
@pytest.mark.parametrize(("kind", "text", "value"), NOTATIONS)
def test_an_appended_file_has_a_notation_of_its_own(
    lake: Lake, tmp_path: Path, kind: str, text: str, value: Any
) -> None:
    lake.sql(f"CREATE TABLE t (a INT, b {kind})")
    lake.append("t", csv(tmp_path, f"a,b\n1,{text}\n2,\n"))
    assert lake.sql("SELECT b FROM t").rows == [(value,), (None,)]


@pytest.mark.parametrize(("kind", "text"), [("DATE", "3/4/2026"), ("DOUBLE", '"1,234"')])
def test_a_notation_that_can_be_read_in_two_ways_is_refused(
    lake: Lake, tmp_path: Path, kind: str, text: str
) -> None:
    lake.sql(f"CREATE TABLE t (a INT, b {kind})")
    file = csv(tmp_path, f"a,b\n1,{text}\n")
    with pytest.raises(BadInput, match="in two ways") as refused:
        lake.append("t", file)
    assert "dateOrder" in str(refused.value.hint)
    if kind == "DATE":
        lake.append("t", file, date_order="mdy")
        assert lake.sql("SELECT b FROM t").value == DAY(2026, 3, 4)


@pytest.mark.slow
def test_a_value_far_below_decides_the_order_of_days(lake: Lake, tmp_path: Path) -> None:
    lake.sql("CREATE TABLE t (a INT, b DATE)")
    days = "".join(f"{n},1/{1 + n % 12}/2026\n" for n in range(200))
    lake.append("t", csv(tmp_path, f"a,b\n{days}999,31/1/2026\n"))
    assert lake.sql("SELECT b FROM t WHERE a = 1").value == DAY(2026, 2, 1)
    # Values that contradict each other decide nothing.
    with pytest.raises(BadInput, match="in two ways"):
        lake.append("t", csv(tmp_path, f"a,b\n{days}998,31/1/2026\n999,12/31/2026\n"))


def test_a_type_that_the_dataset_does_not_have_is_refused(t: Lake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'id' is Int64 in the dataset"):
        t.append("t", csv(tmp_path, "id,Name,km\n1,b,2\n"), columns={"id": "Utf8"})
    with pytest.raises(SennitError, match="Int64"):
        t.append("t", csv(tmp_path, "id,Name,km\nx,b,2\n"))


@pytest.mark.parametrize("mode", ["fail", "skip"])
def test_a_bad_value_does_not_decide_a_notation(lake: Lake, tmp_path: Path, mode: str) -> None:
    lake.sql("CREATE TABLE t (a INT, b DATE)")
    with pytest.raises(BadInput, match="in two ways"):
        lake.append("t", csv(tmp_path, "a,b\n1,3/4/2026\n2,foo\n"), on_bad_row=mode)
    file = csv(tmp_path, "a,b\n1,13/4/2026\n2,foo\n")
    if mode == "skip":
        lake.append("t", file, on_bad_row=mode)
        assert lake.sql("FROM t").rows == [(1, DAY(2026, 4, 13))]
