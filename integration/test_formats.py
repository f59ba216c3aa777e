"""Files of every format go in by the command line and come out of both engines; `put` says how."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nodes import RunningNode, platform

ROWS = [
    {"city": "Köln", "n": 1, "price": 1.5, "tags": ["a", "b"], "at": {"x": 1}},
    {"city": "Rome; Lazio", "n": 2, "price": None, "tags": [], "at": {"x": 2}},
]
GERMAN = 'Ort;Anzahl;Preis\nKöln;1;1.234,50\n"Rom; Latium";2;0,5\n'
ENGINES = ("duckdb", "emsqrt")


@pytest.fixture(autouse=True)
def _leaves_no_dataset(node: RunningNode) -> Iterator[None]:
    yield
    with node.session() as session:
        for dataset in session.datasets():
            session.delete(dataset.name)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def arrow(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("export/rows.json", json.dumps(ROWS))


NESTED: dict[str, Callable[[Path], object]] = {
    "rows.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "lines.json": lambda path: path.write_bytes(lines(ROWS)),
    "rows.jsonl": lambda path: path.write_bytes(lines(ROWS)),
    "rows.ndjson.gz": lambda path: path.write_bytes(gzip.compress(lines(ROWS))),
    "rows.json.zst": lambda path: path.write_bytes(
        pa.compress(json.dumps(ROWS).encode(), "zstd", asbytes=True)
    ),
    "rows.zip": zipped,
    "rows.parquet": parquet,
    "rows.arrow": arrow,
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", NESTED)
def test_a_file_of_nested_rows_is_answered_as_it_was(
    node: RunningNode, tmp_path: Path, name: str
) -> None:
    NESTED[name](tmp_path / name)

    with node.session() as session:
        session.put(tmp_path / name, "t")
        for engine in ENGINES:
            answer = session.sql("select * from t order by n", engine=engine).to_arrow()
            assert answer.to_pylist() == ROWS, engine


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.zst", "txt"])
def test_a_german_export_reads_as_in_duckdb_with_its_options(
    node: RunningNode, tmp_path: Path, ending: str
) -> None:
    plain, sent = tmp_path / "plain.csv", tmp_path / f"t.{ending}"
    plain.write_text(GERMAN)
    packed = {
        "csv.gz": gzip.compress(GERMAN.encode()),
        "csv.zst": bytes(pa.compress(GERMAN.encode(), "zstd")),
    }
    sent.write_bytes(packed.get(ending, GERMAN.encode()))
    with duckdb.connect() as database:
        wanted = database.execute(
            "SELECT * FROM read_csv(?, delim=';', decimal_separator=',', thousands='.')",
            [str(plain)],
        ).fetchall()

    platform("put", str(sent), data=node.data)

    with node.session() as session:
        for engine in ENGINES:
            rows = session.sql("select * from t order by 2", engine=engine).to_arrow().to_pylist()
            assert [tuple(row.values()) for row in rows] == wanted, engine


@pytest.mark.slow
def test_put_says_how_the_file_was_read(node: RunningNode, tmp_path: Path) -> None:
    source = tmp_path / "trips.csv"
    rows = "".join(f"{n},Rome,{n}\n" for n in range(100_000))
    source.write_text(
        "Trips of 2024\n\nid,city,miles,city\n"
        + rows.replace("\n", ",x\n")
        + "100000,Paris,n.a.,y\n"
    )

    shown = platform("put", str(source), data=node.data).stdout.splitlines()

    assert shown[0] == "trips: 100,001 rows, 4 columns"
    assert "  read as  CSV, delimiter comma, with header, utf-8," in shown[1]
    assert "  columns  id Int64, city Utf8, miles Utf8, city_2 Utf8" in shown
    assert "  widened  miles: Int64 to Utf8, line 100,004, value 'n.a.'" in shown
    assert "  renamed  column 4: 'city' to 'city_2'" in shown
    assert "  note     above the table, not read: Trips of 2024, line 1" in shown
    assert max(map(len, shown)) <= 80


@pytest.mark.slow
def test_the_report_is_the_same_in_every_interface(node: RunningNode, tmp_path: Path) -> None:
    source = tmp_path / "mixed.jsonl"
    source.write_text('{"v": 1.10}\n{"v": "x"}\n')

    (printed,) = json.loads(platform("put", str(source), "--json", data=node.data).stdout)
    with node.session() as session:
        returned = session.put(source, mode="replace")
        (job, *_) = session.jobs()
    over_http = httpx.get(f"{node.url}/api/datasets/mixed", headers=node.headers).json()

    assert returned.ingest is not None
    (widening,) = returned.ingest.widened
    assert (widening.column, widening.line, widening.old, widening.new) == (
        "v", 2, "Float64", "Utf8",
    )  # fmt: skip
    assert returned.ingest.format == "jsonl"
    assert returned.rows == 2
    assert printed["ingest"]["report"]["widened"] == over_http["ingest"]["report"]["widened"]
    assert over_http["ingest"]["source"] == returned.ingest.to_json()["source"]
    assert job.result is not None
    assert job.result["ingest"]["source"] == over_http["ingest"]["source"]


def test_options_of_python_are_those_of_http(node: RunningNode, tmp_path: Path) -> None:
    source = tmp_path / "days.csv"
    source.write_text("day\n03/04/2024\n")

    with node.session() as session:
        session.put(source, date_order="dmy")
        assert str(session.sql("select day from days").rows[0][0]) == "2024-04-03"


def folders(parent: Path) -> set[Path]:
    return {path for path in parent.iterdir() if path.is_dir()}


@pytest.mark.slow
def test_a_file_without_a_table_is_refused_before_it_is_sent(
    node: RunningNode, tmp_path: Path
) -> None:
    uploads = node.data / "uploads"
    before = folders(uploads)
    good, photo, book = (tmp_path / name for name in ("good.csv", "photo.csv", "book.xlsx"))
    good.write_text("a\n1\n")
    photo.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with zipfile.ZipFile(book, "w") as archive:
        archive.writestr("word/document.xml", "<document/>")

    for path, reason in (
        (photo, "this is a PNG image"),
        (book, "this is a Word document"),
        (tmp_path, "is a directory"),
    ):
        done = platform("put", str(good), str(path), data=node.data, check=False)
        assert done.returncode == 2
        assert reason in done.stderr
        assert "hint:" in done.stderr

    with node.session() as session:
        assert session.datasets() == []
    assert folders(uploads) == before
