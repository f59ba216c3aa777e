from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import emsqrt


@pytest.mark.parametrize("package", ["emsqrt", "emsqrt.executor", "emsqrt.io", "emsqrt.memory"])
def test_every_exported_name_is_there_and_sorted(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sort'"):
        emsqrt.sort  # noqa: B018
    assert set(emsqrt.__all__) <= set(dir(emsqrt))


def test_importing_the_package_loads_nothing_third_party() -> None:
    code = (
        "import sys\nbefore = {*sys.modules}\nimport emsqrt\n"
        "loaded = {name.partition('.')[0] for name in {*sys.modules} - before}\n"
        "print(sorted(loaded - {*sys.stdlib_module_names}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['emsqrt', 'sennit_core']"
