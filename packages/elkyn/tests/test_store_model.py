"""The store against a plain-dict model of Firebase's semantics, and watchers against the store."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from elkyn import ElkynStore
from elkyn import testing as model
from elkyn.events import replay
from elkyn.values import Stored, present
from elkyn.watch import Subscription


class StoreMachine(RuleBasedStateMachine):
    """Random writes of both kinds, reopened now and then; watchers replay what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elkyn-test-"))
        self.store = ElkynStore(self.folder, map_size="1MiB")
        self.tree: Any = None
        self.watched: list[tuple[Subscription, Stored]] = []

    @initialize(paths=st.lists(model.PATHS, max_size=3))
    def watch(self, paths: list[str]) -> None:
        self.watched = [(self.store.watch(path, queue_events=40), None) for path in paths]

    @rule(path=model.PATHS, value=model.VALUES, ephemeral=st.booleans())
    def set(self, path: str, value: Any, ephemeral: bool) -> None:
        self.store.set(path, value, ephemeral=ephemeral)
        self.tree = model.put(self.tree, path, value)

    @rule(path=model.PATHS, ephemeral=st.booleans())
    def delete(self, path: str, ephemeral: bool) -> None:
        self.store.delete(path, ephemeral=ephemeral)
        self.tree = model.put(self.tree, path, None)

    @rule(
        path=model.PATHS,
        values=st.dictionaries(model.KEYS, model.VALUES, max_size=4),
        deep=st.booleans(),
        ephemeral=st.booleans(),
    )
    def update(self, path: str, values: dict[str, Any], deep: bool, ephemeral: bool) -> None:
        if deep:
            values = {f"{key}/deep": value for key, value in values.items()}
        self.store.update(path, values, ephemeral=ephemeral)
        for key, value in values.items():
            self.tree = model.put(self.tree, f"{path}/{key}", value)

    @rule(path=model.PATHS, value=model.VALUES)
    def transaction(self, path: str, value: Any) -> None:
        seen: list[Any] = []

        def replace(old: Any) -> Any:
            seen.append(old)
            return value

        self.store.transaction(path, replace)
        assert model.typed(seen[-1]) == model.typed(model.shown(model.get(self.tree, path)))
        self.tree = model.put(self.tree, path, value)

    @rule(value=model.SCALARS)
    def many(self, value: Any) -> None:
        children = {f"c{index}": value for index in range(200)}
        self.store.set("/a/many", children)
        self.tree = model.put(self.tree, "/a/many", children)

    @rule()
    def reopen(self) -> None:
        self._replay()
        paths = [subscription.path for subscription, _value in self.watched]
        self.store.close()
        self.store = ElkynStore(self.folder, map_size="1MiB")
        self.watch(paths)

    @rule(path=model.PATHS)
    def read(self, path: str) -> None:
        expected = model.shown(model.get(self.tree, path))
        assert model.typed(self.store.get(path)) == model.typed(expected)
        known = expected if isinstance(expected, (dict, list)) else {}
        if isinstance(known, list):
            known = {str(index): child for index, child in enumerate(known)}
        assert self.store.keys(path) == [k for k, child in known.items() if child is not None]

    @invariant()
    def same(self) -> None:
        assert model.typed(self.store.get("/")) == model.typed(model.shown(self.tree))

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
        finally:
            self.store.close()
            shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreAgainstModel = StoreMachine.TestCase
