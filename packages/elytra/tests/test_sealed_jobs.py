"""Pipelines over encrypted datasets: no step of them writes a value to the disk in the clear."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from elytra import Elytra, col
from sennit_core.errors import Denied, NotFound, SennitError, StorageFull

from .conftest import Node, running_node

pytestmark = pytest.mark.slow  # each runs jobs on a node

CANARY = "canary-7f3a"
PASSPHRASE = "a passphrase of many words"
ROWS = 3000


def rows() -> pa.Table:
    return pa.table(
        {"id": range(ROWS), "secret": [f"{CANARY}-{i % 7}-{i:05d}" for i in range(ROWS)]}
    )


def clear_files(folder: Path) -> list[Path]:
    """The files that have the canary, or are Parquet or Arrow, which could have it compressed."""
    found = []
    names = [Path(at, name) for at, _, files in os.walk(folder) for name in files]
    for path in names:
        try:
            data = path.read_bytes()
        except OSError:  # it is gone
            continue
        if CANARY.encode() in data or data[:4] in (b"PAR1", b"\xff\xff\xff\xff"):
            found.append(path)
    return found


@contextmanager
def watched(folder: Path) -> Iterator[list[Path]]:
    """Look for values in the files of a folder again and again while the context is open."""
    found: list[Path] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            found.extend(clear_files(folder))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[Node]:
    with running_node(folder, **({"passphrase": PASSPHRASE} | options)) as node:
        yield node


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Node]:
    """A node with an encrypted dataset `t` of three shards, and a view over it."""
    with opened(tmp_path / "node") as node:
        for start in range(0, ROWS, ROWS // 3):
            node.lake.append("t", rows().slice(start, ROWS // 3), encrypt=True)
        node.lake.sql("CREATE VIEW v AS SELECT id, upper(secret) AS s FROM t WHERE id < 100")
        yield node


def test_no_step_of_a_job_is_in_the_clear(secret: Node) -> None:
    remote = Elytra(secret.client).remote
    with watched(secret.folder) as seen:
        all_rows = remote("t").filter(col("secret") != f"{CANARY}-no").collect()
        assert all_rows.to_arrow().equals(rows())
        assert remote("t").filter(col("id") < 50).count().collect().value == 50
        view = remote("v").filter(col("s") == f"{CANARY}-3-00003".upper()).collect()
        assert view.rows == [(3, f"{CANARY}-3-00003".upper())]
        assert len(remote("t", version=1).collect()) == ROWS // 3
        joined = remote("t").join(remote("v"), on="id").select("secret", "s")
        assert len(joined.collect()) == 100
    assert seen == clear_files(secret.folder) == []
    left = [path.name for path in secret.lake.vault.cache.folder.iterdir()]
    assert [name for name in left if name.startswith("run-")] == []


def test_what_does_not_fit_into_memory_is_spilled_encrypted(secret: Node) -> None:
    wide = pa.table(
        {
            "id": range(120_000),
            "secret": [f"{CANARY}-{i * 7919 % 120_000:06d}" * 12 for i in range(120_000)],
        }
    )
    secret.lake.append("wide", wide, encrypt=True)
    with watched(secret.folder) as seen:
        job = Elytra(secret.client).remote("wide").sort("secret").submit(mem_cap="80MiB")
        found = job.result().to_arrow()
    assert job.info.result is not None
    assert job.info.result["spilledBytes"] > 0
    assert found["secret"].to_pylist() == sorted(wide["secret"].to_pylist())
    assert seen == []


def test_a_result_is_read_after_a_restart_and_goes_with_its_key(tmp_path: Path) -> None:
    with opened(tmp_path / "node") as node:
        node.lake.append("t", rows(), encrypt=True)
        job = Elytra(node.client).remote("t").filter(col("id") < 5).submit()
        job.wait()
        assert node.jobs.get(job.id).plan is None  # a record is not encrypted
    assert clear_files(tmp_path / "node") == []
    with opened(tmp_path / "node") as node:
        assert len(node.client.job(job.id).result()) == 5
        url = f"{node.url}/api/jobs/{job.id}/result?offset=1&limit=2"
        import httpx

        text = httpx.get(url, headers={"accept": "text/csv"}).text
        assert text.split() == ["id,secret", f"1,{CANARY}-1-00001", f"2,{CANARY}-2-00002"]
        assert [each for each in node.lake.vault.keys.entries() if ":" in each] == [f"job:{job.id}"]
        node.lake.purge("t", "id = 3")
        with pytest.raises(NotFound):
            node.client.job(job.id).result()
        assert [each for each in node.lake.vault.keys.entries() if ":" in each] == []
    with (
        opened(tmp_path / "node", passphrase=None) as node,
        pytest.raises(Denied, match="which is encrypted"),
    ):
        Elytra(node.client).remote("t").count().submit()


def test_the_error_of_a_job_quotes_no_value(secret: Node) -> None:
    remote = Elytra(secret.client).remote
    job = remote("t").select(n=col("secret").cast("Int64")).submit()
    with pytest.raises(SennitError, match="a value, which is not shown") as caught:
        job.wait()
    assert CANARY not in str(caught.value)
    assert clear_files(secret.folder) == []


def test_memory_for_decrypted_data_is_limited(tmp_path: Path) -> None:
    with opened(tmp_path / "node", plain_bytes=60_000) as node:
        node.lake.append("t", rows(), encrypt=True)
        node.lake.sql(
            "CREATE VIEW big AS SELECT a.secret || b.secret AS s FROM t a, t b WHERE b.id < 50"
        )
        with pytest.raises(StorageFull, match=r"security\.plain_bytes"):
            Elytra(node.client).remote("big").collect()
        job = Elytra(node.client).remote("t").submit()  # larger as Arrow than as Parquet
        job.wait()
        with pytest.raises(StorageFull, match=r"security\.plain_bytes"):
            job.result()
        assert clear_files(tmp_path / "node") == []


def test_results_that_are_read_share_the_memory_for_decrypted_data(tmp_path: Path) -> None:
    with opened(tmp_path / "node", plain_bytes=8 << 20) as node:
        node.lake.append("t", rows(), encrypt=True)
        job = Elytra(node.client).remote("t").submit()
        job.wait()
        cache = node.lake.vault.cache
        free = cache.free_bytes
        with closing(node.jobs.open_result(job.id, "arrow")) as first:
            used = free - cache.free_bytes
            assert used > 0
            with (
                cache.reserve(free - used - 1000, "others"),
                pytest.raises(StorageFull, match=r"security\.plain_bytes leaves 1000 B"),
            ):
                node.jobs.open_result(job.id, "arrow")
            assert cache.free_bytes == free - used
            assert sum(len(each) for each in first.payloads())
        assert cache.free_bytes == free
        assert clear_files(tmp_path / "node") == []


CHILD = """
import sys
from pathlib import Path
from elytra import Elytra
sys.path.insert(0, sys.argv[2])
from tests.conftest import running_node

