"""Indexes in LMDB: their bytes are in order, they answer as a scan does, and survive crashes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from elkyn import ElkynStore, _failpoints, index_builder
from elkyn.storage import index_rows
from elkyn.storage.indexes import Indexes
from elkyn.storage.row_tree import ReadLimit
from elkyn.tree.ordering import Index, children_of
from elkyn.tree.query import Query, run_query
from elkyn.tree.values import prepare
from sennit_core.errors import StorageFull, UsageError

LONG = [
    "x" * 199,
    "x" * 200,
    "x" * 200 + "a",
    "x" * 300 + "b",
    "x" * 300 + "a",
    "\0" * 150,
    "a" + "\0" * 150,
    "a" + "\0" * 99,
]
TEXTS = st.one_of(st.text(max_size=4), st.sampled_from(["a\0", "a\0b", "a", "a\x01", *LONG]))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-1e300, 1e300), TEXTS)
KEYS = st.sampled_from(
    ["a", "b", "1", "-2", "010", "é", "k" * 254 + "x", "k" * 600, "k" * 600 + "x"]
)


@pytest.mark.slow
@given(st.lists(st.tuples(SCALARS, KEYS), max_size=8))
def test_rows_sort_as_their_children_do(children: list[tuple[Any, str]]) -> None:
    index = Index("value")
    rows = sorted(
        (index_rows.row(b"h" * 16, value, key), index.position(key, value), key)
        for value, key in [(prepare(value).value, key) for value, key in children]
    )
    parsed = [index_rows.parse(*row) for row, _place, _key in rows]
    assert [row.key for row in parsed] == [key for _row, _place, key in rows]
    for (_, left, _), (_, right, _), (first, second) in zip(
        rows[:-1], rows[1:], pairwise(parsed), strict=True
    ):
        assert left <= right or (first.group is not None and first.group == second.group)


def test_a_row_fits_lmdb() -> None:
    row, data = index_rows.row(b"h" * 16, "\0" * 1000, "\x7f" * 768)
    assert len(row) <= 511
    assert data == b"\x7f" * 768


@pytest.fixture
def store() -> Iterator[ElkynStore]:
    with ElkynStore(mode="memory") as store:
        yield store


def declare(store: ElkynStore, rules: Any) -> None:
    store.set_rules({"rules": rules})
    assert store.admin.wait_for_indexes(60)


def row_count(store: ElkynStore) -> int:
    with store.admin.snapshot() as view:
        return int(view.tree._txn.stat(view.tree.env.databases["index"])["entries"])


def states(store: ElkynStore) -> list[str]:
    with store.admin.snapshot() as view:
        return [one.state for one in Indexes.read(view.tree).known]


def answer(store: ElkynStore, query: Query, path: tuple[str, ...] = ("p",)) -> list[str]:
    """Return the keys of an answer; checks that it is the one of a scan."""
    with store.admin.snapshot() as view:
        found = run_query(query, view, path)
        scanned = query.select(children_of(view.get(path)))
    assert list(found.items()) == list(scanned.items())
    return list(found)


def test_an_index_is_built_from_existing_data_and_maintained_after(store: ElkynStore) -> None:
    store.set("/p", {f"k{number}": {"n": number % 7} for number in range(2000)})
    declare(store, {"p": {".indexOn": ["n"]}})
    assert row_count(store) == 2000
    store.set("/p/new", {"n": 100})
    store.delete("/p/k6")
    store.set("/p/k13/n", -1)
    assert answer(store, Query.build("n", limit_to_last=1)) == ["new"]
    assert answer(store, Query.build("n", limit_to_first=1)) == ["k13"]
    assert "k6" not in answer(store, Query.build("n", equal_to=6))
    assert row_count(store) == 2000


def test_long_text_and_long_keys_are_sorted_after_reading(store: ElkynStore) -> None:
    values = [*LONG, "x" * 200 + "b", "\0" * 151, "a" + "\0" * 98]
    keys = [f"{'k' * 300}{letter}" for letter in "gadfbecihj"] + ["k" * 254, "k" * 260]
    children = {f"c{place}": {"n": value} for place, value in enumerate(reversed(values))}
    store.set("/p", {**children, **{key: {"n": "same"} for key in keys}})
    declare(store, {"p": {".indexOn": "n"}})
    assert len(answer(store, Query.build("n"))) == len(values) + len(keys)
    window: dict[str, Any]
    for value in values:
        for name in ("start_at", "start_after", "end_at", "end_before", "equal_to"):
            window = {name: value}
            answer(store, Query.build("n", **window))
            answer(store, Query.build("n", **window, limit_to_last=2))
    for key in keys:
        assert answer(store, Query.build("n", start_at=("same", key), limit_to_first=1)) == [key]
        assert answer(store, Query.build("n", end_at=("same", key), limit_to_last=1)) == [key]
        assert answer(store, Query.build("$key", end_at=key, limit_to_last=1)) == [key]
        assert answer(store, Query.build("$key", start_at=key, limit_to_first=1)) == [key]


def test_long_keys_of_a_branch_are_walked_in_order(store: ElkynStore) -> None:
    keys = [f"{'k' * 500}{letter}" for letter in "gadfbecihj"] + ["k" * 469, "k" * 475, "l", "7"]
    store.set("/p", dict.fromkeys(keys, "x" * 300))
    with store.admin.snapshot() as view:
        assert list(view.tree.walk_keys(("p",))) == view.keys(("p",))
        assert [key for key, _ in view.tree.walk(("p",), reverse=True)] == view.keys(("p",))[::-1]  # type: ignore[index]
    window: dict[str, Any]
    for key in [*keys, "k" * 480, "\ud800", "", "0", "-5", "k"]:
        for name in ("start_at", "start_after", "end_at", "end_before", "equal_to"):
            window = {name: key}
            answer(store, Query.build("$key", **window))
            answer(store, Query.build("$key", **window, limit_to_last=2))


def test_an_answer_reads_the_window_and_no_more(store: ElkynStore) -> None:
    store.set("/p", {f"k{number:04}": {"n": number, "text": "x" * 100} for number in range(3000)})
    declare(store, {"p": {".indexOn": "n"}})
    with store.admin.snapshot(rows_max=12) as view:
        for query in (
            Query.build("n", limit_to_last=10),
            Query.build("n", start_at=500, limit_to_first=10),
            Query.build("n", end_before=500, limit_to_last=10),
            Query.build("$key", end_at="k0", limit_to_last=10),
            Query.build("$key", start_after="k2", limit_to_first=10),
        ):
            assert len(run_query(query, view, ("p",))) == (
                0 if query.end and query.end.value == "k0" else 10
            )


def test_an_answer_of_more_rows_than_a_read_may_touch_is_refused(store: ElkynStore) -> None:
    store.set("/p", {f"k{number:04}": {"n": number, "text": "x" * 100} for number in range(300)})
    declare(store, {"p": {".indexOn": "n"}})
    for query in (Query.build("n", start_at=5), Query.build("$key"), Query.build("$priority")):
        with store.admin.snapshot(rows_max=100) as view, pytest.raises(ReadLimit):
            run_query(query, view, ("p",))


def test_every_path_that_matches_has_an_index_of_its_own(store: ElkynStore) -> None:
    store.set("/rooms", {"a": {"list": {"1": {"t": 5}}}, "b": {"list": {"2": {"t": 3}}, "x": 1}})
    declare(store, {"rooms": {"$room": {"list": {".indexOn": ["t", "deep/x"]}}}})
    assert row_count(store) == 4
    store.set("/rooms/c", {"list": {"3": {"t": 1}, "4": {"t": 0, "deep": {"x": 1}}}})
    assert row_count(store) == 8
    assert answer(store, Query.build("t", limit_to_first=1), ("rooms", "c", "list")) == ["4"]
    assert answer(store, Query.build("deep/x", equal_to=1), ("rooms", "c", "list")) == ["4"]
    store.delete("/rooms/c/list")
    store.update("/rooms", {"a": None, "b/list/2/deep/x": 9})
    assert row_count(store) == 2
    assert answer(store, Query.build("deep/x", start_at=9), ("rooms", "b", "list")) == ["2"]
    store.delete("/")
    assert row_count(store) == 0


def test_an_index_that_is_declared_no_longer_is_dropped(store: ElkynStore) -> None:
    store.set("/p", {f"k{number}": number for number in range(1200)})
    declare(store, {"p": {".indexOn": [".value", "n"]}})
    assert (states(store), row_count(store)) == (["ready", "ready"], 2400)
    declare(store, {"p": {".indexOn": ".value"}})
    assert (states(store), row_count(store)) == (["ready"], 1200)
    declare(store, {})
    assert (states(store), row_count(store)) == ([], 0)


def test_ephemeral_children_are_part_of_the_answer(store: ElkynStore) -> None:
    declare(store, {"p": {".indexOn": "n"}})
    store.set("/p", {"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 3}})
    store.set("/p/a/n", 9, ephemeral=True)
    store.set("/p/d", {"n": 0}, ephemeral=True)
    store.set("/p/c", None, ephemeral=True)
    assert answer(store, Query.build("n", limit_to_last=2)) == ["b", "a"]
    assert answer(store, Query.build("n", limit_to_first=1)) == ["d"]
    store.set("/p/e", {"n": 5})  # a durable sibling
    store.set("/p/a/m", 1)
    assert answer(store, Query.build("n")) == ["d", "b", "e", "a"]
    store.set("/", {"p": {"z": 1}}, ephemeral=True)
    assert answer(store, Query.build("n")) == ["z"]
    store.set("/q", 1)  # makes the ephemeral tree durable
    assert answer(store, Query.build("n")) == ["z"]
    assert row_count(store) == 1


def test_a_half_built_index_answers_nothing(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set("/p", {f"k{number}": number for number in range(1500)})
    seen: list[int] = []

    def look(point: str) -> None:
        if point == "indexed" and states(store) == ["building"]:
            seen.append(row_count(store))
            assert len(answer(store, Query.build("$value"))) > 1490
            store.delete(f"/p/k{len(seen)}")
            store.set(f"/p/k{1499 - len(seen)}", "moved")

    monkeypatch.setattr(_failpoints, "hook", look)
    declare(store, {"p": {".indexOn": ".value"}})
    assert len(seen) >= 2
    assert len(answer(store, Query.build("$value", equal_to="moved"))) == len(seen)
    assert row_count(store) == 1500 - len(seen)


def test_a_step_that_fails_is_tried_again(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [RuntimeError("once"), StorageFull("the disk")]

    def fail(point: str) -> None:
        if point == "indexed" and failures:
            raise failures.pop()

    monkeypatch.setattr(_failpoints, "hook", fail)
    monkeypatch.setattr(index_builder, "_RETRY_SECONDS", 0.01)
    store.set("/p", {"a": 1})
    declare(store, {"p": {".indexOn": ".value"}})
    assert (failures, row_count(store)) == ([], 1)


CHILD = """
import os, signal, sys
from elkyn import ElkynStore, _failpoints, index_builder

