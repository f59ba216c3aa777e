"""SQL answered by EM-√: the same results, the same restrictions, and when the engine changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake import Lake
from sennit_core.errors import CapTooSmall, Denied, NotFound, SqlError, Unsupported

ROWS = 20_000
QUERIES = [
    "SELECT carrier, count(*) n, avg(km) a, sum(delay) FROM trips GROUP BY carrier ORDER BY carrier",
    "SELECT title, sum(km) FROM trips t JOIN names n ON t.carrier = n.code GROUP BY 1 ORDER BY 1",
    "SELECT * FROM trips WHERE delay > 50 AND carrier LIKE 'U%' ORDER BY km DESC LIMIT 7",
    "SELECT DISTINCT carrier FROM trips WHERE km IS NOT NULL ORDER BY 1",
    "SELECT carrier, count(DISTINCT delay) FROM TRIPS GROUP BY ALL HAVING count(*) > 5 ORDER BY 1",
    "WITH big AS (SELECT * FROM trips WHERE km > 900) SELECT count(*), min(id) FROM big",
    "SELECT id FROM trips WHERE id < 3 UNION ALL SELECT -1 FROM trips WHERE id = 0 ORDER BY 1",
]
"""Settings that cover both engines."""


def _close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-12) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with Lake(tmp_path_factory.mktemp("engines"), memory_bytes="256MiB") as opened:
        ids = range(ROWS)
        trips = {
            "id": list(ids),
            "carrier": [None if i % 11 == 0 else ("UA", "AA", "DL")[i % 3] for i in ids],
            "km": [(i * 7919 % 10_007) / 10 for i in ids],
            "delay": [i * 31 % 97 - 20 for i in ids],
        }
        opened.append("trips", pa.table(trips))
        opened.append("names", pa.table({"code": ["UA", "AA"], "title": ["United", "American"]}))
        opened.append("nothing", pa.table({"a": pa.array([], pa.int64())}))
        yield opened


@pytest.mark.sample(3)
@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES)
def test_both_engines_return_equal_results(lake: Lake, query: str) -> None:
    one, two = lake.sql(query, engine="duckdb"), lake.sql(query, engine="emsqrt")
    assert (one.manifest["engine"], two.manifest["engine"]) == ("duckdb", "emsqrt")
    assert one.manifest["inputs"] == two.manifest["inputs"]
    assert [tuple(map(_close, row)) for row in one.rows] == two.rows


def test_the_cap_and_the_peak_are_reported(lake: Lake) -> None:
    manifest = lake.sql("SELECT count(DISTINCT km) FROM trips", engine="emsqrt").manifest
    assert 0 < manifest["peakBytes"] <= manifest["capBytes"] == 256 << 20


def test_a_dataset_without_rows_is_one(lake: Lake) -> None:
    assert lake.sql("SELECT count(*), sum(a) FROM nothing", engine="emsqrt").rows == [(0, None)]


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT count(*) FROM trips WHERE km > ? AND carrier = ?", [500.5, "UA"]),
        ("SELECT count(*) FROM trips WHERE carrier = $2 AND delay > $1", [-5, "UA"]),
        ("SELECT count(*) FROM trips WHERE carrier = $c", {"c": "UA' OR '1' = '1"}),
        ("SELECT id FROM trips ORDER BY id LIMIT ?", [3]),
    ],
)
def test_parameters_are_constants(lake: Lake, query: str, params: Any) -> None:
    one = lake.sql(query, params, engine="duckdb").rows
    assert lake.sql(query, params, engine="emsqrt").rows == one


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELECT * FROM '/etc/passwd'", Denied),
        ("SELECT * FROM read_csv('/etc/passwd')", Denied),
        ("COPY trips TO '/tmp/x'", Denied),
        ("WITH x AS (COPY trips TO 'f') SELECT 1", Denied),
        ("SELECT getenv('HOME') FROM trips", Denied),
        ("SELECT * FROM trip", NotFound),
        ("SELECT nope FROM trips", SqlError),
        ("SELECT id FROM trips WHERE id = ?", SqlError),
        ("SELECT id, (SELECT 1) FROM trips", Unsupported),
        ("DESCRIBE trips", Unsupported),
        ("EXPLAIN SELECT id FROM trips", Unsupported),
    ],
)
def test_refused_statements_do_not_run(lake: Lake, query: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        lake.sql(query, engine="emsqrt")


def test_an_unknown_engine_is_refused(lake: Lake) -> None:
    with pytest.raises(Unsupported, match="none of auto, duckdb, emsqrt, ray"):
        lake.sql("SELECT 1", engine="spark")


def test_rows_are_cut_at_the_maximum(lake: Lake) -> None:
    with lake.run("SELECT id FROM trips ORDER BY id", engine="emsqrt", max_rows=5) as answer:
        assert sum(batch.num_rows for batch in answer.batches()) == 5
        assert answer.result()["truncated"] is True
        assert answer.engine == "emsqrt"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake whose executor has less than DuckDB needs at least."""
    folder = tmp_path_factory.mktemp("small")
    with Lake(folder, memory_bytes="104MiB") as opened:
        opened.append("numbers", pa.table({"a": list(range(100_000))}))
        yield opened


@pytest.mark.slow
def test_auto_changes_to_emsqrt_when_duckdb_has_too_little(small: Lake) -> None:
    with pytest.raises(CapTooSmall):
        small.sql("SELECT sum(a) FROM numbers", engine="duckdb")
    answer = small.sql("SELECT sum(a) FROM numbers")
    assert answer.rows == [(4_999_950_000,)]
    assert answer.manifest["engine"] == "emsqrt"


@pytest.mark.slow
def test_auto_reports_both_refusals(small: Lake) -> None:
    with pytest.raises(CapTooSmall) as caught:
        small.sql("SELECT a, (SELECT 1) FROM numbers")
    assert "EM-√ was tried too" in str(caught.value.hint)


@pytest.mark.slow
def test_shards_are_released_after_a_change(small: Lake) -> None:
    with small.run("SELECT a FROM numbers") as answer:
        assert next(answer.batches()).num_rows
    assert small.delete("numbers").name == "numbers"
    assert list(small.objects) == []


def test_nothing_changes_once_a_piece_has_left(tmp_path: Path) -> None:
    from lake.statements.queries import QueryExecution
    from sennit_core.errors import MemoryCapExceeded

    class Broken:
        done = True

        def payloads(self) -> Iterator[memoryview]:
            yield memoryview(b"first")
            raise MemoryCapExceeded(cap_bytes=1, what="the query")

        def cancel(self) -> None: ...

        def close(self) -> None: ...

    steps: list[str] = []

    def start(step: str, own: dict[str, Any]) -> Any:
        steps.append(step)
        return Broken()

    with QueryExecution(start, "auto", lambda: None) as answer:
        pieces = answer.payloads()
        assert bytes(next(pieces)) == b"first"
        with pytest.raises(MemoryCapExceeded):
            next(pieces)
    assert steps == ["duckdb"]
