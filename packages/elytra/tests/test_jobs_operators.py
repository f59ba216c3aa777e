"""Jobs of every operator: cut by shards where that can be, in one task where it cannot."""

from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elytra import Elytra, Pipeline, col, count
from emsqrt.plan import Custom, DatasetRef, Scan
from sennit_core.errors import NotFound, SennitError, Unsupported, UsageError

ROWS = 2000
CARRIERS = ["UA", "AA", "B6", None]


@pytest.fixture(scope="module")
def data(shared_node: Any) -> dict[str, pa.Table]:
    """Trips in three shards, and names of two carriers."""
    numbers = range(3 * ROWS)
    trips = pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "carrier": pa.array([CARRIERS[n * 7 % 4] for n in numbers]),
            "km": pa.array([n * 37 % 1009 * 0.25 for n in numbers], pa.float64()),
        }
    )
    names = pa.table({"code": ["UA", "AA", "ZZ"], "title": ["United", "American", "Unused"]})
    for shard in range(3):
        shared_node.lake.append("trips", trips.slice(shard * ROWS, ROWS))
    shared_node.lake.append("names", names)
    return {"trips": trips, "names": names}


@pytest.fixture
def trips(shared_node: Any, data: dict[str, pa.Table]) -> Pipeline:
    return Elytra(shared_node.client).remote("trips")


@pytest.fixture
def names(shared_node: Any, trips: Pipeline) -> Pipeline:
    return Pipeline.over(shared_node.client, "names")


def oracle(data: dict[str, pa.Table], query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(config={"threads": 1}) as connection:
        for name, table in data.items():
            connection.register(name, table)
        rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
        return rows


@pytest.mark.slow
def test_a_sort_sorts_each_shard_and_merges(trips: Pipeline, data: dict[str, pa.Table]) -> None:
    job = trips.filter("km > 200").sort("km:desc", "id").select("id", "km").submit()
    query = "select id, km from trips where km > 200 order by km desc, id"
    assert job.result().rows == oracle(data, query)
    info: Any = job.info
    assert info.result["executions"] == 4
    assert info.result["rowsRead"] == 3 * ROWS


@pytest.mark.slow
def test_top_rows_and_different_rows_are_cut(trips: Pipeline, data: dict[str, pa.Table]) -> None:
    top = trips.top_k(5, "km:desc", "id", offset=2).select("id").collect()
    assert top.rows == oracle(data, "select id from trips order by km desc, id limit 5 offset 2")
    assert top.manifest["executions"] == 4
    different = trips.select("carrier").distinct().collect()
    query = "select distinct carrier from trips order by carrier nulls last"
    assert different.rows == oracle(data, query)


@pytest.mark.slow  # two jobs of each shape
def test_a_small_input_is_one_task_with_the_same_result(
    trips: Pipeline, shared_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [
        trips.group_by("carrier").agg(n=count(), km=col("km").sum(), mean=col("km").mean()),
        trips.filter("km > 200").select("id", "km"),
        trips.limit(2500, offset=1900).select("id"),
        trips.select("carrier").distinct(),
    ]
    split = [shape.collect() for shape in shapes]
    monkeypatch.setattr(shared_node.jobs._binder, "_whole_bytes", 1 << 30)
    whole = [shape.collect() for shape in shapes]

    assert [each.rows for each in whole] == [each.rows for each in split]
    assert [each.manifest["executions"] for each in whole] == [1] * 4
    assert min(each.manifest["executions"] for each in split) == 3


@pytest.mark.slow
@pytest.mark.parametrize("how", ["inner", "left", "full", "semi", "anti"])
def test_a_join_reads_both_datasets(
    trips: Pipeline, names: Pipeline, data: dict[str, pa.Table], how: Any
) -> None:
    joined = trips.join(names, {"carrier": "code"}, how=how)
    ours = joined.agg(n=count(), ids=col("id").sum()).collect()
    form = {"semi": "semi join", "anti": "anti join"}.get(how, f"{how} join")
    query = f"select count(*), sum(id) from trips {form} names on trips.carrier = names.code"
    assert ours.rows == oracle(data, query)
    assert ours.manifest["executions"] == 4


@pytest.mark.nightly
@pytest.mark.parametrize("key", ["id", "one"])
def test_a_right_side_that_is_larger_than_it_looks_stays_under_the_cap(
    shared_node: Any, key: str
) -> None:
    """A GB of text in a file of a few MB that every task reads; and one key of all rows."""
    rows = 2_000_000 if key == "id" else 3_000
    numbers = pa.array(range(rows), pa.int64())
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), ["x" * 500])
    right = pa.table({"id": numbers, "one": [1] * rows, "text": text.cast(pa.string())})
    shared_node.lake.append(f"right_{key}", right)
    left = pa.table({"id": pa.array(range(0, 6000, 2), pa.int64()), "one": [1] * 3000})
    for shard in range(3):
        shared_node.lake.append(f"left_{key}", left.slice(shard * 1000, 1000))
    client = shared_node.client
    joined = Elytra(client).remote(f"left_{key}").join(Pipeline.over(client, f"right_{key}"), key)

    job = joined.agg(n=count(), long="max(length(text))").submit(mem_cap="80MiB")

    assert job.result().rows == [(3000 if key == "id" else 9_000_000, 500)]
    info: Any = job.info
    assert info.result["executions"] == 4
    assert info.result["peakBytes"] <= info.result["capBytes"] == 80 << 20


