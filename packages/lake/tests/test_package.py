"""The façade: what it exports, and how little it loads."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

import lake
from sennit_core.testing import import_graph

MODULES = sorted(module.name for module in pkgutil.walk_packages(lake.__path__, "lake."))


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.slow
def test_the_import_and_the_lake_itself_load_no_engine() -> None:
    loaded = modules_loaded_by("import lake; lake.Lake; lake.PartStore; import lake.routes")

    assert not loaded & {"pyarrow", "duckdb", "numpy", "pandas", "ray", "sqlglot"}
    assert not loaded & {"websockets", "cryptography"}, "of the extras peers and encryption"


@pytest.mark.slow
def test_ingest_loads_no_duckdb() -> None:
    loaded = modules_loaded_by("import lake.ingest.worker")

    assert "duckdb" not in loaded


def test_the_facade_is_sorted_and_whole() -> None:
    assert lake.__all__ == sorted(lake.__all__)
    assert all(getattr(lake, name).__name__ == name for name in lake.__all__)
    with pytest.raises(AttributeError, match="no attribute 'pond'"):
        lake.pond  # noqa: B018


@pytest.mark.parametrize("name", MODULES)
def test_exports_exist(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])

    assert all(hasattr(module, each) for each in exported)
    assert len(exported) == len(set(exported))


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_ring() -> None:
    TopologicalSorter(import_graph(lake)).prepare()  # raises CycleError, which names the ring
