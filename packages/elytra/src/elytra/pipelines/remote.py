"""`Elytra(url).remote(name)` and `Elytra.local()`: the entry points of pipelines."""

from __future__ import annotations

import os
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from elytra.client.client import Client, Uploaded
from elytra.pipelines.pipeline import Pipeline
from sennit_core.errors import NotFound
from sennit_core.ids import is_id

if TYPE_CHECKING:
    from elytra.local.session import LocalElytra


class Elytra:
    """A node on which pipelines run.

    Args:
        node: The node's address, or a `Client`; the variable SENNIT_URL by default.
        token: The node's token; the variable SENNIT_TOKEN by default.
        options: More arguments of `Client`.
    """

    def __init__(
        self, node: str | Client | None = None, token: str | None = None, **options: Any
    ) -> None:
        self.client = node if isinstance(node, Client) else Client(node, token, **options)

    @staticmethod
    def local(
        mem_cap: str | int | None = None, spill_dir: str | os.PathLike[str] | None = None
    ) -> LocalElytra:
        """Open a session of pipelines on this machine, without a node, under a memory cap.

        Args:
            mem_cap: The most memory that the process of one run may use, such as "256MiB".
            spill_dir: The folder of temporary files.
        """
        from elytra.local.session import LocalElytra

        return LocalElytra(mem_cap, spill_dir)

    def remote(
        self,
        dataset: str | Uploaded,
        snapshot: str | None = None,
        *,
        version: int | str | None = None,
        timestamp: datetime | str | None = None,
    ) -> Pipeline:
        """Begin a pipeline over a dataset or view of the node.

        Args:
            dataset: Its id or name, looked up when the pipeline runs; or an upload, or its id:
                then this waits until the upload has become a dataset.
            snapshot: The id of one snapshot; the newest by default. Of this and the next two, one
                may be set.
            version: The number of a version, or its tag, as in SQL's `AT (VERSION => 3)`.
            timestamp: The newest version of then; a time without a zone is in UTC.
        """
        name = self._dataset_of(dataset)
        return Pipeline.over(self.client, name, snapshot, version=version, timestamp=timestamp)

    def _dataset_of(self, named: str | Uploaded) -> str:
        """Return the id or name of a dataset; that of an upload once its ingest is done."""
        if isinstance(named, str):
            if not is_id(named):
                return named
            try:
                return self.client.dataset(named).id
            except NotFound:
                pass
            try:
                # Completing an upload again is allowed, and returns its dataset and job.
                named = self.client.complete_upload(named)
            except NotFound:  # neither: the pipeline raises that there is no such dataset
                return str(named)
        named.job.wait()
        return named.dataset_id

    def close(self) -> None:
        """Close the connections to the node."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
