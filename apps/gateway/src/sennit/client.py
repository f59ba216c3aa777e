"""The façade's session: one object for everything a node does, over its public HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from elytra.client import Client
from sennit.find import find_node

if TYPE_CHECKING:
    import pyarrow as pa

    from elytra.job import Job
    from elytra.pipeline import Pipeline
    from elytra.result import Result
    from lake.scrub import ScrubReport
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

        Raises:
            BadInput: the file breaks its format; the error names line and byte offset.
            Conflict: the name is taken and `mode` is `create`.
        """
        from elytra.uploads.sender import SendOptions

        sending = SendOptions(mode=mode, ingest=options or None)
        uploaded = self._client.upload(
            path, name=name or Path(path).name, options=sending, on_progress=on_progress
        )
        uploaded.job.wait()
        return self._client.dataset(uploaded.dataset_id)

    def sql(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        engine: str = "auto",
    ) -> Result:
        """Ask a question; the answer has `.to_arrow() .df() .pl() .rows`.

        Args:
            query: one reading statement.
            params: values for `?` and `$1` in order, or for `$name` by name.
            engine: `duckdb`, `emsqrt`, or `auto`: DuckDB, and EM-√ where that runs out of memory.
                `.manifest["engine"]` tells who answered.
        """
        given = list(params) if params is not None and not isinstance(params, Mapping) else params
        return self._client.sql(query, given, engine=engine)

    def iter_sql(
        self, query: str, *, engine: str = "auto"
    ) -> AbstractContextManager[Iterator[pa.RecordBatch]]:
        """Open an answer as a stream of Arrow batches, so that it may exceed memory."""
        return self._client.iter_sql(query, engine=engine)

    def pipeline(self, dataset: str) -> Pipeline:
        """Start a pipeline over a dataset, by id or name."""
        from elytra.pipeline import Pipeline

        return Pipeline.over(self._client, dataset)

    def submit(self, plan: Mapping[str, Any], **options: Any) -> Job:
        """Start a job from a plan's JSON form; `options` are `engine` and `memCap`."""
        return self._client.submit(plan, **options)

    def datasets(self) -> list[DatasetInfo]:
        """Every dataset this session may see."""
        return self._client.datasets()

    def dataset(self, name: str) -> DatasetInfo:
        """One dataset, by id or name."""
        return self._client.dataset(name)

    def verify(
        self,
        dataset: str | None = None,
        *,
        repair: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> ScrubReport:
        """Let the node read a dataset, or all, from its disk and compare every byte with its hash.

        Args:
            dataset: an id or name; every dataset when left out.
            repair: repair what is damaged; refused until there are copies on other nodes.
            on_progress: called with (bytes read, bytes in all).

        Returns:
            What was read; `.findings` says what is damaged, and is empty when nothing is.
        """
        return self._client.verify(dataset, repair=repair, on_progress=on_progress)

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
        return self._client.get(path, namespace=self._namespace)

    def set(self, path: str, value: Any) -> None:
        """Replace what is at `path`."""
        self._client.set(path, value, namespace=self._namespace)

    def watch(self, path: str) -> Iterator[Any]:
        """The value at `path` now, and again after every change; reconnects by itself."""
        return self._client.watch(path, namespace=self._namespace)
