"""Parquet files with a bit flipped: clean errors that name the file, or the right rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from emsqrt import scan
from emsqrt.io.parquet_footer import read_footer
from emsqrt.io.parquet_pages import dictionary_values
from emsqrt.io.sources import open_source
from sennit_core.errors import BadInput

FLIPS = Path(__file__).parent / "oracle" / "damaged_parquet.py"
PLAIN = pa.table(
    {
        "id": pa.array(range(300)),
        "name": [f"name {n % 7}" if n % 5 else None for n in range(300)],
        "price": [n / 7 for n in range(300)],
    }
)
NESTED = pa.table(
    {
        "id": pa.array(range(300)),
        "tags": [[n, n + 1][: n % 3] for n in range(300)],
        "at": [{"x": n, "y": [str(n)]} if n % 4 else None for n in range(300)],
    }
)


def write(path: Path, table: pa.Table = PLAIN) -> int:
    """Write a table with checksums of its pages; return where the footer begins."""
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
    data = path.read_bytes()
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def flips(path: Path, first: int, step: int, bits: int) -> tuple[int, list[Any]]:
    """Flip bits in a process of its own; return how many flips, and those that went wrong."""
    command = [sys.executable, str(FLIPS), str(path), *map(str, (first, step, bits))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout.splitlines()[-1:], done.stderr[-2000:])
    *wrong, (_, count) = (
        json.loads(line) for line in done.stdout.splitlines() if not line.startswith("at")
    )
    return count, wrong


@pytest.mark.nightly
@pytest.mark.parametrize("table", [PLAIN, NESTED], ids=["plain", "nested"])
def test_flipped_bits_in_footers_are_reported_or_harmless(table: pa.Table, tmp_path: Path) -> None:
    first = write(tmp_path / "in.parquet", table)
    count, wrong = flips(tmp_path / "in.parquet", first, 7, 1)
    assert count > 100
    assert wrong == []


@pytest.mark.slow
def test_flipped_bits_in_pages_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "in.parquet")
    count, wrong = flips(tmp_path / "in.parquet", 0, 61, 1)
    assert count > 50
    assert wrong == []


@pytest.mark.nightly
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("table", [PLAIN, NESTED], ids=["plain", "nested"])
def test_every_flipped_bit_is_reported_or_harmless(table: pa.Table, tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", table)
    _, wrong = flips(tmp_path / "in.parquet", 0, 1, 8)
    assert wrong == []


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "bit", "reason"),
    [
        (18, 2, "row group 0, column id: it is another one in the schema"),
        (20, 6, "repeats in way"),
        (870, 6, "levels are counted"),
    ],
)
def test_a_file_that_crashes_arrow_is_reported(
    at: int, bit: int, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    first = write(path)
    data = bytearray(path.read_bytes())
    data[first + at] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(BadInput, match=reason) as refused:
        scan(path).sink(tmp_path / "out.csv").run("64MiB")
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (lambda data: data[:-4] + b"PAR2", "does not end in PAR1"),
        (lambda data: data[:7], "does not end in PAR1"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", "footer would have 2147483647 bytes"),
        (lambda data: b"PARE" + data[4:], "encrypted"),
        (lambda data: data[:-8] + b"\0\0\0\0PAR1", "cannot be parsed"),
    ],
)
def test_a_broken_footer_is_reported(cut: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    write(path)
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(BadInput, match=reason):
        read_footer(open_source(path))


def test_excess_values_of_a_page_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    write(path)
    data = path.read_bytes()
    of_100 = b"\x1c\x15\xc8\x01\x15\x10"  # in a data page's header, its values by a dictionary
    assert of_100 in data
    path.write_bytes(data.replace(of_100, of_100.replace(b"\xc8", b"\xca"), 1))
    with pytest.raises(BadInput, match="101 values in its pages of 100"):
        scan(path).sink(tmp_path / "out.csv").run("64MiB", in_process=True)


def test_a_truncated_value_in_statistics_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    first = write(path, pa.table({"id": pa.array(range(1000, 1300))}))
    data = path.read_bytes()
    low = (1000).to_bytes(8, "little")
    footer = data[first:-8].replace(b"\x08" + low, b"\x03" + low[:3])
    path.write_bytes(data[:first] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(BadInput, match="smallest or largest value is truncated"):
        scan(path).filter("id > 1100").sink(tmp_path / "out.csv").run("64MiB", in_process=True)


def reading(data: bytes) -> Callable[[int, int], bytes]:
    """Return what reads parts of a file that holds `data`."""
    return lambda at, size: data[at : at + size]


def test_a_damaged_dictionary_head_yields_numbers_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    write(path)
    data = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    start = chunk.dictionary_page_offset
    assert dictionary_values(reading(data), chunk) == (7, 70)
    for at in range(start, start + 32):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            found = dictionary_values(reading(bytes(damaged)), chunk)
            assert found is None or (type(found[0]), type(found[1])) == (int, int), (at, bit)
            assert found is None or min(found) >= 0
