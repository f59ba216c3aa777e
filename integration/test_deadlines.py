"""Deadlines, room for others, and answers that are cut, on real nodes with real clients."""

from __future__ import annotations

import csv
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pytest

from nodes import RunningNode, platform, quiet_environment, running_node
from sennit_core.errors import DeadlineExceeded, MemoryCapExceeded, SqlError

ARROW = "application/vnd.apache.arrow.stream"
LONG = "select sum(a.range * b.range) from range(100000000) a, range(100000) b"
# What comes before the error is far more than a result ring holds, so some of it has left by then.
FAILS_AFTER_BATCHES = (
    "select cast(case when i = 900000 then 'x' else '1' end as int) n, repeat('y', 20) "
    "from range(1000000) t(i)"
)


@contextmanager
def node_with(tmp_path: Path, settings: str, *arguments: str) -> Iterator[RunningNode]:
    data = tmp_path / "node"
    data.mkdir()
    (data / "config.toml").write_text(settings)
    with running_node(data, "--api-only", *(arguments or ("--memory", "1GiB"))) as node:
        yield node


def reader(node: RunningNode, name: str) -> dict[str, str]:
    """The headers of a new user."""
    made = httpx.post(
        f"{node.url}/api/tokens", json={"name": name, "role": "reader"}, headers=node.headers
    )
    return {"authorization": f"Bearer {made.json()['token']}"}


def ask(
    node: RunningNode, headers: dict[str, str], sql: str, timeout: float = 60, **more: Any
) -> httpx.Response:
    return httpx.post(
        f"{node.url}/api/query", json={"sql": sql, **more}, headers=headers, timeout=timeout
    )


def begin(node: RunningNode, headers: dict[str, str], sql: str) -> Any:
    """Send a query without waiting for its answer; closing the socket leaves it."""
    body = json.dumps({"sql": sql}).encode()
    url = httpx.URL(node.url)
    assert url.port is not None
    client = socket.create_connection((url.host, url.port))
    client.sendall(
        b"POST /api/query HTTP/1.1\r\nhost: %b:%d\r\nauthorization: %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (
            url.host.encode(), url.port, headers["authorization"].encode(),
            len(body), body,
        )
    )  # fmt: skip
    return client


def stats(node: RunningNode) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{node.url}/api/stats", headers=node.headers).json()
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


@pytest.mark.nightly
def test_two_readers_with_long_queries_leave_room_for_a_third(own_node: RunningNode) -> None:
    node = own_node
    with ExitStack() as hogs:
        for name in ("ann", "ben"):
            headers = reader(node, name)
            for _ in range(3):
                hogs.enter_context(begin(node, headers, LONG))
        wait_until(lambda: stats(node)["busy"] + stats(node)["waiting"] == 6)
        answer = ask(node, reader(node, "cid"), "select 1 as one")
        assert answer.json()["rows"] == [[1]]
        assert stats(node)["busy"] + stats(node)["waiting"] == 6


@pytest.mark.slow
def test_queries_whose_clients_have_gone_leave_the_queue(own_node: RunningNode) -> None:
    node = own_node
    with ExitStack() as clients:
        for _ in range(8):
            clients.enter_context(begin(node, node.headers, LONG))
        wait_until(lambda: stats(node)["busy"] + stats(node)["waiting"] == 8)
    wait_until(lambda: stats(node)["busy"] + stats(node)["waiting"] == 0)


@pytest.mark.nightly
def test_ctrl_c_in_the_command_line_cancels_its_query(own_node: RunningNode) -> None:
    node = own_node
    command = [sys.executable, "-m", "sennit.cli", "sql", LONG, "--data", str(node.data)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=quiet_environment(), text=True
    ) as query:
        wait_until(lambda: bool(stats(node)["busy"] == 1))
        query.send_signal(signal.SIGINT)
        printed = query.communicate(timeout=60)
        assert (query.returncode, *printed) == (130, "", "interrupted\n")
    wait_until(lambda: bool(stats(node)["busy"] == 0))


@pytest.mark.nightly
def test_a_query_has_as_long_as_the_setting_says(tmp_path: Path) -> None:
    with node_with(tmp_path, "[analytics]\nquery_seconds = 1.0\n") as node:
        expired = ask(node, node.headers, LONG)
        assert (expired.status_code, expired.json()["code"]) == (504, "deadline-exceeded")
        assert expired.json()["error"] == "the query did not finish within 1 s"
        assert "analytics.query_seconds" in expired.json()["hint"]
        by_reader = ask(node, reader(node, "ann"), LONG, deadlineSeconds=3600)
        assert by_reader.json()["error"] == "the query did not finish within 1 s"
        shorter = ask(node, node.headers, LONG, deadlineSeconds=0.2)
        assert shorter.json()["error"] == "the query did not finish within 0.2 s"
        with node.session() as session, pytest.raises(DeadlineExceeded, match="within 1 s"):
            session.sql(LONG)
        done = platform("sql", LONG, data=node.data, check=False)
        assert "the query did not finish within 1 s" in done.stderr
        assert ask(node, node.headers, "select 1").status_code == 200


@pytest.mark.nightly
def test_a_client_that_reads_slowly_holds_its_executor_until_the_query_deadline(
    tmp_path: Path,
) -> None:
    with node_with(tmp_path, "[analytics]\nquery_seconds = 1.5\n") as node:
        endless = "select repeat('x', 1000) s from range(100000000)"
        with begin(node, node.headers, endless) as client:
            assert client.recv(1)
            wait_until(lambda: stats(node)["busy"] == 0)


