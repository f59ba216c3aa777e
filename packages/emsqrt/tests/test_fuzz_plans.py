"""Random plans over random tables, in any memory and any tier, answer as DuckDB does.

`FUZZ_SEED=17 pytest …` begins with the case of seed 17, which is what a failure names.
"""

from __future__ import annotations

import gc
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import duckdb
import pytest
import yaml
from fuzz_documents import as_steps
from fuzz_oracle import Oracle, TooManyRows, differ
from fuzz_plans import HEAVY_ROWS, ROWS, Case, cases, heavy_cases
from fuzz_runs import Ran, Rows, run_batches, run_files, run_text_plan, smallest
from fuzz_seeds import seeds

from emsqrt.documents.reading import document_from
from emsqrt.documents.yaml_text import read_yaml
from emsqrt.expr import ValueOutOfRange
from emsqrt.pipeline import Pipeline
from emsqrt.plan import check, inputs_of, plan_hash
from emsqrt.spill.compression import Packer
from sennit_core.errors import Unsupported

MIB = 1 << 20
OVERFLOWS = (duckdb.OutOfRangeException, duckdb.ConversionException)


def outcome(case: Case, memory_bytes: int, scratch: Path) -> Ran | None:
    """Carry a case out its way; None when that way is not for it."""
    plan, schema = case.pipeline.plan, check(case.pipeline.plan)
    if case.way == "batches":
        tables = {name: table for name, (_, table) in case.tables.items()}
        return run_batches(plan, tables, memory_bytes, scratch, case.batch_rows, case.build)
    if case.way == "text":
        return run_text_plan(plan, memory_bytes, scratch, schema, case.target)
    return run_files(plan, memory_bytes, scratch, case.target, schema)


def duckdb_rows(case: Case) -> Rows | None:
    """Return DuckDB's rows; None where its SQL has no words of the same meaning."""
    with Oracle({name: table for name, (_, table) in case.tables.items()}) as oracle:
        try:
            return oracle.rows(case.pipeline.plan)
        except Unsupported:
            return None


@contextmanager
def nothing_to_collect() -> Iterator[None]:
    """Keep what is there from being looked through each time that a run collects garbage."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def run_case(case: Case) -> str:
    """Ask DuckDB and the engine, and compare; return what became of the case."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name, (columns, table) in case.tables.items():
            if case.way != "batches":
                case.files[name].write(table, columns, scratch)
        refused: duckdb.Error | None = None
        wanted: Rows | None = None
        try:
            wanted = duckdb_rows(case)
        except TooManyRows:
            return "too many rows"
        except duckdb.Error as error:
            refused = error
        with nothing_to_collect():
            return compare(case, wanted, refused, scratch)


def compare(case: Case, wanted: Rows | None, refused: duckdb.Error | None, scratch: Path) -> str:
    """Run a case in little memory and in plenty, and compare it with the rows of DuckDB."""
    schema = check(case.pipeline.plan)
    try:
        first = case.memory * MIB or 1 << 16
        with patch.object(Packer, "_is_slow", return_value=case.packs):
            # Whole runs estimate their operators at once; without a session each one asks by itself.
            refusals = 12 if case.way == "batches" else 3
            ran, _ = smallest(lambda size: outcome(case, size, scratch), first, refusals=refusals)
    except ValueOutOfRange as error:
        words = str(error)
        if " is not a Decimal(" in words:
            return "overflow"  # a constant that a narrow decimal cannot hold, which DuckDB may skip
        if wanted is None and "sum" in words:
            return "overflow"  # beyond Int64
        if isinstance(refused, OVERFLOWS):
            return "overflow"
        raise
    except Unsupported as error:
        if "List" in str(error):
            return "lists refused"
        raise
    if ran is None:
        return compare(replace(case, way="files"), wanted, refused, scratch)
    if refused is not None and not isinstance(refused, duckdb.OutOfRangeException):
        raise refused
    if wanted is not None:
        difference = differ(ran.rows, wanted, schema)
        assert difference is None, difference
    plenty = outcome(case, 256 * MIB, scratch)
    assert plenty is not None
    assert repr(plenty.rows) == repr(ran.rows)
    known = "alone" if wanted is None else "as DuckDB"
    return f"{case.way} {known}{', spilled' * bool(ran.spilled_bytes)}"


def smaller(case: Case) -> Iterator[Case]:
    """Yield cases that are like this one with a step, or half of a table's rows, left out."""
    for below in inputs_of(case.pipeline.plan):
        yield replace(case, pipeline=Pipeline(below))
    for name, (schema, table) in case.tables.items():
        half = table.num_rows // 2
        for start in (0, half) if half else ():
            part = schema, table.slice(start, half)
            yield replace(case, tables={**case.tables, name: part})


def fails(case: Case) -> Exception | None:
    """Return what a case ends in, None when it is as it should be."""
    try:
        run_case(case)
    except Exception as error:  # noqa: BLE001 - any error, the case is reduced with it
        return error
    return None


def reduced(case: Case, error: Exception) -> tuple[Case, Exception]:
    """Return the smallest case on the way that still fails in the same manner."""
    for each in smaller(case):
        other = fails(each)
        if type(other) is type(error):
            return reduced(each, other)
    return case, error


def run_cases(draw: Callable[[random.Random], Case], numbers: range) -> None:
    for seed in numbers:
        case = draw(random.Random(seed))
        error = fails(case)
        if error is not None:
            case, error = reduced(case, error)
            raise AssertionError(f"FUZZ_SEED={seed}\n{case!r}\n{error}") from error


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_plans_answer_as_duckdb_does() -> None:
    run_cases(cases, seeds(10))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_operators_of_more_rows_than_memory_answer_as_duckdb_does() -> None:
    run_cases(heavy_cases, seeds(2))


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_many_plans_answer_as_duckdb_does() -> None:
    run_cases(lambda dice: cases(dice, (*ROWS, 30_000)), seeds(600, drawn=True))


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_many_operators_of_more_rows_than_memory_answer_as_duckdb_does() -> None:
    run_cases(lambda dice: heavy_cases(dice, (*HEAVY_ROWS, 20_000)), seeds(250, drawn=True))


@pytest.mark.slow
def test_documents_say_the_same_plans() -> None:
    for seed in range(40):
        plan = cases(random.Random(seed), (0,)).pipeline.plan
        text = yaml.safe_dump({"steps": as_steps(plan)}, sort_keys=False)

        assert plan_hash(document_from(read_yaml(text, "a document")).plan) == plan_hash(plan), text
