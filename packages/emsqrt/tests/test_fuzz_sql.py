"""Random SELECT statements answer as DuckDB does, rows in order where the query orders them.

`FUZZ_SEED=17 pytest …` begins with the query of seed 17, which is what a failure names.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from fuzz_runs import run_batches
from fuzz_seeds import seeds
from fuzz_sql import ordered_query, query
from plain_rows import plain

from emsqrt.pipeline import scan
from emsqrt.sql_plan import sql
from sennit_core.schema import Schema

T = Schema.of(a="Int64", b="Int64", s="Utf8", x="Float64", d="Date")
U = Schema.of(a="Int64", name="Utf8", n="Int32")
TABLES = {"t": scan("t.csv", schema=T), "u": scan("u.csv", schema=U)}
VALUES: dict[str, tuple[Any, ...]] = {
    "a": (None, 0, 1, 2, 3),
    "b": (None, -2, 0, 1, 3),
    "s": (None, "", "a", "ab", "b"),
    "x": (None, 0.0, 1.5, -2.0, 7.25),
    "d": (None, date(2013, 1, 31), date(2013, 2, 28), date(2012, 2, 29)),
    "name": (None, "p", "a", "b"),
    "n": (-1, 0, 1, 3),
}


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


def table(schema: Schema, rows: int, dice: random.Random) -> pa.Table:
    columns = [dice.choices(VALUES[name], k=rows) for name in schema.names]
    return pa.table(columns, schema=schema.to_arrow())


def agree(seed: int, reference: Any) -> None:
    """Fail unless the plan of a query has the rows that DuckDB answers."""
    dice = random.Random(seed)
    is_ordered = dice.random() < 0.5
    text = ordered_query(dice) if is_ordered else query(dice)
    tables = {"t": table(T, dice.randint(0, 9), dice), "u": table(U, dice.randint(0, 5), dice)}
    for name, each in tables.items():
        reference.register(name, each)
    wanted = list(plain(reference.execute(text).fetchall()))
    inputs = {f"{name}.csv": each for name, each in tables.items()}
    with tempfile.TemporaryDirectory() as scratch:
        ran = run_batches(sql(text, TABLES).plan, inputs, 32 << 20, Path(scratch))
    found = list(plain(ran.rows))
    if not is_ordered:
        found, wanted = (sorted(rows, key=repr) for rows in (found, wanted))
    assert repr(found) == repr(wanted), f"FUZZ_SEED={seed}\n{text}"


@pytest.mark.slow
def test_random_queries_answer_as_duckdb_does(reference: Any) -> None:
    for seed in seeds(20):
        agree(seed, reference)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_many_random_queries_answer_as_duckdb_does(reference: Any) -> None:
    for seed in seeds(3000, drawn=True):
        agree(seed, reference)
