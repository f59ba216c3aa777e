"""Which part of a lake reads a file into a dataset: by the mode, and by the node that writes the dataset."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from lake.foreign_appends import SENT_MODES, ForeignAppends
from lake.upserts import Upserts

if TYPE_CHECKING:
    from lake.ingestor import Ingestor, IngestRequest
    from lake.lake import Lake
    from lake.writes import Writer
    from sennit_core.records import DatasetInfo

__all__ = ["Ingests"]


class Ingests:
    """Reads files into datasets.

    Args:
        lake: The datasets.
        ingestor: Reads files into datasets of this node.
        writer: Has the staging folder.
    """

    def __init__(self, lake: Lake, ingestor: Ingestor, writer: Writer) -> None:
        self._lake = lake
        self._ingestor = ingestor
        self._writer = writer

    @cached_property
    def _upserts(self) -> Upserts:
        lake = self._lake
        return Upserts(lake.catalog, self._ingestor, self._writer, lake.statements, lake.vault)

    @cached_property
    def foreign(self) -> ForeignAppends:
        """Sends rows to the writers of datasets."""
        lake = self._lake
        return ForeignAppends(
            self._ingestor, self._writer, lake.statements, lake.objects, lake.retention, lake.remote
        )

    def read(self, request: IngestRequest, **observers: Any) -> DatasetInfo:
        """Ingest a file; blocks until it is committed, here or by the writer of its dataset."""
        lake = self._lake
        target = lake.catalog.find(request.dataset_name) if request.mode in SENT_MODES else None
        if target is not None and target.node and lake.remote.accepts_changes(target.id):
            self.foreign.append(request, target, **observers)
            return lake.catalog.get(target.id)
        reader = self._upserts if request.mode == "upsert" else self._ingestor
        return reader.ingest(request, **observers)
