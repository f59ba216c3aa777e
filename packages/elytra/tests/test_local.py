"""Pipelines on this machine: sources, results, jobs, files."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elytra import Elytra, count
from elytra.local.session import LocalElytra
from sennit_core.errors import Cancelled, Closed, Conflict, NotFound, Unsupported, UsageError
from sennit_core.schema import Schema

ROWS = [(1, "a"), (2, None)]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalElytra]:
    with Elytra.local("128MiB", tmp_path_factory.mktemp("spill")) as session:
        yield session


@pytest.fixture
def trips(tmp_path: Path) -> Path:
    path = tmp_path / "trips.csv"
    path.write_text("city,km\nBern,12.5\nKiel,3\nBern,1\n")
    return path


def test_a_file_is_filtered_and_grouped(local: LocalElytra, trips: Path) -> None:
    grown = local.dataset(trips).filter(lambda r: r.km > 2).group_by("city").agg(n=count())

    assert grown.collect().rows == [("Bern", 1), ("Kiel", 1)]
    assert "under 128.0 MiB" in grown.explain()


@pytest.mark.parametrize(
    "data",
    [
        pa.table({"id": [1, 2], "name": ["a", None]}),
        pa.table({"id": [1, 2], "name": pa.array(["a", None]).dictionary_encode()}),
        pa.record_batch({"id": [1, 2], "name": ["a", None]}),
        pa.table({"id": [1, 2], "name": ["a", None]}).to_reader(),
        pd.DataFrame({"id": [1, 2], "name": ["a", None]}),
        pl.DataFrame({"id": [1, 2], "name": ["a", None]}),
        {"id": [1, 2], "name": ["a", None]},
        [{"id": 1, "name": "a"}, {"id": 2}],
        iter([{"id": 1, "name": "a"}, {"id": 2, "name": None}]),
    ],
    ids=[
        "table",
        "dictionary",
        "batch",
        "reader",
        "pandas",
        "polars",
        "columns",
        "rows",
        "iterator",
    ],
)
def test_values_in_memory_are_a_dataset(local: LocalElytra, data: Any) -> None:
    rows = local.dataset(data)

    assert str(rows.schema) == str(Schema.of(id="Int64", name="Utf8"))
    assert rows.collect().rows == ROWS


def test_rows_are_passed_to_functions_in_the_form_in_which_they_came(local: LocalElytra) -> None:
    assert local.dataset([1, 2]).map(lambda v: v * 2).collect().rows == [(2,), (4,)]
    pairs = local.dataset([(1, "a"), (2, "b")])
    assert pairs.filter(lambda t: t[0] > 1).collect().rows == [(2, "b")]


def test_a_declared_schema_names_and_types_the_columns(local: LocalElytra) -> None:
    named = local.dataset(ROWS, schema={"id": "Int32", "name": "Utf8"})

    assert str(named.schema.field("id").type) == "Int32"
    assert named.filter(lambda r: r.id == 1).collect().rows == [(1, "a")]
    assert local.dataset([], schema="Int64").count().collect().value == 0


def test_several_files_are_one_dataset(local: LocalElytra, trips: Path) -> None:
    second = trips.with_name("trips2.csv")
    second.write_text("city,km\nWien,7\n")

    assert local.dataset(str(trips.parent / "trips*.csv")).count().collect().value == 4
    assert local.dataset([second, trips]).head(1).collect().rows == [("Wien", 7.0)]


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ("nowhere*.csv", NotFound, "no file matches"),
        (5, UsageError, "int is no dataset"),
        ([], UsageError, "no columns"),
        ([{"a": 1}, {"a": "x"}], UsageError, "column 'a'"),
        ([(1,), (1, 2)], UsageError, "row 1"),
        (pa.table({"a": pa.nulls(2)}), Unsupported, "'a'"),
    ],
    ids=["pattern", "number", "empty", "mixed", "ragged", "null"],
)
def test_bad_data_is_refused(
    local: LocalElytra, data: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        local.dataset(data)
    assert says in f"{caught.value} {getattr(caught.value, 'hint', '')}"


def test_a_missing_file_suggests_the_nearest(local: LocalElytra, trips: Path) -> None:
    with pytest.raises(NotFound) as caught:
        local.dataset(trips.with_name("tripps.csv"))
    assert caught.value.suggestion == "trips.csv"


def test_results_are_written_to_files(local: LocalElytra, trips: Path) -> None:
    far = local.dataset(trips).filter("km > 2")

    assert far.write_csv(trips.with_name("o.csv")).read_text() == "city,km\nBern,12.5\nKiel,3\n"
    assert far.write_json(trips.with_name("o.json")).read_text().count("\n") == 2
    assert pq.read_table(far.write_parquet(trips.with_name("o.parquet"))).num_rows == 2


def test_a_job_runs_in_the_background(local: LocalElytra, trips: Path) -> None:
    job = local.dataset(trips).sort("km").submit()

    assert [info.state for info in job.watch()][-1] == "done"
    with pytest.raises(Conflict, match="is done: only a job that failed"):
        job.retry()
    with pytest.raises(Unsupported, match="no option priority"):
        local.dataset(trips).submit(priority="high")
    assert job.result().rows[0] == ("Bern", 1.0)
    assert sum(batch.num_rows for batch in job.iter_results()) == 3
    assert job.info.result is not None


def test_a_failed_job_raises_its_error(local: LocalElytra, trips: Path) -> None:
    job = local.dataset(trips).with_column("x", "cast(city as Int64)").submit()

    with pytest.raises(UsageError, match="Bern"):
        job.wait()
    with pytest.raises(UsageError, match="Bern"):
        job.retry().wait()


def test_a_job_is_cancelled_between_two_batches_of_a_function(local: LocalElytra) -> None:
    called, go_on = threading.Event(), threading.Event()

    def wait(batch: pa.RecordBatch) -> pa.RecordBatch:
        called.set()
        assert go_on.wait(30)
        return batch

    rows = local.dataset(range(10)).map_batches(wait, schema={"value": "Int64"}, batch_rows=1)
    job = rows.submit()
    assert called.wait(30)
    job.cancel()
    go_on.set()

    with pytest.raises(Cancelled):
        job.wait(30)


def test_cached_rows_are_computed_once(local: LocalElytra) -> None:
    calls: list[int] = []

    def keep(value: int) -> bool:
        calls.append(value)
        return True

    cached = local.dataset([1, 2]).filter(keep, opaque=True).cache()

    assert cached.count().collect().value == 2
    assert cached.sum().collect().value == 3
    assert calls == [1, 2]


def test_a_closed_session_runs_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with Elytra.local("128MiB", tmp_path) as session:
        rows = session.dataset([1, 2]).cache()
        assert rows.count().collect().value == 2
    with pytest.raises(Closed):
        rows.collect()
    assert [path for path in tmp_path.rglob("*") if not path.name.startswith(".")] == []


def test_other_engines_are_of_nodes(local: LocalElytra) -> None:
    with pytest.raises(Unsupported, match="without a node"):
        local.dataset([1]).distribute(engine="ray")


def test_a_pipeline_of_a_node_cannot_be_joined(local: LocalElytra, flights: Any) -> None:
    with pytest.raises(UsageError, match="different nodes"):
        flights.union(local.dataset([1]))
