"""Import modules lazily, on first attribute access, to keep processes small.

This module must not import any of the modules that it makes lazy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

LAZY_MODULES = ("calendar", "hashlib", "inspect", "ipaddress", "shutil", "tempfile")
"""Modules of the standard library that others import at once and hardly ever use."""


class LazyModule(ModuleType):
    """A placeholder for a module that is imported on first attribute access."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


def import_lazily(names: tuple[str, ...] = LAZY_MODULES) -> None:
    """Replace modules that are not imported yet by placeholders that import them on first use.

    `dataclasses` alone imports `inspect`, the parser's tables and the tokenizer: 2 MiB of a cap.
    """
    for name in names:
        sys.modules.setdefault(name, LazyModule(name))


def load_untranslated(name: str) -> None:
    """Import a module whose messages have no translations, without importing `gettext`'s machinery.

    `gettext` imports `locale` to find the language: 600 KiB of a cap.
    """
    if name in sys.modules or "gettext" in sys.modules:
        return
    words = ModuleType("gettext")
    words.__dict__.update(
        gettext=lambda text: text,
        ngettext=lambda one, many, count: one if count == 1 else many,
    )
    sys.modules["gettext"] = words
    try:
        importlib.import_module(name)
    finally:
        del sys.modules["gettext"]
