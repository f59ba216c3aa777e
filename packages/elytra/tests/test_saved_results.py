"""Rows of finished pipelines become datasets: once, also after repeated requests and crashes."""

from pathlib import Path
from typing import Any

import pytest

from elytra import Elytra, col
from elytra.pipelines.pipeline import Pipeline
from sennit_core.errors import Conflict, NotFound, Unsupported, UsageError
from sennit_core.ids import derived_id, is_id, new_id


@pytest.fixture
def numbers(shared_node: Any, request: pytest.FixtureRequest) -> Pipeline:
    """Three shards of ten numbers."""
    name = f"n_{request.node.name[:60]}"
    for start in (0, 10, 20):
        shared_node.lake.append(name, _table(range(start, start + 10)))
    return Elytra(shared_node.client).remote(name)


def _table(values: range) -> Any:
    import pyarrow as pa

    return pa.table({"n": pa.array(values, pa.int64())})


def _rows(node: Any, name: str) -> list[int]:
    return [n for (n,) in node.client.sql(f"select n from {name} order by n").rows]


def test_rows_of_several_shards_are_one_dataset(shared_node: Any, numbers: Pipeline) -> None:
    saved = numbers.filter(col("n") % 2 == 0).save_as("even")

    assert (saved.name, saved.rows) == ("even", 15)
    assert _rows(shared_node, "even") == list(range(0, 30, 2))


def test_modes_append_and_replace(shared_node: Any, numbers: Pipeline) -> None:
    numbers.limit(3).save_as("few", mode="append")  # creates it, as an upload does
    numbers.limit(2).save_as("few", mode="append")
    assert _rows(shared_node, "few") == [0, 0, 1, 1, 2]

    numbers.agg(n=col("n").max()).save_as("few", mode="replace")
    assert _rows(shared_node, "few") == [29]


def test_a_repeated_request_saves_once(shared_node: Any, numbers: Pipeline) -> None:
    job = numbers.submit()

    first = job.save_as("once", "append")
    again = job.save_as("once", "append")

    assert (first.id, first.rows, first.head) == (again.id, 30, again.head)


def test_an_existing_dataset_is_not_created_again(shared_node: Any, numbers: Pipeline) -> None:
    numbers.save_as("taken")
    with pytest.raises(Conflict, match="taken"):
        numbers.save_as("taken")
    assert len(_rows(shared_node, "taken")) == 30


def test_what_cannot_be_saved_is_refused(shared_node: Any, numbers: Pipeline) -> None:
    failed = numbers.with_column("x", "cast(concat('a', cast(n as Utf8)) as Int64)").submit()
    with pytest.raises(UsageError):
        failed.save_as("failed")
    with pytest.raises(Conflict, match="failed"):
        shared_node.client.save_result(failed.id, "failed")
    with pytest.raises(NotFound):
        shared_node.client.save_result(new_id(), "x")
    done = numbers.submit()
    for name, mode in (("", "create"), (" x", "create"), ("x", "upsert"), ("x" * 300, "create")):
        with pytest.raises(UsageError):
            done.save_as(name, mode)
    assert {each.name for each in shared_node.client.datasets()}.isdisjoint({"failed", "x"})


def test_a_local_session_has_no_datasets(flights: Pipeline, tmp_path: Path) -> None:
    with (
        Elytra.local("128MiB", tmp_path) as local,
        pytest.raises(Unsupported, match=r"Elytra\.local\(\) has none"),
    ):
        local.dataset([1]).save_as("x")


def test_jobs_are_submitted_again(numbers: Pipeline) -> None:
    job = numbers.sum("n").submit()
    assert job.result().value == 435
    assert job.resubmit().result().value == 435
    with pytest.raises(Conflict, match="done"):
        job.retry()


def test_derived_ids_are_ids_and_differ(shared_node: Any) -> None:
    job = new_id()
    found = {derived_id(job, name, mode) for name in ("a", "b") for mode in ("create", "append")}

    assert len(found) == 4
    assert all(is_id(each) for each in found)
    assert derived_id(job, "a", "create") in found
