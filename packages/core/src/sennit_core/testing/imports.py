"""Which modules of a package import which, read from the sources: also late, or for type checking.

A module that is imported at the top of one file and inside a function of another still ties the two
together, so tests of a package's layers look at every import statement, wherever it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

__all__ = ["import_graph", "imported_modules", "module_files"]


def module_files(package: ModuleType) -> dict[str, Path]:
    """Return the Python files of an imported package by the names of their modules."""
    folder = Path(package.__path__[0])
    source = folder.parents[package.__name__.count(".")]
    files = sorted(folder.rglob("*.py"))
    names = {".".join(file.relative_to(source).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imported_modules(file: Path, known: dict[str, Path], *, types: bool = True) -> Iterator[str]:
    """Yield the modules among `known` that a file imports by their full names.

    Args:
        file: the Python file.
        known: the modules of the package, from `module_files`.
        types: whether to include what is imported for type checking only.
    """
    for node in _statements(file, types=types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif node.module in known:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names)


def import_graph(package: ModuleType) -> dict[str, set[str]]:
    """Return for each module of a package the others that it imports, in whatever way.

    The package's own `__init__`, which imports what it exports, is left out. Pass the result to
    `graphlib.TopologicalSorter`: its `prepare` raises `CycleError`, which names a ring, if there is
    one.
    """
    known, facade = module_files(package), package.__name__
    graph = {name: {*imported_modules(file, known)} for name, file in known.items()}
    return {name: graph[name] - {name, facade} for name in graph if name != facade}


@cache
def _statements(file: Path, *, types: bool) -> list[ast.Import | ast.ImportFrom]:
    module = ast.parse(file.read_text(encoding="utf-8"))
    if not types:
        module.body = [node for node in module.body if not _is_for_type_checking(node)]
    return [node for node in ast.walk(module) if isinstance(node, ast.Import | ast.ImportFrom)]


def _is_for_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
