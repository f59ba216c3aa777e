"""Quotas of users: what each refuses, that two cannot pass together, and what is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.quotas import UserQuota
from lake.statements.limits import Requester
from sennit_core.errors import Busy, SennitError, StorageFull, UsageError
from sennit_core.ids import new_id
from sennit_core.testing import ManualClock

from .conftest import put
from .served_lake import Client, make_app

MIB = 1 << 20


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def limited(tmp_path: Path, pool: ExecutorPool, clock: ManualClock) -> Iterator[Lake]:
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path / "data", tree=tree, pool=pool, clock=clock) as lake,
    ):
        yield lake


def table(lake: Lake, name: str, rows: int = 20_000, user: str = "ada") -> None:
    statement = f"CREATE TABLE {name} AS SELECT hash(i + {rows}) AS a FROM range({rows}) r(i)"
    with lake.run(statement, user=user, role="writer") as execution:
        execution.result()


def test_a_commit_beyond_the_quota_is_refused_and_leaves_nothing(limited: Lake) -> None:
    table(limited, "first")
    used = limited.quotas.stored.owned_by("ada")
    limited.quotas.set(UserQuota("ada", disk_bytes=used + 1000))
    objects = set(limited.objects)

    with pytest.raises(StorageFull, match=r"user 'ada' may store .* needs .* more") as error:
        table(limited, "second", 20_001)

    assert "ask an admin" in (error.value.hint or "")
    assert set(limited.objects) == objects
    table(limited, "others", 20_002, user="eve")
    with limited.run("DELETE FROM first", user="ada", role="writer") as execution:
        execution.result()


def test_versions_count_until_they_expire(limited: Lake, clock: ManualClock) -> None:
    table(limited, "t")
    used = limited.quotas.stored.owned_by("ada")
    limited.quotas.set(UserQuota("ada", disk_bytes=int(used * 1.5)))
    limited.sql("TRUNCATE t")
    assert limited.quotas.stored.owned_by("ada") == used

    with pytest.raises(StorageFull):
        table(limited, "u", 20_001)
    clock.advance(1)
    limited.expire("t", keep=1)
    table(limited, "u", 20_001)


def test_two_concurrent_changes_do_not_pass_together(limited: Lake) -> None:
    table(limited, "probe")
    used = limited.quotas.stored.owned_by("ada")
    limited.quotas.set(UserQuota("ada", disk_bytes=int(used * 2.5)))
    errors: list[SennitError] = []

    def create(number: int) -> None:
        try:
            table(limited, f"t{number}", 20_001 + number)
        except SennitError as error:
            errors.append(error)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(errors) == 3
    assert limited.quotas.stored.owned_by("ada") <= used * 2.5


def test_an_ingest_counts_for_its_owner(limited: Lake) -> None:
    limited.quotas.set(UserQuota("ada", disk_bytes=100))
    path = limited.staging / "rows.csv"
    path.write_text("a\n" + "".join(f"{i * 7919}\n" for i in range(1000)))
    with pytest.raises(StorageFull, match="ada"):
        limited.ingest_file(path, "rows.csv", "create", {}, owner="ada")
    assert limited.ingest_file(path, "rows.csv", "create", {}, owner="eve").rows == 1000


def test_compaction_and_purge_of_a_full_quota(limited: Lake) -> None:
    table(limited, "t")
    limited.quotas.set(UserQuota("ada", disk_bytes=1))

    assert limited.purge("t", "a % 2 = 0").rows > 0  # it stores less


def test_statements_at_once(limited: Lake) -> None:
    limited.quotas.set(UserQuota("ada", statements=2))
    running = [limited.run("SELECT 1", user="ada", role="reader") for _ in range(2)]

    with pytest.raises(Busy, match="may run 2 statements at once"):
        limited.run("SELECT 1", user="ada", role="reader")
    with limited.run("SELECT 1", user="eve", role="reader") as other:
        other.result()
    running[0].close()
    with limited.run("SELECT 1", user="ada", role="reader") as execution:
        execution.result()
    running[1].close()


def test_statements_in_a_minute(limited: Lake, clock: ManualClock) -> None:
    limited.quotas.set(UserQuota("ada", statements_per_minute=2))

    def select() -> None:
        with limited.run("SELECT 1", user="ada", role="reader") as execution:
            execution.result()

    select()
    clock.advance(30)
    select()
    with pytest.raises(Busy, match="2 statements in a minute") as error:
        select()
    assert "wait 30 s" in (error.value.hint or "")
    clock.advance(30)
    select()
    with pytest.raises(Busy):
        select()


def test_memory_of_statements(limited: Lake) -> None:
    limited.quotas.set(UserQuota("ada", memory_bytes=192 * MIB))

    with limited.run("SELECT 1", user="ada", role="reader") as execution:
        assert execution.memory_bytes == 192 * MIB
        with pytest.raises(Busy, match=r"192\.0 MiB of memory"):
            limited.run("SELECT 1", user="ada", role="reader")
        execution.result()
        assert execution.progress.cap_bytes in (None, 192 * MIB)
    with limited.run("SELECT 1", user="ada", role="reader") as execution:
        execution.result()


def test_quotas_survive_a_restart_and_names_may_be_any(limited: Lake) -> None:
    for name in ("a.b/c", "Ünï", "x" * 100):
        limited.quotas.set(UserQuota(name, statements=3))
    again = Lake(limited.folder, tree=limited.tree, pool=limited.pool)
    assert [each.user for each in again.quotas.list()] == sorted(["a.b/c", "Ünï", "x" * 100])
    assert again.quotas.remove("a.b/c")
    assert not again.quotas.remove("a.b/c")
    again.close()


@pytest.mark.parametrize(
    "quota",
    [UserQuota(""), UserQuota("a", disk_bytes=-1), UserQuota("a", memory_bytes=1)],
)
def test_senseless_quotas_are_refused(limited: Lake, quota: UserQuota) -> None:
    with pytest.raises(UsageError):
        limited.quotas.set(quota)


def test_an_upload_is_refused_at_its_start_if_there_is_no_room(limited: Lake) -> None:
    put(limited, "t.csv", "a\n1\n")
    limited.quotas.set(UserQuota("walt", disk_bytes=1))
    limited.quotas.check_room("walt", "an upload")
    info = limited.catalog.get("t")
    assert info.owner == ""
    limited.append("u", pa.table({"a": [1]}))
    limited.ingest_file(_file(limited), "x.csv", "create", {"name": f"x{new_id()}"}, owner="eve")
    limited.quotas.set(UserQuota("eve", disk_bytes=1))
    with pytest.raises(StorageFull, match="there is no room for an upload"):
        limited.quotas.check_room("eve", "an upload")


def _file(lake: Lake) -> Path:
    path = lake.staging / "x.csv"
    path.write_text("a\n1\n")
    return path


def test_routes_of_quotas_and_storage(limited: Lake) -> None:
    client = Client(make_app(limited))
    table(limited, "t")
    for number in range(3):
        limited.sql(f"INSERT INTO t VALUES ({number})")
    limited.sql("DELETE FROM t WHERE a = 1")

    body = {"diskBytes": MIB, "statements": 4}
    assert client.put("/api/quotas/ada", json=body).json()["diskBytes"] == MIB
    assert client.get("/api/quotas").json()[0]["storedBytes"] > 0
    assert client.put("/api/quotas/ada", json={"bytes": 1}).status_code in (400, 422)

    report = client.get("/api/stats/storage").json()
    (dataset,) = report["datasets"]
    assert (dataset["owner"], dataset["versions"], dataset["shards"]) == ("ada", 5, 3)
    assert dataset["storedBytes"] == dataset["bytes"] + dataset["reclaimableBytes"]
    assert report["objects"]["shards"]["objects"] == 4
    assert report["objects"]["others"]["objects"] == 5  # manifests
    assert report["disk"]["freeBytes"] > 0
    assert {each["task"] for each in report["maintenance"]} >= {"scrub", "compact"}
    assert client.delete("/api/quotas/ada").json() == {"deleted": True}


def test_others_see_no_disk_and_no_quotas(limited: Lake) -> None:
    from lake.storage_report import storage_report

    table(limited, "t")
    report = storage_report(limited, Requester("eve", role="reader"))
    assert "disk" not in report
    assert "quotas" not in report
    assert [each["name"] for each in report["datasets"]] == ["t"]


def test_a_node_has_a_quota_for_all_of_its_users_and_each_other_node_the_default(
    limited: Lake,
) -> None:
    rome, bern = "a" * 64, "b" * 64
    limited.quotas.set(UserQuota("*@*", statements_per_minute=1))
    limited.quotas.set(UserQuota(f"*@{rome}", statements_per_minute=2))

    def admitted(user: str, node: str) -> bool:
        key = Requester(user, node=node).quota_key
        try:
            limited.quotas.admit_statement(key, (), MIB)
        except Busy:
            return False
        return True

    users = [f"user{number}" for number in range(3)]
    assert [admitted(user, rome) for user in users] == [True, True, False]
    assert [admitted(user, bern) for user in users] == [True, False, False]
    assert [admitted(user, "c" * 64) for user in users] == [True, False, False]
    assert all(admitted(user, "") for user in users)


def test_a_node_is_named_in_a_quota(limited: Lake) -> None:
    limited.remote.find_node = {"rome": "a" * 64}.get
    client = Client(make_app(limited))
    assert (
        client.put("/api/quotas/*@rome", json={"statements": 4}).json()["user"] == f"*@{'a' * 64}"
    )
    assert client.get("/api/quotas/*@rome").json()["statements"] == 4
    assert client.put("/api/quotas/*@oslo", json={"statements": 4}).status_code == 404
    assert client.put("/api/quotas/*@*", json={"statements": 4}).json()["user"] == "*@*"
    assert client.delete("/api/quotas/*@rome").json() == {"deleted": True}
