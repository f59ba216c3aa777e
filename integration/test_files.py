"""The tree of files of a real node, read by polars, pyarrow and curl's header rules."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import duckdb
import fsspec
import httpx
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from nodes import RunningNode, platform, running_node
from sennit import run_file

ROOT = Path(__file__).resolve().parents[1]
ROWS = pa.table({"id": list(range(3000)), "name": [f"trip {i}" for i in range(3000)]})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running_node(tmp_path_factory.mktemp("node"), "--api-only") as node:
        running = run_file.read(node.data)
        assert running is not None
        assert running.flight is not None
        options = {"adbc.flight.sql.authorization_header": f"Bearer {node.token}"}
        with (
            adbc.connect(running.flight, options, autocommit=True) as client,
            client.cursor() as cursor,
        ):
            for start in (0, 1000, 2000):
                cursor.adbc_ingest("my trips", ROWS.slice(start, 1000), mode="create_append")
        yield node


@pytest.fixture
def http(node: RunningNode) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, headers=node.headers) as client:
        yield client


def listing(http: httpx.Client, snapshot: str = "head") -> dict[str, Any]:
    answer = http.get(f"/files/my trips/{snapshot}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_polars_reads_a_dataset(node: RunningNode, http: httpx.Client) -> None:
    # polars has no option for headers of its own HTTP reader, so a token needs fsspec.
    files = fsspec.filesystem("http", headers=node.headers)
    paths = [node.url + file["path"] for file in listing(http)["files"]]
    frame = pl.scan_pyarrow_dataset(pyarrow.dataset.dataset(paths, filesystem=files))
    assert frame.collect().to_arrow().to_pylist() == ROWS.to_pylist()
    assert frame.filter(pl.col("id") < 10).select("name").collect().height == 10
    with files.open(paths[0]) as file:
        assert pl.read_parquet(file).height == 1000


def test_duckdb_reads_a_dataset_without_its_httpfs(node: RunningNode, http: httpx.Client) -> None:
    files = fsspec.filesystem("http", headers=node.headers)
    paths = [node.url + file["path"] for file in listing(http)["files"]]
    with duckdb.connect() as connection:
        connection.register("trips", pyarrow.dataset.dataset(paths, filesystem=files))
        found = connection.sql("select count(*), sum(id) from trips where id >= 1000")
        assert found.fetchall() == [(2000, 3_999_000)]


def test_pyarrow_reads_a_dataset_through_fsspec(node: RunningNode, http: httpx.Client) -> None:
    found = listing(http)
    files = fsspec.filesystem("http", headers=node.headers)
    paths = [node.url + file["path"] for file in found["files"]]
    dataset = pyarrow.dataset.dataset(paths, filesystem=files)
    assert dataset.count_rows() == found["rows"] == 3000
    assert dataset.to_table(filter=pyarrow.dataset.field("id") >= 2990).num_rows == 10
    assert dataset.to_table().equals(ROWS)


def test_lists_name_stable_addresses(http: httpx.Client) -> None:
    snapshots = http.get("/files/my trips").json()
    assert [row["version"] for row in snapshots] == [3, 2, 1]
    assert [row["rows"] for row in snapshots] == [3000, 2000, 1000]
    first = http.get(snapshots[-1]["path"]).json()
    last = http.get("/files/my trips/head?offset=2").json()
    assert [file["path"] for file in last["files"]] == [f"{last['path']}/2.parquet"]
    assert last["shards"] == 3
    assert [row["version"] for row in http.get("/files/my trips?before=3&limit=1").json()] == [2]
    assert first == listing(http, "1") == listing(http, first["snapshot"])
    (file,) = first["files"]
    whole = http.get(file["path"])
    assert whole.headers["etag"] == f'"{file["object"]}"'
    assert whole.headers["content-type"] == "application/vnd.apache.parquet"
    assert pq.read_table(io.BytesIO(whole.content)).equals(ROWS.slice(0, 1000))
    assert http.get("/files/my trips/1/0.parquet").headers["content-location"] == file["path"]


def test_headers_of_a_file(http: httpx.Client) -> None:
    file = listing(http)["files"][0]
    path, size, tag = file["path"], file["bytes"], f'"{file["object"]}"'
    whole = http.get(path).content
    assert len(whole) == size
    head = http.head(path)
    assert (head.status_code, int(head.headers["content-length"]), head.content) == (200, size, b"")

    def get(**headers: str) -> httpx.Response:
        return http.get(path, headers={name.replace("_", "-"): v for name, v in headers.items()})

    for text, start, stop in (
        ("bytes=0-3", 0, 4), ("bytes=-4", size - 4, size), (f"bytes=5-{size + 99}", 5, size),
        (f"bytes=-{size + 5}", 0, size), ("bytes=7-", 7, size),
    ):  # fmt: skip
        part = get(range=text)
        assert part.content == whole[start:stop], text
        if part.status_code == 206:
            assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    assert get(range="bytes=0-3", if_range=tag).status_code == 206
    # Valid requests for something else than one range of this file return all of it.
    for headers in (
        {"range": "bytes=0-3", "if_range": '"other"'}, {"range": "bytes=0-1,4-5"},
        {"range": "rows=0-1"}, {"range": "bytes=9-3"}, {"range": "bytes=-"},
    ):  # fmt: skip
        assert (get(**headers).status_code, get(**headers).content) == (200, whole), headers
    for text in (f"bytes={size}-", "bytes=-0", f"bytes={size}-{size + 1}"):
        refused = get(range=text)
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}")
    for text in (tag, f'W/{tag}, "x"', "*"):
        assert get(if_none_match=text).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/files/nothing", "/files/my trips/99", "/files/my trips/0", "/files/my trips/head/7.parquet",
        "/files/my trips/head/..%2f0", "/files/my trips/%F0%9F%90%98", f"/files/my trips/{'9' * 40}",
        "/files/my trips/head/" + "a" * 64,
    ],
)  # fmt: skip
def test_what_does_not_exist_is_not_found(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_files_need_a_token(node: RunningNode) -> None:
    for path in ("/files/my trips", "/files/my trips/head", "/files/my trips/head/0.parquet"):
        assert httpx.get(node.url + path).status_code == 401


def test_the_pages_run(node: RunningNode, http: httpx.Client) -> None:
    running = run_file.read(node.data)
    assert running is not None
    assert running.flight is not None
    trips = "city,miles\n" + "".join(f"{'Oslo' if i % 3 else 'Rome'},{i}\n" for i in range(30))
    (node.data / "trips.csv").write_text(trips)
    platform("put", str(node.data / "trips.csv"), data=node.data)
    metadata = http.post("/api/datasets/trips/iceberg", json={}).json()["metadata"]
    for page in ("flight-sql.md", "reading-files.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        text = text.replace("http://127.0.0.1:8600", node.url)
        text = text.replace("grpc://127.0.0.1:8602", running.flight)
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        assert blocks
        names = {"token": node.token, "metadata": metadata}
        for block in blocks:
            exec(compile(block, page, "exec"), names)
