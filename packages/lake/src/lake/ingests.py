"""Which part of a lake reads a file into a dataset: by the mode, and by the node that writes the dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lake.distributed.foreign_appends import SENT_MODES

if TYPE_CHECKING:
    from lake.catalog.catalog import Catalog
    from lake.distributed.foreign_appends import ForeignAppends
    from lake.distributed.remote_shards import RemoteShards
    from lake.ingestor import Ingestor, IngestRequest
    from lake.writes.upserts import Upserts
    from sennit_core.records import DatasetInfo

__all__ = ["Ingests"]


class Ingests:
    """Reads files into datasets.

    Args:
        catalog: Knows the datasets.
        remote: Knows which writers make changes for users of this node.
        ingestor: Reads files into datasets of this node.
        upserts: Merges files into them.
        foreign: Sends rows to the writers of other datasets.
    """

    def __init__(
        self,
        catalog: Catalog,
        remote: RemoteShards,
        ingestor: Ingestor,
        upserts: Upserts,
        foreign: ForeignAppends,
    ) -> None:
        self._catalog = catalog
        self._remote = remote
        self._ingestor = ingestor
        self._upserts = upserts
        self._foreign = foreign

    def read(self, request: IngestRequest, **observers: Any) -> DatasetInfo:
        """Ingest a file; blocks until it is committed, here or by the writer of its dataset, or queued."""
        target = self._catalog.find(request.dataset_name) if request.mode in SENT_MODES else None
        if target is not None and target.node and self._remote.accepts_changes(target.id):
            self._foreign.append(request, target, **observers)
            return self._catalog.get(target.id)
        # It has no effect on datasets of this node.
        options = {name: value for name, value in request.options.items() if name != "queue"}
        request = replace(request, options=options)
        reader = self._upserts if request.mode == "upsert" else self._ingestor
        return reader.ingest(request, **observers)
