"""A node that is killed while it ingests, or saves a result, does it once in its next life."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from elytra import Client, Elytra
from sennit_core.errors import SennitError

SCRIPT = Path(__file__).parent / "entries" / "elytra_node.py"


@contextmanager
def node_process(folder: Path, crash_at: str = "") -> Iterator[str]:
    """A node that dies at a named point, or lives until the `with` ends."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SENNIT_LAKE_CRASH_AT": crash_at},
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        assert (process.wait(30) == 0) == (not crash_at)


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
