"""What importing the façade and the command costs, by what it loads; and that no imports form a ring."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

import sennit
from sennit_core.testing import import_graph

HEAVY = {"duckdb", "pyarrow", "ray", "numpy", "fastapi", "pydantic", "httpx", "pandas", "polars"}


def loaded_by(program: str) -> set[str]:
    script = f"{program}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_facade_is_light() -> None:
    assert not loaded_by("import sennit") & HEAVY


def test_the_command_line_loads_nothing_heavy_before_a_verb_runs() -> None:
    assert not loaded_by("import sennit.cli") & (HEAVY | {"rich", "uvicorn", "sqlglot", "lmdb"})


@pytest.mark.slow
def test_a_node_starts_without_libraries_that_only_queries_need() -> None:
    assert not loaded_by("import sennit.serve") & {"duckdb", "pyarrow", "numpy", "ray", "sqlglot"}


@pytest.mark.parametrize("verb", ["up", "put", "sql", "run"])
def test_help_of_a_verb_loads_nothing_heavy(verb: str) -> None:
    program = f"import sennit.cli; assert sennit.cli.run(['{verb}', '--help']) == 0"
    assert not loaded_by(program) & (HEAVY | {"rich"})


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_ring() -> None:
    TopologicalSorter(import_graph(sennit)).prepare()  # raises CycleError, which names the ring
