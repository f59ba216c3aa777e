"""A linked file read by the parser of its ingest has the rows of DuckDB's reader, in every query."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from emsqrt.executor import EntryContext
from emsqrt.memory import MemoryBudget
from lake import Lake
from lake.links.linking import LinkRequest
from lake.links.local_files import LocalFile
from lake.sql.linked_files import LinkedFile
from lake.sql.linked_rows import LINKED_BYTES, LinkedRows, find_linked
from lake.sql.tables import Table
from sennit_core.errors import Cancelled, Conflict, SennitError
from sennit_core.schema import Schema

from .conftest import NoPayloads

HEADER = "id,price,day,word,flag\n"
ROWS = "".join(
    f'{n},{n / 4},2024-01-{n % 28 + 1:02d},"w {n % 7}\n",{"true" if n % 3 else ""}\n'
    for n in range(60_000)
)
QUERIES = (
    "FROM {} ORDER BY id LIMIT 7 OFFSET 59990",
    "SELECT * EXCLUDE (price) FROM {} LIMIT 3",
    "SELECT count(*) FROM {}",
    "SELECT word, count(flag), sum(price), max(day) FROM {} GROUP BY ALL ORDER BY word",
    "SELECT sum(y) FROM {} AS s(x, y)",
    "SELECT sum(#2), max(id) FROM {}",
    "SELECT count(*) FROM {0} a JOIN {0} b USING (id) WHERE a.price > 100 AND NOT b.flag",
    "SELECT count(*) FROM {0} a NATURAL JOIN (SELECT id, word FROM {0} WHERE id < 50) b",
    "SELECT s.day FROM (SELECT s FROM {} s) LIMIT 1",
    "SELECT max(COLUMNS('^p|^d')) FROM {}",
    "WITH c AS (SELECT id FROM {} WHERE id % 1000 = 0) SELECT sum(a.id) FROM c a, c b",
    "SELECT id FROM {} WHERE word = $1 AND id > 59980",
)


def in_place(path: Path) -> LocalFile:
    return LocalFile.find(str(path), outside=path.parent / "data")


@contextmanager
def rows_of(path: Path) -> Iterator[tuple[LinkedRows, duckdb.DuckDBPyConnection, EntryContext]]:
    kinds = ("int", "float", "date", "text", "bool")
    types = [pa.int64(), pa.float64(), pa.date32(), pa.string(), pa.bool_()]
    fields = zip(HEADER.strip().split(","), types, strict=True)
    schema = Schema.from_arrow(pa.schema(list(fields)))
    link = LinkedFile(in_place(path), "csv", ",", 1, kinds)
    table = Table("t", "id", schema, (), link=link)
    assert find_linked([table]) is table
    context = EntryContext("sql", 1 << 30, NoPayloads(), lambda _: None, path.parent / "spill")
    guard = MemoryBudget(LINKED_BYTES).acquire(LINKED_BYTES, "linked file")
    with (
        closing(LinkedRows(table, context, guard, threads=2)) as rows,
        duckdb.connect() as connection,
    ):
        yield rows, connection, context


def is_parsing() -> bool:
    return any(each.name.startswith("lake-linked") for each in threading.enumerate())


def test_every_query_has_the_rows_of_duckdbs_own_reader(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEADER + ROWS)
    linked = lake.linker.link(LinkRequest(str(tmp_path / "t.csv")))
    assert linked.reason is None
    lake.sql("CREATE VIEW other AS FROM t").to_arrow()  # of a view, DuckDB reads the file

    for query in QUERIES:
        params = ["w 3\n"] if "$1" in query else None
        found = lake.sql(query.format("t"), params=params).rows
        assert found == lake.sql(query.format("other"), params=params).rows, query
        assert found, query


def test_columns_that_a_query_does_not_use_are_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEADER + ROWS + "x,1.0,2024-01-01,w,\n")
    query = "SELECT count(word), sum(price) FROM t"

    with rows_of(tmp_path / "t.csv") as (rows, connection, _):
        with rows.registered(connection, ["t"], query, None):
            assert connection.execute(query).fetchall() == [(60_001, 449_992_501.0)]
        with rows.registered(connection, ["t"], "FROM t", None), pytest.raises(duckdb.Error):
            connection.execute("FROM t").fetchall()
        assert isinstance(rows.error, Conflict)
    assert not is_parsing()


def test_a_query_that_ends_early_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEADER + ROWS * 8)
    query = "SELECT id FROM t LIMIT 2"

    with (
        rows_of(tmp_path / "t.csv") as (rows, connection, _),
        rows.registered(connection, ["t"], query, None),
    ):
        assert connection.execute(query).fetchall() == [(0,), (1,)]
        assert is_parsing()
    assert not is_parsing()


def test_a_stopped_query_reads_no_further(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEADER + ROWS)
    query = "SELECT sum(id) FROM t"

    with rows_of(tmp_path / "t.csv") as (rows, connection, context):
        context.stop(Cancelled("the query"))
        with rows.registered(connection, ["t"], query, None), pytest.raises(duckdb.Error):
            connection.execute(query).fetchall()
        assert isinstance(rows.error, Cancelled)


@pytest.mark.parametrize("late", ["007,1,2024-01-01,w,\n", "1,2\n", "1,1,2024-1-1,w,\n"])
def test_what_the_parser_refuses_has_the_error_of_duckdbs_reader(
    late: str, lake: Lake, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(HEADER + ROWS + late)
    lake.linker.link(LinkRequest(str(tmp_path / "t.csv")))
    lake.sql("CREATE VIEW other AS FROM t").to_arrow()
    errors = []

    for name in ("t", "other"):
        with pytest.raises(SennitError) as error:
            lake.sql(f"SELECT max(columns(*)) FROM {name}").to_arrow()
        errors.append(str(error.value))

    assert errors[0] == errors[1]
    assert "t.csv" in errors[0]