folder, count = sys.argv[1], int(sys.argv[2])
seen = 0

def stop(reached):
    global seen
    seen += reached == "indexed"
    if seen == count:
        os.kill(os.getpid(), signal.SIGKILL)

_failpoints.hook = stop  # an index whose build was interrupted resumes when the store opens
store = ElkynStore(folder, map_size=256 * 1024)
if store.get("/p") is None:
    store.set("/p", {f"k{number}": {"n": number % 50, "m": number} for number in range(3000)})
store.set_rules({"rules": {"p": {".indexOn": ["n", "m"]}}})
for number in range(10_000):
    store.update("/p", {f"k{number % 3000}/n": -number, f"new{number}": {"n": number}})
    store.delete(f"/p/new{number - 3}")
"""


@pytest.mark.crash
def test_a_build_that_is_killed_resumes_and_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    for count in (2, 3, 4):  # at most 600, 1,400 and 3,000 of 6,000 rows, as steps may double
        command = [sys.executable, "-c", CHILD, str(folder), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr
    with ElkynStore(folder) as store:
        assert store.admin.wait_for_indexes(120)
        assert states(store) == ["ready", "ready"]
        for name in ("n", "m"):
            assert len(answer(store, Query.build(name))) * 2 == row_count(store)
            answer(store, Query.build(name, limit_to_last=20))


def test_rules_set_before_a_crash_are_followed_when_the_store_opens(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.set("/p", {"a": {"n": 1}})
        store._index_builder.close()
        store.set_rules({"rules": {"p": {".indexOn": "n"}}})
        assert states(store) == []
    with ElkynStore(tmp_path / "t") as store:
        assert store.admin.wait_for_indexes(60)
        assert states(store) == ["ready"]


SOME = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "a\0", "b", "x" * 201])
)
CHILD_KEYS = st.sampled_from(["a", "b", "1", "-2", "010", "é", "k" * 271, "k" * 272])
NAMES = st.sampled_from(["n", "deep/x", ".value"])
CHILDREN = st.one_of(
    SOME,
    st.fixed_dictionaries({}, optional={"n": SOME, "m": SOME, ".priority": st.just(1)}),
    st.fixed_dictionaries({"deep": st.fixed_dictionaries({"x": SOME})}),
)
PLACES = st.sampled_from(["/p", "/q/1", "/q/a"])
BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(SOME, st.tuples(SOME, st.one_of(CHILD_KEYS, st.text(max_size=2))))
        for name in ("start_at", "start_after", "end_at", "end_before", "equal_to")
    },
)
LIMITS: st.SearchStrategy[dict[str, int]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"limit_to_first": st.integers(1, 3)}),
    st.fixed_dictionaries({"limit_to_last": st.integers(1, 3)}),
)


class IndexMachine(RuleBasedStateMachine):
    """Random writes, rules and reopening; what an index answers is what a scan answers."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elkyn-test-"))
        self.store = ElkynStore(self.folder)

    @initialize(names=st.sets(NAMES, min_size=1))
    def begin(self, names: set[str]) -> None:
        self.declare(names)

    @rule(names=st.sets(NAMES))
    def declare_others(self, names: set[str]) -> None:
        self.declare(names)

    def declare(self, names: set[str]) -> None:
        entry = {".indexOn": sorted(names)}
        declare(self.store, {"p": entry, "q": {"$any": entry}})

    @rule(place=PLACES, key=CHILD_KEYS, child=CHILDREN, ephemeral=st.booleans())
    def set(self, place: str, key: str, child: Any, ephemeral: bool) -> None:
        self.store.set(f"{place}/{key}", child, ephemeral=ephemeral)

    @rule(
        place=PLACES,
        key=CHILD_KEYS,
        inner=st.sampled_from(["n", "deep", "deep/x", "m"]),
        value=SOME,
    )
    def set_inside(self, place: str, key: str, inner: str, value: Any) -> None:
        self.store.set(f"{place}/{key}/{inner}", value)

    @rule(
        place=st.sampled_from(["/", "/q", "/p"]),
        key=CHILD_KEYS,
        child=st.dictionaries(CHILD_KEYS, CHILDREN),
    )
    def replace(self, place: str, key: str, child: Any) -> None:
        path = "/p" if place == "/p" else f"{place}/{'q/1' if place == '/' else 'a'}"
        self.store.set(path, child)

    @rule(number=st.integers(1, 300), ephemeral=st.booleans())
    def many(self, number: int, ephemeral: bool) -> None:
        children = {f"m{n}": {"n": n % 5, "t": "y" * 20} for n in range(number)}
        self.store.update("/p", children, ephemeral=ephemeral)

    @rule(place=st.sampled_from(["/p", "/q", "/q/1", "/"]))
    def delete(self, place: str) -> None:
        self.store.delete(place)

    @rule(place=PLACES, order=st.one_of(NAMES, st.just("$key")), bounds=BOUNDS, limits=LIMITS)
    def ask(self, place: str, order: str, bounds: Any, limits: Any) -> None:
        name = "$value" if order == ".value" else order
        try:
            query = Query.build(name, **bounds, **limits)
        except UsageError:
            return
        answer(self.store, query, tuple(place[1:].split("/")))

    @rule()
    def compact(self) -> None:
        self.store.admin.compact()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = ElkynStore(self.folder)

    def teardown(self) -> None:
        try:
            self.exact()
        finally:
            self.store.close()
            shutil.rmtree(self.folder)

    def exact(self) -> None:
        """Compare all rows with those that the durable tree asks for."""
        with self.store.admin.snapshot() as view:
            tree = view.tree
            expected: list[tuple[bytes, bytes]] = []
            for one in Indexes.read(tree).known:
                for place in (
                    [("p",)]
                    if one.pattern == ("p",)
                    else [("q", k) for k in tree.keys(("q",)) or []]
                ):
                    start = index_rows.head(one.id, place)
                    expected += [
                        index_rows.row(start, one.index.value_of(child), key)
                        for key, child in children_of(tree.get(place))
                    ]
            with tree._txn.cursor(db=tree.env.databases["index"]) as cursor:
                assert sorted(expected) == list(cursor)


IndexMachine.TestCase.settings = settings(
    max_examples=settings().max_examples // 3,
    stateful_step_count=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
TestIndexes = pytest.mark.slow(IndexMachine.TestCase)