with running_node(Path(sys.argv[1]), passphrase=sys.argv[3]) as node:
    job = Elytra(node.client).remote("wide").sort("secret").submit(mem_cap="80MiB")
    print("submitted", flush=True)
    job.wait()
    print("done", flush=True)
    sys.stdin.read()
"""


@pytest.mark.crash
@pytest.mark.parametrize("at", ["submitted", "done"])
def test_a_node_that_is_killed_leaves_nothing_in_the_clear(tmp_path: Path, at: str) -> None:
    folder = tmp_path / "node"
    wide = pa.table({"secret": [f"{CANARY}-{i * 7919 % 40_000:06d}" * 12 for i in range(40_000)]})
    with opened(folder) as node:
        node.lake.append("wide", wide, encrypt=True)
    package = Path(__file__).resolve().parents[1]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(package), PASSPHRASE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=package,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        while (line := child.stdout.readline().strip()) != at:
            assert line, "the node ended early"
        child.send_signal(signal.SIGKILL)
    assert clear_files(folder) == []
    with opened(folder) as node:
        (job,) = node.jobs.list()
        if at == "done":
            assert len(node.client.job(job.id).result()) == 40_000
        assert len(Elytra(node.client).remote("wide").count().collect()) == 1
        assert clear_files(folder) == []
