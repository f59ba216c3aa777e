"""Jobs on Ray as a user submits them: by the command line, in Python and over HTTP."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from elytra import Elytra, col
from nodes import platform, running_node
from sennit_core.errors import Unsupported

TRIPS = "city,km\n" + "".join(f"{'Oslo' if i % 3 else 'Rome'},{i / 7}\n" for i in range(5000))
TOTALS = ["run", "trips", "--group-by", "city", "--agg", "km=sum(km)", "--json"]


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_jobs_run_on_ray_and_survive_a_killed_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("SENNIT_ELYTRA__RAY_WORKERS", "1")
    monkeypatch.setenv("SENNIT_ELYTRA__RAY_WORKER_BYTES", "128MiB")
    (tmp_path / "trips.csv").write_text(TRIPS)
    data = tmp_path / "node"
    with running_node(data, "--api-only", "--ray", "auto") as node:
        platform("put", str(tmp_path / "trips.csv"), data=data)
        expected = json.loads(platform(*TOTALS, data=data).stdout)["rows"]
        assert len(expected) == 2
        on_ray = json.loads(platform(*TOTALS, "--engine", "ray", data=data).stdout)
        assert (on_ray["rows"], on_ray["job"]["engine"]) == (expected, "ray")

        trips = Elytra(node.url, token=node.token).remote("trips")
        job = trips.filter(col("km") > 1).submit(engine="ray")
        assert job.result(60).to_arrow().num_rows == 4992
        headers = {"Authorization": f"Bearer {node.token}"}
        record = httpx.get(f"{node.url}/api/jobs/{job.id}", headers=headers).json()
        assert (record["engine"], record["result"]["capBytes"]) == ("ray", 128 << 20)
        with node.session() as session:
            session.sql("create view far as select * from trips where km > 1")
        with pytest.raises(Unsupported, match="views"):
            Elytra(node.url, token=node.token).remote("far").submit(engine="ray")

        (worker,) = workers_of(node.process.pid)
        os.kill(worker.pid, signal.SIGKILL)
        again = json.loads(platform(*TOTALS, "--engine", "ray", data=data).stdout)
        assert again["rows"] == expected
        started = psutil.Process(node.process.pid).children(recursive=True)
        token = (data / "ray" / "token").read_text()
        assert token not in (data / "ray" / "driver.log").read_text()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive, "processes of Ray's that outlive the node"


def workers_of(pid: int) -> list[psutil.Process]:
    found = psutil.Process(pid).children(recursive=True)
    return [process for process in found if "RayWorker" in " ".join(process.cmdline())]


def test_several_nodes_do_not_share_the_option(tmp_path: Path) -> None:
    refused = platform("up", "--nodes", "2", "--ray", "auto", data=tmp_path, check=False)
    assert refused.returncode == 2
    assert "--nodes" in refused.stderr
