"""Files of every format that ingest reads, and seeded damage to them."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["SAMPLES", "damage"]

ROWS = 64
_WORDS = (0, 1, 5, 255, 65_535, 1_000_000, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, -1, -5)


def _table(rng: random.Random, *, nested: bool) -> pa.Table:
    """Columns of many types, about a fifth of their values null."""

    def some(make: Callable[[int], Any]) -> list[Any]:
        return [None if rng.random() < 0.2 else make(at) for at in range(ROWS)]

    text = some(lambda at: "text-" * (at % 4) + chr(0x60 + at % 26) + "é")
    day = datetime.datetime(2013, 1, 1, tzinfo=datetime.UTC)
    columns = {
        "b": pa.array(some(lambda at: bytes([at]) * (at % 9)), pa.binary()),
        "t": pa.array(text, pa.string()),
        "i": pa.array(some(lambda at: at * 1_000_003), pa.int64()),
        "f": pa.array(some(lambda at: at / 7), pa.float64()),
        "o": pa.array(some(lambda at: at % 3 == 0), pa.bool_()),
        "m": pa.array(some(lambda at: decimal.Decimal(at) / 4), pa.decimal128(9, 2)),
        "z": pa.array(some(lambda at: day + datetime.timedelta(hours=at)), pa.timestamp("us", "UTC")),
        "d": pa.array(text).dictionary_encode(),
        "l": pa.array(some(lambda at: [f"x{at}"] * (at % 3)), pa.list_(pa.string())),
        "s": pa.array(
            some(lambda at: {"x": at, "y": f"y{at}"}),
            pa.struct([("x", pa.int32()), ("y", pa.string())]),
        ),
    }  # fmt: skip
    if nested:
        columns |= {
            "lt": pa.array(text, pa.large_string()),
            "tv": pa.array(text, pa.string_view()),
            "bv": pa.array(some(lambda at: bytes([at]) * 20), pa.binary_view()),
            "fb": pa.array(some(lambda at: bytes([at]) * 5), pa.binary(5)),
            "fl": pa.array(some(lambda at: [at, at]), pa.list_(pa.int16(), 2)),
            "mp": pa.array(some(lambda at: [("k", at)]), pa.map_(pa.string(), pa.int32())),
            "re": pa.RunEndEncodedArray.from_arrays(
                pa.array([9, ROWS], pa.int32()), pa.array(["run", None])
            ),
            "n": pa.nulls(ROWS),
        }
    names = rng.sample(sorted(columns), rng.randint(1, len(columns)))
    return pa.table({name: columns[name] for name in names})


def _arrow(make: Callable[..., Any]) -> Callable[[random.Random], bytes]:
    def build(rng: random.Random) -> bytes:
        table = _table(rng, nested=True)
        sink = pa.BufferOutputStream()
        codec = rng.choice((None, None, "lz4", "zstd"))
        options = pa.ipc.IpcWriteOptions(compression=codec, emit_dictionary_deltas=True)
        with make(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=rng.choice((20, ROWS)))
        data: bytes = sink.getvalue().to_pybytes()
        return data

    return build


def _parquet(rng: random.Random) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        _table(rng, nested=False), sink,
        compression=rng.choice(("none", "snappy", "zstd", "gzip")),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(("1.0", "2.0")),
        row_group_size=rng.choice((20, ROWS)),
        write_page_checksum=rng.random() < 0.2,
    )  # fmt: skip
    return sink.getvalue()


def _json_lines(rng: random.Random) -> bytes:
    lines = [
        json.dumps({"n": at, "t": "ä\U0001f600" * (at % 3), "l": [at, None], "s": {"x": at / 3}})
        for at in range(ROWS)
    ]
    rng.shuffle(lines)
    return ("\n".join(lines) + "\n").encode()


def _csv(rng: random.Random) -> bytes:
    lines = ["name,n,day,note"]
    lines += [
        f'é{at},{at * 3},2013-01-{at % 28 + 1:02d},"a ""quoted"", {at}"' for at in range(ROWS)
    ]
    return (rng.choice(("\n", "\r\n")).join(lines) + "\n").encode()


SAMPLES: dict[str, Callable[[random.Random], bytes]] = {
    "f.arrow": _arrow(pa.ipc.new_file),
    "s.arrow": _arrow(pa.ipc.new_stream),
    "f.parquet": _parquet,
    "f.jsonl": _json_lines,
    "f.csv": _csv,
}


def damage(rng: random.Random, data: bytes) -> bytes:
    """One to three kinds of damage, anywhere or where metadata usually is."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_DAMAGES)(rng, bytearray(data))
    return data


def _place(rng: random.Random, size: int) -> int:
    """A position: anywhere, near the beginning, or near the end."""
    near = min(size, 1500)
    choices = (rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near))
    return rng.choice(choices)


def _flip(rng: random.Random, data: bytearray) -> bytes:
    for _ in range(rng.randint(1, 8)):
        data[_place(rng, len(data))] ^= rng.randint(1, 255)
    return bytes(data)


def _word(rng: random.Random, data: bytearray) -> bytes:
    """Put a number that offsets and lengths get wrong in the place of an aligned word."""
    size, form = rng.choice(((4, "<I"), (8, "<Q")))
    at = _place(rng, len(data)) // size * size
    value = struct.pack(form, rng.choice(_WORDS) & (2 ** (8 * size) - 1))
    data[at : at + size] = value[: len(data) - at]
    return bytes(data)


def _nudge(rng: random.Random, data: bytearray) -> bytes:
    """Change an aligned word by a little, so that it stays plausible."""
    at = _place(rng, len(data)) // 4 * 4
    if at + 4 <= len(data):
        (value,) = struct.unpack_from("<I", data, at)
        struct.pack_into("<I", data, at, (value + rng.randint(-300, 300)) % 2**32)
    return bytes(data)


def _truncate(rng: random.Random, data: bytearray) -> bytes:
    return bytes(data[: max(1, _place(rng, len(data)))])


def _double(rng: random.Random, data: bytearray) -> bytes:
    at, count = _place(rng, len(data)), rng.randint(1, 400)
    return bytes(data[:at] + data[at : at + count] + data[at:])


def _zero(rng: random.Random, data: bytearray) -> bytes:
    at, count = _place(rng, len(data)), rng.randint(1, 64)
    data[at : at + count] = bytes(len(data[at : at + count]))
    return bytes(data)


def _remove(rng: random.Random, data: bytearray) -> bytes:
    at, count = _place(rng, len(data)), rng.randint(1, 64)
    return bytes(data[:at] + data[at + count :]) or b"\0"


_DAMAGES = (_flip, _word, _word, _nudge, _truncate, _double, _zero, _remove)
