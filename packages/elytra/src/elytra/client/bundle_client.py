"""Bundles of a node, over its HTTP API: datasets in one encrypted file on the node's machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.client.reports import last_report

if TYPE_CHECKING:
    from elytra.client.transport import Transport

__all__ = ["BundleClient"]


class BundleClient:
    """Exports and imports bundles; for the owner of a node on this machine, which reads the files.

    Args:
        transport: Sends the requests.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def export(
        self,
        datasets: Sequence[str],
        file: str | os.PathLike[str],
        passphrase: str,
        *,
        on_progress: Callable[[Mapping[str, Any]], object] = lambda report: None,
    ) -> dict[str, Any]:
        """Write the newest versions of datasets to a new file; return the last report.

        Args:
            datasets: Ids or names.
            file: The file, which must not exist.
            passphrase: Encrypts it, 12 characters or more.
            on_progress: Called with each report.

        Raises:
            Denied: The node is another machine, or the token is not the data folder's own.
            Conflict: There is a file.
            Unsupported: A dataset is encrypted or has an access policy.
        """
        document = {
            "datasets": list(datasets),
            "path": os.path.abspath(file),  # noqa: PTH100 - `resolve` would follow links
            "passphrase": passphrase,
        }
        return last_report(self._transport, "/api/bundles/export", document, on_progress)

    def load(
        self,
        file: str | os.PathLike[str],
        passphrase: str,
        *,
        on_progress: Callable[[Mapping[str, Any]], object] = lambda report: None,
    ) -> dict[str, Any]:
        """Import a bundle; return the last report, whose `datasets` are the names.

        Args:
            file: The file.
            passphrase: The one that it was exported with.
            on_progress: Called with each report.

        Raises:
            Denied: As `export`; the passphrase is another one; or a dataset is not shared with the node.
            Corrupt: The bundle is damaged.
            Conflict: The name of a new dataset is in use.
        """
        found = Path(file).resolve()
        status = found.stat()
        document = {
            "path": str(found),
            "file": {
                "inode": str(status.st_ino),
                "size": str(status.st_size),
                "mtimeNs": str(status.st_mtime_ns),
            },
            "passphrase": passphrase,
        }
        return last_report(self._transport, "/api/bundles/import", document, on_progress)
