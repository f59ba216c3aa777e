"""A task of a job at other nodes: which holder runs it, what is accepted of an answer, and when it runs here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lake.catalog.node_key import NodeKey
from lake.distributed.network_jobs import RemoteTask, TaskShardsInfo
from lake.distributed.partial import ShardsUnavailable
from lake.peers.changes.claims import Claims
from lake.peers.jobs import dispatch as job_dispatch
from lake.peers.jobs.calls import JobCalls
from lake.peers.jobs.dispatch import JobDispatch, JobStates
from lake.peers.jobs.messages import TaskDone, TaskPiece, TaskProgress, TaskRequest
from lake.peers.queries.fragments import FragmentPiece
from lake.peers.transport.messages import Message
from lake.peers.transport.session import Piece
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import (
    BadInput,
    Busy,
    Cancelled,
    CapTooSmall,
    DeadlineExceeded,
    Denied,
    SennitError,
    StorageFull,
    TooLarge,
    Unavailable,
    WorkerLost,
)
from sennit_core.records import Progress

SPACE: Any = SimpleNamespace(check_disk=lambda _what, _size: None)
RIGHT = b"the partial"

Answer = Callable[[TaskRequest], AsyncGenerator[Piece, None]]


def sends(*pieces: bytes | Message, ends: bool = True) -> Answer:
    """An answer of these pieces, and its end."""

    async def answer(request: TaskRequest) -> AsyncGenerator[Piece, None]:
        for piece in pieces:
            yield (piece, b"") if isinstance(piece, Message) else (TaskPiece(), piece)
        if ends:
            yield TaskDone(request.attempt, rows_in=7), b""

    return answer


def raises(error: SennitError, times: int = 1000) -> Answer:
    """An answer that is an error so many times, and right then."""
    left = [times]

    async def answer(request: TaskRequest) -> AsyncGenerator[Piece, None]:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        async for piece in sends(RIGHT)(request):
            yield piece

    return answer


async def hangs(_request: TaskRequest) -> AsyncGenerator[Piece, None]:
    yield TaskProgress(Progress(rows=-5, bytes_done=1 << 60, phase="\x1b[31m")), b""
    await asyncio.sleep(1000)


@dataclass
class Network:
    """Nodes that hold all shards, by name, each with its answer; `here` is this one."""

    key: NodeKey
    answers: dict[str, Answer]
    here: bool = False
    without_tasks: Collection[str] = ()
    dead: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)
    unavailable: bool = False
    asked: list[str] = field(default_factory=list)
    requests: list[TaskRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.claims = Claims(self.key, "net")
        self.node_id = "here"

    def holders(self, name: str) -> list[str]:
        return [*(["here"] if self.here else []), *self.alive()]

    def known_holders(self, name: str) -> tuple[str, ...]:
        return tuple(self.answers)

    async def fetch(self, names: Collection[str]) -> None:
        if self.unavailable:
            raise ShardsUnavailable("the shards")
        self.fetched += names

    def alive(self) -> list[str]:
        return [node for node in self.answers if node not in self.dead]

    def has_same_duckdb(self, node: str) -> bool:
        return True

    def may_receive(self, node: str, dataset: str, snapshot: str) -> bool:
        return False

    def name(self, node: str) -> str:
        return node.upper()

    def wall(self) -> float:
        return 1000.0

    def size_of(self, name: str) -> int:
        return 10

    def runs_tasks(self, node: str) -> bool:
        return node not in self.without_tasks

    async def session(self, node: str) -> Any:
        return SimpleNamespace(stream=lambda request, body, **_: self._answer(node, request))

    def _answer(self, node: str, request: TaskRequest) -> AsyncGenerator[Piece, None]:
        self.asked.append(node)
        self.requests.append(request)
        return self.answers[node](request)


class Host:
    """The job's side, which accepts only the right bytes."""

    def __init__(self, here: SennitError | None = None) -> None:
        self.here = here
        self.accepted: dict[int, TaskDone] = {}
        self.ran: list[int] = []
        self.progress: list[Progress] = []

    async def run_here(self, attempt: int) -> None:
        self.ran.append(attempt)
        if self.here is not None:
            raise self.here

    async def accept(self, attempt: int, received: Path, done: TaskDone) -> None:
        if await asyncio.to_thread(received.read_bytes) != RIGHT:
            raise BadInput("the partial", reason="it is another one")
        self.accepted[attempt] = done

    def progressed(self, progress: Progress) -> None:
        self.progress.append(progress)


