"""Child events of the embedded store and of the vendor's SDK: the same ones, in the same order."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from elkyn_sdks import install_sdks, run_script
from elkyn_server import running_emulator

from elkyn import ElkynStore, Query
from elkyn.tree.live_query import EVENTS

QUERIES = {
    "all": None,
    "last": Query.build("n", limit_to_last=2),
    "first": Query.build("n", limit_to_first=3),
    "range": Query.build("n", start_at=1, end_at=3),
    "keys": Query.build("$key", start_at="2", limit_to_first=3),
    "values": Query.build("$value", limit_to_last=3),
    "priorities": Query.build("$priority", limit_to_last=2),
}


def events_of(feed: Any) -> list[list[Any]]:
    """Return the events of a feed as JSON, without priorities."""
    found = []
    while (event := feed.poll()) is not None:
        found.append([*event[:2], plain(event.value), event.previous_key])
    return found


def plain(value: Any) -> Any:
    """Drop priorities, which a value shows in one form and the SDK's export in another."""
    if isinstance(value, list):
        value = {str(index): child for index, child in enumerate(value) if child is not None}
    if not isinstance(value, dict):
        return value
    if ".value" in value:
        return value[".value"]
    return {key: plain(child) for key, child in value.items() if key != ".priority"}


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", [1, 2])
def test_child_events_are_those_of_the_sdk(tmp_path: Path, seed: int) -> None:
    if shutil.which("node") is None:
        pytest.skip("no Node.js")
    install_sdks()
    with running_emulator(tmp_path / "data") as url:
        seen = run_script("windows.mjs", url, "windows", str(seed), "60")
    with ElkynStore(mode="memory") as store:
        store.set("/p", {"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 3}})
        feeds = {name: store.watch("/p", query, events=EVENTS) for name, query in QUERIES.items()}
        for feed in feeds.values():
            events_of(feed)
        expected: dict[str, list[Any]] = {name: [] for name in QUERIES}
        for change in seen["writes"]:
            store.update("/p", change)
            for name, feed in feeds.items():
                expected[name] += events_of(feed)
    for name, events in seen["events"].items():
        by_sdk = [[kind, key, plain(value), previous] for kind, key, value, previous in events]
        assert by_sdk == json.loads(json.dumps(expected[name])), name
