"""A package that is not installed is named, with the command that installs it."""

import sys
from pathlib import Path

import pytest

from sennit_core.errors import Unsupported, error_from_json
from sennit_core.optional import MissingPackage, import_optional


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my python/bin/python")
    with pytest.raises(MissingPackage) as caught:
        import_optional("no_such_package", ".df()")

    assert str(caught.value) == (
        ".df() needs no_such_package, which is not installed; "
        "run: '/opt/my python/bin/python' -m pip install no_such_package"
    )
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, Unsupported)
    assert isinstance(error_from_json(caught.value.to_json()), MissingPackage)


def test_a_package_that_fails_on_its_own_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import something_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        import_optional("broken_package", ".df()")


def test_an_installed_package_is_returned() -> None:
    assert import_optional("json", "nothing").dumps([1]) == "[1]"
