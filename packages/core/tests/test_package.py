import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import sennit_core

MODULES = sorted(m.name for m in pkgutil.walk_packages(sennit_core.__path__, "sennit_core."))


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_import_loads_nothing_but_itself() -> None:
    assert modules_loaded_by("import sennit_core") <= {"sennit_core", "__future__"}


def test_modules_import_only_the_standard_library() -> None:
    with_arrow = ("sennit_core._arrow", "sennit_core.arrow_ipc")
    public = [name for name in MODULES if name not in with_arrow]
    loaded = modules_loaded_by("import " + ", ".join(public))
    tops = {name.partition(".")[0] for name in loaded}
    assert tops - sys.stdlib_module_names == {"sennit_core"}


def test_submodules_load_on_first_use() -> None:
    loaded = modules_loaded_by("import sennit_core; sennit_core.units.parse_bytes('1 kB')")
    assert "sennit_core.units" in loaded
    assert "sennit_core.schema" not in loaded


def test_version_is_the_distributions() -> None:
    assert sennit_core.__version__ == version("sennit-core")


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        sennit_core.colour  # noqa: B018


def test_facade_lists_exactly_the_public_modules() -> None:
    public = {name.removeprefix("sennit_core.") for name in MODULES}
    public = {name for name in public if "." not in name and not name.startswith("_")}
    assert sennit_core.__all__ == sorted(public | {"__version__"})
    assert set(sennit_core.__all__) <= set(dir(sennit_core))


@pytest.mark.parametrize("name", MODULES)
def test_exports_exist(name: str) -> None:
    module = importlib.import_module(name)
    assert all(hasattr(module, exported) for exported in module.__all__)
