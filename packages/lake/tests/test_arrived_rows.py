"""Rows of another node: a batch that is small as it arrives, and huge in memory, is refused before that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from emsqrt.executor import EntryContext
from lake.sql.arrived_rows import send_arrived
from lake.sql.distributed_worker import merge_query
from sennit_core.errors import Corrupt, TooLarge

CAP = 4 << 30
"""The cap counts what this process has of the tests before."""
ROWS, COLUMNS = 1 << 20, 160
"""They have more than a quarter of the cap. All columns are the same bytes, so that the test needs 8 MiB for them."""


class Payloads:
    """Counts the payloads of a result."""

    payload_bytes_max = 1 << 20

    def __init__(self) -> None:
        self.count = 0

    def write_bytes(self, payload: Any) -> None:
        self.count += 1

    write_arrow = write_bytes


def context(folder: Path, payloads: Payloads | None = None) -> EntryContext:
    return EntryContext("sql", CAP, payloads or Payloads(), lambda _: None, folder / "spill")


def stream(place: Path, rows: int, codec: str, columns: int = 1) -> Path:
    """Write one batch of zeros."""
    zeros = pa.repeat(pa.scalar(0, pa.int64()), rows)
    batch = pa.record_batch([zeros] * columns, names=[f"v{at}" for at in range(columns)])
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with (
        pa.OSFile(str(place), "wb") as file,
        pa.ipc.new_stream(file, batch.schema, options=options) as out,
    ):
        out.write_batch(batch)
    return place


def send(file: Path, at: EntryContext) -> dict[str, Any]:
    return send_arrived({"file": str(file), "format": "arrow", "maxRows": None}, at)


def merge(file: Path, at: EntryContext) -> dict[str, Any]:
    step = {"result": "s", "sql": "SELECT 1::BIGINT AS v0 WHERE false", "files": [str(file)]}
    return merge_query(
        {"tables": [], "steps": [step], "finalSql": "SELECT sum(v0) FROM s", "format": "arrow"}, at
    )


@pytest.mark.parametrize("read", [send, merge])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_batch_that_is_huge_after_decompression_is_refused(
    tmp_path: Path, read: Any, codec: str
) -> None:
    file = stream(tmp_path / "rows", ROWS, codec, COLUMNS)
    assert file.stat().st_size < 8 << 20
    with pytest.raises(TooLarge, match="another node") as refused:
        read(file, context(tmp_path))
    assert refused.value.limit_bytes == CAP // 4
    assert refused.value.actual_bytes == 8 * ROWS * COLUMNS
    assert "--memory" in (refused.value.hint or "")


@pytest.mark.parametrize("read", [send, merge])
def test_compressed_rows_that_fit_are_read(tmp_path: Path, read: Any) -> None:
    payloads = Payloads()
    answer = read(stream(tmp_path / "rows", 1000, "zstd"), context(tmp_path, payloads))
    assert answer["rows"] == (1000 if read is send else 1)
    assert payloads.count > 0


@pytest.mark.parametrize("read", [send, merge])
def test_rows_that_are_cut_off_are_named(tmp_path: Path, read: Any) -> None:
    file = stream(tmp_path / "rows", 1000, "zstd")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(Corrupt, match="another node"):
        read(file, context(tmp_path))
