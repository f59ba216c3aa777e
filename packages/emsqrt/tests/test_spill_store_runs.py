"""Whole runs that spill to a real object store: by Python, a document and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from emsqrt import Engine, EngineConfig, Pipeline, scan
from emsqrt.memory.usage import UsageReader
from emsqrt.spill.clients import open_client
from emsqrt.spill.objects import sweep_objects
from emsqrt.spill.servers import Server, fake_gcs, seaweedfs
from sennit_core.errors import Unsupported

pytestmark = pytest.mark.nightly
MIB = 1 << 20
CAP = 80 * MIB


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("obstore")
    folder = tmp_path_factory.mktemp("seaweedfs")
    try:
        with seaweedfs(folder) as server, pytest.MonkeyPatch.context() as patch:
            reach(server, patch)
            yield server
    except Unsupported as error:
        pytest.skip(str(error))


def reach(server: Server, patch: pytest.MonkeyPatch) -> None:
    """Let processes that are started find the server and its keys by the environment."""
    for name, value in server.options.items():
        known = {"endpoint": "ENDPOINT_URL"}.get(name, name.upper())
        patch.setenv(f"AWS_{known}", value)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "in.csv"
    with path.open("w") as file:
        file.write("k,g,v\n")
        for n in range(900_000):
            file.write(f'{n * 7919 % 900_001},"g{n * 31 % 450_000:06d}",{n}{"x" * 30}\n')
    pq.write_table(pa_csv.read_csv(path), path.with_suffix(".parquet"), row_group_size=50_000)
    return path


def shapes(source: Path, out: Path) -> dict[str, Pipeline]:
    rows, tables = scan(source), scan(source.with_suffix(".parquet"))
    other = rows.filter("k > 9000").select("v", "k AS k2")
    return {
        "text sort": rows.sort("g", "k").sink(out),
        "text aggregate": rows.group_by("v").agg(n="count(*)", s="sum(k)").sink(out),
        "text join": rows.join(other, on="v", how="left").sink(out),
        "arrow sort": tables.sort("g", "k").sink(out, format="csv"),
        "arrow window": tables.window(
            partition_by="g", order_by="k", r="row_number()", s="sum(k)"
        ).sink(out, format="csv"),
    }


def left(server: Server) -> list[str]:
    client, prefix = open_client(server.uri, server.options)
    return [facts.key for facts in client.list(prefix)]


@pytest.mark.parametrize(
    "shape", ["text sort", "text aggregate", "text join", "arrow sort", "arrow window"]
)
def test_a_run_spills_to_a_store_and_leaves_nothing(
    s3: Server, source: Path, tmp_path: Path, shape: str
) -> None:
    out = tmp_path / "out.csv"
    pipeline = shapes(source, out)[shape]
    Engine(EngineConfig(spill_dir=tmp_path / "spill")).run(pipeline.plan, mem_cap="256MiB")
    expected = out.read_bytes()
    manifest = Engine(EngineConfig(spill_uri=s3.uri)).run(pipeline.plan, mem_cap=CAP)
    assert out.read_bytes() == expected
    assert manifest.spilled_bytes > MIB
    assert manifest.peak_bytes <= CAP
    assert left(s3) == []


def start_sort(source: Path, out: Path, uri: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "emsqrt.cli", "sort", str(source), str(out), "--by", "g,k"]
    options = ["--cap", "80MiB", "--spill-dir", uri, "--json"]
    return subprocess.Popen([*words, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_command_line_spills_to_a_store_within_its_cap(
    s3: Server, source: Path, tmp_path: Path
) -> None:
    process = start_sort(source, tmp_path / "out.csv", s3.uri)
    peak = 0
    with UsageReader(process.pid) as reader:
        while process.poll() is None:
            peak = max(peak, reader.read().charged_bytes)
            time.sleep(0.002)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(printed)["spilledBytes"] > MIB
    assert peak <= CAP
    assert left(s3) == []


def test_a_document_names_the_store(s3: Server, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    document = tmp_path / "run.yaml"
    document.write_text(
        f"config: {{mem_cap_bytes: {CAP}, spill_uri: '{s3.uri}', spill_aws_region: us-east-1}}\n"
        f"steps:\n- op: scan\n  source: {source}\n- op: sort\n  by: [g, k]\n"
        f"- op: sink\n  destination: {out}\n"
    )
    words = [sys.executable, "-m", "emsqrt.cli", "run", str(document), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spilledBytes"] > MIB
    assert left(s3) == []


def test_files_of_a_killed_run_are_swept(s3: Server, source: Path, tmp_path: Path) -> None:
    process = start_sort(source, tmp_path / "out.csv", s3.uri)
    end = time.monotonic() + 60
    while not left(s3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (tmp_path / "out.csv").exists()
    assert left(s3)
    time.sleep(2)
    assert sweep_objects(s3.uri, 1, **s3.options) > 0
    assert left(s3) == []


def test_a_store_that_dies_is_reported(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    out = tmp_path / "out.csv"
    folder = tmp_path / "weed"
    folder.mkdir()
    with seaweedfs(folder) as server, pytest.MonkeyPatch.context() as patch:
        reach(server, patch)
        process = start_sort(source, out, server.uri)
        while not left(server):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.kill(server.process.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 7, errors
    assert not out.exists()


def test_a_run_spills_to_google_cloud_storage(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gcs"
    folder.mkdir()
    out = tmp_path / "out.csv"
    try:
        with fake_gcs(folder) as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", server.options["endpoint"])
            config = EngineConfig(spill_uri=server.uri)
            plan = scan(source.with_suffix(".parquet")).sort("g", "k").sink(out, format="csv").plan
            manifest = Engine(config).run(plan, mem_cap="128MiB")
            assert manifest.spilled_bytes > MIB
            assert left(server) == []
    except Unsupported as error:
        pytest.skip(str(error))