@pytest.mark.nightly
def test_a_json_answer_has_as_many_rows_as_the_setting_says(tmp_path: Path) -> None:
    with node_with(tmp_path, "[analytics]\njson_rows_max = 3\n") as node:
        sql = "select * from range(10)"
        answer = ask(node, node.headers, sql).json()
        assert (len(answer["rows"]), answer["truncated"]) == (3, True)
        assert len(ask(node, node.headers, sql, maxRows=5).json()["rows"]) == 5
        as_csv = ask(node, node.headers | {"accept": "text/csv"}, sql)
        assert len(as_csv.text.splitlines()) == 11


@pytest.mark.nightly
def test_a_user_with_a_full_queue_gets_retry_after(tmp_path: Path) -> None:
    with node_with(tmp_path, "[analytics]\nuser_queue_max = 2\nqueue_max = 3\n") as node:
        ann, ben = reader(node, "ann"), reader(node, "ben")
        with ExitStack() as clients:
            for _ in range(4):
                clients.enter_context(begin(node, ann, LONG))
            wait_until(lambda: stats(node)["waiting"] == 2)
            refused = ask(node, ann, "select 1")
            assert (refused.status_code, refused.json()["code"]) == (429, "busy")
            assert refused.headers["retry-after"] == "1"
            assert "2 requests of the same user" in refused.json()["error"]
            assert ask(node, ben, "select 1").status_code == 200


@pytest.fixture(scope="module")
def small_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node of 512 MiB with 20,000 rows of 10 KB."""
    folder = tmp_path_factory.mktemp("wide")
    with duckdb.connect(config={"threads": 1}) as made:
        made.execute(
            "copy (select i, repeat(chr(97 + (i % 26)::int), 10000) || i as s "
            f"from range(20000) t(i)) to '{folder}/wide.csv' (format csv)"
        )
    with running_node(folder / "node", "--api-only", "--memory", "512MiB") as node:
        with node.session() as session:
            session.put(folder / "wide.csv")
        yield node


@pytest.mark.nightly
@pytest.mark.parametrize("accept", [ARROW, "application/json", "text/csv"])
def test_wide_rows_arrive_whole(small_node: RunningNode, accept: str) -> None:
    answer = httpx.post(
        f"{small_node.url}/api/query",
        json={"sql": "select * from wide", "maxRows": 1_000_000},
        headers=small_node.headers | {"accept": accept},
        timeout=120,
    )
    assert answer.status_code == 200
    if accept == ARROW:
        with pa.ipc.open_stream(answer.content) as stream:
            sizes = [batch.nbytes for batch in stream]
        assert max(sizes) < 8 << 20
    elif accept == "text/csv":
        assert sum(1 for _ in csv.reader(answer.text.splitlines())) == 20_001
    else:
        assert len(answer.json()["rows"]) == 20_000


@pytest.mark.nightly
def test_one_row_of_fifty_megabytes_is_answered_or_refused_by_name(
    small_node: RunningNode,
) -> None:
    with small_node.session() as session, pytest.raises(MemoryCapExceeded) as refused:
        session.sql("select repeat('x', 50000000) || i as s from range(100) t(i)", engine="duckdb")
    assert "--memory" in (refused.value.hint or "")
    assert ask(small_node, small_node.headers, "select 1").status_code == 200


def test_our_clients_say_why_an_answer_was_cut(node: RunningNode) -> None:
    with node.session() as session, pytest.raises(SqlError, match="Could not convert string 'x'"):
        session.sql(FAILS_AFTER_BATCHES)
    with (
        node.session() as session,
        pytest.raises(SqlError, match="Could not convert string 'x'"),
        session.iter_sql(FAILS_AFTER_BATCHES) as batches,
    ):
        assert sum(batch.num_rows for batch in batches) < 0
    done = platform("sql", FAILS_AFTER_BATCHES, "--csv", data=node.data, check=False)
    assert done.returncode == 2
    assert "error: Could not convert string 'x'" in done.stderr


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("accept", [ARROW, "application/json", "text/csv"])
def test_a_truncated_response_is_not_mistaken_for_a_whole_one(
    node: RunningNode, tmp_path: Path, accept: str
) -> None:
    body, head = tmp_path / "body", tmp_path / "head"
    document = {"sql": FAILS_AFTER_BATCHES, "maxRows": 10_000_000}
    done = subprocess.run(
        [
            "curl", "-s", f"{node.url}/api/query", "-o", body, "-D", head,
            "-H", f"Authorization: {node.headers['authorization']}", "-H", f"Accept: {accept}",
            "-H", "Content-Type: application/json", "-d", json.dumps(document),
        ],
        check=False,
    )  # fmt: skip
    assert done.returncode == 18  # CURLE_PARTIAL_FILE
    received = body.read_bytes()
    assert len(received) > 1000
    if accept == ARROW:
        with pytest.raises((pa.ArrowInvalid, OSError)), pa.ipc.open_stream(received) as stream:
            stream.read_all()
    else:
        assert b"Could not convert string 'x'" in received[-1000:]
    if accept == "application/json":
        with pytest.raises(json.JSONDecodeError):
            json.loads(received)
    (line,) = [line for line in head.read_text().splitlines() if "sennit-result" in line.lower()]
    why = httpx.get(f"{node.url}/api/results/{line.split()[1]}", headers=node.headers).json()
    assert why["code"] == "sql"
    other_user = reader(node, "other-user")
    hidden = httpx.get(f"{node.url}/api/results/{line.split()[1]}", headers=other_user)
    assert hidden.status_code == 404
