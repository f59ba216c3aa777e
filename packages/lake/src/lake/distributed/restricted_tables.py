"""Tables of statements whose rows are read at another node, as much as that lets the user see.

The rows are read anew for each statement, as a policy may have changed, and are removed with it. Nothing
keeps them for another user: no result cache, no copy.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from lake.distributed.remote_shards import RemoteShards, RestrictedColumns
from lake.encryption.vault import Hold, Vault
from lake.statements.limits import Requester
from sennit_core.errors import SennitError
from sennit_core.private_files import make_private_folder

__all__ = ["RestrictedReader"]


class RestrictedReader:
    """Reads tables for one statement.

    Args:
        remote: The network.
        vault: Has folders in memory.
        staging: Folder for rows.
    """

    def __init__(self, remote: RemoteShards, vault: Vault, staging: Path) -> None:
        self._remote = remote
        self._vault = vault
        self._staging = staging

    def describe(self, table: dict[str, Any], user: Requester) -> RestrictedColumns | None:
        """Set the columns of a table in the form of executor requests; None if that has an error."""
        try:
            seen = self._remote.restricted.describe(table["id"], table["writer"], user)
        except SennitError as error:
            # The statement may only mention a word that is the dataset's name.
            table["damage"] = error.to_json()
            return None
        del table["damage"]
        table |= {
            "schema": seen.columns.to_json(), "snapshot": seen.snapshot, "arrived": True,
            "encrypted": seen.secret, "paths": [],
        }  # fmt: skip
        return seen

    def hold(self, seen: RestrictedColumns, hold: Hold) -> Hold:
        """Return a statement's hold with a folder for rows, which is removed after the statement."""
        if seen.secret:
            return self._vault.in_memory(hold)
        if hold.arrived is not None:
            return hold
        folder = tempfile.mkdtemp(prefix="arrived-", dir=make_private_folder(self._staging))
        return replace(hold, arrived=Path(folder))

    def read(self, table: dict[str, Any], seen: RestrictedColumns, hold: Hold) -> None:
        """Read the rows of a table that was described."""
        folder = hold.folder if seen.secret else hold.arrived
        assert folder is not None, "`hold` was called"
        place = folder / f"{table['id']}.parquet"
        try:
            left = self._vault.cache.free_bytes if seen.secret else None
            self._remote.restricted.read(seen, place, left)
        except SennitError as error:
            table["damage"] = error.to_json()
        else:
            table["paths"] = [str(place)]