@pytest.fixture
def key(tmp_path: Path) -> NodeKey:
    (tmp_path / "key").mkdir()
    return NodeKey(tmp_path / "key" / "node.key")


@pytest.fixture(autouse=True)
def _no_node_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_dispatch, "_RETURN_SECONDS", 0.0)


def task(folder: Path, **changes: Any) -> RemoteTask:
    found = RemoteTask(
        "job", "t0", b"{}", {"d": ("s1", "s2")}, Requester("ada"), folder / "t0.received"
    )
    return replace(found, **changes)


def run(
    network: Network, host: Host, work: RemoteTask, *, states: JobStates | None = None,
    stop: Stop | None = None, space: Any = SPACE,
) -> int:  # fmt: skip
    async def limited() -> int:
        async with asyncio.timeout(30):
            dispatch = JobDispatch(
                network, states or JobStates(1000), space, work, host, stop or Stop()
            )
            return await dispatch.run()

    found = asyncio.run(limited())
    assert not list(work.received.parent.glob("*.received*")), "nothing that was received is left"
    return found


def test_a_holder_runs_the_task(key: NodeKey, tmp_path: Path) -> None:
    network, host = Network(key, {"oslo": sends(RIGHT[:3], RIGHT[3:])}), Host()
    number = run(network, host, task(tmp_path))
    assert host.accepted[number].rows_in == 7
    assert (network.fetched, host.ran) == ([], [])
    [request] = network.requests
    assert request.claim is not None
    assert request.claim.body["user"] == "ada"
    assert {each.dataset: each.objects for each in request.shards} == {"d": ("s1", "s2")}


def test_a_shard_that_is_here_is_read_here(key: NodeKey, tmp_path: Path) -> None:
    network, host = Network(key, {"oslo": sends(RIGHT)}, here=True), Host()
    run(network, host, task(tmp_path))
    assert (network.asked, host.ran) == ([], [1])


def test_the_node_with_less_to_do_is_asked_first(key: NodeKey, tmp_path: Path) -> None:
    network, host = Network(key, {"oslo": sends(RIGHT), "rome": sends(RIGHT)}), Host()
    states = JobStates(1000)
    states.load["oslo"] = 100
    run(network, host, task(tmp_path), states=states)
    assert network.asked == ["rome"]
    assert +states.load == {"oslo": 100}


