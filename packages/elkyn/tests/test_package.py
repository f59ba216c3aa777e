"""The façade: what it exports and what it costs to import."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

import elkyn
from sennit_core.testing import import_graph, imported_modules, module_files


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_import_loads_no_store() -> None:
    loaded = loaded_by("import elkyn")
    assert not loaded & {"lmdb", "ormsgpack", "asyncio", "elkyn.store", "sennit_core.logs"}


def test_the_server_loads_uvicorn_only_to_serve() -> None:
    assert "uvicorn" not in loaded_by("import elkyn.server.app, elkyn.cli")


def test_every_public_name_is_there_and_the_list_is_sorted() -> None:
    assert elkyn.__all__ == sorted(elkyn.__all__)
    assert {getattr(elkyn, name).__name__ for name in elkyn.__all__} == set(elkyn.__all__)


def test_a_store_has_few_verbs_and_leaves_the_rest_to_its_admin() -> None:
    verbs = {name for name in vars(elkyn.ElkynStore) if not name.startswith("_")}
    verbs = {name for name in verbs if callable(getattr(elkyn.ElkynStore, name))}
    assert len(verbs) <= 15, sorted(verbs)


STATES_LAYERS = (
    *("elkyn", "elkyn.auth", "elkyn.cli", "elkyn.replication", "elkyn.server"),
    *("elkyn.server.bodies", "elkyn.server.realtime", "elkyn.storage", "elkyn.store", "elkyn.tree"),
)


def stated_layers(name: str) -> Iterator[dict[str, int]]:
    """Yield the chains in "Layering: `a` < `b`, `c` < …; `d` < ….": modules with their ranks."""
    module = importlib.import_module(name)
    base = name if hasattr(module, "__path__") else name.rpartition(".")[0]
    words = " ".join((module.__doc__ or "").split()).partition("Layering: ")[2]
    for chain in re.sub(r" \([^)]*\)", "", words).partition(". ")[0].split("; "):
        layers = [re.findall(r"`([\w.]+)`", layer) for layer in chain.split(" < ")]
        if len(layers) > 1:
            yield {f"{base}.{name}": rank for rank, names in enumerate(layers) for name in names}


def rank_of(module: str, ranks: dict[str, int]) -> int:
    while module and module not in ranks:
        module = module.rpartition(".")[0]
    return ranks.get(module, -1)


@pytest.mark.parametrize("name", STATES_LAYERS)
def test_no_module_imports_a_layer_above_it(name: str) -> None:
    known = module_files(elkyn)
    chains = list(stated_layers(name))
    assert chains
    for ranks in chains:
        assert ranks.keys() <= known.keys()
        for module, file in known.items():
            own = rank_of(module, ranks)
            if own < 0:
                continue
            others = set(imported_modules(file, known, types=False))
            assert {other for other in others if rank_of(other, ranks) > own} == set()


def test_every_statement_of_layers_is_tested() -> None:
    stated = {
        name for name, file in module_files(elkyn).items() if "\nLayering: " in file.read_text()
    }
    assert stated == set(STATES_LAYERS)


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_ring() -> None:
    TopologicalSorter(import_graph(elkyn)).prepare()  # raises CycleError, which names the ring


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        elkyn.colour  # noqa: B018
