"""Import optional packages that are not installed with Sennit."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

from sennit_core.errors import Unsupported

__all__ = ["MissingPackage", "import_optional"]


@dataclass(eq=False)
class MissingPackage(Unsupported, ImportError):
    """A package is not installed; the message has the command that installs it."""

    code = "missing-package"
    message: str = field(default="", kw_only=True)
    package: str
    needed_for: str

    def describe(self) -> str:
        """Name the package, the feature that needs it, and this interpreter's install command."""
        command = f"{shlex.quote(sys.executable or 'python')} -m pip install {self.package}"
        return f"{self.needed_for} needs {self.package}, which is not installed; run: {command}"


def import_optional(package: str, needed_for: str) -> ModuleType:
    """Import a package that may be missing.

    Args:
        package: Its name, the same for pip.
        needed_for: The feature that needs it, such as ".df()".

    Raises:
        MissingPackage: It is not installed. An installed package that fails raises its own error.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingPackage(package, needed_for) from None
