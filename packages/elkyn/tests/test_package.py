"""The façade: what it exports and what it costs to import."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import elkyn


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


# `ElkynStore(mode="replica")` returns a subclass, whose module imports the store: the one ring.
SUBCLASS_OF_STORE = {"elkyn.replication.replica", "elkyn.replication.link"}


def modules() -> dict[str, Path]:
    source = Path(elkyn.__file__).parents[1]
    files = source.glob("elkyn/**/*.py")
    names = {".".join(file.relative_to(source).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imported(file: Path, known: dict[str, Path], *, types: bool = True) -> Iterator[str]:
    """Yield the modules that a file imports, also late; with `types` those for type checking too."""
    module = ast.parse(file.read_text())
    if not types:
        module.body = [node for node in module.body if not for_type_checking(node)]
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names)


def for_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def stated_layers(package: ModuleType) -> dict[str, int]:
    """Return the names in the statement "Layering: `a` < `b`, `c` < …" with their ranks."""
    text = " ".join((package.__doc__ or "").split())
    layers = text.partition("Layering: ")[2].partition(". ")[0].split(" < ")
    ranks: dict[str, int] = {}
    for rank, layer in enumerate(layers):
        ranks |= dict.fromkeys(re.findall(r"`([\w.]+)`", layer), rank)
    return {f"{package.__name__}.{name}": rank for name, rank in ranks.items()}


def rank_of(module: str, ranks: dict[str, int]) -> int | None:
    while module:
        if module in ranks:
            return ranks[module]
        module = module.rpartition(".")[0]
    return None


@pytest.mark.parametrize(("name", "least"), [("elkyn", 9), ("elkyn.server", 10)])
def test_no_module_imports_a_layer_above_it(name: str, least: int) -> None:
    known, ranks = modules(), stated_layers(importlib.import_module(name))
    assert len(set(ranks.values())) >= least
    assert ranks.keys() <= known.keys()
    upward = []
    for module, file in known.items():
        own = rank_of(module, ranks)
        for other in imported(file, known, types=False):
            above = rank_of(other, ranks)
            late = module == "elkyn.store" and other in SUBCLASS_OF_STORE
            if own is not None and above is not None and above > own and not late:
                upward.append(f"{module} imports {other}")
    assert not upward


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_ring() -> None:
    known = modules()
    graph = {name: set(imported(file, known)) - {name} for name, file in known.items()}
    graph["elkyn.store"] -= SUBCLASS_OF_STORE
    del graph["elkyn"]  # the façade, which imports on first access
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the ring


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        elkyn.colour  # noqa: B018
