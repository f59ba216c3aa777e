"""Queries and their results, through a real executor."""

from __future__ import annotations

import json

import pytest

from lake import Lake
from sennit_core.errors import (
    Cancelled,
    DeadlineExceeded,
    Denied,
    MemoryCapExceeded,
    NotFound,
    SqlError,
    StorageFull,
    UnknownColumn,
)

from .conftest import put


def document(lake: Lake, sql: str, **options: object) -> dict[str, object]:
    with lake.run(sql, format="json", **options) as execution:
        text = b"".join(bytes(payload) for payload in execution.payloads())
    answer: dict[str, object] = json.loads(text)
    return answer


def test_a_dataset_is_a_table_by_name_and_by_id(flights: Lake) -> None:
    by_name = flights.sql("SELECT carrier, count(*) n FROM flights GROUP BY 1 ORDER BY 1")
    dataset = flights.catalog.get("flights")

    assert by_name.columns == ["carrier", "n"]
    assert by_name.rows == [("AA", 1), ("B6", 1), ("UA", 2)]
    assert flights.sql(f'SELECT sum(distance) FROM "{dataset.id}"').value == 4265


def test_names_are_quoted_when_they_must_be_and_case_does_not_matter(lake: Lake) -> None:
    put(lake, 'My "Odd" Data.csv', "a\n1\n")

    assert lake.sql('SELECT a FROM "my ""odd"" DATA"').value == 1


def test_parameters_are_values_never_sql(flights: Lake) -> None:
    by_place = flights.sql("SELECT count(*) FROM flights WHERE carrier = ?", ["UA"])
    by_name = flights.sql("SELECT count(*) FROM flights WHERE carrier = $c", {"c": "' OR 1=1 --"})

    assert (by_place.value, by_name.value) == (2, 0)


def test_answers_come_as_json_and_csv(flights: Lake) -> None:
    sql = "SELECT carrier, distance, dep_delay FROM flights ORDER BY distance LIMIT 2"

    assert document(flights, sql) == {
        "columns": [
            {"name": "carrier", "type": "Utf8"},
            {"name": "distance", "type": "Int64"},
            {"name": "dep_delay", "type": "Float64"},
        ],
        "rows": [["UA", 200, None], ["AA", 1089, -1.0]],
        "truncated": False,
    }
    with flights.run(sql, format="csv") as execution:
        text = b"".join(bytes(payload) for payload in execution.payloads()).decode()
    assert text.splitlines() == ["carrier,distance,dep_delay", "UA,200,", "AA,1089,-1"]


def test_rows_beyond_the_limit_are_cut_and_reported(flights: Lake) -> None:
    answer = document(flights, "SELECT * FROM range(1000000)", max_rows=3)

    assert answer["rows"] == [[0], [1], [2]]
    assert answer["truncated"] is True


def test_an_answer_of_no_rows_has_columns(flights: Lake) -> None:
    assert flights.sql("SELECT carrier FROM flights WHERE false").columns == ["carrier"]


def test_show_describe_summarize_and_explain_answer(flights: Lake) -> None:
    put(flights, "other.csv", "x\n1\n")

    assert flights.sql("SHOW TABLES").rows == [("flights",), ("other",)]
    assert flights.sql("DESCRIBE flights").rows[1][:2] == ("distance", "BIGINT")
    assert flights.sql("SHOW flights").rows == flights.sql("DESCRIBE flights").rows
    assert len(flights.sql("SUMMARIZE flights")) == 4
    assert "PARQUET" in flights.sql("EXPLAIN FROM flights").rows[0][1]
    listed = flights.sql(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_name = 'other'"
    )
    assert listed.rows == [("other", "x")]


def test_paths_of_shards_are_never_shown(flights: Lake) -> None:
    for sql in ("EXPLAIN FROM flights", "EXPLAIN ANALYZE FROM flights"):
        shown = repr(flights.sql(sql).rows)
        assert str(flights.folder) not in shown
        assert "ANALYZE" not in sql or "flights/0 " in shown


