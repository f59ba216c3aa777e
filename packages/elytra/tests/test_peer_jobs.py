"""Jobs over shards that another node has: where they run, what moves, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pyarrow as pa
import pytest
from peer_nodes import PeerNode, eventually, joined, peer_node, share

from elytra.backends import TaskInput, TaskSpec
from elytra.backends.peer_tasks import PeerTasks
from elytra.backends.peers import PeersBackend
from elytra.service.network_inputs import NetworkInputs
from emsqrt.expr import Agg, col, count
from emsqrt.plan import Aggregate, Files, Scan
from lake.access.rules import PolicyRule
from lake.peers.jobs.server import TaskCall
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import SennitError, Unsupported
from sennit_core.schema import DataType, Field, Schema

pytestmark = pytest.mark.slow  # real nodes with executors


def table(part: int, rows: int = 4000) -> pa.Table:
    numbers = range(part * rows, (part + 1) * rows)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "city": [("Oslo", "Rome", None)[n % 3] for n in numbers],
            "km": [(n * 7919 % 1000) / 7 + 1e9 * (n % 2) for n in numbers],
        }
    )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PeerNode, PeerNode]]:
    """Oslo, which writes a dataset of three shards, and Rome, which has none of them."""
    folder = tmp_path_factory.mktemp("peers")
    with ExitStack() as owned:
        oslo = owned.enter_context(peer_node(folder, "oslo"))
        rome = owned.enter_context(peer_node(folder, "rome"))
        owned.enter_context(joined(oslo, rome))
        for part in range(3):
            oslo.lake.append("trips", table(part))
        share(oslo, "trips", rome)
        yield oslo, rome


def has_none(node: PeerNode, name: str, writer: PeerNode | None = None) -> bool:
    """Whether a node has no shard of a dataset, whose shards it may not know itself (`writer` does)."""
    knows = writer or node
    shards = knows.lake.catalog.manifest(knows.dataset(name).id).snapshot.shards
    return not any(shard.object in node.lake.objects for shard in shards)


def test_each_shard_is_computed_where_it_is(nodes: tuple[PeerNode, PeerNode]) -> None:
    oslo, rome = nodes
    by_city = rome.pipeline("trips").group_by("city").agg(n=count(), km=col("km").sum())
    there = oslo.pipeline("trips").group_by("city").agg(n=count(), km=col("km").sum())

    job = rome.jobs.submit(by_city.plan, engine="peers", submitted_by="ada")

    assert rome.rows(job) == oslo.rows(oslo.jobs.submit(there.plan, engine="local"))
    assert rome.jobs.get(job.id).engine == "peers"
    assert rome.jobs.get(job.id).result["rowsRead"] == 12_000  # type: ignore[index]
    assert has_none(rome, "trips")
    assert not list((rome.lake.folder / "jobs" / job.id).glob("*/*.received*"))


def test_auto_chooses_what_moves_less(nodes: tuple[PeerNode, PeerNode]) -> None:
    _, rome = nodes
    trips = rome.pipeline("trips")
    total = rome.jobs.submit(trips.agg(km=col("km").max()).plan)
    assert rome.rows(total) == [{"km": 999 / 7 + 1e9}]
    assert (total.engine, has_none(rome, "trips")) == ("peers", True)


def test_rows_that_are_needed_whole_are_fetched_and_computed_here(
    nodes: tuple[PeerNode, PeerNode],
) -> None:
    oslo, rome = nodes
    oslo.lake.append("all", table(0, 100))
    share(oslo, "all", rome)
    wide = rome.pipeline("all").with_columns(again=col("km") * 2, more=col("km") * 3)

    job = rome.jobs.submit(wide.plan)

    assert len(rome.rows(job)) == 100
    assert (job.engine, has_none(rome, "all")) == ("local", False)


def test_shards_that_are_not_shared_any_more_are_not_computed(
    nodes: tuple[PeerNode, PeerNode],
) -> None:
    oslo, rome = nodes
    oslo.lake.append("secret", table(0, 10))
    share(oslo, "secret", rome)
    counted = rome.pipeline("secret").agg(n=count()).plan
    oslo.lake.set_policy("secret", [PolicyRule("*@*", rows="id < 5")])  # Rome may not know yet

    try:
        error = rome.ended(rome.jobs.submit(counted, engine="peers")).error
    except SennitError as refused:  # Rome knows it
        error = refused.to_json()
    assert error is not None
    assert error["code"] in ("unavailable", "unsupported", "not-found")
    assert has_none(rome, "secret", writer=oslo)


def test_an_engine_that_needs_a_network_is_refused_without_one(
    nodes: tuple[PeerNode, PeerNode], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with peer_node(tmp_path_factory.mktemp("bern"), "bern") as bern:
        bern.lake.append("trips", table(0, 10))
        with pytest.raises(Unsupported, match='engine "peers" needs a network'):
            bern.jobs.submit(bern.pipeline("trips").plan, engine=PeersBackend.name)


def test_it_is_explained_which_node_would_run_what(nodes: tuple[PeerNode, PeerNode]) -> None:
    oslo, rome = nodes
    rome.lake.append("own", table(0, 100))
    total = rome.pipeline("trips").agg(km=col("km").sum()).plan

    found = rome.jobs.explain(total)
    [there] = found["nodes"]
    assert (found["engine"], found["tasks"], found["missing"]) == ("peers", 3, [])
    assert (there["node"], there["tasks"], there["fetchedBytes"]) == ("oslo", 3, 0)
    assert 0 < there["sentBytes"] < 1000 < there["readBytes"]

    [here] = rome.jobs.explain(total, engine="local")["nodes"]
    assert (here["node"], here["tasks"], here["sentBytes"]) == ("rome", 3, 0)
    assert here["fetchedBytes"] == here["readBytes"] == there["readBytes"]
    own = rome.jobs.explain(rome.pipeline("own").plan)
    assert [(each["node"], each["fetchedBytes"]) for each in own["nodes"]] == [("rome", 0)]
    joined = rome.pipeline("trips").join(rome.pipeline("own"), on="id").plan
    assert rome.jobs.explain(joined)["engine"] == "local"
    assert has_none(rome, "trips")
    del oslo


def test_a_result_without_a_shard_says_so_and_is_not_resumed_with_others(
    nodes: tuple[PeerNode, PeerNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks are numbered by shard: those of a restarted job must be the same."""
    _, rome = nodes
    shard = rome.lake.catalog.manifest(rome.dataset("trips").id).snapshot.shards[0].object

    def lose(network: NetworkInputs, *, allow_partial: bool) -> None:
        assert allow_partial
        network._leave_out({shard: ("kiel",)})

    monkeypatch.setattr(NetworkInputs, "check_available", lose)
    counted = rome.pipeline("trips").agg(n=count()).plan
    job = rome.jobs.submit(counted, engine="peers", allow_partial=True)

    assert rome.rows(job) == [{"n": 8000}]
    missing = (rome.ended(job).result or {})["missing"]
    assert (missing["shards"], missing["rows"]) == (1, 4000)
    assert missing["datasets"][0]["nodes"] == ["kiel"]
    note = rome.jobs._job_store.note(job.id)
    assert note is not None
    assert note["resumable"] is False


