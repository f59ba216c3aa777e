"""Pipelines of programs with an event loop."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from elytra import AsyncElytra, count
from sennit_core.errors import DeadlineExceeded, UnknownColumn, UsageError

ROWS = [{"city": "Rome", "km": 3}, {"city": "Oslo", "km": 5}, {"city": "Rome", "km": 4}]


def test_a_local_pipeline_is_awaited(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncElytra.local("128MiB", tmp_path / "spill") as local:
            rows = local.dataset(ROWS)
            cities = rows.filter(lambda r: r.km > 3).group_by("city").agg(n=count())

            assert (await cities.collect()).rows == [("Oslo", 1), ("Rome", 1)]
            assert (await cities.schema()).names == ("city", "n")
            assert "under 128.0 MiB" in await cities.explain()
            both = rows.union(rows).count()
            assert (await both.to_arrow()).to_pylist() == [{"count": 6}]
            assert [batch.num_rows async for batch in rows.iter_results()] == [3]
            written = await rows.write_csv(tmp_path / "rows.csv")
            assert written.read_text().startswith("city,km")

    asyncio.run(main())


def test_a_job_of_a_node_is_awaited_and_saved(shared_node: Any) -> None:
    async def main() -> None:
        async with AsyncElytra(shared_node.client.url) as node:
            job = await node.remote("awaited").filter("n > 1").submit()
            assert (await job.result(60)).rows == [(2,), (3,)]
            assert (await node.job(job.id).info()).state == "done"
            assert [info.state async for info in job.watch()] == ["done"]
            saved = await node.remote("awaited").limit(2).save_as("awaited_two")
            assert saved.rows == 2

    import pyarrow as pa

    shared_node.lake.append("awaited", pa.table({"n": [1, 2, 3]}))
    asyncio.run(main())


def test_mistakes_are_raised_when_it_runs(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncElytra.local("128MiB", tmp_path) as local:
            rows = local.dataset(ROWS)
            with pytest.raises(UnknownColumn, match="miles"):
                await rows.filter(lambda r: r.miles > 3).collect()
            with pytest.raises(AttributeError, match="fliter"):
                rows.fliter("km > 3")
            with pytest.raises(UsageError, match="for nodes"):
                local.remote("x")

    asyncio.run(main())


def test_a_cancelled_task_cancels_its_job(node: Any) -> None:
    import pyarrow as pa

    node.lake.append("numbers", pa.table({"n": range(10)}))

    async def main() -> None:
        async with AsyncElytra(node.client.url) as connected:
            rows = connected.remote("numbers").sum()
            task = asyncio.create_task(rows.collect())
            while not node.jobs.list():  # noqa: ASYNC110 - of other threads
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(DeadlineExceeded):
                await rows.collect(timeout_seconds=0)
            while {job.state for job in node.jobs.list()} != {"cancelled"}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    with node.all_busy():
        asyncio.run(main())
