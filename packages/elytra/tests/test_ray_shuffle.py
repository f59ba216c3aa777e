"""Plans that no shards split run on all workers of a Ray cluster, with the rows of one executor."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytra import col, count
from elytra.backends.ray import RayBackend, RayOptions
from elytra.backends.ray.partitions import (
    KEY,
    Ranges,
    boundaries_of,
    ipc_of,
    keys_of,
    read_sample,
    split_file,
)
from elytra.backends.ray.shuffle_parts import groups
from elytra.backends.ray.shuffle_plan import (
    exchange_of,
    is_decomposable,
    ordered_joins,
    pruned,
    sent_sides,
    shuffles,
)
from elytra.pipelines.pipeline import Pipeline
from elytra.testing import BackendWorld, open_world
from emsqrt.expr import count_distinct, median
from emsqrt.plan import Aggregate, Files, Join, JoinKind, Scan, check, rewrite, walk
from sennit_core.schema import Schema

KEYS = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=60).map(
        lambda keys: pa.array(keys, pa.int64())
    ),
    st.lists(st.none() | st.floats(), max_size=60).map(lambda keys: pa.array(keys, pa.float64())),
    st.lists(st.none() | st.text(max_size=4), max_size=60).map(
        lambda keys: pa.array(keys, pa.string())
    ),
)


def order_of(key: Any, *, descending: bool, nulls_first: bool) -> Any:
    """EM-√'s order of keys: NaN is the largest, texts are compared by their bytes."""
    if key is None:
        return (0 if nulls_first else 2, 0, 0)
    is_nan = isinstance(key, float) and math.isnan(key)
    value = key.encode() if isinstance(key, str) else (0 if is_nan else key)
    rank = (int(is_nan), value)
    return (1, Reversed(rank)) if descending else (1, rank)


class Reversed:
    def __init__(self, rank: Any) -> None:
        self.rank = rank

    def __lt__(self, other: "Reversed") -> bool:
        return bool(other.rank < self.rank)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reversed) and bool(self.rank == other.rank)

    __hash__ = None  # type: ignore[assignment]


@given(keys=KEYS, ranges=st.integers(1, 6), descending=st.booleans(), nulls_first=st.booleans())
def test_ranges_after_each_other_are_sorted_and_keep_the_order_of_equal_keys(
    keys: Any, ranges: int, descending: bool, nulls_first: bool
) -> None:
    found = Ranges(boundaries_of([keys], ranges), descending, nulls_first)
    indexes = found.indexes(keys).tolist()

    assert found.count <= ranges
    assert all(0 <= index < found.count for index in indexes)
    orders = [
        order_of(key, descending=descending, nulls_first=nulls_first) for key in keys.to_pylist()
    ]
    by_key = sorted(range(len(keys)), key=lambda at: orders[at])
    by_range = sorted(by_key, key=lambda at: indexes[at])  # stable
    assert by_range == by_key


