"""The store against a plain-dict model of Firebase's semantics, and watchers against the store."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from elkyn import ElkynStore
from elkyn import testing as model
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import patch_write, put_write
from elkyn.tree.events import replay
from elkyn.tree.paths import Path as Keys
from elkyn.tree.values import Stored, present, same
from elkyn.tree.watch import Subscription
from sennit_core.errors import Denied
from sennit_core.testing import ManualClock

NOW = {".sv": "timestamp"}


def refuse(_view: ReadTransaction, places: list[tuple[Keys, Stored]], _now_ms: int) -> None:
    raise Denied(f"writing {places}")


class StoreMachine(RuleBasedStateMachine):
    """Random writes, reopened and killed now and then; watchers replay their events."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elkyn-test-"))
        self.clock = ManualClock()
        self.store = self.opened()
        self.tree: Any = None
        self.durable_writes = 0
        self.mixed = False
        self.watched: list[tuple[Subscription, Stored]] = []

    def opened(self) -> ElkynStore:
        return ElkynStore(self.folder, map_size="1MiB", clock=self.clock, durability="none")

    @initialize(paths=st.lists(model.PATHS, max_size=3), mixed=st.booleans())
    def begin(self, paths: list[str], mixed: bool) -> None:
        self.mixed = mixed
        self.watch(paths)

    def watch(self, paths: list[str]) -> None:
        self.watched = [(self.store.watch(path, queue_events=40), None) for path in paths]

    @rule(path=model.PATHS, value=model.EXPORTS, ephemeral=st.booleans())
    def set(self, path: str, value: Any, ephemeral: bool) -> None:
        ephemeral = ephemeral and self.mixed
        self.store.set(path, value, ephemeral=ephemeral)
        self.durable_writes += not ephemeral
        self.tree = model.put(self.tree, path, value)

    @rule(path=model.PATHS, ephemeral=st.booleans())
    def delete(self, path: str, ephemeral: bool) -> None:
        ephemeral = ephemeral and self.mixed
        self.store.delete(path, ephemeral=ephemeral)
        self.durable_writes += not ephemeral
        self.tree = model.put(self.tree, path, None)

    @rule(path=model.PATHS, priority=st.none() | model.PRIORITIES, ephemeral=st.booleans())
    def set_priority(self, path: str, priority: Any, ephemeral: bool) -> None:
        ephemeral = ephemeral and self.mixed
        self.store.set(f"{path}/.priority", priority, ephemeral=ephemeral)
        self.durable_writes += not ephemeral
        self.tree = model.put(self.tree, f"{path}/.priority", priority)

    @rule(path=model.PATHS, by=st.integers(-9, 9))
    def increment(self, path: str, by: int) -> None:
        self.clock.advance(1)
        now = int(self.clock.now() * 1000)
        current = model.shown(model.get(self.tree, f"{path}/n"))
        number = isinstance(current, (int, float)) and not isinstance(current, bool)
        expected = current + by if number and abs(current) < 2**53 else by
        if number and abs(current) >= 2**53:
            return
        update = {"n": {".sv": {"increment": by}}, "at": NOW}
        assert self.store.update(path, update) == {"n": expected, "at": now}
        self.durable_writes += 1
        for key, value in (("n", expected), ("at", now)):
            self.tree = model.put(self.tree, f"{path}/{key}", value)

    @rule(
        path=model.PATHS,
        values=st.dictionaries(model.KEYS, model.EXPORTS, max_size=4),
        deep=st.booleans(),
        ephemeral=st.booleans(),
    )
    def update(self, path: str, values: dict[str, Any], deep: bool, ephemeral: bool) -> None:
        ephemeral = ephemeral and self.mixed
        if deep:
            values = {f"{key}/deep": value for key, value in values.items()}
        self.store.update(path, values, ephemeral=ephemeral)
        self.durable_writes += not ephemeral
        for key, value in values.items():
            self.tree = model.put(self.tree, f"{path}/{key}", value)

    @rule(path=model.PATHS, value=model.EXPORTS)
    def group_with_refusals(self, path: str, value: Any) -> None:
        refused, allowed = patch_write((), {"a": value, "b/c": value}), put_write(("0", "g"), value)
        refused.authorize = refuse
        self.store.admin.apply([refused, allowed])
        with pytest.raises(Denied):
            refused.result()
        allowed.result()
        self.durable_writes += 1
        self.tree = model.put(self.tree, "/0/g", value)

    @rule(path=model.PATHS, value=model.EXPORTS)
    def transaction(self, path: str, value: Any) -> None:
        seen: list[Any] = []

        def replace(old: Any) -> Any:
            seen.append(old)
            return value

        self.store.transaction(path, replace)
        self.durable_writes += 1
        assert model.typed(seen[-1]) == model.typed(model.shown(model.get(self.tree, path)))
        self.tree = model.put(self.tree, path, value)

    @rule(value=model.SCALARS, shaped=st.booleans())
    def many(self, value: Any, shaped: bool) -> None:
        child = {"some": value, "other": 1, "third": True} if shaped else value
        children = {f"c{index}": child for index in range(200)}
        self.store.set("/a/many", children)
        self.durable_writes += 1
        self.tree = model.put(self.tree, "/a/many", children)

    @rule(first=st.integers(0, 199), count=st.integers(1, 199))
    def fewer(self, first: int, count: int) -> None:
        gone = {f"c{(first + index) % 200}": None for index in range(count)}
        self.store.update("/a/many", gone)
        self.durable_writes += 1
        known = model.get(self.tree, "/a/many")
        if isinstance(known, dict) and ".value" not in known:
            left = {key: child for key, child in known.items() if key not in gone}
            self.tree = model.put(self.tree, "/a/many", left)

    @rule()
    def reopen(self) -> None:
        self._replay()
        paths = [subscription.path for subscription, _value in self.watched]
        self.store.close()
        self.store = self.opened()
        self.watch(paths)

    @rule()
    def killed(self) -> None:
        """Go on with the files as they are on the way: what a kill of the process leaves."""
        self._replay()
        paths = [subscription.path for subscription, _value in self.watched]
        left = Path(tempfile.mkdtemp(prefix="elkyn-test-"))
        shutil.copytree(self.folder, left, dirs_exist_ok=True)
        self.store.close()
        shutil.rmtree(self.folder)
        self.folder = left
        self.store = self.opened()
        self.watch(paths)

    @rule()
    def compact(self) -> None:
        self.store.admin.compact()

    @rule(path=model.PATHS)
    def read(self, path: str) -> None:
        expected = model.shown(model.get(self.tree, path))
        assert model.typed(self.store.get(path)) == model.typed(expected)
        known = expected if isinstance(expected, (dict, list)) else {}
        if isinstance(known, list):
            known = {str(index): child for index, child in enumerate(known)}
        assert self.store.keys(path) == [k for k, child in known.items() if child is not None]
        priority = model.get(self.tree, f"{path}/.priority")
        assert model.typed(self.store.get(f"{path}/.priority")) == model.typed(priority)

    @invariant()
    def same(self) -> None:
        assert model.typed(self.store.get("/")) == model.typed(model.shown(self.tree))
        with self.store.admin.snapshot() as view:
            assert same(view.get(()), model.plain(self.tree, True))
        assert self.store.position == self.durable_writes

    @rule()
    def replayed(self) -> None:
        self._replay()

    def _replay(self) -> None:
        for index, (subscription, value) in enumerate(self.watched):
            while (event := subscription.poll()) is not None:
                value = replay(value, event)
            self.watched[index] = (subscription, value)
            now = self.store.get(subscription.path)
            assert model.typed(present(value)) == model.typed(now)

    def teardown(self) -> None:
        try:
            self._replay()
            assert self.store.admin.verify() == []
            with self.store.admin.snapshot() as view:
                assert same(model.replayed(self.store.oplog.read(0)), view.tree.get(()))
        finally:
            self.store.close()
            shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(
    max_examples=settings().max_examples // 3,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStoreAgainstModel = pytest.mark.slow(StoreMachine.TestCase)
