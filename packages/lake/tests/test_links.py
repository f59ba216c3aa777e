"""Files linked in place: the rows of their ingest or an error, never other rows."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake import Lake
from lake.links.linking import Linked, LinkRequest
from sennit_core.errors import BadInput, Conflict, Denied, SennitError, Unsupported

ROWS = "a,b,c\n" + "".join(f"{i},{i}.5,2024-01-{i % 28 + 1:02d}\n" for i in range(1000))


def write(folder: Path, data: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def link(lake: Lake, path: Path, **members: Any) -> Linked:
    return lake.linker.link(LinkRequest(str(path), **members))


def linked_and_ingested(lake: Lake, path: Path) -> tuple[Any, Any, Linked]:
    """Query a file linked and ingested; an error stands for the rows."""
    linked = link(lake, path)
    before: Any = None
    if linked.reason is None:
        try:
            before = lake.sql("FROM t").to_arrow()
            # Of a view, DuckDB reads the file, and not the parser of the ingest.
            lake.sql("CREATE OR REPLACE VIEW duckdbs AS FROM t").to_arrow()
            found = lake.sql("FROM duckdbs").to_arrow()
            # By text too, as NaN is not equal to itself.
            assert found.equals(before) or repr(found.to_pylist()) == repr(before.to_pylist())
        except SennitError as error:
            before = error
    try:
        assert linked.upload is not None
        lake.ingest(linked.upload)
        after: Any = lake.sql("FROM t").to_arrow()
    except SennitError as error:
        after = error
    return before, after, linked


def test_a_linked_file_is_queried_at_once_and_from_its_shards_after_the_ingest(
    lake: Lake, tmp_path: Path
) -> None:
    before, after, linked = linked_and_ingested(lake, write(tmp_path, ROWS))

    assert linked.reason is None
    assert before.equals(after)
    assert lake.sql("SELECT count(*), sum(b) FROM t").rows == [(1000, 500000.0)]
    assert lake.parts.list() == []
    assert lake.linker.link_of("t") is None
    assert lake.verify().findings == ()
    source = lake.catalog.manifest("t").ingest["source"]  # type: ignore[index]
    assert source["sha256"] == hashlib.sha256(ROWS.encode()).hexdigest()


ODD: dict[str, str | bytes] = {
    "leading zeros later": "a,b\n1,x\n" + "2,y\n" * 70_000 + "007,z\n" * 3,
    "a fraction later": "a,b\n1,x\n" + "2,y\n" * 270_000 + "1.5,z\n",
    "an exponent later": "a,b\n1,x\n" + "2,y\n" * 270_000 + "1e2,z\n",
    "long digits later": "a,b\n1.5,x\n" + "2.5,y\n" * 180_000 + "12345678901234567,z\n",
    "a code later": "a,b\n1.5,x\n" + "2.5,y\n" * 180_000 + "007,z\n",
    "beyond doubles later": "a,b\n1.5,x\n" + "2.5,y\n" * 180_000 + "1e999,z\n",
    "a number with underscores later": "a,b\n1,x\n" + "2,y\n" * 270_000 + "1_000,z\n",
    "another date order later": "a,b\n2024-01-02,x\n"
    + "2024-01-02,y\n" * 90_000
    + "2024/01/03,z\n",
    "a short date later": "a,b\n2024-01-02,x\n" + "2024-01-02,y\n" * 90_000 + "2024-1-3,z\n",
    "a value below NULLs": "a,b\nNA,x\n" + ",y\n" * 270_000 + "5,z\n",
    "a ragged row later": "a,b\n1,x\n" + "2,y\n" * 270_000 + "3\n",
    "a blank line later": "a,b\n1,x\n" + "2,y\n" * 270_000 + "\n3,z\n",
    "bad UTF-8 later": b"a,b\n1,x\n" + b"2,y\n" * 270_000 + b"3,\xff\n",
    "quoted lines": "a,b\n" + '1,"x\ny"\n2,"say ""hi"""\n' * 200_000,
    "a quote within a field later": "a,b\n1,x\n" + "2,y\n" * 270_000 + '3,y"z\n',
    "text after a quote later": "a,b\n1,x\n" + "2,y\n" * 270_000 + '3,"y"z\n',
    "CRLF": "a,b\r\n" + "1,x\r\n" * 90_000,
    "mixed line ends": "a,b\r\n1,x\n" + "2,y\r\n" * 90_000,
    "a lone CR later": "a,b\n1,x\n" + "2,y\n" * 270_000 + "3,y\rz\n",
    "BOM": b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
    "titles above": "Report of May\n\na,b,c\n1,x,2\n3,y,4\n",
    "no header": "1,x\n2,y\n",
    "a header of two lines": '"a\nb",c\n1,x\n2,y\n',
    "padded": "a,b, c\n1, 2 ,x\n3, 4 ,y\n",
    "NULL words": "a,b,c,d\n1,NA,NULL,x\nN/A,2.5,2024-01-01,NULL\n,,null,\n",
    'quoted ""': 'a,b\n1,""\n"",x\n',
    "bools": "a,b\ntrue,1\nFALSE,2\n,3\n",
    "stamps": "a,b\n2024-01-02 03:04:05.120,1\n2024-01-02T03:04,2\n2024-01-02,3\n",
    "zones": "a,b\n2024-01-02T03:04:05Z,1\n2024-01-02 03:04:05+02:00,2\n",
    "floats": "a,b\n1.,1\n.5,2\nnan,3\n-inf,4\n1e5,5\n-0.0,6\n17.00,7\n",
    "semicolons": "a;b\n1;x\n2;y\n",
    "day first": "a,b\n31/12/2024,1\n01/02/2024,2\n",
    "decimal commas": 'a;b\n"1,5";x\n"2,25";y\n',
    "one column": "a\n1\n\n2\n",
    "a trailing delimiter": "a,b\n1,x,\n2,y,\n",
    "names to settle": "a,a,\n1,2,3\n",
    "odd names": 'a"b,"c,d",e\'f\n1,2,3\n',
    "only a header": "a,b\n",
    "bars in text": "a|b\nx|1\ny|2\n",
    "no last line end": "a,b\n1,x\n2,y",
    "NUL": b"a,b\n1,x\n2,y\x00z\n",
}


