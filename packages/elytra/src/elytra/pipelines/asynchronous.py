"""`AsyncElytra`: pipelines and jobs for programs with an event loop.

The verbs that build a pipeline are recorded and applied when it runs: some of them ask the node
for columns, and no request may block the loop. What blocks runs on threads of `asyncio.to_thread`, in
requests of at most a second, so that a cancelled task ends soon and cancels its job.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from elytra.client.client import Client
from elytra.client.job_handle import Job, raise_if_failed
from elytra.client.result import Result
from elytra.pipelines.pipeline import Groups, Pipeline
from elytra.pipelines.remote import Elytra
from sennit_core.clock import SYSTEM
from sennit_core.errors import DeadlineExceeded, UsageError
from sennit_core.records import DatasetInfo, JobInfo, is_terminal
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from elytra.local.session import LocalElytra

_WAIT_SECONDS = 1.0
"""Of one request for the end of a job: a cancelled task leaves a thread for at most this time."""
_RUNNING = frozenset(
    {"collect", "df", "distribute", "explain", "iter_results", "pl", "save_as", "schema", "show"}
    | {"submit", "to_arrow", "to_pandas", "to_polars", "write_csv", "write_json", "write_parquet"}
)


class AsyncElytra:
    """A node, or a session of this machine, whose pipelines are awaited.

    Args:
        node: As of `Elytra`; or an open session of this machine.
        token: As of `Elytra`.
        options: As of `Elytra`.
    """

    def __init__(
        self,
        node: str | Client | LocalElytra | None = None,
        token: str | None = None,
        **options: Any,
    ) -> None:
        is_open = node is not None and not isinstance(node, str | Client)
        self._source: Any = node if is_open else Elytra(node, token, **options)  # type: ignore[arg-type]

    @classmethod
    def local(cls, mem_cap: str | int | None = None, spill_dir: Path | str | None = None) -> Self:
        """Open a session of this machine, as `Elytra.local`."""
        return cls(Elytra.local(mem_cap, spill_dir))

    def remote(
        self,
        dataset: str,
        snapshot: str | None = None,
        *,
        version: int | str | None = None,
        timestamp: datetime | str | None = None,
    ) -> AsyncPipeline:
        """Begin a pipeline over a dataset or view of the node, as `Elytra.remote`."""
        node = self._node("remote")
        return AsyncPipeline(
            lambda: node.remote(dataset, snapshot, version=version, timestamp=timestamp)
        )

    def dataset(self, data: Any, **options: Any) -> AsyncPipeline:
        """Begin a pipeline over data of this machine, as `LocalElytra.dataset`."""
        local = self._source
        if isinstance(local, Elytra):
            raise UsageError("dataset(...) reads data of this machine", hint="AsyncElytra.local()")
        return AsyncPipeline(lambda: local.dataset(data, **options))

    def job(self, job_id: str) -> AsyncJob:
        """Return the handle of a job of the node."""
        return AsyncJob(self._node("job").client.job(job_id))

    def _node(self, verb: str) -> Elytra:
        if not isinstance(self._source, Elytra):
            raise UsageError(f"{verb}(...) is for nodes", hint="AsyncElytra(url)")
        return self._source

    async def aclose(self) -> None:
        """Close the connections, or the session."""
        await asyncio.to_thread(self._source.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


@dataclass(frozen=True, slots=True)
class AsyncPipeline:
    """A pipeline whose verbs are those of `Pipeline`; mistakes in them are raised when it runs.

    Args:
        built: Returns the pipeline; may send requests.
    """

    built: Callable[[], Any]

    def __getattr__(self, name: str) -> Callable[..., AsyncPipeline]:
        kinds = (Pipeline, Groups)
        if name.startswith("_") or name in _RUNNING or not any(hasattr(k, name) for k in kinds):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def verb(*arguments: Any, **options: Any) -> AsyncPipeline:
            def build() -> Any:
                built = [a.built() if isinstance(a, AsyncPipeline) else a for a in arguments]
                return getattr(self.built(), name)(*built, **options)

            return AsyncPipeline(build)

        return verb

    async def submit(self, **options: Any) -> AsyncJob:
        """Start the job, as `Pipeline.submit`; a task that is cancelled meanwhile cancels it."""
        started = asyncio.ensure_future(asyncio.to_thread(lambda: self.built().submit(**options)))
        try:
            return AsyncJob(await asyncio.shield(started))
        except asyncio.CancelledError:
            # The request is on its way, and its job has no other handle.
            await AsyncJob(await started).cancel()
            raise

    async def collect(self, timeout_seconds: float | None = None, **options: Any) -> Result:
        """Run and return the result; a cancelled task or a timeout cancels the job.

        Args:
            timeout_seconds: How long to wait; None waits without a limit.
            options: As of `submit`.
        """
        job = await self.submit(**options)
        try:
            return await job.result(timeout_seconds)
        except (asyncio.CancelledError, DeadlineExceeded):
            await asyncio.shield(job.cancel())
            raise

    async def to_arrow(self) -> pa.Table:
        """Run and return the result as a pyarrow Table."""
        return (await self.collect()).to_arrow()

    async def iter_results(self, **options: Any) -> AsyncIterator[pa.RecordBatch]:
        """Run and yield the result batch by batch; it may be larger than memory."""
        job = await self.submit(**options)
        try:
            async for batch in job.iter_results():
                yield batch
        except asyncio.CancelledError:
            await asyncio.shield(job.cancel())
            raise

    async def save_as(self, name: str, mode: str = "create") -> DatasetInfo:
        """Run and save the rows as a dataset, as `Pipeline.save_as`."""
        job = await self.submit()
        await job.wait()
        return await asyncio.to_thread(job.sync.save_as, name, mode)

    async def schema(self) -> Schema:
        """Return the columns of the result."""
        found: Schema = await asyncio.to_thread(lambda: self.built().schema)
        return found

    async def explain(self) -> str:
        """Return the plan as text, as `Pipeline.explain`."""
        text: str = await asyncio.to_thread(lambda: self.built().explain())
        return text

    async def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local CSV file."""
        return await self._write("write_csv", path)

    async def write_json(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local JSON Lines file."""
        return await self._write("write_json", path)

    async def write_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local Parquet file."""
        return await self._write("write_parquet", path)

    async def _write(self, verb: str, path: str | os.PathLike[str]) -> Path:
        return await asyncio.to_thread(lambda: getattr(self.built(), verb)(path))


class AsyncJob:
    """A submitted job.

    Args:
        sync: The same job, for code that may block.
    """

    def __init__(self, sync: Job) -> None:
        self.sync = sync
        self.id = sync.id

    async def info(self) -> JobInfo:
        """Return the job's current record."""
        return await asyncio.to_thread(lambda: self.sync.info)

    async def watch(self) -> AsyncIterator[JobInfo]:
        """Yield the job's record now, and at least once a second until it has ended."""
        while True:
            info = await asyncio.to_thread(self.sync.info_within, _WAIT_SECONDS)
            yield info
            if is_terminal("job", info.state):
                return

    async def wait(self, timeout_seconds: float | None = None) -> JobInfo:
        """Wait until the job is done; raises as `Job.wait`."""
        until = None if timeout_seconds is None else SYSTEM.monotonic() + timeout_seconds
        async for info in self.watch():
            if is_terminal("job", info.state):
                raise_if_failed(info)
                return info
            if until is not None and SYSTEM.monotonic() > until:
                break
        raise DeadlineExceeded(f"job {self.id}", timeout_seconds)

    async def result(self, timeout_seconds: float | None = None) -> Result:
        """Wait for the job, then read its whole result."""
        await self.wait(timeout_seconds)
        return await asyncio.to_thread(self.sync.result)

    async def iter_results(self) -> AsyncIterator[pa.RecordBatch]:
        """Wait for the job, then yield its result batch by batch."""
        await self.wait()
        batches = self.sync.iter_results()
        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                yield batch
        finally:
            await asyncio.shield(asyncio.to_thread(batches.close))

    async def cancel(self) -> None:
        """Cancel the job; no effect if it has already ended."""
        await asyncio.to_thread(self.sync.cancel)
