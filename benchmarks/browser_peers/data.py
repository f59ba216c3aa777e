"""The rows of the benchmark, and its query as SQL."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

ROWS = 740_000
COLUMNS = {
    "id": "BIGINT",
    "price": "DOUBLE",
    "qty": "BIGINT",
    "country": "VARCHAR",
    "at": "TIMESTAMP_S",
    "weight": "DOUBLE",
    "note": "VARCHAR",
}
"""The columns of the file with the types that DuckDB reads them as."""
QUERY = """
    SELECT country, count(*) AS n, sum(price * qty) AS total, sum(weight) AS weight,
        avg(price) AS mean, min("at") AS first, max("at") AS last
    FROM {source} WHERE price * qty > 500 AND country <> 'US' GROUP BY country ORDER BY country
"""
_COUNTRIES = ("US", "CH", "DE", "FR", "NO", "JP", "BR", "IN", "ZA", "CA", "GB", "")


def write_csv(path: Path, rows: int) -> None:
    """Write rows of seven columns: 8 % of the notes are quoted, 1 % have a line end in them."""
    dice = random.Random(7)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        for number in range(rows):
            day, clock = number % 28 + 1, number % 86_400
            at = f"2026-01-{day:02} {clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}"
            kind = dice.random()
            note = f"note {number % 5000} of some"
            if kind < 0.08:
                note = f'"said ""{number % 500}"", {"twice" if kind > 0.01 else "on" + chr(10)}"'
            file.write(
                f"{number},{dice.uniform(1, 200):.2f},{dice.randint(1, 20)},"
                f"{dice.choice(_COUNTRIES)},{at},{dice.random() * 100:.4f},{note}\n"
            )


def write_arrow(csv: Path, path: Path) -> int:
    """Write the columns of the query as an Arrow stream, as a task's input is; returns their bytes."""
    options = pa.csv.ConvertOptions(
        include_columns=["price", "qty", "country", "at", "weight"],
        column_types={"at": pa.timestamp("s")}, strings_can_be_null=True,
    )  # fmt: skip
    parsed = pa.csv.ParseOptions(newlines_in_values=True)
    table = pa.csv.read_csv(csv, parse_options=parsed, convert_options=options).combine_chunks()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=65_536)
    return int(table.nbytes)
