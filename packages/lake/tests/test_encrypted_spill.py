"""What a statement over encrypted data spills: in memory, or encrypted, and gone when it ends."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt.spill.local import LocalStore
from lake import Lake
from lake.sql.encrypted_spill import EncryptedStore

from .test_encryption import CANARY, PASSPHRASE, clear_files


@pytest.mark.nightly  # sorts more than DuckDB has memory: 14 s
def test_a_query_that_spills_does_so_in_memory(tmp_path: Path) -> None:
    rows = [f"{CANARY}-{os.urandom(200).hex()}" for _ in range(250_000)]
    with Lake(tmp_path / "data", memory_bytes="320MiB", passphrase=PASSPHRASE) as lake:
        lake.append("t", pa.table({"a": rows}), encrypt=True)
        cache = lake.vault.cache.folder
        spilled = 0
        with lake.run("SELECT a FROM t, range(2) ORDER BY a DESC", engine="duckdb") as execution:
            for payload in execution.payloads():
                del payload
                spilled += sum(1 for path in cache.glob("run-*/spill/*") if path.stat().st_size)
                assert clear_files(tmp_path / "data" / "spill") == []
            assert execution.result()["rows"] == 2 * len(rows)
        assert spilled
        assert list(cache.glob("run-*")) == []


@pytest.mark.slow  # sorts more than the memory of EM-√: 3 s
def test_what_em_sqrt_spills_is_encrypted(tmp_path: Path) -> None:
    rows = [f"{CANARY}-{index:07d}-{'x' * 100}" for index in range(300_000)]
    data = tmp_path / "data"
    with Lake(data, memory_bytes="128MiB", passphrase=PASSPHRASE) as lake:
        lake.append("t", pa.table({"a": rows}), encrypt=True)
        seen, clear = 0, []
        with lake.run(
            "SELECT a FROM t ORDER BY a DESC", engine="emsqrt", format="csv"
        ) as execution:
            for index, payload in enumerate(execution.payloads()):
                if index == 0:
                    assert bytes(payload).startswith(b"a\n" + rows[-1].encode())
                del payload
                if index % 20 == 0:
                    files = [each for each in (data / "spill").rglob("*") if each.is_file()]
                    seen = max(seen, sum(each.stat().st_size for each in files))
                    clear += [each for each in files if CANARY.encode() in each.read_bytes()]
            answer = execution.result()
        assert answer["rows"] == len(rows)
        assert answer["spilledBytes"] > 1_000_000
        assert seen > 1_000_000
        assert clear == []
        assert left_behind(data) == []
        assert list(lake.vault.cache.folder.glob("run-*")) == []


def left_behind(data: Path) -> list[Path]:
    """What statements that have ended left in the folders of the executors."""
    return [path for path in (data / "spill").glob("*/*") if path.name != "lock"]


@given(
    pieces=st.lists(st.integers(0, 200_000), max_size=6),
    ranges=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5)), max_size=5),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_encrypted_spill_file_is_read_from_any_offset(
    tmp_path: Path, pieces: list[int], ranges: list[tuple[int, int]]
) -> None:
    content = b"canary" * 200_000
    written = content[: sum(pieces)]
    with closing(EncryptedStore(LocalStore(tmp_path))) as store:
        for name in ("one", "two"):
            sink = store.create(name)
            start = 0
            for size in pieces:
                sink.write([memoryview(written)[start : start + size]])
                start += size
            sink.finish()
        one, two = (
            path.read_bytes() for path in sorted(tmp_path.glob("*/*")) if path.name != "lock"
        )
        assert len(written) < 32 or one != two
        assert len(written) < 32 or b"canary" not in one
        with closing(store.open("two", len(written))) as file:
            for offset, size in ranges:
                begin = offset % (len(written) + 1)
                target = bytearray(min(size, len(written) - begin))
                file.read_into(begin, memoryview(target))
                assert target == written[begin : begin + len(target)]
