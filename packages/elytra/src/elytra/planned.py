"""Verbs that the design names and this version does not have."""

from __future__ import annotations

from typing import NoReturn

from sennit_core.errors import Unsupported

PLANNED = {
    "flat_map": "explode(column) makes one row of each item of a list",
    "map_batches": "map(...) and expressions run at the shards",
    "save_as": "write_parquet(path), then upload the file",
}
"""Each verb, and what to do until it is there; `docs/not-yet.md` says why they wait."""


class PlannedVerb(Unsupported, AttributeError):
    """A verb that is planned; an AttributeError too, so that `hasattr` answers False."""


class Planned:
    """Names planned verbs when they are used."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        if name in PLANNED:
            raise PlannedVerb(
                f"{type(self).__name__}.{name} is planned and not in this version",
                hint=PLANNED[name],
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
