"""Random expressions in the generated code of `@sennit/elytra`: the values of EM-√ and of DuckDB."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from kernel_cases import PROGRAM, Case, check_cases, random_cases
from npm_packages import install, pack, run_module
from random_expressions import COLUMNS

from emsqrt.expr import col
from emsqrt.expr.nodes import call

pytestmark = pytest.mark.timeout(900)
_MAPPED = [
    *range(0x19B),
    *range(0x19C, 0x250),
    *range(0x370, 0x530),
    *range(0x2000, 0x2100),
    0x4E00,
]
"""Code points whose case the engine in JavaScript knows."""
_MAIN = """
import { readFileSync } from 'node:fs'
import { computeCases } from './cases.js'

console.log(JSON.stringify(computeCases(JSON.parse(readFileSync('cases.json', 'utf8')))))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and the program that computes cases."""
    folder = tmp_path_factory.mktemp("kernels")
    install([pack("elytra", folder)], folder)
    (folder / "cases.js").write_text(PROGRAM, encoding="utf-8")
    return folder


def _compute(program: Path, cases: str) -> Any:
    (program / "cases.json").write_text(cases, encoding="utf-8")
    return run_module(program, _MAIN)


@pytest.mark.parametrize(
    ("examples", "number", "compared_min"),
    [
        pytest.param(100, 1, 1_000, id="some"),
        pytest.param(1500, 2, 15_000, id="many", marks=pytest.mark.nightly),
    ],
)
def test_generated_code_computes_the_values_of_em_sqrt_and_duckdb(
    program: Path, examples: int, number: int, compared_min: int
) -> None:
    cases = random_cases(examples, number)
    assert check_cases(cases, partial(_compute, program)) >= compared_min


def test_letters_have_the_upper_and_lower_case_of_em_sqrt(program: Path) -> None:
    points = [chr(code) for code in _MAPPED]
    rows = pa.table(
        {name: points if name == "s" else [None] * len(points) for name in COLUMNS.names},
        schema=COLUMNS.to_arrow(),
    )
    cases = [Case(call(fn, col("s")), rows) for fn in ("upper", "lower")]
    assert check_cases(cases, partial(_compute, program)) == 2 * len(cases) * len(points)
