"""A pipeline over a damaged shard fails by name, and has no result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from elytra.pipelines.pipeline import Pipeline
from emsqrt.expr import col, count
from sennit_core.errors import Corrupt

PIPELINES = {
    "partials and a merge": lambda p: p.group_by("city").agg(n=count(), km=col("km").sum()),
    "rows of each shard": lambda p: p.filter(col("km") > 1),
    "one task for all": lambda p: p.sort("km"),
}


def flip(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(30)
        byte = file.read(1)[0]
        file.seek(30)
        file.write(bytes((byte ^ 1,)))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_flipped_bit_in_a_shard_fails_the_job(node: Any, kind: str) -> None:
    node.lake.append("trips", pa.table({"city": ["Oslo", "Rome"], "km": [12, 7]}))
    node.lake.append("trips", pa.table({"city": ["Bern"], "km": [3]}))
    pipeline = PIPELINES[kind](Pipeline.over(node.client, "trips"))
    assert len(pipeline.distribute()) == 3
    shard = node.lake.resolve("trips")[1][1]
    flip(shard)

    with pytest.raises(Corrupt) as caught:
        pipeline.distribute()

    expected = f'dataset "trips": chunk 0 of shard 1 (object {shard.name}) is damaged'
    assert expected in str(caught.value)
    assert expected in (node.client.datasets()[0].damaged or "")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["000000-*.part", "upload.json"])
def test_an_upload_that_was_damaged_while_the_node_was_off_costs_its_job_only(
    open_node: Any, tmp_path: Path, what: str
) -> None:
    csv = tmp_path / "waiting.csv"
    csv.write_text("a\n" + "1\n" * 40)
    with open_node(tmp_path / "node") as node, node.all_busy():
        job = node.client.upload(csv).job
        node.jobs.close()
    (damaged,) = (tmp_path / "node/uploads").glob(f"*/{what}")
    flip(damaged)
    os.utime(damaged, (0, 0))

    with open_node(tmp_path / "node") as node:
        with pytest.raises(Corrupt, match="send the file again"):
            node.client.job(job.id).wait(20)
        assert node.client.datasets() == []
        assert node.client.upload(csv).job.wait(20).result["rows"] == 40


@pytest.mark.slow
def test_a_client_verifies_a_dataset(node: Any) -> None:
    node.lake.append("trips", pa.table({"city": ["Oslo", "Rome"], "km": [12, 7]}))
    seen: list[tuple[int, int]] = []

    whole = node.client.verify(on_progress=lambda done, total: seen.append((done, total)))
    flip(node.lake.resolve("trips")[1][0])
    damaged = node.client.verify("trips")

    assert (whole.datasets, whole.objects, whole.findings, whole.done) == (1, 2, (), True)
    assert seen[-1][0] == seen[-1][1] > 0
    assert [finding.dataset for finding in damaged.findings] == ["trips"]
    assert node.client.datasets()[0].damaged == damaged.findings[0].problem
