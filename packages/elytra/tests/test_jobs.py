"""Pipelines as jobs: real shards, real executors, a real server between them and the client."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pytest

from elytra import Elytra, Pipeline, col, count
from elytra.service.work import PlanWork
from emsqrt.plan import Files, FileTarget, Scan, Sink, plan_to_json
from sennit_core.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Denied,
    InternalError,
    NotFound,
    SennitError,
    UnknownColumn,
    Unsupported,
    UsageError,
)

ROWS = 3000
CARRIERS = ["UA", "AA", "B6", None]


def piece(shard: int) -> pa.Table:
    numbers = range(shard * ROWS, (shard + 1) * ROWS)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "carrier": pa.array([CARRIERS[n % 4] for n in numbers]),
            "distance": pa.array([n * 0.1 for n in numbers], pa.float64()),
        }
    )


@pytest.fixture(scope="module")
def data(shared_node: Any) -> pa.Table:
    """Three shards."""
    pieces = [piece(shard) for shard in range(3)]
    for table in pieces:
        shared_node.lake.append("flights", table)
    return pa.concat_tables(pieces)


@pytest.fixture
def flights(shared_node: Any, data: pa.Table) -> Pipeline:
    return Elytra(shared_node.client).remote("flights")


def eventually(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return seen


@pytest.mark.slow
def test_groups_over_shards_are_those_of_the_whole(flights: Pipeline, data: pa.Table) -> None:
    job = (
        flights.filter(col("distance") > 100)
        .group_by("carrier")
        .agg(n=count(), total=col("distance").sum(), top=col("id").max())
        .submit()
    )
    result = job.result()
    with duckdb.connect() as oracle:
        oracle.register("flights", data)
        expected = oracle.execute(
            "select carrier, count(*), sum(distance), max(id) from flights"
            " where distance > 100 group by carrier order by carrier nulls last"
        ).fetchall()

    assert [row[::3] for row in result.rows] == [row[::3] for row in expected]
    assert [row[2] for row in result.rows] == pytest.approx([r[2] for r in expected], rel=1e-12)
    assert result.manifest["rows"] == 4
    assert result.manifest["executions"] == 4
    progress = job.info.progress
    assert progress is not None
    assert progress.rows == data.num_rows == result.manifest["rowsRead"]
    assert progress.memory_bytes == result.manifest["peakBytes"] > 0


def test_rows_keep_the_order_of_the_dataset(flights: Pipeline) -> None:
    job = flights.filter(col("id") % 500 == 0).select("id").submit()

    ids = [n for batch in job.iter_results() for n in batch.column("id").to_pylist()]

    assert ids == list(range(0, 3 * ROWS, 500))
    result: Any = job.info.result
    assert len(result["files"]) == 3


@pytest.mark.slow
def test_single_values(flights: Pipeline) -> None:
    assert flights.count().collect().value == 3 * ROWS
    assert flights.reduce(max, column="id").collect().value == 3 * ROWS - 1
    assert flights.filter("id < 4").sum("id").collect().value == 6


def test_a_limit_holds_over_shards(flights: Pipeline) -> None:
    assert flights.limit(2, offset=ROWS - 1).select("id").collect().rows == [(ROWS - 1,), (ROWS,)]


def test_an_empty_answer_has_its_columns(flights: Pipeline) -> None:
    assert flights.filter("id < 0").select("id").to_arrow().schema.names == ["id"]


@pytest.mark.slow
def test_answers_in_other_shapes(flights: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    few = flights.filter("id < 2").select("id", "carrier")
    few.show()

    assert capsys.readouterr().out == "id  carrier\n0   UA\n1   AA\n"
    assert few.df().shape == few.pl().shape == (2, 2)
    assert few.collect().columns == ["id", "carrier"]


@pytest.mark.parametrize(
    ("accept", "kind", "body"),
    [
        ("text/csv", "text/csv", b"id,carrier\n1,AA\n"),
        ("application/json", "application/json", None),
        ("*/*", "application/json", None),
    ],
)
def test_the_response_has_the_format_of_the_accept_header(
    shared_node: Any, flights: Pipeline, accept: str, kind: str, body: bytes | None
) -> None:
    job = flights.filter("id = 1").select("id", "carrier").submit()
    job.wait(20)

    answer = httpx.get(f"{shared_node.url}/api/jobs/{job.id}/result", headers={"Accept": accept})

    assert answer.headers["content-type"].startswith(kind)
    if body is not None:
        assert answer.content.replace(b"\r\n", b"\n") == body
    else:
        document = json.loads(answer.content)
        assert document["rows"] == [[1, "AA"]]
        assert [column["name"] for column in document["columns"]] == ["id", "carrier"]


@pytest.fixture(scope="module")
def numbers(shared_node: Any, data: pa.Table) -> str:
    """The address of the rows of a job that is done: 0 to 8999, in three files."""
    job = Elytra(shared_node.client).remote("flights").select("id").submit()
    job.wait(20)
    return f"{shared_node.url}/api/jobs/{job.id}/result"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ({"offset": 2998, "limit": 4}, [2998, 2999, 3000, 3001]),  # from two files
        ({"limit": 1}, [0]),
        ({"limit": 0}, []),
        ({"offset": 8999, "limit": 5}, [8999]),
        ({"offset": 9000, "limit": 5}, []),
        ({"offset": 8998}, [8998, 8999]),
    ],
)
def test_a_long_answer_can_be_read_in_pages(
    shared_node: Any, numbers: str, page: dict[str, int], expected: list[int]
) -> None:
    answer = httpx.get(numbers, params=page)
    assert [column["name"] for column in answer.json()["columns"]] == ["id"]
    assert [row[0] for row in answer.json()["rows"]] == expected


@pytest.mark.parametrize("page", ["offset=-1", "limit=-5", "limit=many"])
def test_a_page_that_cannot_be_is_refused(numbers: str, page: str) -> None:
    assert httpx.get(f"{numbers}?{page}").status_code == 422


def test_an_accept_that_nothing_fits_is_refused(shared_node: Any, flights: Pipeline) -> None:
    job = flights.count().submit()
    job.wait(20)

    url = f"{shared_node.url}/api/jobs/{job.id}/result"
    assert httpx.get(url, headers={"Accept": "image/png"}).status_code == 400


def test_a_request_may_wait_for_the_end_of_a_job(shared_node: Any, flights: Pipeline) -> None:
    with shared_node.all_busy():
        job = flights.count().submit()
        url = f"{shared_node.url}/api/jobs/{job.id}"

        assert httpx.get(url, params={"wait": 0.05}).json()["state"] in {"queued", "running"}
        assert httpx.get(url, params={"wait": 31}).status_code == 422
        found: list[str] = []

        def wait() -> None:
            found.append(httpx.get(url, params={"wait": 30}, timeout=40).json()["state"])

        waiting = [threading.Thread(target=wait) for _ in range(3)]
        for thread in waiting:
            thread.start()
    for thread in waiting:
        thread.join(20)
    assert found == ["done"] * 3
    # At once for one that has ended, or never was.
    assert httpx.get(url, params={"wait": 30}).json()["state"] == "done"
    assert httpx.get(f"{url}x", params={"wait": 30}).status_code == 404


def test_the_tree_shows_the_job_while_it_runs(shared_node: Any, flights: Pipeline) -> None:
    with shared_node.all_busy():
        job = flights.group_by("carrier").count().submit()
        watching = job.watch()
        seen = next(info for info in watching if info.state == "running")
        assert seen.progress is not None
    *_, last = watching

    assert last.state == "done"
    progress: Any = last.progress
    assert progress.done == progress.total == 3
    assert progress.bytes_done == progress.bytes_total > 0
    tasks = shared_node.stores["sys"].get(f"/jobs/{job.id}/tasks")
    assert [task["state"] for task in tasks.values()] == ["done"] * 3


def test_a_plan_reads_the_snapshot_it_was_submitted_over(shared_node: Any) -> None:
    shared_node.lake.append("growing", piece(0))
    with shared_node.all_busy():
        job = Elytra(shared_node.client).remote("growing").count().submit()
        shared_node.lake.catalog.manifest("growing")
        shared_node.lake.delete("growing")

    assert job.result(20).value == ROWS


def refused(node: Any, document: Any) -> SennitError:
    with pytest.raises(SennitError) as caught:
        node.client._transport.json("POST", "/api/jobs", document)
    return caught.value


def test_invalid_plans_are_refused_at_once(shared_node: Any, flights: Pipeline) -> None:
    with pytest.raises(UnknownColumn) as unknown:
        flights.filter(col("distnce") > 1).submit()
    assert unknown.value.suggestion == "distance"
    with pytest.raises(NotFound) as missing:
        Elytra(shared_node.client).remote("flihgts").submit()
    assert missing.value.suggestion == "flights"
    with pytest.raises(Unsupported, match="ray"):
        flights.submit(engine="ray")
    with pytest.raises(UsageError, match="no engine"):
        flights.submit(engine="abacus")


def test_a_plan_may_neither_read_nor_write_files_of_the_node(
    shared_node: Any, flights: Pipeline
) -> None:
    reading = plan_to_json(Scan(Files(("/etc/passwd",), "csv")))
    writing = plan_to_json(Sink(flights.plan, FileTarget("/tmp/x.csv", "csv")))

    assert isinstance(refused(shared_node, {"plan": reading}), Denied)
    assert "not have a sink" in str(refused(shared_node, {"plan": writing}))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"plan": {}},
        {"plan": {"v": 1, "op": "dance"}},
        {"plan": {"v": 1, "op": "sort", "input": {}}},
        {"plan": {"v": 2, "op": "scan"}},
        {"plan": [1]},
        {"plan": {"v": 1, "op": "scan", "source": {"dataset": "flights"}}, "memCap": "much"},
        {"plan": {"v": 1, "op": "scan", "source": {"dataset": "flights"}}, "why": 1},
    ],
)
def test_a_document_that_is_no_job_is_refused(shared_node: Any, document: Any) -> None:
    assert isinstance(refused(shared_node, document), UsageError | SennitError)
    assert refused(shared_node, document).code in {"usage", "unsupported", "bad-plan"}


def test_a_cap_that_is_too_small_fails_the_job_by_name(flights: Pipeline) -> None:
    with pytest.raises(SennitError) as caught:
        flights.group_by("id").agg(s=col("distance").sum()).distribute(mem_cap="1KiB")
    assert caught.value.code in {"cap-too-small", "memory-cap-exceeded"}


def test_a_strict_cast_fails_the_job_once(shared_node: Any, flights: Pipeline) -> None:
    job = flights.map({"n": col("carrier").cast("Int64")}).submit()
    with pytest.raises(SennitError):
        job.wait(20)

    error: Any = job.info.error
    assert job.state == "failed"
    assert error["error"]
    eventually(lambda: not list((shared_node.folder / "jobs" / job.id).glob("*/*")))


def test_an_answer_is_there_only_when_the_job_is_done(shared_node: Any, flights: Pipeline) -> None:
    with shared_node.all_busy():
        job = flights.count().submit()
        with pytest.raises(Conflict, match="has no result"):
            shared_node.client.job_result(job.id, {})
    job.wait(20)
    with pytest.raises(NotFound):
        shared_node.client.job_info("nothing")


def test_a_cancelled_job_ends_at_once_and_frees_its_resources(
    shared_node: Any, flights: Pipeline
) -> None:
    with shared_node.all_busy():
        job = flights.count().submit()
        eventually(lambda: job.state == "running")
        job.cancel()
        eventually(lambda: job.state == "cancelled")

    with pytest.raises(Cancelled):
        job.wait(5)
    job.cancel()  # cancelling what has ended changes nothing
    assert flights.count().collect().value == 3 * ROWS


def test_a_timeout_cancels_the_job(shared_node: Any, flights: Pipeline) -> None:
    with shared_node.all_busy():
        with pytest.raises(DeadlineExceeded):
            flights.count().distribute(timeout_seconds=0.2)
        newest = shared_node.client.jobs()[0]
        eventually(lambda: shared_node.client.job(newest.id).state == "cancelled")


def slow(node: Any, name: str) -> Pipeline:
    """A pipeline that needs some seconds of an executor for one shard."""
    if node.lake.catalog.find(name) is None:
        node.lake.append(name, pa.table({"n": pa.array(range(1_500_000), pa.int64())}))
    return (
        Elytra(node.client)
        .remote(name)
        .with_columns(
            **{f"t{i}": (col("n") * i).cast("Utf8").replace("1", "one").upper() for i in range(12)}
        )
    )


@pytest.mark.slow
def test_cancel_kills_a_running_execution(shared_node: Any) -> None:
    job = slow(shared_node, "long").submit()
    eventually(lambda: shared_node.pool.stats().busy == 1)

    job.cancel()

    eventually(lambda: shared_node.pool.stats().busy == 0)
    assert job.state == "cancelled"
    eventually(lambda: not list((shared_node.folder / "jobs" / job.id).glob("*/*")))


@pytest.mark.slow
def test_a_cancelled_ingest_leaves_no_dataset_and_can_be_completed_again(
    shared_node: Any, tmp_path: Path
) -> None:
    csv = tmp_path / "wide.csv"
    csv.write_text("n,t\n" + "".join(f"{n},some text {n}\n" for n in range(600_000)))
    uploaded = shared_node.client.upload(csv)
    eventually(lambda: shared_node.pool.stats().busy == 1)
    uploaded.job.cancel()
    eventually(lambda: uploaded.job.state == "cancelled")
    eventually(lambda: shared_node.pool.stats().busy == 0)
    assert shared_node.lake.catalog.find("wide") is None

    (upload,) = shared_node.lake.parts.list()
    again = shared_node.client.complete_upload(upload.id)
    assert again.dataset_id == uploaded.dataset_id
    assert again.job.id != uploaded.job.id
    seen = list(again.job.watch())
    assert (seen[-1].state, seen[-1].error) == ("done", None)
    last = seen[-1].progress
    assert last is not None
    assert (last.done, last.bytes_done) == (1, csv.stat().st_size)
    assert shared_node.lake.catalog.get("wide").rows == 600_000


@pytest.mark.slow
def test_an_ingest_reports_how_far_it_is_while_it_runs(shared_node: Any, tmp_path: Path) -> None:
    csv = tmp_path / "progress.csv"
    csv.write_text("n,t\n")
    lines = "".join(f"{n},some text {n}\n" for n in range(600_000))

    def reports_progress(size: int) -> bool:
        with csv.open("a") as file:
            file.write(lines)
        job = shared_node.client.upload(csv, name=f"progress{size}.csv").job
        *phases, _ = [info.progress for info in job.watch()]
        return any(phase is not None and phase.bytes_done > 0 for phase in phases)

    # A watcher may miss the progress of a short ingest, but not of longer and longer ones.
    assert any(reports_progress(size) for size in range(8))


@pytest.mark.slow
def test_a_killed_executor_costs_one_attempt(shared_node: Any) -> None:
    job = slow(shared_node, "long").count().submit()
    eventually(lambda: shared_node.pool.stats().busy == 1)
    for pid in shared_node.pool.stats().pids:
        os.kill(pid, signal.SIGKILL)

    assert job.result(60).value == 1_500_000
    task = shared_node.stores["sys"].get(f"/jobs/{job.id}/tasks/t000000")
    assert task["attempts"] >= 2


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("step", ["task", "merge", "result"])
def test_a_job_that_cannot_continue_fails_and_holds_nothing(
    flights: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def broken(*_arguments: Any) -> Any:
        raise RuntimeError("no such step")

    with monkeypatch.context() as patch:
        patch.setattr(PlanWork, step, broken)
        for _ in range(6):  # more than run at a time
            with pytest.raises(InternalError, match="RuntimeError: no such step"):
                flights.count().submit().result(20)
    assert flights.count().collect().value == 3 * ROWS


@pytest.mark.nightly
def test_many_jobs_at_once_all_end(flights: Pipeline) -> None:
    values: list[int] = []
    threads = [
        threading.Thread(target=lambda: values.append(flights.count().collect().value))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert values == [3 * ROWS] * 12


@pytest.mark.slow
def test_after_a_restart_ingests_and_pipelines_resume(open_node: Any, tmp_path: Path) -> None:
    csv = tmp_path / "restarted.csv"
    csv.write_text("a\n1\n2\n")
    with open_node(tmp_path / "node") as node:
        node.lake.append("flights", piece(0))
        node.lake.append("flights", piece(1))
        with node.all_busy():
            pipeline = Elytra(node.client).remote("flights").count().submit()
            ingest = node.client.upload(csv).job
            eventually(lambda: ingest.state == pipeline.state == "running")
            node.jobs.close()
    partials = tmp_path / "node/jobs" / pipeline.id / "partials"
    partials.mkdir(exist_ok=True)
    (partials / "t000000-1.incoming").write_bytes(b"cut short by the end of the process")

    with open_node(tmp_path / "node") as node:
        assert node.client.job(ingest.id).wait(20).result["rows"] == 2
        assert node.client.job(pipeline.id).result(20).value == 2 * ROWS
        assert not partials.exists()
        assert node.client.job_info(pipeline.id).plan == plan_to_json_of(node, pipeline.id)
        assert node.lake.catalog.get("restarted").rows == 2


def plan_to_json_of(node: Any, job_id: str) -> Any:
    return json.loads((node.folder / "jobs" / job_id / "work.json").read_text())["plan"]
