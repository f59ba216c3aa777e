"""Object stores: a real S3 server, and one that speaks Google's protocol."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from emsqrt.io.inference import infer_schema
from emsqrt.io.objects import list_objects, open_bucket
from emsqrt.io.scan import open_scan
from emsqrt.io.sinks import open_sink
from emsqrt.memory import MemoryBudget
from emsqrt.plan import Files, FileTarget
from emsqrt.spill.servers import Server, fake_gcs, seaweedfs
from sennit_core.errors import NotFound, Unavailable
from sennit_core.schema import Schema

pytestmark = pytest.mark.nightly

MIB = 1 << 20
TABLE = pa.table({"n": list(range(60_000)), "s": [f"text {n * n}" for n in range(60_000)]})


@pytest.fixture(scope="module", params=["s3", "gs"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    if request.param == "s3":
        pytest.importorskip("obstore")
    make = seaweedfs if request.param == "s3" else fake_gcs
    try:
        running = make(tmp_path_factory.mktemp("server"))
        with running as server:
            yield server
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    names = {
        "endpoint": ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"),
        "access_key_id": ("AWS_ACCESS_KEY_ID",),
        "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
        "region": ("AWS_REGION",),
    }
    for option, value in server.options.items():
        for name in names.get(option, ()):
            monkeypatch.setenv(name, value)
    open_bucket.cache_clear()
    yield server.uri.rstrip("/")
    open_bucket.cache_clear()


def write(uri: str, format: str, table: pa.Table = TABLE) -> None:  # noqa: A002
    schema = Schema.from_arrow(table.schema)
    with (
        MemoryBudget(96 * MIB) as budget,
        open_sink(FileTarget(uri, format), schema, budget, bytes) as sink,
    ):
        for batch in table.to_batches(max_chunksize=15_000):
            sink.write(batch)


def read(*uris: str, format: str) -> pa.Table:  # noqa: A002
    source = Files(uris, format)
    schema = infer_schema(source)
    with MemoryBudget(96 * MIB) as budget, open_scan(source, schema, budget) as scan:
        return pa.Table.from_batches(list(scan), schema.to_arrow())


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet", "a.arrow"])
def test_objects_are_written_and_read_back(bucket: str, name: str) -> None:
    format = {"gz": "csv"}.get(name.rpartition(".")[2], name.rpartition(".")[2])  # noqa: A001
    write(f"{bucket}/round/{name}", format)
    assert read(f"{bucket}/round/{name}", format=format).equals(TABLE)


def test_globs_find_objects_in_order(bucket: str) -> None:
    for number in (2, 1):
        write(f"{bucket}/glob/{number}.csv", "csv", TABLE.slice(number * 10, 10))
    assert read(f"{bucket}/glob/*.csv", format="csv")["n"].to_pylist() == list(range(10, 30))
    with pytest.raises(NotFound, match="nothing"):
        read(f"{bucket}/nothing/*.csv", format="csv")
    with pytest.raises(NotFound, match=r"missing\.csv"):
        read(f"{bucket}/missing.csv", format="csv")


def test_a_failed_sink_leaves_no_object(bucket: str) -> None:
    scheme, _, rest = bucket.partition("://")
    with MemoryBudget(96 * MIB) as budget:
        target = FileTarget(f"{bucket}/failed/out.csv", "csv")
        sink = open_sink(target, Schema.of(n="Int64", s="Utf8"), budget, bytes)
        with pytest.raises(AttributeError), sink:
            sink.write("not a batch")
    assert list_objects(scheme, f"{rest}/failed") == []


def test_a_store_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unused")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-word")
    monkeypatch.setattr("emsqrt.io.objects._RETRY_MS", 100)
    open_bucket.cache_clear()
    with pytest.raises(Unavailable, match=r"s3://bucket/a\.csv") as raised:
        read("s3://bucket/a.csv", format="csv")
    assert "secret-word" not in str(raised.value)
    open_bucket.cache_clear()


def test_gzip_in_a_store_is_detected_by_its_first_bytes(bucket: str) -> None:
    write(f"{bucket}/zip/plain.csv", "csv", TABLE.slice(0, 5))
    write(f"{bucket}/zip/packed.csv.gz", "csv", TABLE.slice(0, 5))
    found = read(f"{bucket}/zip/packed.csv.gz", f"{bucket}/zip/plain.csv", format="csv")
    assert found.num_rows == 10
    assert gzip.compress(b"")[:2] == b"\x1f\x8b"