def test_a_shard_whose_columns_are_not_those_of_the_task_is_an_error(
    nodes: tuple[PeerNode, PeerNode],
) -> None:
    """A hostile node sends a plan with another schema than the shard has."""
    oslo, rome = nodes
    info = rome.dataset("trips")
    shard = rome.lake.catalog.manifest(info.id).snapshot.shards[0].object
    for field in (("city", "Int64"), ("secret", "Int64")):
        schema = Schema((Field(field[0], DataType(field[1])),))
        plan = Aggregate(
            Scan(Files(("shard-0",), "parquet"), schema), (), (("n", Agg("max", col(field[0]))),)
        )
        task = TaskSpec("j-t0-1", "j", "t0", plan, (TaskInput("shard-0", "shard", shard),), "arrow")
        call = TaskCall(
            json.dumps(task.to_json()).encode(), {info.id: (shard,)},
            Requester("eve", node=rome.peers.identity.id), "eve@rome", 30, "a",
        )  # fmt: skip
        with pytest.raises(SennitError):
            list(PeerTasks(oslo.lake).run(call, Stop(), lambda _: None))
    assert not oslo.lake.running.list(Requester("root", is_admin=True))


def test_a_cancelled_job_ends_at_the_other_node(nodes: tuple[PeerNode, PeerNode]) -> None:
    oslo, rome = nodes
    oslo.lake.append("long", pa.table({"n": pa.array(range(400_000), pa.int64())}))
    share(oslo, "long", rome)
    texts = {f"t{n}": (col("n") * n).cast("Utf8").replace("1", "one").upper() for n in range(6)}
    tops = {f"top_{name}": col(name).max() for name in texts}
    plan = rome.pipeline("long").with_columns(**texts).agg(n=count(), **tops).plan
    job = rome.jobs.submit(plan, engine="peers", submitted_by="ada")
    eventually(lambda: oslo.pool.stats().busy == 1)

    [shown] = oslo.lake.running.list(Requester("root", is_admin=True))
    assert (shown.user, shown.engine) == ("ada@rome", "emsqrt")
    rome.jobs.cancel(job.id)

    assert rome.ended(job).state == "cancelled"
    eventually(lambda: oslo.pool.stats().busy == 0)
    assert rome.pool.stats().busy == 0
