"""The types and helpers that all Sennit packages share: schema, records, errors, units, ids, logs.

Layering: this package imports nothing but the standard library, and every other package may import
it. Submodules load on first use, so `import sennit_core` costs next to nothing; inside it,
`text` and `errors` are the lowest layer, then `units`, `clock`, `hashing`, `schema`, `records`.
"""

__all__ = [
    "__version__",
    "arrow_ipc",
    "arrow_messages",
    "canonical",
    "clock",
    "errors",
    "extras",
    "file_kinds",
    "hashing",
    "ids",
    "logs",
    "optional",
    "ownership",
    "private_files",
    "records",
    "records_ts",
    "roles",
    "schema",
    "scrub_reports",
    "settings",
    "states",
    "testing",
    "text",
    "type_names",
    "units",
]


def __getattr__(name: str) -> object:
    """Load a submodule, or read the version, when it is first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("sennit-core")
    if name in __all__:
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
