"""Damaged files through the real ingest in a real executor: refused or read, never a leak or crash.

The executor's memory is filled with a marker in place of other users' data. No dataset and no
error message may hold a part of it, and no file may end the process.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emsqrt.executor import ExecutorPool
from sennit_core.errors import BadInput, CapacityError, SennitError, Unsupported, UsageError

from .damaged_files import SAMPLES, damage

MARKER = "Hx7-other-users-data-qZ9"
FILES_BETWEEN_QUERIES = 100


class Victim:
    """One executor, whose memory holds the marker, and the outcomes of its files."""

    def __init__(self, pool: ExecutorPool, folder: Path) -> None:
        self.pool = pool
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        self._files = 0

    def fill(self) -> None:
        """Leave the marker all over the heap, as queries and ingests of other users do."""
        sql = f"select repeat('{MARKER}', 20000) as t from range(40) order by t"
        with self.pool.submit("lake.sql", _query(sql)) as execution:
            assert sum(len(bytes(payload)) for payload in execution.payloads())
        self._ingest("marker.csv", f"a,b\n{MARKER},{MARKER * 400}\n".encode() * 200)

    def ingest(self, name: str, data: bytes) -> str:
        """Ingest one file; return what became of it."""
        if self._files % FILES_BETWEEN_QUERIES == 0 or not self.pool.stats().pids:
            self.fill()
        self._files += 1
        before = self.pool.stats().pids
        try:
            shards = self._ingest(name, data)
        except (BadInput, Unsupported, UsageError) as error:
            outcome, seen = "refused", str(error).encode()
        except CapacityError as error:
            outcome, seen = "over a limit", str(error).encode()
            before = self.pool.stats().pids  # a process that goes over its cap is replaced
        else:
            outcome, seen = "read", b"".join(map(_bytes_of, shards))
        self.outcomes[f"{name}: {outcome}"] += 1
        assert MARKER[:12].encode() not in seen, "a foreign byte"
        assert self.pool.stats().pids == before, "the executor was replaced"
        return outcome

    def _ingest(self, name: str, data: bytes) -> list[Path]:
        path = self.folder / name
        path.write_bytes(data)
        for old in self.folder.glob("pass*"):
            old.unlink()
        request = {"paths": [str(path)], "name": name, "folder": str(self.folder)}
        with self.pool.submit("lake.ingest", request, deadline_seconds=60) as execution:
            return [Path(shard["file"]) for shard in execution.result()["shards"]]


def _query(sql: str) -> dict[str, Any]:
    return {"sql": sql, "tables": [], "format": "arrow"}


def _bytes_of(shard: Path) -> bytes:
    table = pq.read_table(shard)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    spill = tmp_path_factory.mktemp("spill")
    with ExecutorPool(1, memory_bytes=1 << 30, spill_dir=spill) as pool:
        yield Victim(pool, tmp_path_factory.mktemp("files"))


def run(victim: Victim, seed: int, files: int, keep: Path) -> Counter[str]:
    """Ingest `files` damaged files; a failure leaves the file in `keep`."""
    rng = random.Random(seed)
    names = list(SAMPLES)
    for number in range(files):
        name = names[number % len(names)]
        data = damage(rng, SAMPLES[name](rng))
        (keep / name).write_bytes(data)
        try:
            victim.ingest(name, data)
        except (AssertionError, SennitError) as error:
            place = f"seed {seed}, file {number}: {keep / name}"
            raise AssertionError(f"{place}: {type(error).__name__}: {error}") from error
    return victim.outcomes


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_but_leak_nothing(victim: Victim, tmp_path: Path) -> None:
    outcomes = run(victim, seed=1, files=100, keep=tmp_path)

    assert sum(count for name, count in outcomes.items() if "refused" in name) > 40


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(2, 7))
def test_many_damaged_files_leak_nothing(victim: Victim, tmp_path: Path, seed: int) -> None:
    victim.outcomes.clear()
    outcomes = run(victim, seed=seed, files=500, keep=tmp_path)

    assert outcomes.total() == 500, dict(outcomes)


@pytest.mark.slow
def test_undamaged_samples_are_read(victim: Victim) -> None:
    """Else the damage would prove nothing."""
    rng = random.Random(0)
    for _ in range(4):
        for name, build in SAMPLES.items():
            assert victim.ingest(name, build(rng)) == "read", name
