"""Methods that are planned but not implemented in this version."""

from __future__ import annotations

from typing import NoReturn

from sennit_core.errors import Unsupported

PLANNED = {
    "save_as": "write_parquet(path), then upload the file",
}
"""Each planned method and its current alternative; `docs/not-yet.md` has the reasons."""


class PlannedVerb(Unsupported, AttributeError):
    """A planned method was used; also an AttributeError, so that `hasattr` returns False."""


class Planned:
    """Raises `PlannedVerb` when a planned method is used."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        if name in PLANNED:
            raise PlannedVerb(
                f"{type(self).__name__}.{name} is planned and not in this version",
                hint=PLANNED[name],
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
