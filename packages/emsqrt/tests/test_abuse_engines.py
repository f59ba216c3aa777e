"""Engines under strain: many at once, from threads and forks, closed, killed, stopped; wide, many."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from abuse_runs import command, remaining_files

from emsqrt import Engine, EngineConfig, scan
from emsqrt.pipeline import Pipeline
from sennit_core.errors import (
    Cancelled,
    CapTooSmall,
    Closed,
    DeadlineExceeded,
    WorkerLost,
)

ROWS = 200_000
CAP = "56MiB"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of some 10 MB as text, whose sorting under a small cap spills and merges."""
    folder = tmp_path_factory.mktemp("data")
    rows = (f"{n * 2_654_435_761 % ROWS},{'text of a row ' * 8}{n}\n" for n in range(ROWS))
    (folder / "in.csv").write_text("k,v\n" + "".join(rows))
    path = folder / "in.parquet"
    pq.write_table(pyarrow.csv.read_csv(folder / "in.csv"), path, row_group_size=20_000)
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(EngineConfig(spill_dir=tmp_path / "spill", mem_cap_bytes=56 << 20)) as kept:
        yield kept


def sorting(source: Path, target: Path) -> Pipeline:
    return scan(source).sort("v").sink(target, compression="none")


def small(folder: Path, name: str = "small.csv") -> Path:
    path = folder / name
    path.write_text("k,v\n2,b\n1,a\n")
    return path


def works(engine: Engine, folder: Path) -> None:
    """Look that an engine still runs plans, and that nothing is left once it was closed."""
    target = folder / "after.parquet"
    scan(small(folder)).sort("k").sink(target).run(CAP, engine=engine)
    assert pq.read_table(target)["k"].to_pylist() == [1, 2]
    engine.close()
    assert remaining_files(folder) == []


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


def begun(folder: Path, place: str) -> bool:
    """Whether a run in a folder gathers (its file is begun), spills, merges or writes."""
    try:
        if place == "write":
            return any(path.stat().st_size > 0 for path in folder.glob(".*.tmp"))
        if place == "gather":
            return any(folder.glob(".*.tmp"))
        spilled = [path.stat().st_size for path in folder.glob("spill/**/*-*") if path.is_file()]
        return len(list(filter(None, spilled))) >= (1 if place == "spill" else 3)
    except FileNotFoundError:  # it vanished meanwhile, so it was not that
        return False


