"""Tables of statements whose rows are read at another node, as much as that lets the user see.

The rows are read anew for each statement, as a policy may have changed, and are removed with it. Nothing
keeps them for another user: no result cache, no copy.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from lake.limits import Requester
from lake.remote_shards import RemoteShards
from lake.vault import Hold, Vault
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

    def read(self, table: dict[str, Any], hold: Hold, user: Requester, *, rows: bool) -> Hold:
        """Read a table; return the hold with what is to be removed after the statement.

        Args:
            table: In the form of executor requests; gets the columns, and a file of rows.
            hold: What the statement holds.
            user: The user.
            rows: Whether to read the rows.
        """
        try:
            seen = self._remote.restricted.describe(table["id"], table["writer"], user)
        except SennitError as error:
            # The statement may only mention a word that is the dataset's name.
            table["damage"] = error.to_json()
            return hold
        del table["damage"]
        table |= {
            "schema": seen.columns.to_json(), "snapshot": seen.snapshot, "arrived": True,
            "encrypted": seen.secret, "paths": [],
        }  # fmt: skip
        if seen.secret:
            hold = self._vault.in_memory(hold)
        if not rows:
            return hold
        hold = self._with_folder(hold)
        folder = hold.folder if seen.secret else hold.arrived
        assert folder is not None, "it was made"
        place = folder / f"{table['id']}.parquet"
        try:
            left = self._vault.cache.free_bytes if seen.secret else None
            self._remote.restricted.read(seen, place, left)
        except SennitError as error:
            table["damage"] = error.to_json()
        else:
            table["paths"] = [str(place)]
        return hold

    def _with_folder(self, hold: Hold) -> Hold:
        if hold.arrived is not None:
            return hold
        folder = tempfile.mkdtemp(prefix="arrived-", dir=make_private_folder(self._staging))
        return replace(hold, arrived=Path(folder))
