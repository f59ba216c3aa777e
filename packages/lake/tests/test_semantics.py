"""The vectors of `spec/semantics` through the guard and a locked session over real shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emsqrt.expr.vectors import batch, column, load_cases, same_values
from lake.sql.guard import check_statement
from lake.sql.session import SqlLimits, open_session
from lake.sql.tables import Table
from sennit_core.schema import DataType, Schema

from .conftest import Encode

SPEC = Path(__file__).resolve().parents[3] / "spec" / "semantics"
CASES = [
    (f"{file.stem}: {case['name']}", case)
    for file in sorted(SPEC.glob("*.json"))
    for case in load_cases(file)
    if "sql" in case
]
EXPRESSIONS = [pytest.param(case, id=name) for name, case in CASES if "expr" in case]
AGGREGATES = [pytest.param(case, id=name) for name, case in CASES if "expr" not in case]
CSV = [pytest.param(case, id=case["name"]) for case in load_cases(SPEC / "csv.json")]


def answer(sql: str, rows: pa.RecordBatch, folder: Path) -> list[list[Any]]:
    """The columns of the answer over a dataset `t` of these rows."""
    shard = folder / "shard"
    pq.write_table(pa.Table.from_batches([rows]), shard)
    table = Table("t", "0" * 26, Schema.from_arrow(rows.schema), (str(shard),))
    limits = SqlLimits(128 << 20, folder / "temp", 64 << 20, 1)
    check_statement(sql)
    with open_session([table], ["t"], limits) as session:
        table_of = session.sql(sql).to_arrow_table()
    return [values.to_pylist() for values in table_of.columns]


@pytest.mark.sample(25)
@pytest.mark.parametrize("case", EXPRESSIONS)
def test_an_expression_means_the_same_in_sql(case: dict[str, Any], tmp_path: Path) -> None:
    sql, rows = f"SELECT {case['sql']} FROM t", batch(case["columns"])

    if "error" in case:
        with pytest.raises(duckdb.Error):
            answer(sql, rows, tmp_path)
        return
    (values,) = answer(sql, rows, tmp_path)
    expected = column(case["expected"], DataType.parse(case["type"])).to_pylist()
    assert same_values(expected, values)


@pytest.mark.parametrize("case", AGGREGATES)
def test_an_aggregate_means_the_same_in_sql(case: dict[str, Any], tmp_path: Path) -> None:
    found = answer(case["sql"], batch(case["columns"]), tmp_path)

    for values, wanted in zip(found, batch(case["expected"]).columns, strict=True):
        assert same_values(wanted.to_pylist(), values, tolerance=1e-12)


@pytest.mark.parametrize("case", CSV)
def test_a_csv_field_means_the_same_to_ingest(case: dict[str, Any], encode: Encode) -> None:
    table = encode(case["text"], schema=case["schema"]).table

    fields = Schema.from_json(case["schema"])
    for values, field, wanted in zip(table.columns, fields, case["expected"], strict=True):
        assert same_values(values.to_pylist(), column(wanted, field.type).to_pylist())