@pytest.mark.sample(12)
@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_has_the_rows_of_its_ingest_or_an_error(
    name: str, lake: Lake, tmp_path: Path
) -> None:
    before, after, linked = linked_and_ingested(lake, write(tmp_path, ODD[name]))

    if isinstance(before, SennitError):
        assert isinstance(before, Conflict | BadInput)
        assert str(tmp_path) not in str(before.to_json())
    elif linked.reason is None:
        assert repr(before.to_pylist()) == repr(after.to_pylist())
        assert before.schema.equals(after.schema)


CELLS = st.sampled_from(
    [
        *("", "1", "-5", "0", "-0", "007", "+3", "1.5", "1e3", ".5", "5.", "1_0", "0x1F", "1e999"),
        *("12345678901234567", "NA", "NULL", " 7", "7 ", "nan", "inf", "-inf", "true", "FALSE"),
        *("2024-01-02", "2024-1-2", "2024/01/02", "0001-01-01", "2024-01-02 03:04", "24:00:00"),
        *("2024-01-02T03:04:05Z", "2024-01-02 24:00:00", "2024-01-02 03:04:05.1234567", "epoch"),
        *(
            "12024-01-05",
            "-infinity",
            "0044-03-15 (BC)",
            "0999-01-01",
            "2024-01-2 ",
            "1e300",
            "0 ",
            "0.5",
        ),
        *("infinity", "x", '"q"', '""', '"a,b"', '"a\nb"', "ü", "1 000", "1,5", "\t", "١"),
    ]
)


@given(columns=st.lists(st.lists(CELLS, min_size=1, max_size=2), min_size=2, max_size=3),
       rows=st.lists(st.integers(0, 1), min_size=1, max_size=6))  # fmt: skip
def test_any_cells_have_the_value_of_their_ingest_or_an_error(
    lake_of_module: Lake,
    tmp_path_factory: pytest.TempPathFactory,
    columns: list[list[str]],
    rows: list[int],
) -> None:
    # Few different cells in a column, so that the columns have types.
    lines = [",".join(column[row % len(column)] for column in columns) for row in rows]
    header = ",".join(f"c{index}" for index in range(len(columns)))
    path = write(tmp_path_factory.mktemp("cells"), "\n".join([header, *lines, ""]))
    try:
        before, after, linked = linked_and_ingested(lake_of_module, path)
    except SennitError:
        return  # refused as a whole
    finally:
        for info in lake_of_module.catalog.list():
            lake_of_module.delete(info.id)

    if linked.reason is None and not isinstance(before, SennitError):
        assert repr(before.to_pylist()) == repr(after.to_pylist())
        assert before.schema.equals(after.schema)


@pytest.fixture(scope="module")
def lake_of_module(tmp_path_factory: pytest.TempPathFactory, pool: Any) -> Any:
    from elkyn import ElkynStore

    folder = tmp_path_factory.mktemp("links")
    with ElkynStore(mode="memory") as tree, Lake(folder, tree=tree, pool=pool) as lake:
        yield lake