class InThread:
    """A run on a thread, and how it ended."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._run = run
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    @property
    def is_over(self) -> bool:
        """Whether it came to its end."""
        return not self._thread.is_alive()

    def ended(self) -> BaseException | None:
        self._thread.join(120)
        assert not self._thread.is_alive(), "it hangs"
        return self.error


@pytest.mark.nightly
@pytest.mark.crash
@pytest.mark.parametrize("place", ["gather", "spill", "merge", "write"])
def test_a_killed_executor_leaves_nothing_and_is_replaced(
    source: Path, tmp_path: Path, engine: Engine, place: str
) -> None:
    target = tmp_path / "out.parquet"
    run = InThread(lambda: sorting(source, target).run(engine=engine))
    wait_for(lambda: begun(tmp_path, place) or run.is_over)
    for pid in engine.pids:
        os.kill(pid, signal.SIGKILL)
    assert isinstance(run.ended(), WorkerLost)
    assert not target.exists()
    sorting(source, target).run(engine=engine)
    assert pq.read_table(target).num_rows == ROWS
    for path in tmp_path.glob(".*.tmp"):
        path.unlink()  # as documented, a killed run leaves its temporary file
    works(engine, tmp_path)


@pytest.mark.nightly
@pytest.mark.crash
def test_a_stopped_executor_does_not_outlive_the_deadline(
    source: Path, tmp_path: Path, engine: Engine
) -> None:
    target = tmp_path / "out.parquet"
    plan = sorting(source, target).plan
    run = InThread(lambda: engine.run(plan, deadline_seconds=4))
    wait_for(lambda: begun(tmp_path, "spill") or run.is_over)
    for pid in engine.pids:
        os.kill(pid, signal.SIGSTOP)
    assert isinstance(run.ended(), DeadlineExceeded | WorkerLost)
    assert not target.exists()
    for path in tmp_path.glob(".*.tmp"):
        path.unlink()
    works(engine, tmp_path)


@pytest.mark.crash
def test_an_interrupt_ends_a_run_of_the_library(source: Path, tmp_path: Path) -> None:
    script = (
        "import signal, sys; from pathlib import Path\n"
        "from emsqrt import Engine, EngineConfig, scan\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "source, target, spill = map(Path, sys.argv[1:])\n"
        "with Engine(EngineConfig(spill_dir=spill)) as engine:\n"
        f"    scan(source).sort('v').sink(target).run('{CAP}', engine=engine)\n"
    )
    places = map(str, (source, tmp_path / "out.parquet", tmp_path / "spill"))
    words = [sys.executable, "-c", script, *places]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    wait_for(lambda: begun(tmp_path, "spill") or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert errors.rstrip().endswith(b"KeyboardInterrupt")
    assert not (tmp_path / "out.parquet").exists()
    assert remaining_files(tmp_path) == []


@pytest.mark.nightly
def test_an_engine_that_is_closed_ends_its_runs(source: Path, tmp_path: Path) -> None:
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
    with engine:
        run = InThread(lambda: sorting(source, tmp_path / "out.parquet").run(CAP, engine=engine))
        wait_for(lambda: begun(tmp_path, "spill") or run.is_over)
        engine.close()
        assert isinstance(run.ended(), Cancelled | Closed | WorkerLost)
    assert remaining_files(tmp_path) == []
    works(engine, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_many_runs_of_one_engine_at_once(tmp_path: Path, engine: Engine, suffix: str) -> None:
    read = small(tmp_path)
    targets = [tmp_path / f"out{n}.{suffix}" for n in range(64)]
    runs = [
        InThread(lambda target=target: scan(read).sort("k").sink(target).run(CAP, engine=engine))  # type: ignore[misc]
        for target in targets
    ]
    assert [run.ended() for run in runs] == [None] * 64
    assert len({target.read_bytes() for target in targets}) == 1
    works(engine, tmp_path)


@pytest.mark.nightly
def test_engines_in_engines_and_in_tasks(tmp_path: Path, engine: Engine) -> None:
    read = small(tmp_path)

    def run(number: int, other: Engine) -> int:
        target = tmp_path / f"out{number}.parquet"
        return scan(read).sort("k").sink(target).run(CAP, engine=other).rows_out

    async def together() -> list[int]:
        with Engine(engine.config) as inner, Engine(engine.config) as third, inner:
            engines = (engine, inner, third, Engine(engine.config))
            tasks = [asyncio.to_thread(run, at, each) for at, each in enumerate(engines)]
            return await asyncio.gather(*tasks)

    assert asyncio.run(together()) == [2, 2, 2, 2]
    works(engine, tmp_path)


@pytest.mark.nightly
def test_rows_that_are_abandoned_free_the_engine(
    source: Path, tmp_path: Path, engine: Engine
) -> None:
    rows = engine.batches(scan(source).sort("v").plan)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    works(engine, tmp_path)


@pytest.mark.nightly
def test_a_fork_of_a_process_with_an_engine_has_its_own(tmp_path: Path, engine: Engine) -> None:
    read = small(tmp_path)
    scan(read).sort("k").sink(tmp_path / "a.parquet").run(CAP, engine=engine)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            scan(read).sort("k").sink(tmp_path / "b.parquet").run(CAP, engine=engine)
            engine.close()
        finally:
            os._exit((tmp_path / "b.parquet").exists())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    works(engine, tmp_path)


def wide(folder: Path, columns: int = 3000, rows: int = 60) -> Path:
    """A table of so many columns of whole numbers."""
    path = folder / "wide.csv"
    lines = [",".join(["k", *(f"c{n}" for n in range(1, columns))])]
    lines += [",".join(map(str, (n * 7919 % 10, *range(n, n + columns - 1)))) for n in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.nightly
def test_a_table_of_thousands_of_columns_is_sorted(tmp_path: Path) -> None:
    words = ("sort", wide(tmp_path), "out.csv", "--by", "k,c1:desc", "--mem-cap", "32MiB")
    ended = command(*words, "--spill-dir", "spill", folder=tmp_path)
    assert ended.status == 0, ended.err
    rows = [line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert [(int(row[0]), -int(row[1])) for row in rows] == sorted(
        (n * 7919 % 10, -n) for n in range(60)
    )
    assert {len(row) for row in rows} == {3000}


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
def test_hundreds_of_keys_and_aggregates_make_groups(tmp_path: Path, target: str) -> None:
    rows = scan(wide(tmp_path, 300, 60))
    keys, sums = [f"c{n}" for n in range(1, 290)], [f"sum(c{n})" for n in range(1, 300)]
    tables = []
    for made in (rows.group_by("k", *keys).agg("count(*)"), rows.group_by("k").agg(*sums)):
        made.sink(tmp_path / target).run(CAP)
        tables.append(scan(tmp_path / target).collect())
    with duckdb.connect() as oracle:
        lines = oracle.read_csv(str(tmp_path / "wide.csv"))
        names = ", ".join(["k", *keys])
        wanted = [
            oracle.sql(f"SELECT {names}, count(*) FROM lines GROUP BY ALL ORDER BY {names}"),
            oracle.sql(f"SELECT k, {', '.join(sums)} FROM lines GROUP BY k ORDER BY k"),
        ]
        assert lines is not None
        for found, expected in zip(tables, wanted, strict=True):
            rows_found = list(zip(*(column.to_pylist() for column in found.columns), strict=True))
            assert rows_found == expected.fetchall()


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cap", [64, 100, 320])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow"])
@pytest.mark.parametrize("verb", ["sort", "distinct", "join", "window", "aggregate"])
def test_thousands_of_columns_are_refused_or_carried(
    tmp_path: Path, engine: Engine, verb: str, kind: str, cap: int
) -> None:
    read = tmp_path / f"wide.{kind}"
    wide(tmp_path)
    if kind != "csv":
        scan(tmp_path / "wide.csv").sink(read).run("1GiB", engine=engine)
    pipeline, names, expected = wide_plans(scan(read), scan(small(tmp_path)))[verb]
    target = tmp_path / "out.arrow"
    run_where_it_may(pipeline.sink(target), cap << 20, engine)
    with pa.ipc.open_file(target) as file:
        columns = file.read_all().select(names).to_pydict()
    assert list(zip(*columns.values(), strict=True)) == expected
    works(engine, tmp_path)


def run_where_it_may(pipeline: Pipeline, cap_bytes: int, engine: Engine) -> None:
    """Run under the cap that a refusal names; only the rows show how wide they are as batches."""
    for _ in range(4):
        try:
            pipeline.run(cap_bytes, engine=engine)
        except CapTooSmall as error:
            cap_bytes = error.needed_bytes
        else:
            return
    raise AssertionError(f"refused again and again, last under {cap_bytes} bytes")


def wide_plans(
    rows: Pipeline, few: Pipeline
) -> dict[str, tuple[Pipeline, list[str], list[tuple[Any, ...]]]]:
    """Plans over a wide table and a small one; columns of their answers, and what these hold."""
    pairs = [(n * 7919 % 10, n) for n in range(60)]
    ordered = sorted(pairs)
    places = [
        (k, n, [other for other in ordered if other[0] == k].index((k, n))) for k, n in ordered
    ]
    ends = {k: [n + 2998 for key, n in pairs if key == k] for k in range(10)}
    texts = {1: "a", 2: "b"}
    return {
        "sort": (
            rows.sort("k", "c7:desc"),
            ["k", "c1"],
            sorted(pairs, key=lambda row: (row[0], -row[1])),
        ),
        "distinct": (rows.distinct("k"), ["k", "c2999"], [(k, min(ends[k])) for k in range(10)]),
        "join": (
            rows.join(few, "k"),
            ["k", "c1", "v"],
            [(k, n, texts[k]) for k, n in pairs if k in texts],
        ),
        "window": (
            rows.window("k", "c1", n="row_number()"),
            ["k", "c1", "n"],
            [(k, n, place + 1) for k, n, place in places],
        ),
        "aggregate": (
            rows.group_by("k").agg(total="sum(c2999)", n="count(*)"),
            ["k", "total", "n"],
            [(k, sum(ends[k]), len(ends[k])) for k in range(10)],
        ),
    }


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
def test_ten_thousand_files_are_read_or_refused(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"{number:05}.csv").write_text(f"k,v\n{number},x\n")
    words = ("sort", "many/*.csv", target, "--by", "k:desc", "--spill-dir", "spill")
    ended = command(*words, "--mem-cap", "24MiB", folder=tmp_path)
    assert ended.status == 3
    ended = command(*words, "--mem-cap", "96MiB", folder=tmp_path)
    assert ended.status == 0, ended.err
    rows = scan(tmp_path / target).collect()
    assert rows["k"].to_pylist() == list(range(9_999, -1, -1))
    assert remaining_files(tmp_path) == []
