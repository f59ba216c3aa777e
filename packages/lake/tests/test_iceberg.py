"""Iceberg metadata of snapshots, read by pyiceberg."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.avro.file import AvroFile
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import StaticTable

import lake as lakes
from lake import Lake
from lake.access.rules import PolicyRule
from lake.cli import main
from lake.interop.avro import container
from lake.interop.iceberg import publish_iceberg
from sennit_core.errors import NotFound, Unsupported

from .served_lake import Client, make_app

ALL_TYPES = {
    "b": pa.array([True, None]), "i8": pa.array([1, -1], pa.int8()),
    "u16": pa.array([65535, 0], pa.uint16()), "u32": pa.array([2**32 - 1, 0], pa.uint32()),
    "i64": pa.array([2**63 - 1, -(2**63)]), "f32": pa.array([1.5, None], pa.float32()),
    "f": pa.array([0.1, float("nan")]), "dec": pa.array([1, 2], pa.decimal128(20, 0)),
    "t": pa.array(["ä", ""]), "bin": pa.array([b"\x00", None]), "d": pa.array([0, -1], pa.date32()),
    "at": pa.array([0, 1], pa.timestamp("us")), "utc": pa.array([0, 1], pa.timestamp("us", "UTC")),
    "time": pa.array([0, 1], pa.time64("us")), "l": pa.array([[1, None], None]),
    "s": pa.array([{"x": 1, "y": ["q"]}, None]), "ls": pa.array([[{"z": 1}], []]),
}  # fmt: skip


def opened(path: Path) -> StaticTable:
    return StaticTable.from_metadata(str(path))


def rows_of(table: StaticTable) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = table.scan().to_arrow().to_pylist()
    return rows


def test_every_type_is_read_back(lake: Lake) -> None:
    data = pa.table({name: column for name, column in ALL_TYPES.items() if name != "f"})
    lake.append("all", data)
    table = opened(publish_iceberg(lake, "all"))
    assert rows_of(table) == lake.sql('from "all"').to_arrow().to_pylist()
    assert table.schema().find_field("dec").field_id == 7


@pytest.mark.parametrize(
    "kind", [pa.uint64(), pa.duration("us"), pa.timestamp("us", "Europe/Rome")]
)
def test_a_type_that_iceberg_lacks_is_refused(lake: Lake, kind: pa.DataType) -> None:
    lake.append("odd", pa.table({"x": pa.array([1], kind)}))
    with pytest.raises(Unsupported, match="column 'x' of type"):
        publish_iceberg(lake, "odd")


def test_a_history_of_changes_is_read_as_sql_reads_it(numbers: Lake, tmp_path: Path) -> None:
    for statement in (
        "alter table t rename column b to c", "alter table t add column d double",
        "insert into t values (50, 'new', 1.5)", "alter table t drop column c",
        "alter table t add column b varchar", "update t set b = 'again' where a > 25",
        "delete from t where a between 3 and 14", "insert into t select a + 100, d, b from t",
    ):  # fmt: skip
        numbers.sql(statement)
        table = opened(publish_iceberg(numbers, "t"))
        assert rows_of(table) == numbers.sql("from t").to_arrow().to_pylist(), statement
    assert table.current_snapshot().summary["total-records"] == str(numbers.catalog.get("t").rows)
    assert rows_of(opened(publish_iceberg(numbers, "t", version=2))) == (
        numbers.sql("from t at (version => 2)").to_arrow().to_pylist()
    )
    with pytest.raises(NotFound):
        publish_iceberg(numbers, "t", version=99)


def test_a_renamed_column_beside_nested_ones(lake: Lake) -> None:
    lake.append("n", pa.table({"a": [1], "s": [{"x": 1}]}))
    lake.sql("alter table n rename column a to b")
    lake.sql("insert into n select 2, s from n")
    assert rows_of(opened(publish_iceberg(lake, "n"))) == [
        {"b": 1, "s": {"x": 1}}, {"b": 2, "s": {"x": 1}},
    ]  # fmt: skip
    # The first file's `a` is another column now: its readers go by name, and could not tell.
    lake.sql("alter table n add column a bigint")
    with pytest.raises(Unsupported, match="two columns"):
        publish_iceberg(lake, "n")


def test_files_without_a_matching_row_are_skipped(numbers: Lake) -> None:
    table = opened(publish_iceberg(numbers, "t"))
    for condition, files, rows in (("a > 19", 1, 10), ("a == 15", 1, 1), ("a < 0", 0, 0)):
        assert len(list(table.scan(row_filter=condition).plan_files())) == files
        assert table.scan(row_filter=condition).to_arrow().num_rows == rows
    assert table.scan().count() == 30


def test_an_empty_dataset(numbers: Lake) -> None:
    numbers.sql("delete from t")
    assert opened(publish_iceberg(numbers, "t")).scan().to_arrow().num_rows == 0


def test_the_hint_names_the_newest_and_old_metadata_stays(numbers: Lake, tmp_path: Path) -> None:
    first = publish_iceberg(numbers, "t", folder=tmp_path / "ice")
    numbers.sql("insert into t values (30, 'x')")
    publish_iceberg(numbers, "t", folder=tmp_path / "ice")
    publish_iceberg(numbers, "t", folder=tmp_path / "ice")  # again: the same files
    assert StaticTable.from_metadata(str(tmp_path / "ice")).scan().count() == 31
    assert opened(first).scan().count() == 30
    assert len(list((tmp_path / "ice" / "metadata").iterdir())) == 7


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lakes.open(tmp_path) as lake:
        lake.append("t", pa.table({"a": [1, 2]}))
    assert main(["iceberg", "t", "--data", str(tmp_path)]) == 0
    assert opened(Path(capsys.readouterr().out.strip())).scan().count() == 2
    assert main(["iceberg", "t", "--data", str(tmp_path), "--version", "7"]) == 1
    assert main(["iceberg", "t", "--data", str(tmp_path), "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out)["metadata"]).is_file()


def test_the_route(numbers: Lake) -> None:
    client = Client(make_app(numbers))
    answer = client.post("/api/datasets/t/iceberg", json={"version": 1})
    assert opened(Path(answer.json()["metadata"])).scan().count() == 10
    assert client.post("/api/datasets/none/iceberg", json={}).status_code == 404
    for body in ({"version": 0}, {"version": "1"}, {"folder": "/tmp/x"}):
        assert client.post("/api/datasets/t/iceberg", json=body).status_code == 422


ROW = {
    "type": "record", "name": "row",
    "fields": [
        {"name": "i", "type": "int", "field-id": 1}, {"name": "l", "type": "long", "field-id": 2},
        {"name": "t", "type": ["null", "string"], "field-id": 3},
        {"name": "b", "type": "bytes", "field-id": 4}, {"name": "f", "type": "boolean", "field-id": 5},
    ],
}  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({
    "i": st.integers(-(2**31), 2**31 - 1), "l": st.integers(-(2**63), 2**63 - 1),
    "t": st.none() | st.text(), "b": st.binary(), "f": st.booleans(),
}), max_size=5))  # fmt: skip
def test_avro_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("avro") / "a.avro"
    path.write_bytes(container(ROW, {"k": "v"}, rows))
    with AvroFile(PyArrowFileIO().new_input(str(path))) as file:
        found = [
            dict(zip("iltbf", (row[place] for place in range(5)), strict=True)) for row in file
        ]
    assert found == rows


@pytest.mark.parametrize(("name", "status"), [("bob", 403), ("eve", 404), ("admin", 200)])
def test_a_policy_keeps_files_from_users_who_see_a_part(
    numbers: Lake, name: str, status: int
) -> None:
    rules = [PolicyRule("bob", rows="a < 5"), PolicyRule("*", read=False)]
    numbers.set_policy("t", rules)
    app = make_app(numbers)
    role = "admin" if name == "admin" else "writer"

    @app.middleware("http")
    async def sign_in(request: Request, follow: Callable[[Request], Awaitable[Any]]) -> Any:
        request.state.principal = SimpleNamespace(name=name, role=role)
        return await follow(request)

    client = Client(app)
    for path in ("/files/t", "/files/t/head", "/files/t/1", "/files/t/head/0.parquet"):
        assert client.get(path).status_code == status, path
    assert client.post("/api/datasets/t/iceberg", json={}).status_code == status