def test_a_dataset_of_no_rows_is_a_table(lake: Lake) -> None:
    put(lake, "empty.csv", "a,b\n")

    assert lake.sql("SELECT count(*), count(a) FROM empty").rows == [(0, 0)]


def test_an_unknown_table_gets_the_nearest_name(flights: Lake) -> None:
    with pytest.raises(NotFound) as caught:
        flights.sql("SELECT * FROM fligts")

    assert caught.value.suggestion == "flights"


def test_an_unknown_column_gets_the_nearest_name(flights: Lake) -> None:
    with pytest.raises(UnknownColumn) as caught:
        flights.sql("SELECT distnace FROM flights")

    assert caught.value.suggestion == "distance"
    assert "line 1, column 8" in str(caught.value)


def test_an_error_deep_in_a_long_text_has_its_position(flights: Lake) -> None:
    sql = "SELECT " + "1, " * 200 + "\n  nofunction(distance) FROM flights"

    with pytest.raises(SqlError) as caught:
        flights.sql(sql)

    assert (caught.value.line, caught.value.column) == (2, 3)
    assert caught.value.offset == sql.index("nofunction")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1 // 0", r"Use TRY\(...\) to return NULL for this expression\.$"),
        ("SELECT (SELECT i FROM range(2) t(i))", "can only return a single row"),
        ("SELECT 'x. SET a=1'::INT", "Could not convert string"),
    ],
)  # fmt: skip
def test_errors_advise_no_settings_that_statements_may_not_change(
    lake: Lake, sql: str, message: str
) -> None:
    with pytest.raises(SqlError, match=message) as failed:
        lake.sql(sql)
    assert "SET " not in f"{failed.value} {failed.value.hint}".replace("SET a=1", "")


def test_files_cannot_be_read(flights: Lake) -> None:
    with pytest.raises(Denied):
        flights.sql("SELECT * FROM read_text('/etc/passwd')")


@pytest.mark.nightly
def test_too_little_memory_is_reported_and_the_executor_survives(flights: Lake) -> None:
    greedy = "SELECT list(i ORDER BY hash(i)) FROM range(200000000) t(i) GROUP BY i % 2"

    with pytest.raises((MemoryCapExceeded, StorageFull)):
        flights.sql(greedy)
    assert flights.sql("SELECT count(*) FROM flights").value == 4


def test_a_deadline_ends_a_query(flights: Lake) -> None:
    endless = "SELECT count(*) FROM range(10000000000) a, range(1000) b"

    with (
        pytest.raises(DeadlineExceeded),
        flights.run(endless, deadline_seconds=0.3) as execution,
    ):
        execution.result()


@pytest.mark.slow
def test_a_cancelled_query_ends_and_its_executor_survives(flights: Lake) -> None:
    flights.sql("SELECT 1")  # a process that is still being started would be killed
    with flights.run("SELECT count(*) FROM range(10000000000) a, range(1000) b") as execution:
        with pytest.raises(DeadlineExceeded):
            execution.result(0.5)
        execution.cancel()
        with pytest.raises(Cancelled):
            execution.result()

    assert execution.pid in flights.pool.stats().pids


def test_a_query_that_is_cancelled_before_it_begins_ends_too(flights: Lake) -> None:
    flights.sql("SELECT 1")  # a process that is still being started would be killed
    with flights.run("SELECT count(*) FROM range(10000000000) a, range(1000) b") as execution:
        execution.cancel()
        with pytest.raises(Cancelled):
            execution.result()

    assert execution.pid in flights.pool.stats().pids


@pytest.mark.slow
def test_a_result_converts_to_common_types(flights: Lake) -> None:
    result = flights.sql("SELECT carrier, distance FROM flights ORDER BY distance")

    assert result.df()["distance"].tolist() == [200, 1089, 1400, 1576]
    assert result.pl()["distance"].to_list() == [200, 1089, 1400, 1576]
    assert result.to_arrow().num_rows == len(result) == 4
    assert result.manifest["rows"] == 4
    assert result.manifest["inputs"] == [flights.catalog.get("flights").head]
    with pytest.raises(ValueError, match="not one value"):
        _ = result.value
