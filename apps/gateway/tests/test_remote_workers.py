"""Remote workers of a real gateway: jobs, faults, and hostile clients."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import httpx
import ormsgpack
import pyarrow as pa
import pytest
from opened_node import OpenNode, OpenNodes
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from elytra import Elytra, col
from elytra.backends.remote.messages import (
    MESSAGE_BYTES_MAX,
    SUBPROTOCOL,
    Credit,
    Hello,
    Message,
    Partial,
    Renew,
    Task,
    encode,
    read_from_node,
)
from elytra.pipelines.pipeline import Pipeline
from elytra.testing.scripted_worker import Fault, ScriptedWorker
from emsqrt.expr import count
from sennit_core.errors import SennitError

ENGINE = "emsqrt 0.1.0"
WAIT_SECONDS = 40.0
SHARDS = 3


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    """A node that runs every task of a worker itself too, with short leases."""
    node = opened({"workers.sample_percent": 100, "workers.lease_seconds": 3})
    for shard in range(SHARDS):
        numbers = range(shard * 50, shard * 50 + 50)
        table = pa.table({"n": numbers, "k": [f"k{n % 4}" for n in numbers], "hidden": numbers})
        node.node.lake.append("numbers", table)
    return node


@pytest.fixture
def numbers(node: OpenNode) -> Iterator[Pipeline]:
    token = node.client.headers["authorization"].split()[1]
    with Elytra(node.url, token=token) as client:
        yield client.remote("numbers")


@pytest.fixture
def join(node: OpenNode) -> Iterator[Callable[..., ScriptedWorker]]:
    """Start a worker with a token of its own."""
    with ExitStack() as owned:

        def start(fault: Fault | None = None, faults: Mapping[int, Fault] | None = None) -> Any:
            token = node.node.tokens.issue("a worker", "worker")
            worker = ScriptedWorker(node.url, token, fault=fault, faults=faults or {})
            return owned.enter_context(worker).wait()

        yield start


def answer(pipeline: Pipeline, engine: str = "browser") -> list[dict[str, Any]]:
    result = pipeline.distribute(engine=engine, timeout_seconds=WAIT_SECONDS)
    rows: list[dict[str, Any]] = result.to_arrow().to_pylist()
    return rows


def sums(numbers: Pipeline) -> Pipeline:
    return numbers.group_by("k").agg(n=count(), total=col("n").sum())


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def excluded(node: OpenNode) -> dict[str, str]:
    found = node.client.get("/api/workers").json()["excluded"]
    return {each["token"]: each["reason"] for each in found}


def token_id(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def test_a_worker_gives_the_answer_of_the_node(
    node: OpenNode, numbers: Pipeline, join: Callable[..., ScriptedWorker]
) -> None:
    worker = join()
    for pipeline in (sums(numbers), numbers.filter("n % 7 = 3").with_columns(m=col("n") * 0.1)):
        assert answer(pipeline) == answer(pipeline, "local")
    assert len(worker.tasks_seen) == 2 * SHARDS
    (shown,) = node.client.get("/api/workers").json()["workers"]
    assert (shown["id"], shown["finished"], shown["kind"]) == (worker.id, 2 * SHARDS, "python")
    assert "sennit_remote_workers 1" in node.client.get("/metrics").text
    path = f"/workers/{worker.id}.json?ns=sys"
    row = node.client.get(path).json()
    assert (row["kind"], row["threads"], row["state"]) == ("browser", 1, "connected")
    worker.stop()
    until(lambda: node.client.get(path).json() is None)


@pytest.mark.nightly
def test_a_job_waits_for_workers(
    node: OpenNode, numbers: Pipeline, join: Callable[..., ScriptedWorker]
) -> None:
    job = sums(numbers).submit(engine="browser")
    assert node.client.get(f"/api/jobs/{job.id}?wait=0.2").json()["state"] == "running"
    join()
    assert job.result(WAIT_SECONDS).to_arrow().num_rows == 4


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("fault", "tasks"),
    [
        ("die", 1), ("stall", 1), ("wrong-rows", 1), ("garbage", 1), ("other-columns", 1),
        ("other-plan", 1), ("other-attempt", 1), ("repeat", 9), ("reconnect", 9), ("fail", 9),
        ("upload", 9), ("unsent-upload", 1), ("drain", 1),
    ],
)  # fmt: skip
def test_the_answer_is_right_whatever_a_worker_does(
    numbers: Pipeline, join: Callable[..., ScriptedWorker], fault: Fault, tasks: int
) -> None:
    """With its first task, or with all of them; another worker makes good what it does not."""
    bad = join(faults=dict.fromkeys(range(tasks), fault))
    job = sums(numbers).submit(engine="browser")
    until(lambda: bad.tasks_seen)  # so that the other worker does not get all tasks
    join()
    assert job.result(WAIT_SECONDS).to_arrow().to_pylist() == answer(sums(numbers), "local")


def test_wrong_rows_are_replaced_and_their_worker_excluded(
    node: OpenNode, numbers: Pipeline, join: Callable[..., ScriptedWorker]
) -> None:
    wrong = join("wrong-rows")
    job = sums(numbers).submit(engine="browser")
    assert wrong.ended.wait(WAIT_SECONDS)
    assert "wrong rows" in excluded(node)[token_id(wrong.token)]
    again = ScriptedWorker(node.url, wrong.token).start()
    assert again.ended.wait(WAIT_SECONDS)
    assert again.close_code == 4403
    again.stop()
    join()
    assert job.result(WAIT_SECONDS).to_arrow().to_pylist() == answer(sums(numbers), "local")


def test_earlier_results_of_an_excluded_worker_are_computed_again(
    node: OpenNode, numbers: Pipeline, join: Callable[..., ScriptedWorker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The first wrong result is not in the sample, the second is."""
    remote = node.node.jobs.remote
    chances = iter([1.0])
    options = replace(remote.options, chance=lambda: next(chances, 0.0))
    monkeypatch.setattr(remote, "options", options)
    wrong = join("wrong-rows")
    job = sums(numbers).submit(engine="browser")
    assert wrong.ended.wait(WAIT_SECONDS)
    assert len(wrong.tasks_seen) >= 2
    join()
    assert job.result(WAIT_SECONDS).to_arrow().to_pylist() == answer(sums(numbers), "local")


