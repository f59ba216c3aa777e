"""Elytra's backend `ray`, at a node in this process; the datasets are ingested before it is ready."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
from serving import serve

from elkyn import open_namespaces
from elytra import col, count
from elytra.backends.ray import RayBackend, RayOptions
from elytra.backends.table import BACKENDS
from elytra.pipelines.pipeline import Pipeline
from elytra.service.job_service import JobService
from emsqrt.executor import ExecutorPool
from lake import Lake


class Node:
    """A node with a lake and jobs, as `platform up --ray auto` has them."""

    def __init__(self, folder: Path, owned: ExitStack) -> None:
        stores = open_namespaces(folder / "elkyn")
        owned.callback(stores.close)
        pool = owned.enter_context(
            ExecutorPool(2, memory_bytes=1 << 30, spill_dir=folder / "spill")
        )
        self.lake = owned.enter_context(Lake(folder, tree=stores["sys"], pool=pool))
        options = RayOptions(workers=2)
        backends = {**BACKENDS, "ray": lambda node: RayBackend(node, options)}
        self.jobs = JobService(stores["sys"], self.lake, pool, backends=backends)
        owned.callback(self.jobs.close)

    def dataset(self, name: str):
        return self.lake.catalog.find(name)

    def pipeline(self, name: str) -> Pipeline:
        return Pipeline.over(self, name)

    def write(self, pipeline: Pipeline, folder: Path) -> None:
        """Run a pipeline; the files of its result are the answer."""
        job = self.jobs.submit(pipeline.plan, engine="ray")
        asyncio.run(self.jobs.wait(job.id, 600))
        for path in self.jobs.result(job.id):
            (folder / path.name).hardlink_to(path)


def main() -> None:
    data = Path(sys.argv[1])
    with ExitStack() as owned:
        folder = Path(tempfile.mkdtemp(dir=data))
        owned.callback(shutil.rmtree, folder)
        node = Node(folder, owned)
        for name in ("sales", "customers", "products"):
            for path in sorted((data / name).glob("*.parquet")):
                node.lake.append(name, pq.read_table(path))
        sales, customers, products = map(node.pipeline, ("sales", "customers", "products"))
        totals = {"n": count(), "cents": col("cents").sum(), "qty": col("qty").max()}
        serve(
            {
                "group, few": lambda to: node.write(sales.group_by("product").agg(**totals), to),
                "group, many": lambda to: node.write(sales.group_by("customer").agg(**totals), to),
                "join": lambda to: node.write(
                    sales.join(customers, on="customer").group_by("region").agg(**totals), to
                ),
                "join, small": lambda to: node.write(
                    sales.join(products, on="product").group_by("category").agg(**totals), to
                ),
            }
        )


if __name__ == "__main__":
    main()