@pytest.mark.nightly
def test_a_sort_of_many_shards_stays_under_the_cap(shared_node: Any) -> None:
    rows = 20_000
    for shard in range(60):
        ids = [n * 7919 % rows * 60 + shard for n in range(rows)]
        text = [f"{n:>80}" for n in ids]
        shared_node.lake.append("many", pa.table({"id": pa.array(ids, pa.int64()), "text": text}))
    many = Elytra(shared_node.client).remote("many")

    job = many.sort("id").submit(mem_cap="72MiB")

    info: Any = job.wait()
    found = pa.concat_tables(pq.read_table(path) for path in shared_node.jobs.result(job.id))
    assert found.column("id").to_pylist() == list(range(60 * rows))
    assert info.result["executions"] == 61
    assert info.result["peakBytes"] <= info.result["capBytes"] == 72 << 20


def test_a_join_with_a_result_of_the_same_dataset(
    trips: Pipeline, data: dict[str, pa.Table]
) -> None:
    means = trips.group_by("carrier").agg(mean=col("km").mean())
    ours = trips.join(means, "carrier").filter("km > mean").count().collect().value
    query = (
        "select count(*) from trips join (select carrier, avg(km) m from trips group by 1) using "
        "(carrier) where km > m"
    )
    assert [(ours,)] == oracle(data, query)


def test_a_union_continues_with_the_others(trips: Pipeline, names: Pipeline) -> None:
    both = trips.limit(2).select("carrier").union(names.select("code")).collect()
    assert both.rows == [("UA",), (None,), ("UA",), ("AA",), ("ZZ",)]


def test_a_union_has_the_shards_of_its_inputs(trips: Pipeline, data: dict[str, pa.Table]) -> None:
    both = trips.select("id", "carrier").union(trips.filter("id < 9").select("id", "carrier"))
    found = both.group_by("carrier").agg(n=count(), ids=col("id").sum()).collect()
    query = (
        "select carrier, count(*), sum(id) from (select id, carrier from trips union all "
        "select id, carrier from trips where id < 9) group by 1 order by 1 nulls last"
    )
    assert found.rows == oracle(data, query)
    assert found.manifest["executions"] == 7


def test_an_empty_right_side_has_columns(shared_node: Any, trips: Pipeline) -> None:
    shared_node.lake.sql("CREATE OR REPLACE TABLE nothing (code VARCHAR, title VARCHAR)")
    nothing = Pipeline.over(shared_node.client, "nothing")
    joined = trips.join(nothing, {"carrier": "code"}, how="left").agg(n=count(), t="count(title)")
    assert joined.collect().rows == [(3 * ROWS, 0)]
    assert nothing.join(trips, {"code": "carrier"}).count().collect().value == 0
    assert nothing.sort("code").collect().rows == []


def test_a_window_looks_at_all_shards(trips: Pipeline, data: dict[str, pa.Table]) -> None:
    ours = trips.window("carrier", ["km:desc", "id"], place="row_number()").filter("place <= 2")
    query = (
        "select id, row_number() over (partition by carrier order by km desc, id) as place "
        "from trips qualify place <= 2 order by carrier nulls last, place"
    )
    assert ours.select("id", "place").collect().rows == oracle(data, query)


def test_values_that_would_be_states_are_aggregated_in_one_task(
    trips: Pipeline, data: dict[str, pa.Table]
) -> None:
    ours = trips.group_by("carrier").agg(m="median(km)", n="count(distinct km)").collect()
    query = (
        "select carrier, median(km), count(distinct km) from trips group by 1 order by 1 nulls last"
    )
    assert ours.rows == oracle(data, query)
    assert ours.manifest["executions"] == 1


