"""The main job through every public interface: command line, façade, HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pytest

from emsqrt.expr import col, count
from nodes import RunningNode, platform, running_node
from sennit.demo import csv_file

FLIGHTS = 336_776


@pytest.fixture(scope="module")
def flights_csv() -> Iterator[Any]:
    with csv_file("flights") as path:
        yield path


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, flights_csv: Path) -> Iterator[Any]:
    """A node into which the flights were put by the command line."""
    data = tmp_path_factory.mktemp("loaded")
    with running_node(data, "--api-only", "--memory", "1GiB") as node:
        done = platform("put", str(flights_csv), "--wait", "--json", data=data)
        (dataset,) = json.loads(done.stdout)
        assert dataset["rows"] == FLIGHTS
        yield node


def oracle(flights_csv: Path, query: str) -> Any:
    with duckdb.connect() as connection:
        connection.execute(f"create view flights as from read_csv('{flights_csv}', nullstr='NA')")
        return connection.execute(query).fetchall()


def test_the_dataset_is_there_whole(loaded: RunningNode, flights_csv: Path) -> None:
    with loaded.session() as session:
        (dataset,) = session.datasets()
        assert (dataset.name, dataset.rows, len(dataset.schema.names)) == ("flights", FLIGHTS, 19)


def test_sql_agrees_with_duckdb_on_the_file(loaded: RunningNode, flights_csv: Path) -> None:
    query = (
        "select carrier, count(*), sum(distance), max(dep_delay) from flights group by 1 order by 1"
    )
    with loaded.session() as session:
        assert [tuple(row) for row in session.sql(query).rows] == oracle(flights_csv, query)


def test_a_repeated_query_is_answered_from_memory(loaded: RunningNode) -> None:
    query = "select origin, sum(distance) from flights group by 1 order by 1"
    with loaded.session() as session:
        results = [session.sql(query, use_cache=use) for use in (False, True, True, False)]

    seen = [result.manifest["cache"] for result in results]
    assert seen == ["bypass", "miss", "hit", "bypass"]
    assert all(result.rows == results[0].rows for result in results)


def test_executors_are_kept_while_queries_and_pipelines_alternate(loaded: RunningNode) -> None:
    query = "select count(*) from flights where distance > 1000"
    with loaded.session() as session:
        pipeline = session.pipeline("flights").filter(col("distance") > 1000).count()
        for cap in ("128MiB", "200MiB", "128MiB"):
            counted = session.sql(query, use_cache=False).value
            assert pipeline.distribute(mem_cap=cap).value == counted
        pids = {row["pid"] for row in session.stats()["executors"]}
        session.sql(query, use_cache=False)
        pipeline.distribute(mem_cap="128MiB")

        assert {row["pid"] for row in session.stats()["executors"]} == pids
        assert len(pids) == 2  # both were started with the node


def test_a_pipeline_agrees_with_sql(loaded: RunningNode, flights_csv: Path) -> None:
    with loaded.session() as session:
        grouped = session.pipeline("flights").filter(col("distance") > 1000).group_by("origin")
        result = grouped.agg(n=count(), miles=col("distance").sum()).distribute(mem_cap="128MiB")
        rows = sorted(tuple(row.values()) for row in result.to_arrow().to_pylist())
    query = "select origin, count(*), sum(distance) from flights where distance > 1000 group by 1 order by 1"
    assert rows == oracle(flights_csv, query)


def test_a_pipeline_by_command_line(loaded: RunningNode, flights_csv: Path) -> None:
    done = platform(
        "run", "flights", "--where", "distance > 1000", "--group-by", "origin",
        "--agg", "n=count()", "--mem-cap", "128MiB", "--json", data=loaded.data,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["job"]["state"] == "done"
    assert answer["job"]["progress"]["memoryBytes"] <= 128 << 20
    assert len(answer["rows"]) == 3


def test_the_facade_converts(loaded: RunningNode) -> None:
    query = "select carrier, count(*) as n from flights group by carrier order by carrier"
    with loaded.session() as session:
        result = session.sql(query)
        arrow, frame, polars = result.to_arrow(), result.df(), result.pl()
    assert arrow.column("n").to_pylist() == list(frame["n"]) == polars["n"].to_list()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
        ("application/json", "application/json"),
        ("text/csv", "text/csv"),
    ],
)
def test_responses_have_the_requested_format(
    loaded: RunningNode, accept: str, content_type: str
) -> None:
    answer = httpx.post(
        f"{loaded.url}/api/query",
        json={
            "sql": "select carrier, count(*) as n from flights group by carrier order by carrier"
        },
        headers={**loaded.headers, "accept": accept},
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(content_type)
    if "arrow" in accept:
        assert pa.ipc.open_stream(answer.content).read_all().num_rows == 16
    elif "json" in accept:
        assert answer.json()["columns"][0]["name"] == "carrier"
        assert len(answer.json()["rows"]) == 16
    else:
        assert answer.text.splitlines()[0] == "carrier,n"


def test_a_jobs_progress_is_live_in_the_tree(loaded: RunningNode) -> None:
    with loaded.session() as session:
        job = session.pipeline("flights").group_by("carrier").agg(n=count()).submit()
        states = []
        for value in session.tree.namespace("sys").watch(f"/jobs/{job.id}"):
            states.append(value["state"])
            if states[-1] in {"done", "failed", "cancelled"}:
                break
        assert states[-1] == "done"
        assert job.info.state == "done"


def test_no_user_writes_the_platforms_own_state(loaded: RunningNode) -> None:
    refused = httpx.put(
        f"{loaded.url}/jobs/x.json?ns=sys", json={"state": "done"}, headers=loaded.headers
    )
    assert refused.status_code in {401, 403}
    assert "error" in refused.json()


def test_the_users_tree_is_theirs(loaded: RunningNode) -> None:
    with loaded.session() as session:
        session.tree.set("/notes/a", {"text": "hello", "n": 1})
        assert session.tree.get("/notes/a/text") == "hello"


def test_status_shows_limits_next_to_usage(loaded: RunningNode) -> None:
    stats = json.loads(platform("status", "--json", data=loaded.data).stdout)
    assert stats["memory"]["capBytes"] == 1 << 30
    assert 0 < stats["memory"]["usedBytes"] < stats["memory"]["capBytes"]


def test_a_deleted_dataset_is_gone_and_its_files_too(own_node: RunningNode, tmp_path: Path) -> None:
    source = tmp_path / "tiny.csv"
    source.write_text("a,b\n1,x\n2,y\n")
    with own_node.session() as session:
        session.put(source)
        session.delete("tiny")
        assert session.datasets() == []
    kept = [path for path in (own_node.data / "lake" / "objects").rglob("*") if path.is_file()]
    assert kept == []


def test_the_demo_shows_the_main_job(tmp_path: Path) -> None:
    import subprocess
    import sys

    with running_node(tmp_path / "demo", "--api-only", "--memory", "1GiB") as node:
        done = subprocess.run(
            [sys.executable, "-m", "sennit.demo", "--data", str(node.data)],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "flights: 336,776 rows × 19 columns" in done.stdout
    assert "United Air Lines" in done.stdout
    assert "JFK" in done.stdout
