"""A node that is killed while it ingests, saves a result or runs a pipeline, does it once in its next life."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from elytra import Client, Elytra, Pipeline, SendOptions, col, count
from sennit_core.errors import SennitError

SCRIPT = Path(__file__).parent / "entries" / "elytra_node.py"


@contextmanager
def node_process(folder: Path, crash_at: str = "") -> Iterator[str]:
    """A node that dies at a named point, or lives until the `with` ends."""
    with killable_node(folder, crash_at) as (url, process):
        yield url
        assert process.stdin is not None
        process.stdin.close()
        assert (process.wait(30) == 0) == (not crash_at)


@contextmanager
def killable_node(
    folder: Path, crash_at: str = ""
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A node in a process, which the caller ends."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SENNIT_LAKE_CRASH_AT": crash_at},
    )
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process


@pytest.mark.nightly
@pytest.mark.crash
@pytest.mark.parametrize("point", ["ingest-sealed", "ingest-encoded", "ingest-committed"])
def test_an_ingest_that_was_killed_resumes(tmp_path: Path, point: str) -> None:
    csv = tmp_path / "numbers.csv"
    csv.write_text("n\n" + "".join(f"{n}\n" for n in range(10_000)))

    with (
        node_process(tmp_path / "node", point) as url,
        Client(url, retry_seconds=0) as client,
        pytest.raises(SennitError),
    ):
        client.upload(csv).job.wait(30)
    with node_process(tmp_path / "node") as url, Client(url) as client:
        (job,) = client.jobs()
        result = client.job(job.id).wait(30).result or {}

        assert result["rows"] == 10_000
        assert client.sql("select count(*) from numbers").value == 10_000
        assert [dataset.name for dataset in client.datasets()] == ["numbers"]


@pytest.mark.nightly
@pytest.mark.crash
@pytest.mark.parametrize("point", ["ingest-sealed", "ingest-encoded", "ingest-committed"])
def test_a_node_that_is_killed_saves_once(tmp_path: Path, point: str) -> None:
    csv = tmp_path / "numbers.csv"
    csv.write_text("n\n" + "".join(f"{n}\n" for n in range(10_000)))
    with node_process(tmp_path / "node") as url, Client(url) as client:
        client.upload(csv).job.wait(30)
        job = Elytra(client).remote("numbers").filter("n < 5000").submit()
        job.wait(30)

    with (
        node_process(tmp_path / "node", point) as url,
        Client(url, retry_seconds=0) as client,
        pytest.raises(SennitError),
    ):
        client.job(job.id).save_as("half", "append", 30)
    with node_process(tmp_path / "node") as url, Client(url) as client:
        saved = client.job(job.id).save_as("half", "append", 30)

        assert saved.rows == 5000
        assert client.sql("select count(*), count(distinct n) from half").rows == [(5000, 5000)]


@pytest.mark.nightly
@pytest.mark.crash
@pytest.mark.parametrize("done_min", [1, 4, 7])
def test_a_pipeline_that_was_killed_continues_with_its_results(
    tmp_path: Path, done_min: int
) -> None:
    node = tmp_path / "node"
    with node_process(node) as url, Client(url) as client:
        for shard in range(8):
            append(client, tmp_path, shard)

    with killable_node(node) as (url, process), Client(url, retry_seconds=0) as client:
        job = pipeline(client).submit(priority="high")
        while len(results_on_disk(node, job.id)) < done_min:
            assert job.state in {"queued", "running"}, "it was too fast to be killed"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    kept = results_on_disk(node, job.id)

    with node_process(node) as url, Client(url) as client:
        rows = client.job(job.id).result(120).rows
        tasks = client.get(f"/jobs/{job.id}/tasks", namespace="sys")

        assert rows == pipeline(client).collect().rows
        # What had a result has no new attempt; what had none has one of this life.
        for key, task in tasks.items():
            assert (task["attempts"] == 0) == (key in kept), (key, task)
            assert task["state"] == "done"


@pytest.mark.nightly
@pytest.mark.crash
def test_a_pipeline_that_is_killed_in_each_life_and_in_its_merge_ends(tmp_path: Path) -> None:
    node = tmp_path / "node"
    with node_process(node) as url, Client(url) as client:
        for shard in range(8):
            append(client, tmp_path, shard)
        job_id = ""

    for done in (2, 5, 8):  # with all results there, the merge runs or is about to
        with killable_node(node) as (url, process), Client(url, retry_seconds=0) as client:
            job_id = job_id or pipeline(client).submit(priority="high").id
            while len(results_on_disk(node, job_id)) < done:
                assert client.job(job_id).state in {"queued", "running", "merging"}
            process.send_signal(signal.SIGKILL)
            process.wait(30)

    with node_process(node) as url, Client(url) as client:
        rows = client.job(job_id).result(120).rows
        assert rows == pipeline(client).collect().rows
        assert [each.state for each in client.jobs() if each.id == job_id] == ["done"]


def append(client: Client, folder: Path, shard: int) -> None:
    csv = folder / "numbers.csv"
    csv.write_text(
        "n\n" + "".join(f"{n}\n" for n in range(shard * 50_000, shard * 50_000 + 50_000))
    )
    options = SendOptions(mode="append" if shard else "create")
    client.upload(csv, options=options).job.wait(60)


def pipeline(client: Client) -> Pipeline:
    """A pipeline of which a task lasts a while."""
    texts = {f"t{index}": (col("n") * index).cast("Utf8").upper() for index in range(8)}
    tops = {f"top_{name}": col(name).max() for name in texts}
    numbers = Elytra(client).remote("numbers").with_columns(**texts)
    return numbers.agg(n=count(), total=col("n").sum(), **tops)


def results_on_disk(node: Path, job_id: str) -> set[str]:
    """The tasks that have a result, as the journal says."""
    journal = node / "jobs" / job_id / "partials.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {json.loads(line)["task"] for line in lines[1:] if line.endswith("}")}
