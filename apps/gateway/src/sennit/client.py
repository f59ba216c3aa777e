"""The façade's session: one object for everything a node does, over its public HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from elytra.client import Client
from sennit.find import find_node

if TYPE_CHECKING:
    from elytra.client import Event, Job, Result
    from elytra.pipeline import Pipeline
    from sennit_core.records import DatasetInfo, JobInfo


class Session:
    """A connection to a node; made by `sennit.connect`, closed by `close` or leaving a `with`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.tree = Tree(client)

    @classmethod
    def open(cls, url: str | None, *, token: str | None, data: Path | None) -> Session:
        """Find the node and connect to it."""
        found_url, found_token = find_node(data, url)
        return cls(Client(found_url, token=token or found_token))

    @property
    def url(self) -> str:
        """The node's address."""
        return self._client.url

    def put(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        mode: str = "create",
        on_progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> DatasetInfo:
        """Upload a file in parallel parts, wait until it is ingested, and answer its dataset.

        Args:
            path: a CSV, TSV, Parquet, Arrow or JSON-lines file.
            name: the dataset's name; the file's stem when left out.
            mode: `create` refuses a name that is taken; `replace` and `append` add a snapshot.
            on_progress: called with (bytes sent, bytes in all).
            options: reading options, such as `delimiter`, `encoding`, `strict`.
        """
        return self._client.put(path, name, mode=mode, on_progress=on_progress, options=options)

    def sql(self, query: str, params: Sequence[Any] | None = None) -> Result:
        """Ask a question; the answer has `.to_arrow() .df() .pl() .rows`."""
        return self._client.sql(query, params)

    def pipeline(self, dataset: str) -> Pipeline:
        """Start a pipeline over a dataset, by id or name."""
        return self._client.pipeline(dataset)

    def sql_text(self, query: str, form: str) -> Iterator[str]:
        """The answer as text, piece by piece: `form` is `csv` or `json`."""
        return self._client.sql_text(query, form)

    def pipeline_from_plan(self, plan: dict[str, Any]) -> Pipeline:
        """Start a pipeline from a plan's JSON form."""
        return self._client.pipeline_from_plan(plan)

    def datasets(self) -> list[DatasetInfo]:
        """Every dataset this session may see."""
        return self._client.datasets()

    def dataset(self, name: str) -> DatasetInfo:
        """One dataset, by id or name."""
        return self._client.dataset(name)

    def jobs(self) -> list[JobInfo]:
        """The jobs the node remembers, the newest first."""
        return self._client.jobs()

    def delete(self, dataset: str) -> None:
        """Delete a dataset, by id or name."""
        self._client.delete(dataset)

    def job(self, job_id: str) -> Job:
        """A job by its id."""
        return self._client.job(job_id)

    def stats(self) -> dict[str, Any]:
        """The node's memory shares, executors and uptime."""
        return self._client.stats()

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Tree:
    """The realtime tree of the node's `default` namespace, and of others by name."""

    def __init__(self, client: Client, namespace: str = "default") -> None:
        self._client = client
        self._namespace = namespace

    def namespace(self, name: str) -> Tree:
        """The tree of another namespace; `sys` holds the platform's own state, read-only."""
        return Tree(self._client, name)

    def get(self, path: str) -> Any:
        """The value at `path`, or None."""
        return self._client.tree_get(path, self._namespace)

    def set(self, path: str, value: Any) -> None:
        """Replace what is at `path`."""
        self._client.tree_set(path, value, self._namespace)

    def watch(self, path: str) -> Iterator[Event]:
        """Every change at or below `path`, beginning with what is there now."""
        return self._client.tree_watch(path, self._namespace)