def test_a_file_is_split_by_ranges_with_positions(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    table = pa.table({"n": [5, 1, None, 3, 1], KEY: pa.array([5, 1, None, 3, 1], pa.int64())})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        for batch in table.to_batches(max_chunksize=2):
            stream.write_batch(batch)

    assert read_sample(path).to_pylist() == [5, 1, None, 3, 1]
    assert boundaries_of([read_sample(path)], 4).to_pylist() == [3, 5]
    ranges = Ranges(keys_of(ipc_of(pa.array([3], pa.int64()))))
    files = split_file(path, tmp_path / "ranges", ranges, position=2)
    rows = [pa.ipc.open_stream(each.read_bytes()).read_all().to_pydict() for each in files]
    base = 2 << 40
    assert rows == [
        {"n": [1, 1], "$position": [base + 1, base + 4]},
        {"n": [5, None, 3], "$position": [base, base + 2, base + 3]},
    ]


def test_what_can_be_shuffled_is_known_from_the_plan(drawer: Any) -> None:
    rows = Pipeline.over(drawer, "flights")
    schema = Schema.of(carrier="Utf8", origin="Utf8", distance="Float64", air_time="Int64")

    def typed(pipeline: Pipeline) -> Any:
        scan = Scan(Files(("shard-0",), "parquet"), schema)
        return rewrite(pipeline.plan, lambda node: scan if isinstance(node, Scan) else node)

    joined = typed(rows.join(rows.group_by("carrier").agg(n=count()), on="carrier"))
    assert shuffles(joined)
    assert ordered_joins(joined) == {id(joined)}
    counted = typed(rows.join(rows.distinct(), on="carrier").group_by("origin").agg(n=count()))
    assert not ordered_joins(counted)
    assert not shuffles(typed(rows.filter(col("distance") > 1).limit(3)))
    found = exchange_of(typed(rows.sort("distance:desc")))
    assert found is not None
    assert (found.descending, found.nulls_first) == (True, False)
    window = exchange_of(typed(rows.window("carrier", "distance", n="count(*)")))
    assert window is not None
    assert not window.descending
    aggregates = [
        node
        for each in (col("distance").sum(), median("distance"))
        for node in walk(typed(rows.group_by("carrier").agg(a=each)))
        if isinstance(node, Aggregate)
    ]
    assert [is_decomposable(each, check(each.input)) for each in aggregates] == [True, False]


def test_keys_of_two_types_are_partitioned_as_the_join_compares_them() -> None:
    def joined(left: str, right: str) -> Join:
        sides = [Scan(Files((name,), "arrow"), Schema.of(k=kind)) for name, kind in
                 (("partial-0", left), ("partial-1", right))]  # fmt: skip
        return Join(sides[0], sides[1], (("k", "k"),), "full")

    found = exchange_of(joined("Int32", "Int64"))
    assert found is not None
    assert list(map(str, found.keys)) == ["cast(k as Int64)", "k"]
    assert exchange_of(joined("Date", "Timestamp(us)")) is None, "the conversion may fail"
    flags = exchange_of(joined("Bool", "Bool"))
    assert flags is not None
    assert list(map(str, flags.keys)) == ["cast(k as Int8)", "cast(k as Int8)"]


def test_the_files_of_a_scan_are_in_few_parts_in_their_order() -> None:
    paths = [f"shard-{at}" for at in range(7)]
    for most in (0, 1, 2, 4, 7, 100):
        found = groups(paths, most)
        assert [path for group in found for path in group] == paths
        assert len(found) <= max(most, 1)
    assert groups([], 4) == []


def test_a_join_is_partitioned_by_any_of_its_keys_that_can_be() -> None:
    schema = Schema.of(flag="Bool", day="Date", at="Timestamp(us)", n="Int32")
    sides = [Scan(Files((f"partial-{at}",), "arrow"), schema) for at in range(2)]
    for pairs, expected in (
        ((("flag", "flag"), ("n", "n")), "n"),
        ((("day", "at"), ("flag", "flag")), "cast(flag as Int8)"),
    ):
        found = exchange_of(Join(sides[0], sides[1], pairs, suffix="_other"))
        assert found is not None
        assert str(found.keys[0]) == expected


@pytest.mark.parametrize(
    ("how", "in_order", "in_any_order"),
    [
        ("inner", (1,), (0, 1)),
        ("left", (1,), (1,)),
        ("right", (), (0,)),
        ("full", (), ()),
        ("semi", (1,), (1,)),
        ("cross", (1,), (0, 1)),
    ],
)
def test_a_side_is_sent_where_each_row_depends_on_one_of_the_other_side(
    how: JoinKind, in_order: tuple[int, ...], in_any_order: tuple[int, ...]
) -> None:
    sides = [Scan(Files((f"partial-{n}",), "arrow"), Schema.of(k="Int64")) for n in range(2)]
    join = Join(sides[0], sides[1], () if how == "cross" else (("k", "k"),), how, "_right")
    assert sent_sides(join, is_ordered=True) == in_order
    assert sent_sides(join, is_ordered=False) == in_any_order
    taken = replace(sides[0], schema=Schema.of(**{"k": "Int64", KEY: "Int64"}))
    assert sent_sides(replace(join, left=taken), is_ordered=False) == ()


def test_a_stage_passes_on_only_the_columns_that_those_above_it_need(drawer: Any) -> None:
    rows = Pipeline.over(drawer, "flights")
    schema = Schema.of(carrier="Utf8", origin="Utf8", distance="Float64", air_time="Int64")
    scan = Scan(Files(("shard-0",), "parquet"), schema)
    pipeline = rows.join(rows.select("carrier", "origin"), on="carrier").group_by("origin")
    plan = rewrite(
        pipeline.agg(n=count()).plan, lambda node: scan if isinstance(node, Scan) else node
    )
    scans = [node for node in walk(pruned(plan)) if isinstance(node, Scan)]
    assert [node.columns for node in scans] == [("carrier", "origin"), ("carrier",)]


# With a cluster


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendWorld]:
    pytest.importorskip("ray")
    options = RayOptions(
        workers=2, object_store_bytes=128 << 20, shuffle_bytes=1, broadcast_bytes=20_000
    )
    with ExitStack() as owned:
        yield open_world(
            tmp_path_factory.mktemp("shuffle"),
            owned,
            "ray",
            lambda node: RayBackend(node, options),
            lambda _: "",
            busy_count=RayBackend.busy,
            pids=RayBackend.pids,
        )


