from __future__ import annotations

import builtins
import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emsqrt import Engine, EngineConfig, col, lit, scan
from emsqrt.expr import count, sum  # noqa: A004
from emsqrt.plan import Plan, plan_hash
from emsqrt.testing import PeakPoller
from sennit_core.errors import (
    BadInput,
    CapTooSmall,
    DeadlineExceeded,
    UnknownColumn,
    UsageError,
)
from sennit_core.records import Progress

MIB = 1 << 20


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(EngineConfig(mem_cap_bytes=128 * MIB, spill_dir=tmp_path / "spill")) as opened:
        yield opened


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 12 MB of CSV with quotes, NULLs and newlines inside quotes."""
    path = tmp_path_factory.mktemp("data") / "flights.csv"
    dice = random.Random(7)
    with path.open("w", newline="") as file:
        file.write("carrier,distance,delay,note\n")
        for number in range(300_000):
            delay = "" if number % 17 == 0 else f"{dice.randint(-400, 4000) / 8}"
            note = '"a ""quoted""\nnote, long"' if number % 9 == 0 else "plain text of a flight"
            file.write(f"{dice.choice('ABCDEFGH')}{number % 5},{number % 3000},{delay},{note}\n")
    return path


@pytest.mark.nightly
def test_a_pipeline_does_what_sql_does(flights: Path, tmp_path: Path, engine: Engine) -> None:
    out = tmp_path / "out.parquet"
    manifest = (
        scan(flights)
        .filter("distance > 1000", col("delay") >= 0)
        .with_column("hours", col("delay") / 60)
        .rename({"carrier": "line"})
        .group_by("line")
        .agg(n=count(), far="max(distance)", hours="sum(hours)", notes="min(note)")
        .sink(out)
        .run(engine=engine)
    )
    expected = duckdb.sql(
        f"select carrier, count(*), max(distance), sum(delay / 60), min(note) from '{flights}'"
        " where distance > 1000 and delay >= 0 group by carrier order by carrier"
    ).fetchall()
    found = [tuple(row.values()) for row in pq.read_table(out).to_pylist()]
    assert [row[:3] + row[4:] for row in found] == [row[:3] + row[4:] for row in expected]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in expected], rel=1e-12)
    assert (manifest.rows_in, manifest.rows_out) == (300_000, 40)
    assert manifest.bytes_in == flights.stat().st_size
    assert manifest.bytes_out == out.stat().st_size


@pytest.mark.slow
def test_a_run_reports_plan_and_measurements(flights: Path, tmp_path: Path, engine: Engine) -> None:
    pipeline = scan(flights).limit(10).sink(tmp_path / "out.csv")
    first, second = (pipeline.run("64MiB", engine=engine) for _ in range(2))
    assert first.plan_hash == second.plan_hash == plan_hash(pipeline.plan)
    assert first.cap_bytes == 64 * MIB
    assert first.reserved_bytes <= first.budget_bytes < first.cap_bytes
    assert 8 * MIB < first.peak_bytes <= first.cap_bytes
    assert first.reserved_by_tag["scan"] > 0
    assert first.started_at < first.finished_at
    assert first.sinks[0].target == str(tmp_path / "out.csv")


@pytest.mark.slow
def test_the_same_plan_writes_the_same_bytes_under_any_cap(
    flights: Path, tmp_path: Path, engine: Engine
) -> None:
    digests = set()
    for cap in ("48MiB", "64MiB", "128MiB"):
        out = tmp_path / "out.csv"
        scan(flights).group_by("carrier").agg(total="sum(delay)", mean="avg(delay)").sink(out).run(
            cap, engine=engine
        )
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("cap_mib", [48, 64])
@pytest.mark.parametrize("kind", ["csv", "parquet", "stream"])
def test_memory_stays_under_the_cap_as_seen_from_outside(
    flights: Path, tmp_path: Path, kind: str, cap_mib: int
) -> None:
    config = EngineConfig(mem_cap_bytes=cap_mib * MIB, spill_dir=tmp_path / "spill")
    with Engine(config) as engine:
        list(engine.batches(scan(flights).limit(1).plan))
        assert engine.pids
        rows = scan(flights).filter("delay is not null").with_column("x", "delay * distance")
        with PeakPoller(engine.pids[0]) as poller:
            if kind == "stream":
                rows_out = [batch.num_rows for batch in engine.batches(rows.plan)]
                assert builtins.sum(rows_out) > 200_000
            else:
                rows.sink(tmp_path / f"out.{kind}").run(engine=engine)
            assert engine.pids
            engine.close()
            assert poller.peak() <= cap_mib * MIB


@pytest.mark.nightly
def test_every_refused_cap_names_one_that_works(flights: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    scan(flights).sink(source).run("128MiB")
    pipeline = scan(source).sort("delay").sink(tmp_path / "out.parquet")
    cap, refusals = 41 * MIB, 0
    with Engine(EngineConfig(mem_cap_bytes=128 * MIB)) as engine:
        manifest = None
        while manifest is None:
            try:
                manifest = pipeline.run(cap, engine=engine)
            except CapTooSmall as error:
                cap, refusals = error.needed_bytes + MIB // 2, refusals + 1
    assert 1 <= refusals <= 2
    assert manifest.peak_bytes <= cap < 80 * MIB


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.parquet"
    pq.write_table(pa.table({"k": list(range(1000))}), path)
    return path


@pytest.mark.slow
def test_a_cap_below_the_libraries_is_refused_at_once(small: Path, tmp_path: Path) -> None:
    pipeline = scan(small).sink(tmp_path / "out.parquet")
    with pytest.raises(CapTooSmall) as raised:
        pipeline.run("16MiB")
    assert raised.value.needed_bytes >= 40 * MIB
    assert pipeline.run(raised.value.needed_bytes).rows_out == 1000


@pytest.mark.nightly
def test_more_groups_than_memory_spill_and_are_read_back(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "keys.parquet"
    pq.write_table(pa.table({"k": list(range(2_000_000))}), path)
    grouped = scan(path).group_by("k").agg(n=count())
    manifest = grouped.sink(tmp_path / "out.parquet").run("64MiB", engine=engine)
    assert (manifest.rows_out, manifest.spilled_bytes > 0) == (2_000_000, True)
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 2_000_000
    rows = scan(path).agg(n=count(), total=sum("k")).collect(engine=engine).to_pylist()
    assert rows == [{"n": 2_000_000, "total": 1_999_999_000_000}]


@pytest.mark.slow
def test_rows_can_be_collected_or_streamed(flights: Path, engine: Engine) -> None:
    pipeline = scan(flights).select("distance", far=col("distance") > lit(100)).limit(3, offset=99)
    table = pipeline.collect(engine=engine)
    assert table.to_pylist() == [
        {"distance": 99, "far": False},
        {"distance": 100, "far": False},
        {"distance": 101, "far": True},
    ]
    assert scan(flights).filter("false").collect(engine=engine).num_rows == 0


def test_a_limit_stops_reading(flights: Path, engine: Engine, tmp_path: Path) -> None:
    manifest = scan(flights).limit(5).sink(tmp_path / "out.csv").run("64MiB", engine=engine)
    assert manifest.rows_out == 5
    assert 0 < manifest.bytes_in < flights.stat().st_size / 3


@pytest.mark.slow
def test_an_unknown_column_suggests_the_nearest(flights: Path, engine: Engine) -> None:
    with pytest.raises(UnknownColumn) as raised:
        scan(flights).filter("distanse > 1").collect(engine=engine)
    assert raised.value.suggestion == "distance"


@pytest.mark.slow
def test_a_broken_value_is_named_by_line_and_nothing_is_written(
    tmp_path: Path, engine: Engine
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("n\n" + "1\n" * 700_000 + "x\n")
    with pytest.raises(BadInput, match=r"line 700002.*'x' is not") as raised:
        scan(path).sink(tmp_path / "out.parquet").run(engine=engine)
    assert raised.value.line == 700_002
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.csv", "spill"]


def test_a_run_in_this_process_returns_the_same_rows(flights: Path, tmp_path: Path) -> None:
    pipeline = scan(flights).group_by("carrier").agg(n=count(), d="sum(delay)")
    here = pipeline.sink(tmp_path / "here.csv").run("64MiB", in_process=True)
    pipeline.sink(tmp_path / "child.csv").run("64MiB")
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "child.csv").read_bytes()
    assert here.budget_bytes == 64 * MIB


def test_progress_reaches_the_end(flights: Path, tmp_path: Path, engine: Engine) -> None:
    steps: list[Progress] = []
    plan = scan(flights).sink(tmp_path / "out.csv").plan
    engine.run(plan, on_progress=steps.append)
    assert steps[-1].bytes_total == flights.stat().st_size
    assert [step.bytes_done for step in steps] == sorted(step.bytes_done for step in steps)


def test_a_deadline_ends_a_run_and_nothing_is_written(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "in.csv"
    path.write_text("n\n" + "1\n" * 3_000_000)
    plan = scan(*[path] * 60).sink(tmp_path / "out.csv").plan
    with pytest.raises(DeadlineExceeded):
        engine.run(plan, deadline_seconds=0.3)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_an_engine_has_runs_at_once(small: Path, tmp_path: Path) -> None:
    config = EngineConfig(mem_cap_bytes=96 * MIB, max_parallel_tasks=2)
    done: list[int] = []
    both = threading.Barrier(2)

    def work(engine: Engine, plan: Plan) -> None:
        both.wait()
        done.append(engine.run(plan).rows_out)

    with Engine(config) as engine:
        plans = [scan(small).sink(tmp_path / f"{n}.parquet").plan for n in range(2)]
        threads = [threading.Thread(target=work, args=(engine, plan)) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(engine.pids) == 2
    assert done == [1000, 1000]


@pytest.mark.slow
def test_a_plan_without_a_sink_is_refused_with_a_hint(flights: Path, engine: Engine) -> None:
    with pytest.raises(UsageError, match="no sink") as raised:
        engine.run(scan(flights).plan)
    assert raised.value.hint == "end it with a sink"


def test_settings_come_from_the_environment() -> None:
    environment = {
        "EMSQRT_MEM_CAP_BYTES": "64MiB",
        "EMSQRT_SPILL_DIR": "/somewhere",
        "EMSQRT_MAX_PARALLEL_TASKS": "3",
        "PATH": "/bin",
    }
    assert EngineConfig.from_environment(environment) == EngineConfig(
        64 * MIB, max_parallel_tasks=3, spill_dir=Path("/somewhere")
    )
    with pytest.raises(UsageError, match="no setting EMSQRT_MEM_CAP;") as raised:
        EngineConfig.from_environment({"EMSQRT_MEM_CAP": "1"})
    assert raised.value.hint == "did you mean EMSQRT_MEM_CAP_BYTES?"
