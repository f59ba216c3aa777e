"""The client of a node: uploads, SQL, jobs and the realtime tree over HTTP.

Synchronous and safe to share between threads. The command line and `import sennit` are built on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

from elytra.client.arrow_stream import open_batches, read_table
from elytra.client.bundle_client import BundleClient
from elytra.client.cleanup_client import CleanupClient
from elytra.client.job_handle import Job
from elytra.client.job_requests import JobRequests
from elytra.client.network_client import NetworkClient
from elytra.client.result import Result
from elytra.client.sse import watched_values
from elytra.client.transport import ARROW, Transport
from elytra.client.upload_progress import OnProgress
from elytra.client.upload_sender import SendOptions, send_file
from elytra.client.workers_client import WorkersClient
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import SennitError, Unavailable, UsageError, error_from_json
from sennit_core.records import DatasetInfo, SnapshotInfo

if TYPE_CHECKING:
    import pyarrow as pa

    from sennit_core.scrub_reports import ScrubReport

_KEEP_ALIVE_SECONDS = 75.0
_FIRST_WAIT_SECONDS = 1.0  # for a short job; Ctrl-C and the job's id must not wait long
_QUERY_SECONDS = 3600.0  # the node enforces its own limit and reports when a query exceeds it


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A completed upload: the id of the new dataset and the job that creates it."""

    dataset_id: str
    job: Job


@dataclass(frozen=True, slots=True)
class LinkedFile:
    """A file that the node reads where it is.

    Args:
        dataset_id: Its dataset.
        job: The job that ingests it; None if it is only linked.
        reason: Why it is ingested before it can be queried; None if it can be queried now.
    """

    dataset_id: str
    job: Job | None
    reason: str | None


