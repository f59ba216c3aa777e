"""The command-line option `--type COLUMN=TYPE`, as the ingest option `columns`."""

from __future__ import annotations

from collections.abc import Iterable

from sennit_core.errors import UsageError

__all__ = ["parse_types"]


def parse_types(texts: Iterable[str]) -> dict[str, str]:
    """Parse `COLUMN=TYPE` texts; a name may contain `=`.

    Raises:
        UsageError: A text has no `=`, or no name before it.
    """
    found = {}
    for text in texts:
        name, sign, value = text.rpartition("=")
        if not sign or not name:
            raise UsageError(f"{text!r} is not COLUMN=TYPE", hint="write it like zip=Utf8")
        found[name] = value
    return found
