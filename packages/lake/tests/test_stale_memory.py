"""An answer holds nothing of what its executor had in memory for the queries before it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from lake import Lake

MARK = "SEKRET_1"
QUERY = (
    "SELECT try_cast(t AS bigint) a, try_cast(t AS double) b, try_cast(t AS decimal(18, 2)) c "
    "FROM texts"
)


def test_slots_under_null_hold_nothing_of_an_earlier_query(tmp_path: Path) -> None:
    rows = 100_000
    number = int.from_bytes(MARK.encode(), "little")
    with Lake(tmp_path, memory_bytes="512MiB") as lake:
        lake.append("marks", pa.table({"s": [MARK * 4 + str(i) for i in range(rows)]}))
        lake.append("texts", pa.table({"t": [f"t{i}" for i in range(rows)]}))
        for _ in range(4):
            lake.sql("SELECT s FROM marks ORDER BY s", engine="duckdb")
            lake.sql(f"SELECT {number}::bigint m, [m, m] n, s FROM marks", engine="duckdb")
            with lake.query(QUERY, engine="duckdb") as execution:
                answer = b"".join(bytes(piece) for piece in execution.payloads())

            assert MARK.encode() not in answer
