"""Right and full joins of sorted sides are merged: unmatched right rows come last."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from fuzz_oracle import Oracle, differ
from fuzz_runs import Ran, run_files, run_text_plan, smallest, write_table

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan.check import check
from emsqrt.te import explain_plan
from emsqrt.te.blocks import Grants, plan_blocks
from sennit_core.schema import Schema

HOWS: tuple[Literal["right", "full"], ...] = ("right", "full")
WAYS = ("text", "csv", "parquet")


def table_of(rows: int, step: int, hot: int, name: str) -> pa.Table:
    """Keys in leaps, one of them often, some NULL, and text that makes rows outgrow memory."""
    keys = [None if at % 40 == 3 else at * step % 7001 for at in range(rows)] + [21] * hot
    texts = [None if key is None else f"{key % 3}" for key in keys]
    filler = ["filler " * (at % 9) + str(at) for at in range(len(keys))]
    return pa.table({"k": pa.array(keys, pa.int64()), "t": texts, name: filler})


def merged(
    how: Literal["right", "full"], kind: str, folder: Path
) -> tuple[Pipeline, dict[str, pa.Table]]:
    """A join of two sorted files, and their tables by path."""
    sides, tables = [], {}
    made = (("l", table_of(2500, 6, 30, "a")), ("r", table_of(9000, 7, 40, "b")))
    for name, table in made:
        path, schema = folder / f"{name}.{kind}", Schema.from_arrow(table.schema)
        write_table(table, schema, path)
        sides.append(scan(path, schema=schema).sort("k", "t"))
        tables[str(path)] = table
    return sides[0].join(sides[1], ["k", "t"], how), tables


@pytest.mark.nightly
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", HOWS)
def test_a_merge_in_the_least_memory_answers_as_duckdb_does(
    how: Literal["right", "full"], way: str, tmp_path: Path
) -> None:
    kind = "csv" if way == "text" else way
    pipeline, tables = merged(how, kind, tmp_path)
    plan, schema = pipeline.plan, check(pipeline.plan)

    def run(memory_bytes: int) -> Ran | None:
        if way == "text":
            return run_text_plan(plan, memory_bytes, tmp_path, schema)
        return run_files(plan, memory_bytes, tmp_path, kind, schema)

    ran, _ = smallest(run)

    with Oracle(tables) as oracle:
        wanted = oracle.rows(plan)
    assert ran is not None
    assert ran.spilled_bytes > 0
    assert differ(ran.rows, wanted, schema) is None
    lone = sum(row[2] is None for row in wanted)
    assert all(row[2] is None for row in ran.rows[-lone:])
    assert lone > 1000


@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize("how", HOWS)
def test_explain_shows_the_merge_and_its_spill(
    how: Literal["right", "full"], tier: Literal["text", "arrow"], tmp_path: Path
) -> None:
    pipeline, _ = merged(how, "csv", tmp_path)

    explained = explain_plan(pipeline.plan, 64 << 20, tier=tier)

    assert "[merge, both sides sorted by k, t]" in str(explained)
    (join,) = (node for node in explained.program.plan.nodes if node.operator == "join")
    few, plenty = (
        plan_blocks(join, explained.work.nodes[join.id], Grants(size, size)).spill_bytes
        for size in (1 << 19, 64 << 20)
    )
    assert 100_000 < few < 500_000, "some 7,000 rows of the right side match nothing"
    assert plenty == 0
