"""Random expressions in the generated code of `@sennit/elytra`: the values of EM-√ and of DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kernel_cases import PROGRAM, check_cases, random_cases
from npm_packages import install, pack, run_module

pytestmark = pytest.mark.timeout(900)
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
    def compute(cases: str) -> Any:
        (program / "cases.json").write_text(cases, encoding="utf-8")
        return run_module(program, _MAIN)

    assert check_cases(random_cases(examples, number), compute) >= compared_min
