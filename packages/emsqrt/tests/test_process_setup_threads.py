"""pyarrow's threads start before the memory limit: the stack of a new one would exceed it."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest

PROBE = """
import os, sys
from emsqrt.process_setup import load_arrow
load_arrow()
before = len(os.listdir("/proc/self/task"))
import pyarrow as pa
import pyarrow.json
{reading}
assert len(os.listdir("/proc/self/task")) == before
"""


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "reading",
    [
        "pa.ipc.open_file(pa.memory_map(sys.argv[1])).read_all()",
        "pa.ipc.open_file(pa.OSFile(sys.argv[1])).get_batch(0)",
        "pyarrow.json.read_json(pa.BufferReader(sys.argv[2].encode()))",
    ],
)
def test_reading_starts_no_thread(reading: str, tmp_path: Path) -> None:
    table = pa.table({"a": ["the same"] * 5000, "b": range(5000)})
    packed = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema, options=packed) as file:
        file.write_table(table)

    arguments = [str(tmp_path / "a.arrow"), '{"a": 1}']
    subprocess.run([sys.executable, "-c", PROBE.format(reading=reading), *arguments], check=True)
