"""Holders whose parts of queries cannot be read: others compute them, or the shards are fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from lake.distributed.distributed_queries import _sender_of
from lake.peers.copies.placement import Placement
from lake.peers.data import DataParts
from lake.peers.queries.fragments import FragmentRequest, FragmentRunner
from lake.peers.transport.stop import Stop
from lake.sql.arrived_rows import insert_arrived
from lake.sql.query_parts import part_of_query
from sennit_core.errors import Corrupt, TooLarge

from .real_offices import Office, big, office
from .test_peers_service import eventually


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def flipped(result: bytes) -> bytes:
    """Offsets that point beyond the texts, or a head that is none."""
    return result[:40] + b"\xff" * 200 + result[240:]


LIES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda result: result[: len(result) // 2],
    "flipped": flipped,
    "no Arrow data": lambda result: b"rows" * 100,
    "other columns": lambda result: stream(pa.table({"a": [1], "b": [2], "c": [3], "d": [4]})),
    "other types": lambda result: stream(pa.table({"a": ["x"], "b": ["y"], "c": ["z"]})),
    # 72 MB, of an executor with 256 MiB.
    "a bomb": lambda result: stream(pa.table({"a": pa.nulls(9_000_000, pa.int64())}), "zstd"),
}


@dataclass
class Liar:
    """Runs fragments; its results are changed."""

    inner: FragmentRunner
    lie: Callable[[bytes], bytes] | None = None
    asked: list[FragmentRequest] = field(default_factory=list)

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        self.asked.append(request)
        result = b"".join(self.inner.run(request, stop, body))
        yield result if self.lie is None else self.lie(result)


def lying(liars: list[Liar]) -> Callable[[DataParts], DataParts]:
    def change(data: DataParts) -> DataParts:
        liars.append(Liar(data.fragments))
        return replace(data, fragments=liars[-1])

    return change


SQL = "SELECT count(*) AS n, sum(v) AS total, max(s) AS last FROM big WHERE v >= 0"
EXPECTED = [(3000, 3 * sum(range(3000)), "999")]


@pytest.mark.parametrize("name", LIES)
def test_an_executor_names_the_part_that_it_cannot_read(tmp_path: Path, name: str) -> None:
    context: Any = SimpleNamespace(cap_bytes=256 << 20, check=lambda: None)
    rows = pa.table({"a": range(100), "b": range(100), "c": [str(n) for n in range(100)]})
    file = tmp_path / "__sennit_part0-1.arrow"
    what = part_of_query(file.stem)
    with duckdb.connect() as connection:
        connection.execute("CREATE TEMP TABLE t (a BIGINT, b BIGINT, c VARCHAR)")
        file.write_bytes(stream(rows))
        assert insert_arrived(connection, "t", [file], what, context) >= 1600
        file.write_bytes(LIES[name](stream(rows)))
        with pytest.raises((Corrupt, TooLarge)) as refused:
            insert_arrived(connection, "t", [file], what, context)
    assert what in getattr(refused.value, "what", "")
    senders = {"__sennit_part0-12": "bern", "__sennit_part0-1": "oslo"}
    assert _sender_of(refused.value, senders) == "oslo"
    assert _sender_of(Corrupt("shard 3 of big"), senders) is None


@pytest.mark.slow
@pytest.mark.nightly
def test_shards_are_fetched_if_the_only_holder_sends_no_rows(tmp_path: Path) -> None:
    liars: list[Liar] = []
    with (
        office(tmp_path, "oslo", change=lying(liars)) as oslo,
        office(tmp_path, "rome", capacity=0) as rome,
    ):
        rome.peers.join(oslo.peers.invite())
        big({"oslo": oslo, "rome": rome})
        objects = [shard.object for shard in rome.lake.catalog.manifest("big").snapshot.shards]
        for name, liars[0].lie in LIES.items():
            before = len(liars[0].asked)
            assert rome.query(SQL) == EXPECTED, name
            assert len(liars[0].asked) == before + 1, name
            assert rome.has_all("big")
            rome.lake.retention.drop_copies(objects, set)
            assert not rome.has_all("big")
        assert not list(rome.lake.staging.glob("distributed-*"))


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[tuple[dict[str, Office], list[Liar]]]:
    """Rome has no shard, Oslo and Bern have the same ones."""
    liars: list[Liar] = []
    with ExitStack() as stack:
        found = {
            "oslo": stack.enter_context(office(tmp_path, "oslo", change=lying(liars))),
            "rome": stack.enter_context(office(tmp_path, "rome", capacity=0)),
            "bern": stack.enter_context(office(tmp_path, "bern", change=lying(liars))),
        }
        for name in ("rome", "bern"):
            found[name].peers.join(found["oslo"].peers.invite())
        big(found)
        found["oslo"].peers.share("big", None, Placement(2))
        eventually(lambda: "big" in found["bern"].names() and found["bern"].has_all("big"))
        objects = [s.object for s in found["bern"].lake.catalog.manifest("big").snapshot.shards]
        network = found["rome"].peers._network
        assert network is not None
        eventually(lambda: all(len(network.holders(name)) == 2 for name in objects))
        yield found, liars


@pytest.mark.slow
@pytest.mark.nightly
def test_a_part_that_cannot_be_read_is_asked_of_another_holder(
    copied: tuple[dict[str, Office], list[Liar]],
) -> None:
    found, (oslo, bern) = copied
    rome = found["rome"]
    for name, lie in LIES.items():
        for liar, honest in ((oslo, bern), (bern, oslo)):
            liar.lie, honest.lie = lie, None
            assert rome.query(SQL) == EXPECTED, name
            assert not rome.has_all("big")
    assert oslo.asked
    assert bern.asked
    text = str(rome.query(f"EXPLAIN ANALYZE {SQL}")[-1][1])
    assert ("at oslo" in text) is (bern.lie is not None)
    oslo.lie = bern.lie = LIES["no Arrow data"]
    assert rome.query(SQL) == EXPECTED
    assert rome.has_all("big")
    assert not list(rome.lake.staging.glob("distributed-*"))
