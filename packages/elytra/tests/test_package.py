"""What `import elytra` exports, and what it costs."""

import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

import elytra
from sennit_core.testing import import_graph


def test_every_public_name_is_there_and_sorted() -> None:
    assert elytra.__all__ == sorted(elytra.__all__)
    for name in elytra.__all__:
        assert getattr(elytra, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(elytra, "nothing")


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "{'pyarrow', 'duckdb', 'fastapi', 'httpx', 'ray', 'lake', 'elkyn', 'numpy'}"
    code = f"import sys, elytra; print({heavy} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


@pytest.mark.slow
def test_the_client_needs_no_arrow_until_there_is_an_answer() -> None:
    code = "import sys; from elytra import Elytra, col; print({'pyarrow', 'fastapi', 'httpx', 'lake'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_ring() -> None:
    TopologicalSorter(import_graph(elytra)).prepare()  # raises CycleError, which names the ring
