"""Footers of many row groups and columns: read in pieces, and what is kept of them is reserved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from emsqrt import scan
from emsqrt.io.parquet_chunks import ChunkTable
from emsqrt.io.parquet_footer import read_footer
from emsqrt.io.parquet_pages import ChunkPages
from emsqrt.io.sources import open_source
from sennit_core.errors import BadInput, CapTooSmall
from sennit_core.units import MIB

GROUPS, COLUMNS = 400, 40
OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from emsqrt.io.parquet_scan import ParquetScan, infer_parquet_schema
from emsqrt.memory import MemoryBudget

path, budget = Path(sys.argv[1]), MemoryBudget(1 << 30)
scan = ParquetScan(path, infer_parquet_schema(path), budget)
guard = budget.admit(scan.need_bytes, "scan", "a test")
held = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (held + (4 << 20),) * 2)
try:
    for batch in scan.batches(guard):
        pass
except MemoryError:
    print("MemoryError")
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 16,000 column chunks, one row in each."""
    path = tmp_path_factory.mktemp("many") / "many.parquet"
    table = pa.table({f"c{at}": pa.array(range(GROUPS)) for at in range(COLUMNS)})
    pq.write_table(table, path, row_group_size=1)
    return path


@pytest.mark.nightly
def test_many_row_groups_are_refused_with_a_cap_that_is_enough(many: Path, tmp_path: Path) -> None:
    plan = scan(many).group_by("c0").agg(n="count(*)").sink(tmp_path / "out.csv")
    with pytest.raises(CapTooSmall) as refused:
        plan.run("42MiB")
    needed = refused.value.needed_bytes
    assert needed < 52 * MIB, "what is kept of 16,000 column chunks is small"
    manifest = plan.run(needed)
    assert manifest.peak_bytes <= needed
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert sorted(lines[1:]) == sorted(f"{number},1" for number in range(GROUPS))


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("groups", "columns"), [(300, 14), (2000, 16), (5406, 3), (5406, 14)])
def test_every_cap_for_many_row_groups_works_or_names_one_that_does(
    groups: int, columns: int, tmp_path: Path
) -> None:
    path = tmp_path / "many.parquet"
    table = pa.table({f"c{at}": pa.array(range(2 * groups)) for at in range(columns)})
    pq.write_table(table, path, row_group_size=2)
    plan = scan(path).sort("c0:desc").sink(tmp_path / "out.csv")
    needed = 0
    for cap in (48 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB):
        try:
            manifest = plan.run(cap)
        except CapTooSmall as refused:
            needed = refused.needed_bytes
            manifest = plan.run(needed)
        assert manifest.peak_bytes <= manifest.cap_bytes
    assert needed < 128 * MIB


@pytest.mark.nightly
def test_a_footer_in_pieces_is_the_whole_footer(many: Path) -> None:
    footer, whole = read_footer(open_source(many)), pq.read_metadata(many)
    assert len(footer.pieces) > 10
    assert footer.row_count == whole.num_rows
    assert footer.metadata().num_row_groups == 0
    for piece in footer.pieces:
        part = footer.metadata(piece)
        assert part.num_row_groups == piece.group_count
        for index, group in enumerate(piece.groups):
            assert part.row_group(index).to_dict() == whole.row_group(group).to_dict()
    assert [group for piece in footer.pieces for group in piece.groups] == [*range(GROUPS)]


def test_a_footer_that_is_changed_after_it_was_checked_is_refused(
    many: Path, tmp_path: Path
) -> None:
    path = tmp_path / "changed.parquet"
    data = bytearray(many.read_bytes())
    path.write_bytes(data)
    footer = read_footer(open_source(path))
    last = footer.pieces[-1]
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little") + last.start
    data[start + last.size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match="changed while the file was read"):
        footer.metadata(last)


@pytest.mark.slow
def test_memory_that_is_refused_is_not_called_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "large_page.parquet"
    texts = [f"{number:064}" for number in range(300_000)]
    pq.write_table(pa.table({"t": texts}), path, data_page_size=64 * MIB, use_dictionary=False)
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "MemoryError\n", done.stderr


numbers = st.integers(0, 2**62)
chunks = st.builds(
    ChunkPages,
    *(numbers, st.text(max_size=3), numbers, numbers, numbers, numbers),
    *(st.booleans(), st.booleans(), numbers, numbers, numbers, numbers, st.booleans()),
    st.tuples(numbers, numbers, st.sampled_from(["", "ZSTD"])),
)


@settings(max_examples=20)
@given(st.lists(chunks, min_size=1, max_size=20), st.integers(1, 300), st.data())
def test_packed_chunks_are_the_same(
    some: list[ChunkPages], times: int, data: st.DataObject
) -> None:
    every = some * times
    table = ChunkTable(every)
    assert len(table) == len(every)
    start = data.draw(st.integers(0, len(every)))
    stop = data.draw(st.integers(start, min(len(every), start + 30)))
    assert list(table[start:stop]) == every[start:stop]
    assert table[-1] == every[-1]
