"""The façade: what it exports and what it costs to import."""

from __future__ import annotations

import subprocess
import sys

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


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        elkyn.colour  # noqa: B018
