"""The bytes of an Arrow result hold its values and nothing else of the executor's memory."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lake import Lake

MARK = "SEKRET_1"
OTHERS = (
    "SELECT s, m FROM marks ORDER BY s",
    "SELECT m, count(*), max(s) FROM marks GROUP BY m",
    "SELECT m + (i % 2), s || i::VARCHAR, m::HUGEINT * 18446744073709551616::HUGEINT + m FROM marks",
    "SELECT [m, m, m]::BIGINT[3], {'m': m, 's': s} FROM marks",
)
TRY_CASTS = "SELECT " + ", ".join(
    f"try_cast(t AS {kind}) {kind.partition('(')[0]}_"
    for kind in ("bigint", "double", "timestamp", "decimal(18,2)", "uuid", "interval")
)


@pytest.mark.slow
def test_slots_under_null_hold_nothing_of_earlier_queries(lake: Lake) -> None:
    rows = 50_000
    marks = [MARK * 4 + str(number) for number in range(rows)]
    numbers = [int.from_bytes(MARK.encode(), "little")] * rows
    lake.append("marks", pa.table({"m": numbers, "s": marks, "i": range(rows)}))
    lake.append("clean", pa.table({"t": [f"t{number}" for number in range(rows)]}))

    for _ in range(2):  # one for each executor
        for query in OTHERS:
            lake.sql(query, engine="duckdb")
        with lake.run(f"{TRY_CASTS} FROM clean", engine="duckdb") as execution:
            result = b"".join(bytes(piece) for piece in execution.payloads())
        assert result.count(MARK[:4].encode()) == 0