ROWS = 30_000


def load(world: BackendWorld) -> tuple[Pipeline, Pipeline]:
    """Trips in seven shards and drivers in three."""
    if world.dataset("trips") is None:
        for at, shards, name in ((ROWS, 7, "trips"), (400, 3, "drivers")):
            size = -(-at // shards)
            for start in range(0, at, size):
                numbers = range(start, min(start + size, at))
                keys = [None if n % 97 == 0 else n * 7919 % 500 for n in numbers]
                world.lake.append(
                    name,
                    pa.table(
                        {
                            "id": pa.array(numbers, pa.int64()),
                            "driver": pa.array(keys if at == ROWS else list(numbers), pa.int64()),
                            "km": [n * 7919 % 1009 / 7 + 1e9 * (n % 3) for n in numbers],
                            "city": [("Oslo", "Rome", "Åre", None)[n * 31 % 4] for n in numbers],
                        }
                    ),
                )
    return world.pipeline("trips"), world.pipeline("drivers")


def pipelines(trips: Pipeline, drivers: Pipeline) -> dict[str, Pipeline]:
    names = drivers.select("driver", "city")
    short = drivers.select("city", driver=col("driver").cast("Int16"))
    third = trips.filter(col("id") % 3 == 0).select("id", "driver", far=col("km") * 2)
    wide = third.select("far", id=(col("id") * 7 + 5).cast("Decimal(20, 0)"))
    return {
        "sort": trips.sort("km"),
        "sort by a Boolean": trips.with_column("far", col("km") > 1e9).sort("far:desc", "city"),
        "groups by a Boolean": trips.with_column("far", col("km") > 1e9)
        .group_by("far", "driver")
        .agg(n=count(), middle=median("km")),
        "join by a Boolean and a number": trips.with_column("far", col("km") > 1e9).join(
            third.select("id", far=col("far") > 1e9), on=["far", "id"]
        ),
        "sort, descending": trips.sort("city:desc"),
        "median": trips.group_by("driver").agg(middle=median("km"), n=count()),
        "join": trips.join(names, on="driver"),
        "left join": trips.join(names, on="driver", how="left"),
        "anti join": trips.join(names, on="driver", how="anti"),
        "right join": trips.join(names, on="driver", how="right"),
        "right join of many": trips.select("id", "km").join(third, on="id", how="right"),
        "full join of many": third.join(
            trips.select(id=col("id") + 9_000, km=col("km")), on="id", how="full"
        ),
        "full join and group": third.join(trips.select("driver", "km"), on="driver", how="full")
        .group_by("driver")
        .agg(n=count(), far=col("far").sum()),
        "right join and group": names.join(trips, on="driver", how="right")
        .group_by("city")
        .agg(n=count(), first=col("id").min()),
        "join of many": trips.join(third.select("id", "far"), on="id"),
        "semi join of many": trips.join(third, on="id", how="semi"),
        "small left side": names.join(trips.select("driver", "km"), on="driver")
        .group_by("city")
        .agg(km=col("km").max(), n=count()),
        "keys of two types": trips.select("id", "driver").join(short, on="driver", how="full"),
        "decimal and integer keys": trips.select("id", "km").join(wide, on="id", how="left"),
        "cross join": trips.select("id", "km").join(trips.agg(mean=col("km").mean()), how="cross"),
        "window": trips.window(
            ["driver", "city"], ["km:desc", "id"], place="row_number()", sum="sum(km)"
        ),
        "window and filter": trips.window("id", [], n="count(*)").filter(col("n") > 1),
        "groups": trips.group_by("id", "city").agg(n=count(), mean=col("km").mean()),
        "few groups": trips.group_by("city").agg(n=count(), mean=col("km").mean()),
        "distinct count": trips.group_by("city").agg(n=count_distinct("driver")),
        "join and group": trips.join(names, on="driver")
        .group_by("city")
        .agg(n=count(), km=col("km").sum(), mean=col("km").mean()),
        "join and group by the small side": trips.join(
            drivers.select("driver", home=col("city")), on="driver"
        )
        .group_by("home")
        .agg(n=count(), km=col("km").sum(), mean=col("km").mean()),
        "join and total": trips.join(names, on="driver").agg(km=col("km").sum()),
        "join and top": trips.join(names, on="driver").top_k(7, "km"),
        "join and distinct": trips.join(names, on="driver").select("driver", "city").distinct(),
        "join and limit": trips.join(names, on="driver").limit(9, offset=3),
        "union": trips.union(trips).sort("id"),
        "nothing": trips.filter(col("km") < 0).join(names, on="driver"),
    }


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_rows_are_those_of_one_executor(world: BackendWorld) -> None:
    on_ray = {name: world.submit(pipeline) for name, pipeline in pipelines(*load(world)).items()}
    for name, pipeline in pipelines(*load(world)).items():
        expected = world.rows(world.jobs.submit(pipeline.plan, engine="local"))
        assert world.rows(on_ray[name]) == expected, name
    # The groups of the shards are exchanged, and not merged by one executor of the node.
    assert len(world.tree.get(f"/jobs/{on_ray['groups'].id}/tasks")) == 1


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_killed_workers_do_not_change_the_rows(world: BackendWorld) -> None:
    trips, drivers = load(world)
    pipeline = trips.union(trips).join(drivers.select("driver"), on="driver").sort("km")
    expected = world.rows(world.jobs.submit(pipeline.plan, engine="local"))
    job = world.submit(pipeline)
    while not world.busy_count():
        assert world.jobs.get(job.id).state in ("queued", "running")
    world.kill_workers()

    assert world.rows(job) == expected


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_cancelled_shuffle_frees_everything(world: BackendWorld) -> None:
    trips, drivers = load(world)
    job = world.submit(trips.union(trips).join(drivers.select("driver"), on="driver").sort("km"))
    while not world.busy_count():
        pass
    world.jobs.cancel(job.id)

    assert world.ended(job).state in ("cancelled", "done")
    while world.busy_count():
        pass
    assert world.rows(world.submit(trips.agg(n=count()))) == [repr({"n": ROWS})]