class Client(JobRequests):
    """A client of one node.

    Args:
        url: The node's address; the variable SENNIT_URL by default.
        token: The node's token; the variable SENNIT_TOKEN by default.
        timeout_seconds: Longest time without data from the node within one request.
        retry_seconds: How long a request is retried while the node is unreachable or busy;
            uploads have their own limit (`SendOptions.retry_seconds`).
        clock: Source of time; tests inject one.

    Raises:
        UsageError: The address is missing or is not a URL.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_seconds: float = 60.0,
        retry_seconds: float = 3.0,
        clock: Clock = SYSTEM,
    ) -> None:
        address = url or os.environ.get("SENNIT_URL")
        if not address:
            raise UsageError(
                "the node's address is missing",
                hint="pass url=..., or set SENNIT_URL=http://127.0.0.1:8600",
            )
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._transport = Transport(
            address,
            token or os.environ.get("SENNIT_TOKEN"),
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
            clock=clock,
        )

    @property
    def url(self) -> str:
        """The node's address."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections to the node."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Uploads

    def upload(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        parallel: int | None = None,
        options: SendOptions | None = None,
        on_progress: OnProgress | None = None,
    ) -> Uploaded:
        """Upload a file in parallel parts; an interrupted upload of the same file is resumed.

        Args:
            path: The file.
            name: The file name shown on the node; the dataset is named after it.
            parallel: Number of parts sent concurrently; None for that of the options.
            options: Parallelism, part size, resumption, and how the file is read.
            on_progress: Called with (bytes done, bytes total); never exceeds the total. `with_rate`
                makes one of a callback that shows the rate and the time left too.

        Returns:
            The new dataset's id and the job that creates it; `uploaded.job.wait()` waits for it.

        Raises:
            SennitError: The node's error; Unavailable when the node stays unreachable.
        """
        file, options = Path(path), options or SendOptions()
        if parallel is not None:
            options = replace(options, parallel=parallel)
        name = name or file.name
        upload_id = send_file(self._transport, file, name, options, on_progress)
        try:
            return self.complete_upload(upload_id)
        except SennitError as error:
            if error.code != "upload-incomplete" or not options.resume:
                raise
            # Completing found parts that were damaged on the node's disk, of this upload or of the one that
            # they were taken from. It resumes without them.
            resumed = replace(options, reuse=False)
            return self.complete_upload(
                send_file(self._transport, file, name, resumed, on_progress)
            )

    def complete_upload(self, upload_id: str) -> Uploaded:
        """Complete an upload after all parts have been sent, so that the node ingests it."""
        answer = self._transport.json(
            "POST", f"/api/uploads/{quote(upload_id)}/complete", repeatable=True
        )
        return Uploaded(answer["datasetId"], self.job(answer["jobId"]))

    def link(
        self,
        path: str | os.PathLike[str],
        *,
        mode: str = "create",
        ingest: Mapping[str, Any] | None = None,
        only: bool = False,
    ) -> LinkedFile:
        """Let the node read a file where it is, instead of sending it.

        Args:
            path: The file, on the node's machine.
            mode: `create`, `append` or `replace`.
            ingest: Options for reading the file.
            only: Whether the file is never ingested.

        Raises:
            Denied: The node is another machine, the token is not the data folder's own, or the node
                cannot read the file; uploading it may work.
            Unsupported: `only` was asked for, and the file must be ingested.
        """
        file = Path(path).resolve()
        status = file.stat()
        document = {
            "path": str(file),
            "file": {
                "inode": str(status.st_ino),
                "size": str(status.st_size),
                "mtimeNs": str(status.st_mtime_ns),
            },
            "mode": mode,
            "options": dict(ingest or {}),
            "only": only,
        }
        answer = self._transport.json("POST", "/api/link", document)
        job_id = answer["jobId"]
        job = None if job_id is None else self.job(job_id)
        return LinkedFile(answer["datasetId"], job, answer["reason"])

    def paths(self, id_or_name: str) -> list[str]:
        """Return the paths of a dataset's files on the node's machine; for its owner only."""
        path = f"/api/datasets/{quote(id_or_name, safe='')}/paths"
        return list(self._transport.json("GET", path)["paths"])

    # Running queries

    def queries(self) -> list[dict[str, Any]]:
        """Return the queries that run or are queued: the token's own; all for an admin."""
        return list(self._transport.json("GET", "/api/queries"))

    def stop_query(self, query_id: str) -> None:
        """Stop a running query; NotFound when it has ended."""
        self._transport.request("DELETE", f"/api/queries/{quote(query_id, safe='')}")

    # Access policies

    def policy(self, dataset: str) -> dict[str, Any]:
        """Return the access policy of a dataset, by id or name; `rules` is None if it has none."""
        return dict(self._transport.json("GET", _policies(dataset)))

    def set_policy(self, dataset: str, rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Replace the access policy of a dataset; each rule as in `docs/access.md`."""
        body = {"rules": [dict(rule) for rule in rules]}
        return dict(self._transport.json("PUT", _policies(dataset), document=body))

    def clear_policy(self, dataset: str) -> bool:
        """Remove the access policy of a dataset; return whether it had one."""
        return bool(self._transport.json("DELETE", _policies(dataset))["deleted"])

    # Maintenance

    def maintenance(self) -> list[dict[str, Any]]:
        """Return the tasks of the node's maintenance, and when each ran and will run."""
        return list(self._transport.json("GET", "/api/maintenance"))

    def run_maintenance(self, task: str) -> str:
        """Let the node run a task next; return the job's id. Needs an admin."""
        path = f"/api/maintenance/{quote(task, safe='')}"
        return str(self._transport.json("POST", path)["jobId"])

    def purge(
        self, dataset: str, where: str, params: list[Any] | dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Remove rows from every version of a dataset; needs its owner or an admin."""
        path = f"/api/datasets/{quote(dataset, safe='')}/purge"
        body = {"where": where, "params": params}
        return dict(self._transport.json("POST", path, document=body))

    def retention(self, dataset: str) -> dict[str, Any]:
        """Return the rule by which the versions of a dataset expire."""
        return dict(self._transport.json("GET", _retention(dataset)))

    def set_retention(
        self, dataset: str, *, keep: int, older_than_seconds: float = 0.0
    ) -> dict[str, Any]:
        """Keep the newest versions of a dataset, and those that were replaced recently."""
        body = {"keep": keep, "olderThanSeconds": older_than_seconds}
        return dict(self._transport.json("PUT", _retention(dataset), document=body))

    def clear_retention(self, dataset: str) -> dict[str, Any]:
        """Remove the rule of a dataset; return the node's, which applies now."""
        return dict(self._transport.json("DELETE", _retention(dataset)))

    # Quotas and storage

    def quotas(self) -> list[dict[str, Any]]:
        """Return the quotas of users, with what each stores; needs an admin."""
        return list(self._transport.json("GET", "/api/quotas"))

    def quota(self, user: str) -> dict[str, Any]:
        """Return the quota of a user, 0 for no limit: one's own, or any for an admin."""
        return dict(self._transport.json("GET", _quota(user)))

    def set_quota(self, user: str, limits: Mapping[str, int]) -> dict[str, Any]:
        """Set the quota of a user; `limits` as in `docs/limits.md`. Needs an admin."""
        return dict(self._transport.json("PUT", _quota(user), document=dict(limits)))

    def clear_quota(self, user: str) -> bool:
        """Remove the quota of a user; return whether there was one."""
        return bool(self._transport.json("DELETE", _quota(user))["deleted"])

    def storage(self) -> dict[str, Any]:
        """Return what each dataset stores, and what maintenance can free."""
        return dict(self._transport.json("GET", "/api/stats/storage"))

    @property
    def bundles(self) -> BundleClient:
        """Datasets in encrypted files of the node's machine."""
        return BundleClient(self._transport)

    @property
    def cleanup(self) -> CleanupClient:
        """The cleanup of datasets that nobody uses."""
        return CleanupClient(self._transport)

    @property
    def network(self) -> NetworkClient:
        """The network that the node belongs to."""
        return NetworkClient(self._transport)

    @property
    def workers(self) -> WorkersClient:
        """The workers that compute for the node from elsewhere."""
        return WorkersClient(self._transport)

    # Datasets and queries

    def datasets(self) -> list[DatasetInfo]:
        """Return all datasets that the token may read."""
        return [
            DatasetInfo.from_known(item) for item in self._transport.json("GET", "/api/datasets")
        ]

    def views(self) -> list[dict[str, Any]]:
        """Return the views that the token may use, as GET /api/views does."""
        return list(self._transport.json("GET", "/api/views"))

    def dataset(self, id_or_name: str) -> DatasetInfo:
        """Return one dataset; NotFound suggests the nearest name."""
        answer = self._transport.json("GET", f"/api/datasets/{quote(id_or_name, safe='')}")
        return DatasetInfo.from_known(answer)

    def ingest_report(self, id_or_name: str) -> dict[str, Any]:
        """Return how a dataset's newest data was read: detected format, widened columns."""
        answer = self._transport.json("GET", f"/api/datasets/{quote(id_or_name, safe='')}")
        return dict(answer.get("ingest") or {})

    def snapshots(self, id_or_name: str) -> list[SnapshotInfo]:
        """Return the snapshots of a dataset, newest first, without their shards."""
        path = f"/api/datasets/{quote(id_or_name, safe='')}/snapshots"
        return [SnapshotInfo.from_known(item) for item in self._transport.json("GET", path)]

    def delete(self, id_or_name: str) -> None:
        """Delete a dataset."""
        self._transport.request("DELETE", f"/api/datasets/{quote(id_or_name, safe='')}")

    def verify(
        self,
        id_or_name: str | None = None,
        *,
        repair: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> ScrubReport:
        """Make the node read a dataset, or all, from disk and compare every byte with its hash.

        Args:
            id_or_name: The dataset; None is every dataset.
            repair: Repair what is damaged; refused until there are copies on other nodes.
            on_progress: Called with (bytes read, bytes total).

        Returns:
            What was read; `findings` lists the damage.

        Raises:
            NotFound: There is no such dataset.
            Unsupported: `repair` was asked for.
        """
        from sennit_core.scrub_reports import ScrubReport

        document = {"dataset": id_or_name, "repair": repair}
        report = None
        with self._transport.stream("POST", "/api/verify", document=document) as response:
            for line in response.iter_lines():
                document = json.loads(line)
                if "code" in document:
                    raise error_from_json(document)
                report = ScrubReport.from_known(document)
                if on_progress is not None:
                    on_progress(report.bytes_done, report.bytes_total)
        if report is None or not report.done:
            raise Unavailable("the node (its response ended early)", hint="run verify again")
        return report

    def sql(
        self,
        query: str,
        params: list[Any] | Mapping[str, Any] | None = None,
        *,
        use_cache: bool = True,
        **options: Any,
    ) -> Result:
        """Run a SQL query and read the whole result.

        Args:
            query: One SELECT (or WITH, SHOW TABLES, DESCRIBE, EXPLAIN, SUMMARIZE).
            params: Values of its placeholders.
            use_cache: Whether the node may answer from its result cache; `manifest["cache"]` is
                "hit" if it did.
            options: More members of the request, such as `engine`: "auto", "duckdb", "emsqrt", "ray".
                The result's `manifest["engine"]` is the engine that ran the query. With
                `allowPartial`, shards may be left out that no node has which can be reached;
                `manifest["missing"]` then says what. With `queue`, an INSERT into a dataset of
                another node waits if that is away; `manifest["queued"]` then is its id.

        Raises:
            SqlError: The query does not parse; the error holds the position.
            Unsupported: The requested engine does not support the query.
        """
        with self._query(query, params, options, use_cache=use_cache) as response:
            table = read_table(response.iter_bytes())
            found = {name: response.headers.get(f"Sennit-{name}") for name in ("Engine", "Cache")}
            manifest: dict[str, Any] = {k.lower(): value for k, value in found.items() if value}
            missing = response.headers.get("Sennit-Missing")
            if missing is not None:
                manifest["missing"] = json.loads(missing)
            if (awaited := response.headers.get("Sennit-Awaited-Version")) is not None:
                manifest["awaitedVersion"] = int(awaited)
            if (queued := response.headers.get("Sennit-Queued")) is not None:
                manifest["queued"] = queued
            return Result(table, manifest)

    @contextmanager
    def iter_sql(
        self,
        query: str,
        params: list[Any] | Mapping[str, Any] | None = None,
        *,
        use_cache: bool = True,
        **options: Any,
    ) -> Iterator[Iterator[pa.RecordBatch]]:
        """Open a query's result as a stream of batches; arguments as in `sql`."""
        with self._query(query, params, options, use_cache=use_cache) as response:
            yield open_batches(response.iter_bytes())

    def _query(self, query: str, params: Any, options: dict[str, Any], *, use_cache: bool) -> Any:
        control = {} if use_cache else {"Cache-Control": "no-cache"}
        document = {"sql": query, **({} if params is None else {"params": params}), **options}
        return self._transport.stream(
            "POST",
            "/api/query",
            headers={"Accept": ARROW, **control},
            document=document,
            timeout_seconds=_QUERY_SECONDS,
        )

    # The realtime tree

    def get(self, path: str, *, namespace: str = "default") -> Any:
        """Return the value at a path of the realtime tree, None when there is none."""
        return self._transport.json("GET", _tree(path, namespace))

    def set(self, path: str, value: Any, *, namespace: str = "default") -> None:
        """Replace the value at a path of the realtime tree; None deletes it."""
        if value is None:
            self._transport.request("DELETE", _tree(path, namespace))
        else:
            self._transport.request("PUT", _tree(path, namespace), document=value)

    def watch(self, path: str, *, namespace: str = "default") -> Iterator[Any]:
        """Yield the value at a path immediately and after each change; reconnect automatically.

        Raises:
            SennitError: The node's error; Unavailable when the node stays unreachable.
        """
        headers = {"Accept": "text/event-stream"}
        patience = self._clock.monotonic() + self._retry_seconds
        while True:
            try:
                with self._transport.stream(
                    "GET",
                    _tree(path, namespace),
                    headers=headers,
                    timeout_seconds=_KEEP_ALIVE_SECONDS,
                ) as response:
                    for value in watched_values(response):
                        yield value
                        patience = self._clock.monotonic() + self._retry_seconds
            except Unavailable:
                if self._clock.monotonic() > patience:
                    raise
            self._clock.sleep(0.2)

    def python_functions(self) -> dict[str, Any]:
        """Return whether pipelines of this user may have Python functions: `allowed`, `reason`, `limits`."""
        answer: dict[str, Any] = self._transport.json("GET", "/api/plans/functions")
        return answer

    def stats(self) -> dict[str, Any]:
        """Return the node's statistics: memory, executors, uptime."""
        answer: dict[str, Any] = self._transport.json("GET", "/api/stats")
        return answer


def _tree(path: str, namespace: str) -> str:
    return f"/{quote(path.strip('/'))}.json?{urlencode({'ns': namespace})}"


def _quota(user: str) -> str:
    return f"/api/quotas/{quote(user, safe='')}"


def _retention(dataset: str) -> str:
    return f"/api/datasets/{quote(dataset, safe='')}/retention"


def _policies(dataset: str) -> str:
    return f"/api/datasets/{quote(dataset, safe='')}/policies"
