"""Files in FROM, where the caller allows them: by name in quotes, and through readers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import Files, Scan
from emsqrt.plan.tree import scans_of
from emsqrt.sql_plan import sql
from sennit_core.errors import BadInput, NotFound, SqlError, Unsupported, UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "orders.csv").write_text("id,amount\n1,2.5\n2,3.5\n")
    (tmp_path / "more.csv").write_text("id,amount\n3,1.0\n")
    (tmp_path / "semi.txt").write_text("id;city\n1;Brno\n2;NA\n")
    (tmp_path / "lines.jsonl").write_text('{"id": 1}\n')
    parquet.write_table(pa.table({"id": [1, 2]}), tmp_path / "ids.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(query: Pipeline) -> list[Files]:
    sources = [each.source for each in scans_of(query.plan) if isinstance(each, Scan)]
    return [source for source in sources if isinstance(source, Files)]


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("'orders.csv'", ("id", "amount")),
        ('"orders.csv"', ("id", "amount")),
        ("'./*.csv'", ("id", "amount")),
        ("'ids.parquet'", ("id",)),
        ("'lines.jsonl' as x", ("id",)),
        ("read_csv('semi.txt', delim = ';')", ("id", "city")),
        ("read_csv(['orders.csv', 'more.csv'])", ("id", "amount")),
        ("read_parquet('ids.parquet')", ("id",)),
        ("read_json('lines.jsonl')", ("id",)),
    ],
)
def test_a_file_is_a_table(table: str, columns: tuple[str, ...]) -> None:
    assert sql(f"select * from {table}", files=True).schema().names == columns


def test_a_file_is_called_by_its_stem_or_its_alias() -> None:
    query = "select orders.id, o.amount from 'orders.csv' join 'more.csv' o using (id)"
    assert sql(query, files=True).schema().names == ("id", "amount")


def test_options_of_a_reader_are_those_of_a_scan() -> None:
    query = sql(
        "select * from read_csv('semi.txt', sep = ';', nullstr = 'NA', header = true, skip = 0)",
        files=True,
    )
    (source,) = files_of(query)
    wanted = scan("semi.txt", format="csv", delimiter=";", null_values=["NA"], header=True)
    assert dict(source.options) == {**dict(files_of(wanted)[0].options), "skipRows": 0}


def test_a_registered_table_wins_over_a_file_of_its_name() -> None:
    (source,) = files_of(sql("select * from 'orders.csv'", {"orders.csv": "more.csv"}, files=True))
    assert source.paths == ("more.csv",)


def test_without_leave_no_file_is_read() -> None:
    for table in ("'orders.csv'", "read_csv('orders.csv')"):
        with pytest.raises((SqlError, Unsupported)) as caught:
            sql(f"select * from {table}", {"t": "more.csv"})
        assert isinstance(caught.value, Unsupported) or "no table" in str(caught.value)
    with pytest.raises(SqlError) as refused:
        sql("select * from 'orders.csv'")
    assert "files=True" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("query", "kind", "words"),
    [
        ("select * from 'nope.csv'", NotFound, "nope.csv"),
        ("select * from 'semi.txt'", SqlError, "line 1, column 15: the suffix of 'semi.txt'"),
        ("select * from orders.csv", SqlError, "no table orders.csv"),
        ("select * from read_xml('a')", Unsupported, "read_xml in FROM"),
        ("select * from read_csv('orders.csv', 3)", SqlError, "name = value"),
        ("select * from read_csv('orders.csv', header = id)", SqlError, "not a constant"),
        ("select * from read_csv('orders.csv', colour = 'red')", UsageError, "no option 'colour'"),
        ("select * from read_parquet('orders.csv')", BadInput, "not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    query: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        sql(query, files=True)