BAD = {
    "other bytes": sends(b"something else"),
    "no end": sends(RIGHT, ends=False),
    "more than allowed": sends(*[bytes(100)] * 20),
    "another message": sends(FragmentPiece(), RIGHT),
    "the end of another attempt": sends(RIGHT, TaskDone("replayed"), ends=False),
    "an impossible number": sends(RIGHT, TaskDone("replayed", rows_in=-1), ends=False),
    "bytes after its end": sends(RIGHT, TaskDone("replayed"), RIGHT),
    "nothing": sends(),
    "an error": raises(Denied("everything")),
    "an error of the plan": raises(CapTooSmall(cap_bytes=1, needed_bytes=2, because="")),
    "its own deadline": raises(DeadlineExceeded("it", 1)),
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
def test_a_bad_answer_is_asked_of_another_holder(
    key: NodeKey, tmp_path: Path, answer: Answer
) -> None:
    network, host = Network(key, {"oslo": answer, "rome": sends(RIGHT)}), Host()
    number = run(network, host, task(tmp_path))
    assert set(network.asked) == {"oslo", "rome"}
    assert list(host.accepted) == [number]
    assert (network.fetched, host.ran) == ([], [])


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
def test_without_another_holder_the_shards_come_here(
    key: NodeKey, tmp_path: Path, answer: Answer
) -> None:
    """So a hostile holder can make a task slow, and never wrong or failed."""
    network, host = Network(key, {"oslo": answer}), Host()
    number = run(network, host, task(tmp_path))
    assert network.fetched == ["s1", "s2"]
    assert host.ran == [number]
    assert not host.accepted


def test_what_came_of_refused_answers_does_not_count(key: NodeKey, tmp_path: Path) -> None:
    states = JobStates(100)
    for _ in range(3):
        network = Network(key, {"oslo": sends(bytes(90)), "rome": sends(RIGHT)})
        run(network, Host(), task(tmp_path), states=states)
    with pytest.raises(TooLarge):
        states.of("job").limit.add(100 - 3 * len(RIGHT) + 1)
    states.of("job").limit.add(100 - 3 * len(RIGHT))


def test_a_result_longer_than_the_tasks_limit_is_refused(key: NodeKey, tmp_path: Path) -> None:
    network, host = Network(key, {"oslo": sends(RIGHT)}), Host(TooLarge("it", 1, 2))
    with pytest.raises(TooLarge):
        run(network, host, task(tmp_path, bytes_max=len(RIGHT) - 1))
    assert host.ran  # the last word is this node's


def test_nodes_whose_version_runs_no_tasks_get_none(key: NodeKey, tmp_path: Path) -> None:
    answers = {"oslo": sends(RIGHT), "rome": sends(RIGHT)}
    network, host = Network(key, answers, without_tasks=("oslo",)), Host()
    run(network, host, task(tmp_path))
    assert network.asked == ["rome"]

    network = Network(key, answers, without_tasks=("oslo", "rome"))
    run(network, host, task(tmp_path))
    assert (network.asked, network.fetched) == ([], ["s1", "s2"])


def test_a_task_too_large_for_a_request_runs_here(key: NodeKey, tmp_path: Path) -> None:
    network, host = Network(key, {"oslo": sends(RIGHT)}), Host()
    run(network, host, task(tmp_path, text=bytes(200 << 10)))
    assert (network.asked, network.fetched) == ([], ["s1", "s2"])


def test_a_busy_holder_is_asked_again(
    key: NodeKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_dispatch, "_BUSY_SECONDS", (0.001, 0.001))
    network, host = Network(key, {"oslo": raises(Busy("the node"), times=5)}), Host()
    run(network, host, task(tmp_path))
    assert network.asked == ["oslo"] * 6
    assert network.fetched == []


def test_a_lost_process_ends_the_task_and_its_next_attempt_is_elsewhere(
    key: NodeKey, tmp_path: Path
) -> None:
    """As on one node: the scheduler counts attempts, and makes no more than some."""
    network = Network(key, {"oslo": raises(WorkerLost("pid 1")), "rome": sends(RIGHT)})
    host, states = Host(), JobStates(1000)
    with pytest.raises(WorkerLost):
        run(network, host, task(tmp_path), states=states)
    run(network, host, task(tmp_path), states=states)
    assert network.asked == ["oslo", "rome"]

    alone = Network(key, {"oslo": raises(WorkerLost("pid 1"))})
    run(alone, host, task(tmp_path), states=states)
    assert (alone.asked, alone.fetched) == ([], ["s1", "s2"])


def test_a_node_that_is_lost_is_replaced_and_counts_once(key: NodeKey, tmp_path: Path) -> None:
    network, host = Network(key, {"oslo": hangs, "rome": sends(RIGHT)}), Host()

    def progressed(progress: Progress) -> None:
        host.progress.append(progress)
        network.dead.add("oslo")

    host.progressed = progressed  # type: ignore[method-assign]
    number = run(network, host, task(tmp_path))
    assert network.asked == ["oslo", "rome"]
    assert list(host.accepted) == [number]
    # None of what a peer says of its progress is shown as it came.
    assert host.progress == [Progress(rows=0, bytes_done=1 << 53)]


def test_a_slow_node_is_overtaken(key: NodeKey, tmp_path: Path) -> None:
    """What is slow follows from the job's other tasks."""
    network, host, states = (
        Network(key, {"oslo": hangs, "rome": sends(RIGHT)}),
        Host(),
        JobStates(0),
    )
    states.of("job").durations.append(0.001)
    number = run(network, host, task(tmp_path), states=states)
    assert network.asked == ["oslo", "rome"]
    assert list(host.accepted) == [number]


def test_a_stop_and_a_deadline_end_the_attempt(key: NodeKey, tmp_path: Path) -> None:
    network, host, stop = Network(key, {"oslo": hangs}), Host(), Stop()
    host.progressed = lambda progress: stop.stop()  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        run(network, host, task(tmp_path), stop=stop)
    with pytest.raises(DeadlineExceeded):
        run(network, Host(), task(tmp_path, seconds=0.05))


def test_a_full_disk_here_ends_the_task(key: NodeKey, tmp_path: Path) -> None:
    def full(_what: str, size: int) -> None:
        raise StorageFull("partials", size)

    network = Network(key, {"oslo": sends(RIGHT), "rome": sends(RIGHT)})
    with pytest.raises(StorageFull):
        run(network, Host(), task(tmp_path), space=SimpleNamespace(check_disk=full))
    assert network.asked == ["oslo"]


def test_shards_that_no_node_has_fail_the_task_so_that_it_may_be_tried_again(
    key: NodeKey, tmp_path: Path
) -> None:
    network = Network(key, {"oslo": raises(Unavailable("its disk"))}, unavailable=True)
    with pytest.raises(ShardsUnavailable) as raised:
        run(network, Host(), task(tmp_path))
    assert raised.value.retryable


def test_a_holder_that_comes_back_runs_the_task(
    key: NodeKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_dispatch, "_RETURN_SECONDS", 20.0)
    network, host = Network(key, {"oslo": sends(RIGHT)}, unavailable=True, dead={"oslo"}), Host()
    fetch = network.fetch

    async def fetch_once(names: Collection[str]) -> None:
        network.dead.clear()
        await fetch(names)

    monkeypatch.setattr(network, "fetch", fetch_once)
    number = run(network, host, task(tmp_path))
    assert list(host.accepted) == [number]


def assigned(network: Network, tasks: Sequence[TaskShardsInfo]) -> Any:
    from lake.peers.jobs.calls import _assign

    return asyncio.run(_assign(network, tasks))


def test_where_tasks_would_run_is_known_before(key: NodeKey) -> None:
    tasks = [TaskShardsInfo(f"t{n}", (f"s{n}",)) for n in range(4)]
    found = assigned(Network(key, {"oslo": sends(), "rome": sends()}), tasks)
    assert sorted(found.nodes.values()) == ["oslo", "oslo", "rome", "rome"]
    assert found.names == {"oslo": "OSLO", "rome": "ROME", "here": "HERE"}

    found = assigned(Network(key, {"oslo": sends()}, without_tasks=("oslo",)), tasks[:1])
    assert (found.nodes, found.missing) == ({"t0": ""}, {})
    found = assigned(Network(key, {"oslo": sends()}, dead={"oslo"}), tasks[:1])
    assert (found.nodes, found.missing) == ({}, {"t0": {"s0": ("oslo",)}})


def test_a_node_without_a_network_runs_no_tasks(tmp_path: Path) -> None:
    calls = JobCalls(lambda _work: pytest.fail("nothing runs"), lambda: None, SPACE, 0)
    assert not calls.is_joined
    with pytest.raises(Unavailable, match="net join"):
        calls.run(task(tmp_path), Host(), Stop())
