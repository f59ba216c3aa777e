"""The session of `sennit.connect`: all operations of a node, over its public HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from elytra.client.client import Client
from sennit.find import find_node

if TYPE_CHECKING:
    import pyarrow as pa

    from elytra.client.bundle_client import BundleClient
    from elytra.client.cleanup_client import CleanupClient
    from elytra.client.client import LinkedFile
    from elytra.client.ingest_report import IngestedDataset
    from elytra.client.job_handle import Job
    from elytra.client.network_client import NetworkClient
    from elytra.client.result import Result
    from elytra.client.workers_client import WorkersClient
    from elytra.pipelines.pipeline import Pipeline
    from sennit_core.records import DatasetInfo, JobInfo
    from sennit_core.scrub_reports import ScrubReport


class Session:
    """A connection to a node; created by `sennit.connect`, closed by `close` or a `with` block."""

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
    ) -> IngestedDataset:
        """Upload a file in parallel parts, wait until it is ingested, and return its dataset.

        Args:
            path: a CSV, TSV, JSON, JSON Lines, Parquet or Arrow file, compressed or not.
            name: the dataset's name; the file's stem by default.
            mode: `create` refuses an existing name; `replace` and `append` add a snapshot; so does
                `upsert`, which replaces the rows with an equal `key`, a list of columns.
            on_progress: called with (bytes sent, bytes total).
            options: reading options, such as `delimiter`, `encoding`, `date_order`, `strict`; and
                `queue=True`, to let an append wait if another node writes the dataset and is away.

        Returns:
            The dataset; its `ingest` describes how the file was read: format, delimiter, header,
            encoding, columns that were widened or renamed, and notes. Its `queued` is the id of an
            append that waits, whose rows the dataset does not have yet.

        Raises:
            UsageError: the path is not a regular file; nothing is sent.
            BadInput: the file is of a kind that holds no table (nothing is sent), or is malformed;
                the error names line and byte offset.
            Conflict: the dataset exists and `mode` is `create`.
        """
        from elytra.client.upload_sender import SendOptions
        from sennit_core.text import camel_case

        # The file's own name is sent too: its extension may determine the format.
        wire = {camel_case(key): value for key, value in options.items()}
        wire |= {} if name is None else {"name": name}
        sending = SendOptions(mode=mode, ingest=wire or None)
        uploaded = self._client.upload(path, options=sending, on_progress=on_progress)
        return self.ingested(uploaded.dataset_id, uploaded.job)

    def link(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        mode: str = "create",
        only: bool = False,
        **options: Any,
    ) -> LinkedFile:
        """Let a node on this machine read a file where it is; it can be queried at once.

        Needs the admin token of the node's data folder. The file is ingested in the background, and
        must not change until then.

        Args:
            path: the file.
            name: the dataset's name; the file's stem by default.
            mode: as for `put`; only a new dataset is linked, others are ingested from the file.
            only: whether the file is never ingested.
            options: reading options, as for `put`.

        Returns:
            The dataset's id, the job of the ingest (`.job.wait()`), and the `.reason` for which the
            file cannot be queried before that job is done, if there is one.

        Raises:
            Denied: the node is another machine, or cannot or may not read the file.
        """
        from sennit_core.text import camel_case

        wire = {camel_case(key): value for key, value in options.items()}
        wire |= {} if name is None else {"name": name}
        return self._client.link(path, mode=mode, ingest=wire, only=only)

    def ingested(self, dataset_id: str, job: Job) -> IngestedDataset:
        """Wait until a file is ingested, and return its dataset with the report of the ingest."""
        from elytra.client.ingest_report import IngestedDataset

        done = job.wait()
        document = self._client.dataset(dataset_id).to_json()
        # The job's report, not the dataset's: another upload may have replaced the dataset since.
        result = done.result or {}
        found = {name: result.get(name) for name in ("ingest", "queued")}
        return IngestedDataset.from_known(document | found)

    def paths(self, dataset: str) -> list[str]:
        """Return the paths of a dataset's files on the node's machine; for its owner only."""
        return self._client.paths(dataset)

    def sql(  # noqa: PLR0913 - independent options, all by keyword
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        engine: str = "auto",
        priority: str = "interactive",
        use_cache: bool = True,
        allow_partial: bool = False,
        queue: bool = False,
    ) -> Result:
        """Run a SQL statement; its result has `.to_arrow() .df() .pl() .rows`.

        Args:
            query: one statement.
            params: values for `?` and `$1` in order, or for `$name` by name.
            engine: `duckdb`, `emsqrt`, or `auto`: DuckDB, and EM-√ where that runs out of memory.
                `.manifest["engine"]` is the engine that ran the query.
            priority: `batch` waits while interactive statements do.
            use_cache: whether the node may answer from its result cache; `.manifest["cache"]` is
                `hit` if it did.
            allow_partial: whether a query may leave out shards that no node has which can be reached;
                `.manifest["missing"]` is there if it did, and says what.
            queue: whether an INSERT into a dataset that another node writes waits if that node is away;
                `.manifest["queued"]` is its id then, and `.network.queue()` lists it.
        """
        values = list(params) if params is not None and not isinstance(params, Mapping) else params
        options: dict[str, Any] = {"engine": engine, "priority": priority}
        if allow_partial:
            options["allowPartial"] = True
        if queue:
            options["queue"] = True
        return self._client.sql(query, values, use_cache=use_cache, **options)

    def iter_sql(
        self, query: str, *, engine: str = "auto"
    ) -> AbstractContextManager[Iterator[pa.RecordBatch]]:
        """Open a result as a stream of Arrow batches; it may be larger than memory."""
        return self._client.iter_sql(query, engine=engine)

    def pipeline(self, dataset: str, **place: Any) -> Pipeline:
        """Start a pipeline over a dataset or view.

        Args:
            dataset: Its id or name.
            place: `version=3`, a number or tag, or `timestamp=…`; the newest version by default.
        """
        from elytra.pipelines.pipeline import Pipeline

        return Pipeline.over(self._client, dataset, **place)

    def submit(self, plan: Mapping[str, Any], **options: Any) -> Job:
        """Start a job from a plan's JSON form; `options` are `engine` and `memCap`."""
        return self._client.submit(plan, **options)

    def datasets(self) -> list[DatasetInfo]:
        """Return all datasets that the token may read."""
        return self._client.datasets()

    def views(self) -> list[dict[str, Any]]:
        """Return the views: `name`, `sql`, `schema`, `owner` and `reads` of each."""
        return self._client.views()

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
        """Make the node read a dataset, or all, from disk and compare every byte with its hash.

        Args:
            dataset: an id or name; every dataset by default.
            repair: repair damage; refused until there are copies on other nodes.
            on_progress: called with (bytes read, bytes total).

        Returns:
            What was read; `.findings` lists the damage.
        """
        return self._client.verify(dataset, repair=repair, on_progress=on_progress)

    def queries(self) -> list[dict[str, Any]]:
        """Return the queries that run or are queued: your own; everybody's for an admin."""
        return self._client.queries()

    def stop_query(self, query_id: str) -> None:
        """Stop a running query, whose client gets an error."""
        self._client.stop_query(query_id)

    def policy(self, dataset: str) -> dict[str, Any]:
        """Return the access policy of a dataset; its `rules` are None if every reader may read it."""
        return self._client.policy(dataset)

    def set_policy(self, dataset: str, rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Replace the access policy of a dataset; needs its owner or an admin.

        Args:
            dataset: an id or name.
            rules: `{principal, read, write, rows, columns}` each; see docs/access.md.
        """
        return self._client.set_policy(dataset, rules)

    def clear_policy(self, dataset: str) -> bool:
        """Remove the access policy of a dataset; return whether it had one."""
        return self._client.clear_policy(dataset)

    def maintenance(self) -> list[dict[str, Any]]:
        """Return the tasks of the node's maintenance, and when each ran and will run."""
        return self._client.maintenance()

    def run_maintenance(self, task: str) -> JobInfo:
        """Run a task of maintenance, and wait for its end; needs an admin.

        Args:
            task: `scrub`, `compact`, `expire` or `sweep`.
        """
        return self.job(self._client.run_maintenance(task)).wait()

    def purge(
        self, dataset: str, where: str, params: list[Any] | dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Remove rows from every version of a dataset; needs its owner or an admin.

        Args:
            dataset: an id or name.
            where: the condition, as after WHERE.
            params: values for `?` or `$name` in it.
        """
        return self._client.purge(dataset, where, params)

    def retention(self, dataset: str) -> dict[str, Any]:
        """Return the rule by which the versions of a dataset expire; `keep` 0 keeps all."""
        return self._client.retention(dataset)

    def set_retention(
        self, dataset: str, *, keep: int, older_than_seconds: float = 0.0
    ) -> dict[str, Any]:
        """Let versions of a dataset expire: all but the newest, once they are old enough.

        Args:
            dataset: an id or name.
            keep: how many of the newest stay; 0 keeps all.
            older_than_seconds: only versions that something newer replaced so long ago.
        """
        return self._client.set_retention(dataset, keep=keep, older_than_seconds=older_than_seconds)

    def clear_retention(self, dataset: str) -> dict[str, Any]:
        """Remove the rule of a dataset; return the node's, which applies now."""
        return self._client.clear_retention(dataset)

    @property
    def network(self) -> NetworkClient:
        """The network that the node belongs to: who is in it, and how nodes come and go."""
        return self._client.network

    @property
    def workers(self) -> WorkersClient:
        """The workers that compute for the node from elsewhere."""
        return self._client.workers

    @property
    def bundles(self) -> BundleClient:
        """Datasets in encrypted files of this machine, for the owner of a node on it."""
        return self._client.bundles

    @property
    def cleanup(self) -> CleanupClient:
        """The cleanup of datasets that nobody uses: its plan, and the trash."""
        return self._client.cleanup

    def quotas(self) -> list[dict[str, Any]]:
        """Return the quotas of users, with what each stores; needs an admin."""
        return self._client.quotas()

    def quota(self, user: str) -> dict[str, Any]:
        """Return the quota of a user, 0 for no limit: one's own, or any for an admin."""
        return self._client.quota(user)

    def set_quota(self, user: str, limits: Mapping[str, int]) -> dict[str, Any]:
        """Set the quota of a user; needs an admin.

        Args:
            user: the name of the user's tokens.
            limits: `diskBytes`, `memoryBytes`, `statements`, `statementsPerMinute`, `jobWeight`.
        """
        return self._client.set_quota(user, limits)

    def clear_quota(self, user: str) -> bool:
        """Remove the quota of a user; return whether there was one."""
        return self._client.clear_quota(user)

    def storage(self) -> dict[str, Any]:
        """Return what each dataset stores, and what maintenance can free."""
        return self._client.storage()

    def jobs(self) -> list[JobInfo]:
        """Return the jobs that the node has on record, newest first."""
        return self._client.jobs()

    def delete(self, dataset: str) -> None:
        """Delete a dataset, by id or name."""
        self._client.delete(dataset)

    def job(self, job_id: str) -> Job:
        """Return the handle of a job."""
        return self._client.job(job_id)

    def stats(self) -> dict[str, Any]:
        """Return the node's memory limits and usage, executors and uptime."""
        return self._client.stats()

    def close(self) -> None:
        """Close the connection."""
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
        """Return the tree of another namespace; `sys` holds the platform's state, read-only."""
        return Tree(self._client, name)

    def get(self, path: str) -> Any:
        """The value at `path`, or None."""
        return self._client.get(path, namespace=self._namespace)

    def set(self, path: str, value: Any) -> None:
        """Replace what is at `path`."""
        self._client.set(path, value, namespace=self._namespace)

    def watch(self, path: str) -> Iterator[Any]:
        """Yield the value at `path` now and after every change; reconnect automatically."""
        return self._client.watch(path, namespace=self._namespace)
