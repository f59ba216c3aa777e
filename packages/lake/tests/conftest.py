"""Fixtures: an executor pool for all tests, a lake for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elkyn import ElkynStore
from emsqrt.executor import EntryContext, ExecutorPool
from lake import Lake
from lake.ingest import job, worker
from lake.uploads.upload import UploadInfo

MIB = 1 << 20
FLIGHTS = """carrier,distance,dep_delay,day
UA,1400,2.5,2013-01-01
AA,1089,-1.0,2013-01-02
UA,200,,2013-01-03
B6,1576,7.25,2013-01-04
"""


@dataclass
class Encoded:
    """What `lake.ingest` answered, with its shards read back."""

    answer: dict[str, Any]
    table: pa.Table

    @property
    def types(self) -> dict[str, str]:
        return {field["name"]: field["type"] for field in self.answer["schema"]["fields"]}

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = self.answer["report"]
        return report

    @property
    def source(self) -> dict[str, Any]:
        source: dict[str, Any] = self.answer["source"]
        return source


class NoPayloads:
    payload_bytes_max = 1 << 20

    def write_bytes(self, payload: Any) -> None:
        raise AssertionError("ingest emits nothing")

    write_arrow = write_bytes


Encode = Callable[..., Encoded]


@pytest.fixture
def encode(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Encode:
    """Runs the ingest worker in this process over text or bytes, optionally cut into parts."""
    monkeypatch.setattr(job, "_BACKGROUND_BYTES_MIN", 0)  # small files use the second thread too

    def run(
        data: str | bytes,
        name: str = "file.csv",
        part_bytes: int | None = None,
        limits: dict[str, int] | None = None,
        schema: Any = None,
        **options: Any,
    ) -> Encoded:
        folder = tmp_path_factory.mktemp("encode")
        raw = data.encode() if isinstance(data, str) else data
        step = part_bytes or max(1, len(raw))
        paths = []
        for start in range(0, len(raw), step):
            path = folder / f"{start:09d}.part"
            path.write_bytes(raw[start : start + step])
            paths.append(str(path))
        context = EntryContext("ingest", 1 << 30, NoPayloads(), lambda _: None, folder / "spill")
        measure, held_before = context.measure, context.measure()
        # What earlier tests left in this process is not the worker's.
        context.measure = lambda: max(0, measure() - held_before)
        request = {
            "paths": paths,
            "name": name,
            "folder": str(folder),
            "options": options,
            "schema": schema,
            "limits": limits,
        }
        answer = worker.run(request, context)
        tables = [pq.read_table(shard["file"]) for shard in answer["shards"]]
        return Encoded(answer, pa.concat_tables(tables))

    return run


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecutorPool]:
    spill = tmp_path_factory.mktemp("spill")
    with ExecutorPool(2, memory_bytes=1 << 30, spill_dir=spill) as pool:
        yield pool


@pytest.fixture
def lake(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    with ElkynStore(mode="memory") as tree, Lake(tmp_path / "data", tree=tree, pool=pool) as lake:
        yield lake


@pytest.fixture
def flights(lake: Lake) -> Lake:
    """A lake with one dataset of four flights."""
    put(lake, "flights.csv", FLIGHTS)
    return lake


@pytest.fixture
def numbers(lake: Lake) -> Lake:
    """A dataset `t` of three shards, with the numbers 0 to 29."""
    for start in (0, 10, 20):
        rows = {"a": list(range(start, start + 10)), "b": [f"x{i}" for i in range(10)]}
        lake.append("t", pa.table(rows))
    return lake


def put(lake: Lake, name: str, data: str | bytes, **start: Any) -> UploadInfo:
    """Upload and ingest; returns the upload, which is gone by then."""
    upload = upload_file(lake, name, data, **start)
    lake.ingest(upload.id)
    return upload


def upload_file(lake: Lake, name: str, data: str | bytes, **start: Any) -> UploadInfo:
    raw = data.encode() if isinstance(data, str) else data
    upload = lake.parts.start(name, len(raw), **start)
    for index in range(upload.parts or 0):
        piece = raw[index * upload.part_bytes : (index + 1) * upload.part_bytes]
        with lake.parts.open_part(
            upload.id, index, sha256=hashlib.sha256(piece).hexdigest()
        ) as part:
            part.write(piece)
            part.commit()
    return upload