def test_a_value_that_fits_only_a_wider_type_is_named(lake: Lake, tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n" + "2,y\n" * 270_000 + "007,z\n", "u.csv")
    link(lake, path)

    assert lake.sql("SELECT count(*) FROM u").value == 270_001
    with pytest.raises(Conflict, match=r"column 'a' is Int64 .*'007' is not"):
        lake.sql("SELECT sum(a) FROM u")


@pytest.mark.parametrize("only", [False, True])
def test_a_changed_file_is_an_error_that_says_what_to_do(
    only: bool, lake: Lake, tmp_path: Path
) -> None:
    path = write(tmp_path, ROWS)
    linked = link(lake, path, only=only)
    for _ in range(2):  # a result that was kept would not notice the change
        assert lake.sql("SELECT count(*) FROM t").value == 1000
    with path.open("a") as file:
        file.write("1,2,2024-01-01\n")

    with pytest.raises(Conflict, match="has changed since then") as raised:
        lake.sql("SELECT count(*) FROM t")
    assert raised.value.hint == "put it again: `platform put t.csv --name t --mode replace`"
    if linked.upload is not None:
        with pytest.raises(Conflict, match="has changed"):
            lake.ingest(linked.upload)
    path.unlink()
    with pytest.raises(Conflict, match="cannot be read"):
        lake.sql("SELECT count(*) FROM t")
    assert lake.delete("t").name == "t"
    assert lake.parts.list() == []


def test_a_link_without_ingest_stays_a_link(lake: Lake, tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    linked = link(lake, path, only=True)

    assert linked.upload is None
    kept = lake.linker.link_of("t")
    assert kept is not None
    assert kept.file.path == str(path)
    assert lake.sql("SELECT max(a) FROM t").value == 999
    for statement in ("DELETE FROM t", "INSERT INTO t VALUES (1, 2, null)", "UPDATE t SET a = 1"):
        with pytest.raises(Conflict, match="not ingested yet"):
            lake.sql(statement)
    lake.sql("CREATE TABLE copied AS SELECT a FROM t WHERE a < 10")
    assert lake.sql("SELECT count(*) FROM copied").value == 10
    with pytest.raises(Conflict, match="not ingested yet"):
        lake.sql("SELECT * FROM t AT (VERSION => 1)")
    with pytest.raises(Unsupported, match="not ingested yet"):
        lake.sql("SELECT count(*) FROM t", engine="emsqrt")
    with pytest.raises(Conflict, match="exists"):
        link(lake, path)
    with pytest.raises(Conflict, match="not ingested yet"):
        lake.append("t", path)


def test_a_replaced_link_reads_the_new_rows(lake: Lake, tmp_path: Path) -> None:
    first = link(lake, write(tmp_path, ROWS))
    second = link(lake, write(tmp_path, "a,b,c\n1,2,3\n", "t.csv"), mode="replace")

    assert second.reason == "mode replace adds to a dataset"
    assert second.upload is not None
    lake.ingest(second.upload)
    assert lake.sql("FROM t").rows == [(1, 2, 3)]
    assert first.upload is not None
    with pytest.raises((Conflict, LookupError)):
        lake.ingest(first.upload)
    assert lake.sql("FROM t").rows == [(1, 2, 3)]


def test_a_parquet_file_is_linked_as_it_is(lake: Lake, tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "b": [["x"], None], "c": [{"d": 1.5}, {"d": None}]})
    pq.write_table(table, tmp_path / "t.parquet")

    before, after, linked = linked_and_ingested(lake, tmp_path / "t.parquet")
    assert linked.reason is None
    assert before.to_pylist() == after.to_pylist() == table.to_pylist()


def test_files_that_the_node_must_not_link_are_refused(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to(lake.folder / "lake")
    secret = write(lake.folder, "a,b\n1,2\n", "secret.csv")
    (tmp_path / "secret.csv").symlink_to(secret)
    refused = (
        "folder.csv",
        "pipe.csv",
        "absent.csv",
        "link.csv",
        "secret.csv",
        "a\0b.csv",
        "\ud800",
    )
    for name in refused:
        with pytest.raises(Denied):
            lake.linker.link(LinkRequest(f"{tmp_path}/{name}"))
    for name in ("t.csv", "", "../t.csv"):
        with pytest.raises(Denied):
            lake.linker.link(LinkRequest(name))
    with pytest.raises(Denied, match="another one for the node"):
        link(lake, write(tmp_path, ROWS), seen={"inode": "1", "size": "2", "mtimeNs": "3"})
    assert lake.catalog.list() == []
    assert lake.parts.list() == []


def test_a_file_that_holds_no_table_leaves_nothing(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        link(lake, write(tmp_path, b"\x89PNG\r\n\x1a\n" + bytes(100), "t.csv"))
    with pytest.raises(BadInput):
        link(lake, write(tmp_path, b""))
    packed = write(tmp_path, gzip.compress(ROWS.encode()), "t.csv.gz")
    with pytest.raises(Unsupported, match="cannot be linked: it is compressed with gzip"):
        link(lake, packed, only=True)
    assert lake.catalog.list() == []
    assert lake.parts.list() == []


def test_explain_and_errors_show_no_path(lake: Lake, tmp_path: Path) -> None:
    link(lake, write(tmp_path, ROWS), only=True)

    for statement in ("EXPLAIN FROM t", "EXPLAIN ANALYZE SELECT sum(a) FROM t"):
        assert str(tmp_path) not in str(lake.sql(statement).rows)


def test_other_files_stay_closed_to_sql(lake: Lake, tmp_path: Path) -> None:
    other = write(tmp_path, ROWS, "other.csv")
    path = write(tmp_path, ROWS)
    link(lake, path, only=True)

    for each in (other, path):
        with pytest.raises(SennitError):
            lake.sql(f"SELECT * FROM t, read_csv('{each}')")
