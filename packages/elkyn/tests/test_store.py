"""The embedded store as its users see it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elkyn import BadPath, ElkynStore, StoreInUse, open_namespaces
from sennit_core.errors import Closed, NotFound, Unsupported, UsageError
from sennit_core.testing import ManualClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree", clock=ManualClock()) as store:
        yield store


def rows(store: ElkynStore) -> int:
    env = store._disk._durable
    with env.read() as txn:
        return int(txn.stat(env.databases["tree"])["entries"])


def test_values_are_there_after_reopening(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "tree") as store:
        store.set("/users/ann", {"name": "Ann", "tags": ["x", "y"]})
    with ElkynStore(tmp_path / "tree") as store:
        assert store.get("/users/ann/tags/1") == "y"
        assert store.get("/") == {"users": {"ann": {"name": "Ann", "tags": ["x", "y"]}}}


def test_an_update_replaces_children_at_any_depth_and_keeps_the_rest(store: ElkynStore) -> None:
    store.set("/a", {"b": {"c": 1, "d": 2}, "e": 3})
    assert store.update("/a", {"b/c": 9, "e": None, "f": [1]}) == {"b/c": 9, "e": None, "f": [1]}
    assert store.get("/a") == {"b": {"c": 9, "d": 2}, "f": [1]}


@pytest.mark.parametrize("values", [{"b": 1, "b/c": 2}, {"b/c": 1, "/b/c/": 2}, {"/": 1}])
def test_an_update_of_a_path_and_one_below_it_changes_nothing(
    store: ElkynStore, values: dict[str, Any]
) -> None:
    with pytest.raises(BadPath):
        store.update("/a", values)
    assert store.get("/") is None


def test_pushed_children_are_returned_in_order(store: ElkynStore) -> None:
    keys = [store.push("/log", number) for number in range(50)]
    assert list(store.get("/log").values()) == list(range(50))
    assert store.keys("/log") == keys


def test_server_values_are_resolved_once_for_the_whole_write(tmp_path: Path) -> None:
    clock = ManualClock()
    with ElkynStore(tmp_path / "t", clock=clock) as store:
        now, plus = {".sv": "timestamp"}, {".sv": {"increment": 2}}
        written = store.set("/x", {"a": now, "b": {"c": now}, "n": plus})
        assert written["a"] == written["b"]["c"] == int(clock.now() * 1000)
        assert store.update("/x", {"n": plus, "a": plus})["n"] == 4
        store.set("/x/n", "text")
        assert store.set("/x/n", plus) == 2


def test_a_transaction_sees_and_replaces_the_value(store: ElkynStore) -> None:
    store.set("/n", 1)
    assert store.transaction("/n", lambda n: n + 1) == 2
    assert store.transaction("/n", lambda n: None) is None
    assert store.get("/n") is None


def test_a_transaction_that_raises_leaves_everything_as_it_was(store: ElkynStore) -> None:
    store.set("/n", 1)
    with pytest.raises(ZeroDivisionError):
        store.transaction("/n", lambda n: n / 0)
    assert store.get("/n") == 1
    store.set("/n", 2)


def test_writing_or_watching_inside_a_transaction_is_refused(store: ElkynStore) -> None:
    with pytest.raises(UsageError, match="must not write"):
        store.transaction("/n", lambda n: store.set("/m", 1))
    with pytest.raises(UsageError, match="must not write"):
        store.transaction("/n", lambda n: store.watch("/m"))
    store.set("/n", 1)


def test_long_keys_deep_paths_and_long_paths_are_stored(tmp_path: Path) -> None:
    deep = "/".join(f"{level:02}" + "k" * 766 for level in range(32))
    with ElkynStore(tmp_path / "t") as store:
        store.set(deep, 1)
        store.set(deep[:-1] + "j", {})
        store.set(deep[:-1] + "z", 2)
        for sibling in range(10):
            store.set("/p" + "é" * 383 + str(sibling), "x" * 1000)
    with ElkynStore(tmp_path / "t") as store:
        assert (store.get(deep), store.get(deep[:-1] + "z")) == (1, 2)
        assert [key[-1] for key in store.keys("/")] == ["k", *"0123456789"]
        store.delete("/")
        assert rows(store) == 0


def test_an_emptied_branch_leaves_no_row_behind(store: ElkynStore) -> None:
    store.set("/a/b", {f"k{number}": "x" * 100 for number in range(100)})
    assert rows(store) > 100
    for number in range(100):
        store.delete(f"/a/b/k{number}")
    assert (store.get("/"), rows(store)) == (None, 0)


def test_replacing_a_branch_frees_the_rows_below_it(store: ElkynStore) -> None:
    store.set("/a", {f"k{n}": {f"j{m}": "x" * 300 for m in range(10)} for n in range(10)})
    assert rows(store) > 100
    store.set("/a", 1)
    assert rows(store) == 1  # what is left fits one row


@pytest.mark.nightly
def test_a_small_map_grows_while_threads_read(tmp_path: Path) -> None:
    done = threading.Event()
    failures: list[BaseException] = []

    def read(store: ElkynStore) -> None:
        try:
            while not done.is_set():
                store.get("/big")
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            failures.append(error)

    with ElkynStore(tmp_path / "t", map_size=256 * 1024) as store:
        readers = [threading.Thread(target=read, args=(store,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for number in range(40):
            store.set(f"/big/{number}", "x" * 100_000)
            store.set(f"/live/{number}", "x" * 100_000, ephemeral=True)
        done.set()
        for reader in readers:
            reader.join()
        assert not failures
        assert len(store.get("/big")) == len(store.get("/live")) == 40
        assert store._disk._durable.map_bytes >= 4 * 1024 * 1024


def test_writers_in_many_threads_lose_nothing(store: ElkynStore) -> None:
    def count() -> None:
        for _ in range(25):
            store.set("/plain", {".sv": {"increment": 1}})
            store.transaction("/counted", lambda n: (n or 0) + 1)
            store.set("/live", {".sv": {"increment": 1}}, ephemeral=True)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("/") == {"plain": 200, "counted": 200, "live": 200}


@pytest.mark.slow
def test_readers_never_see_half_of_an_update(store: ElkynStore) -> None:
    torn: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            value = store.get("/pair")
            if value and value["a"] != value["b"]:
                torn.append(value)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(300):
        pair = {"a": number, "b": number}
        store.update("/pair", pair, ephemeral=number % 3 == 0)
    done.set()
    for reader in readers:
        reader.join()
    assert torn == []


def test_a_second_store_on_the_folder_names_the_owner(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        with pytest.raises(StoreInUse, match="process") as refused:
            ElkynStore(tmp_path / "t")
        assert refused.value.pid is not None
        store.set("/still", "works")
    with ElkynStore(tmp_path / "t") as store:
        assert store.get("/still") == "works"


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = ElkynStore(tmp_path / "t")
    store.close()
    store.close()
    with pytest.raises(Closed):
        store.get("/")
    with pytest.raises(Closed):
        store.set("/", 1)
    with pytest.raises(Closed):
        store.watch("/")


def test_memory_mode_is_a_store_without_a_folder() -> None:
    with ElkynStore(mode="memory") as store:
        store.set("/a", 1)
        store.set("/b", 2, ephemeral=True)
        assert store.get("/") == {"a": 1, "b": 2}
        assert not store._disk.folder.exists()


def test_a_mode_and_a_folder_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a folder"):
        ElkynStore()
    with pytest.raises(UsageError, match="accepts no folder"):
        ElkynStore(tmp_path, mode="memory")
    with pytest.raises(Unsupported):
        ElkynStore(tmp_path, mode="cluster")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="need each other"):
        ElkynStore(tmp_path, mode="replica")


def test_a_replica_that_cannot_begin_to_follow_closes_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not the URL of a server"):
        ElkynStore(tmp_path, mode="replica", cluster_url="nowhere")
    with ElkynStore(tmp_path) as store:
        assert store.replica is None


def test_namespaces_are_apart_and_found_again(tmp_path: Path) -> None:
    with open_namespaces(tmp_path) as stores:
        stores["sys"].set("/a", 1)
        assert stores["sys"] is stores["sys"]
        assert stores["app"].get("/a") is None
        with pytest.raises(UsageError, match="not a valid namespace name"):
            stores["../sys"]
    with open_namespaces(tmp_path, create=False) as stores:
        assert (list(stores), "sys" in stores, "no" in stores) == (["app", "sys"], True, False)
        with pytest.raises(NotFound) as missing:
            stores["syss"]
        assert missing.value.suggestion == "sys"