def test_a_sample_is_the_same_every_time(trips: Pipeline) -> None:
    ids = [trips.sample(count=10, seed=3).select("id").collect().rows for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 10


def test_a_sample_of_a_fraction_is_taken_at_the_shards(
    trips: Pipeline, shared_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = trips.sample(0.1, seed=3).select("id")
    at_shards = some.collect()
    monkeypatch.setattr(shared_node.jobs._binder, "_whole_bytes", 1 << 30)
    whole = some.collect()
    assert at_shards.rows == whole.rows
    assert [each.manifest["executions"] for each in (at_shards, whole)] == [3, 1]


def test_expectations_fail_the_job_by_name(trips: Pipeline) -> None:
    assert trips.expect(unique="id", rows=">0").count().collect().value == 3 * ROWS
    with pytest.raises(SennitError) as caught:
        trips.expect(not_null="carrier").count().collect()
    assert caught.value.code == "expectation-failed"
    at_shards = trips.expect(not_null="id").count().collect()
    assert (at_shards.value, at_shards.manifest["executions"]) == (3 * ROWS, 4)


@pytest.mark.nightly
def test_partials_of_more_groups_than_the_cap_holds_are_merged(
    shared_node: Any,
) -> None:
    groups = 600_000
    for shard in range(2):
        numbers = range(shard * groups // 2, shard * groups // 2 + groups)
        keys = [f"group number {n:>30}" for n in numbers]
        shared_node.lake.append("wide", pa.table({"k": keys, "n": pa.array(numbers, pa.int64())}))
    wide = Elytra(shared_node.client).remote("wide")
    grouped = wide.group_by("k").agg(rows=count(), total=col("n").sum())
    job = grouped.agg(
        groups=count(), rows=col("rows").sum(), top=col("rows").max(), total=col("total").sum()
    ).submit(mem_cap="72MiB")
    total = sum(range(groups)) + sum(range(groups // 2, groups // 2 + groups))
    assert job.result().rows == [(groups * 3 // 2, 2 * groups, 2, total)]
    info: Any = job.info
    assert info.result["peakBytes"] <= info.result["capBytes"] == 72 << 20
    assert info.result["spilledBytes"] > 0


def test_operators_that_cannot_be_distributed_are_refused_by_name(
    shared_node: Any, trips: Pipeline, names: Pipeline
) -> None:
    ref = Scan(DatasetRef("trips"))
    with pytest.raises(Unsupported, match="'mine' of another package"):
        shared_node.client.submit(Custom((ref,), "mine"))
    with pytest.raises(NotFound):
        trips.join(Pipeline.over(shared_node.client, "nope"), "id").submit()
    with pytest.raises(SennitError, match="nope"):
        trips.join(names, {"carrier": "nope"}).submit()


def test_pipelines_of_two_nodes_do_not_mix(trips: Pipeline, drawer: Any) -> None:
    with pytest.raises(UsageError, match="different nodes"):
        trips.join(Pipeline.over(drawer, "flights"), "id")


def test_plans_over_a_deleted_dataset_are_refused(shared_node: Any, trips: Pipeline) -> None:
    shared_node.lake.append("gone", pa.table({"id": [1]}))
    other = Pipeline.over(shared_node.client, "gone")
    joined = trips.join(other, "id")
    shared_node.lake.delete("gone")
    with pytest.raises(NotFound):
        joined.submit()


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_shards_with_earlier_columns_are_read_as_the_dataset(shared_node: Any, whole: bool) -> None:
    lake = shared_node.lake
    lake.sql("CREATE OR REPLACE TABLE evolved AS SELECT i AS a, 'x' || i AS b FROM range(3) r(i)")
    lake.sql("ALTER TABLE evolved RENAME b TO name")
    lake.sql("ALTER TABLE evolved ADD c DOUBLE")
    lake.sql("INSERT INTO evolved VALUES (7, 'new', 0.5)")
    rows = Pipeline.over(shared_node.client, "evolved")

    if whole:
        found = rows.sort("a:desc").select("name", "c").collect().rows
        assert found == [("new", 0.5), ("x2", None), ("x1", None), ("x0", None)]
    else:
        totals = rows.filter("a <> 1").agg(n="count(*)", m="max(name)", s="sum(c)")
        assert totals.collect().rows == [(3, "x2", 0.5)]


@pytest.mark.parametrize(("order", "executions"), [((0, 1, 2), 3), ((2, 0, 1), 4)])
def test_a_window_runs_at_shards_that_share_no_partition(
    shared_node: Any, data: dict[str, pa.Table], order: tuple[int, ...], executions: int
) -> None:
    days = f"days_{executions}"
    for shard in order:
        part = data["trips"].slice(shard * 20, 20)
        shared_node.lake.append(days, part.append_column("day", pa.array([f"d{shard}"] * 20)))

    rows = Pipeline.over(shared_node.client, days)
    job = rows.window("day", "km:desc", place="row_number()").filter("place < 3").submit()

    found = job.result().to_arrow().to_pylist()
    assert [(row["day"], row["place"]) for row in found] == [
        (f"d{day}", place) for day in range(3) for place in (1, 2)
    ]
    info: Any = job.info
    assert info.result["executions"] == executions


def test_rows_of_different_shards_that_agree_violate_an_expectation(trips: Pipeline) -> None:
    job = trips.with_column("m", col("id") % ROWS).expect(unique="m").agg(n=count()).submit()

    with pytest.raises(SennitError, match=r"unique\(m\)"):
        job.result()
    info: Any = job.info
    assert info.result is None