def test_a_job_asks_for_more_checks_than_its_node_makes(
    node: OpenNode, numbers: Pipeline, join: Callable[..., ScriptedWorker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And what had ended before with rows of the worker that is found by it is named."""
    remote = node.node.jobs.remote
    monkeypatch.setattr(remote, "options", replace(remote.options, trust="trust"))
    wrong = join("wrong-rows")
    trusting = sums(numbers).submit(engine="browser", sample_percent=0)
    right = answer(sums(numbers), "local")
    assert trusting.result(WAIT_SECONDS).to_arrow().to_pylist() != right
    checked = sums(numbers).submit(engine="browser", sample_percent=100)
    assert wrong.ended.wait(WAIT_SECONDS)
    join()
    assert checked.result(WAIT_SECONDS).to_arrow().to_pylist() == right
    doubted = {
        each["token"]: each["doubtedJobs"]
        for each in node.client.get("/api/workers").json()["excluded"]
    }
    assert doubted[token_id(wrong.token)] == [trusting.id]


@pytest.mark.nightly
def test_malformed_results_exclude_a_worker(
    node: OpenNode, numbers: Pipeline, join: Callable[..., ScriptedWorker]
) -> None:
    bad = join("garbage")
    job = sums(numbers).submit(engine="browser")
    assert bad.ended.wait(WAIT_SECONDS)
    assert "2 faults" in excluded(node)[token_id(bad.token)]
    join()
    assert job.result(WAIT_SECONDS).to_arrow().to_pylist() == answer(sums(numbers), "local")


@pytest.mark.nightly
def test_an_error_of_the_plan_is_that_of_the_node(
    numbers: Pipeline, join: Callable[..., ScriptedWorker]
) -> None:
    join()
    overflow = numbers.with_columns(
        big=col("n") * 0 + 9_000_000_000_000_000_000 + 9_000_000_000_000_000_000
    )
    with pytest.raises(SennitError) as there:
        answer(overflow)
    with pytest.raises(SennitError) as here:
        answer(overflow, "local")
    assert there.value.code == here.value.code
    assert str(there.value) == str(here.value)


def test_a_plan_that_needs_all_rows_runs_on_the_node(node: OpenNode, numbers: Pipeline) -> None:
    """Without any worker; the job says so, and so does `explain`."""
    joined = numbers.join(numbers.select("n"), on="n", how="right").agg(n=count())
    job = joined.submit(engine="browser")
    assert job.result(WAIT_SECONDS).to_arrow().to_pylist() == [{"n": 50 * SHARDS}]
    assert node.client.get(f"/api/jobs/{job.id}").json()["engine"] == "local"
    assert 'with engine "browser" it runs on the node too' in joined.explain()
    assert 'with engine "browser" workers run the steps at the shards' in sums(numbers).explain()


# A client that speaks the protocol by hand


class Raw:
    """A connection to the node, message by message."""

    def __init__(self, node: OpenNode, token: str, socket: ClientConnection) -> None:
        self.node, self.token, self.socket = node, token, socket
        self.headers = {"authorization": f"Bearer {token}"}

    def say(self, message: Message) -> None:
        self.socket.send(encode(message))

    def hello(self, **changes: Any) -> None:
        members: dict[str, Any] = {
            "version": 1, "engine": ENGINE, "kind": "raw", "threads": 1, "cached": (),
            "resume": None, "attempts": (), "functions": False,
        }  # fmt: skip
        self.say(Hello(**(members | changes)))

    def next(self) -> Message:
        frame = self.socket.recv(timeout=WAIT_SECONDS)
        assert isinstance(frame, bytes)
        return read_from_node(frame)

    def task(self) -> Task:
        while not isinstance(message := self.next(), Task):
            pass
        return message

    def close_code(self) -> int:
        """Read until the node closes the connection; return its code."""
        with suppress(ConnectionClosed):
            while True:
                self.socket.recv(timeout=WAIT_SECONDS)
        return self.socket.close_code or 0

    def get(self, path: str, token: str | None = None, **headers: str) -> httpx.Response:
        sent = {"authorization": f"Bearer {token or self.token}", **headers}
        return httpx.get(self.node.url + path, headers=sent)

    def put(self, path: str, content: Any, **headers: str) -> httpx.Response:
        sent = self.headers | headers
        return httpx.put(self.node.url + path, content=content, headers=sent)


@pytest.fixture
def raw(node: OpenNode) -> Iterator[Callable[..., Raw]]:
    with ExitStack() as owned:

        def open_one(token: str | None = None, **options: Any) -> Raw:
            token = token or node.node.tokens.issue("raw", "worker")
            address = node.url.replace("http", "ws", 1) + "/api/workers"
            protocols: Any = [SUBPROTOCOL, f"sennit-token.{token}"]
            options = {"compression": None, "max_size": None, "subprotocols": protocols} | options
            return Raw(node, token, owned.enter_context(connect(address, **options)))

        yield open_one


@pytest.fixture
def working(raw: Callable[..., Raw], numbers: Pipeline) -> Iterator[tuple[Raw, Task]]:
    """A client with a task of a job, which is cancelled at the end."""
    client = raw()
    client.hello()
    client.say(Credit(1))
    job = numbers.select("n").submit(engine="browser")
    yield client, client.task()
    job.cancel()


def test_a_worker_gets_the_columns_of_its_plan_alone(working: tuple[Raw, Task]) -> None:
    client, task = working
    whole = client.get(task.input)
    with pa.ipc.open_stream(whole.content) as reader:
        assert reader.read_all().to_pydict() == {"n": list(range(50))}
    assert len(whole.content) == task.input_bytes
    assert hashlib.sha256(whole.content).hexdigest() == task.input_sha256
    assert task.spec["user"] == ""
    assert "numbers" not in str(task.spec)


def test_inputs_have_ranges_and_tags(working: tuple[Raw, Task]) -> None:
    client, task = working
    whole = client.get(task.input)
    tag = whole.headers["etag"]
    assert tag == f'"{task.input_sha256}"'
    part = client.get(task.input, range="bytes=10-19", **{"if-range": tag})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert client.get(task.input, **{"if-none-match": tag}).status_code == 304
    assert client.get(task.input, range=f"bytes={task.input_bytes}-").status_code == 416


def test_an_input_is_for_its_worker_its_attempt_and_a_time(
    node: OpenNode, working: tuple[Raw, Task]
) -> None:
    client, task = working
    other = node.node.tokens.issue("other", "worker")
    path, query = task.input.split("?")
    signature = query.split("signature=")[1]
    assert client.get(task.input, token=other).status_code == 404
    assert httpx.get(node.url + task.input).status_code == 401
    assert node.client.get(task.input).status_code == 403
    for changed in (
        path,
        f"{path}x?{query}",
        f"{path}?expires=9999999999&signature={signature}",
        f"{path}?expires=1&signature={signature}",
        task.upload.replace("/api/jobs", "/api/workers/inputs"),
    ):
        assert client.get(changed).status_code in (403, 404, 422), changed
    client.say(Partial(task.attempt, task.plan_hash, task.input_sha256, ENGINE, "0" * 64, b""))
    client.next()
    assert client.get(task.input).status_code == 404


def test_uploads_are_bounded_hashed_and_signed(node: OpenNode, working: tuple[Raw, Task]) -> None:
    client, task = working
    good = {"x-sha256": hashlib.sha256(b"rows").hexdigest()}
    assert client.put(task.upload, b"rows", **good).json() == {"attempt": task.attempt, "bytes": 4}
    assert client.put(task.upload, b"others", **good).status_code == 400
    assert client.put(task.upload, b"rows").status_code == 400
    assert client.put(task.upload.split("?")[0], b"rows", **good).status_code == 422
    assert client.put(task.input, b"rows", **good).status_code == 405
    wrong = task.upload.replace(task.attempt, task.attempt[:-1] + "7")
    assert client.put(wrong, b"rows", **good).status_code == 403

    limits = node.node.jobs.remote.options.limits
    object.__setattr__(limits, "result_bytes_max", 1 << 20)
    pieces = iter([b"x" * (1 << 18)] * 5)
    assert client.put(task.upload, pieces, **good).status_code == 413
    folder = node.node.lake.folder / "remote" / "results"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 100


def test_another_workers_attempt_is_refused(
    raw: Callable[..., Raw], working: tuple[Raw, Task]
) -> None:
    """A client with a valid token says that it has the task of another."""
    client, task = working
    other = raw()
    other.hello()
    other.say(Partial(task.attempt, task.plan_hash, task.input_sha256, ENGINE, "0" * 64, b""))
    assert other.close_code() == 4400
    assert client.get(task.input).status_code == 200


@pytest.mark.parametrize(("is_right", "counts"), [(True, (1, 0)), (False, (0, 1))])
def test_a_result_counts_with_its_hash_alone(
    node: OpenNode, working: tuple[Raw, Task], is_right: bool, counts: tuple[int, int]
) -> None:
    client, task = working
    rows = client.get(task.input).content  # the plan selects what it reads
    sha256 = hashlib.sha256(rows if is_right else b"others").hexdigest()
    client.say(Partial(task.attempt, task.plan_hash, task.input_sha256, ENGINE, sha256, rows))

    def shown() -> list[tuple[int, int]]:
        found = node.node.jobs.remote.sessions()
        return [(x.finished, x.failed) for x in found if x.token == token_id(client.token)]

    until(lambda: shown() != [(0, 0)])
    assert shown() == [counts]


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"x" * (MESSAGE_BYTES_MAX + 1), 4400),
        (b"\xc1", 4400),
        (b"\x91" * 5000, 4400),
        ("text", 4400),
        (ormsgpack.packb({"word": "welcome"}), 4400),
        (encode(Renew("unknown-attempt", 1)), 4400),
        (b"x" * (2 << 20), 1009),
    ],
)
def test_frames_that_break_the_protocol_close_the_connection(
    raw: Callable[..., Raw], frame: Any, code: int
) -> None:
    client = raw()
    client.hello()
    client.next()
    client.socket.send(frame)
    assert client.close_code() == code


@pytest.mark.nightly
def test_a_flood_is_cut_off(node: OpenNode, raw: Callable[..., Raw]) -> None:
    client = raw()
    client.hello()
    with suppress(ConnectionClosed):
        for _ in range(100_000):
            client.say(Credit(1))
    assert client.close_code() == 4429
    assert node.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("hello", "code"), [({"version": 2}, 4406), ({"engine": "emsqrt 9.9.9"}, 4426)]
)
def test_other_versions_are_refused(
    raw: Callable[..., Raw], hello: dict[str, Any], code: int
) -> None:
    client = raw()
    client.hello(**hello)
    assert client.close_code() == code


def test_pages_of_other_origins_cannot_join(node: OpenNode, raw: Callable[..., Raw]) -> None:
    with pytest.raises(InvalidStatus):
        raw(origin="https://evil.example")
    raw(origin=node.url)


def test_messages_are_not_compressed(node: OpenNode) -> None:
    token = node.node.tokens.issue("zip", "worker")
    address = node.url.replace("http", "ws", 1) + "/api/workers"
    protocols: Any = [SUBPROTOCOL, f"sennit-token.{token}"]
    with connect(address, subprotocols=protocols, compression="deflate") as socket:
        assert socket.protocol.extensions == []
        assert socket.subprotocol == SUBPROTOCOL


def test_a_revoked_token_is_disconnected(
    node: OpenNode, join: Callable[..., ScriptedWorker]
) -> None:
    worker = join()
    assert node.client.delete(f"/api/tokens/{token_id(worker.token)}").status_code == 204
    assert worker.ended.wait(WAIT_SECONDS)
    assert worker.close_code == 4403


def test_restricted_and_encrypted_data_stay_on_the_node(
    node: OpenNode, join: Callable[..., ScriptedWorker]
) -> None:
    join()
    node.client.post("/api/query", json={"sql": "create view seen as select n from numbers"})
    plan = {"v": 1, "op": "scan", "source": {"dataset": "seen"}}
    refused = node.client.post("/api/jobs", json={"plan": plan, "engine": "browser"})
    assert refused.status_code == 400
    assert "cannot read views, encrypted datasets" in refused.json()["error"]

    node.node.lake.append("guarded", pa.table({"n": [1, 2]}))
    rules = [{"principal": "writer", "rows": "n < 2"}]
    sent = node.client.put("/api/datasets/guarded/policies", json={"rules": rules})
    assert sent.status_code == 200, sent.text
    with node.client_of("writer") as other:
        plan["source"] = {"dataset": "guarded"}
        for engine, status in (("local", 200), ("browser", 400)):
            answered = other.post("/api/jobs", json={"plan": plan, "engine": engine})
            assert answered.status_code == status, answered.text


@pytest.mark.nightly
def test_a_closed_node_waits_for_no_worker(opened: OpenNodes) -> None:
    """Its connections end with a code that says so."""
    node = opened({})
    with ScriptedWorker(node.url, node.node.tokens.issue("w", "worker")) as worker:
        worker.wait()
        node.node.jobs.remote.close()
        until(lambda: worker.close_code == 4503)
