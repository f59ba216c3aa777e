"""The memory of an Arrow file's batches is known before they are read."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt import scan
from emsqrt.io.arrow_blocks import largest_batch
from emsqrt.io.sources import open_source
from sennit_core.errors import BadInput, CapTooSmall

ROWS = (10, 5000, 300)


def write(path: Path, codec: str | None, *, stream: bool = False) -> list[pa.RecordBatch]:
    schema = pa.schema([("n", pa.int64()), ("t", pa.string()), ("xs", pa.list_(pa.int8()))])
    batches = [
        pa.record_batch([list(range(rows)), ["text"] * rows, [[1, 2]] * rows], schema=schema)
        for rows in ROWS
    ]
    options = pa.ipc.IpcWriteOptions(compression=codec)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(path, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return batches


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_largest_batch_is_found_without_reading_it(
    tmp_path: Path, codec: str | None, stream: bool
) -> None:
    batches = write(tmp_path / "a.arrow", codec, stream=stream)

    size, number = largest_batch(open_source(tmp_path / "a.arrow"))

    assert number == 1
    assert batches[1].nbytes <= size <= 2 * batches[1].nbytes + 4096


@pytest.mark.nightly
def test_a_batch_beyond_the_cap_is_refused_by_name_before_it_is_read(tmp_path: Path) -> None:
    table = pa.table({"n": list(range(2_000_000))})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    rows = scan(tmp_path / "a.arrow").sink(tmp_path / "b.parquet")

    with pytest.raises(CapTooSmall, match=r"record batch 0 of .* needs 15.3 MiB") as raised:
        rows.run(24 << 20, in_process=True)

    rows.run(raised.value.needed_bytes, in_process=True)
    assert (tmp_path / "b.parquet").exists()


@settings(max_examples=100)
@given(st.integers(0, 400), st.integers(0, 255))
def test_damage_is_reported_or_harmless(at: int, value: int) -> None:
    buffer = io.BytesIO()
    table = pa.table({"n": [1, 2, 3]})
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    data = bytearray(buffer.getvalue())
    data[at % len(data)] = value

    class Held(type(open_source("-"))):  # type: ignore[misc]
        stored_bytes = len(data)

        def __init__(self) -> None:
            self.name = "held"

        def read_at(self, offset: int, size: int) -> bytes:
            return bytes(data[offset : offset + size])

    try:
        size, _ = largest_batch(Held())
    except BadInput:
        return
    assert size >= 0


def test_a_footer_that_leads_around_the_measured_messages_is_refused(tmp_path: Path) -> None:
    """What is read is what was measured: the footer's batches, each once."""
    write(tmp_path / "a.arrow", None)
    data = (tmp_path / "a.arrow").read_bytes()
    footer_bytes = int.from_bytes(data[-10:-6], "little")
    start = len(data) - 10 - footer_bytes
    last = next(
        at
        for at in range(start, len(data) - 33)
        if sum(struct.unpack_from("<qi4xq", data, at)) == start - 8  # an end mark is between
    )
    damaged = bytearray(data)
    damaged[last : last + 8] = struct.pack("<q", 8)
    (tmp_path / "a.arrow").write_bytes(damaged)

    with pytest.raises(BadInput, match="overlaps"):
        largest_batch(open_source(tmp_path / "a.arrow"))
