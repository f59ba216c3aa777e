"""A reference model of Firebase's semantics on plain dicts, to compare a store with.

For tests only: it needs hypothesis. `KEYS`, `SCALARS`, `VALUES`, `EXPORTS` (values with
priorities) and `PATHS` are strategies. A model's tree holds priorities as exports do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from elkyn.storage.oplog import Entry
from elkyn.tree.values import with_at

KEYS = st.sampled_from(["a", "b", "0", "1", "2", "-3", "10", "010", "é", "k" * 600, "k" * 601])
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["x" * 700, "y" * 1900]),
)
VALUES = st.recursive(
    st.one_of(SCALARS, st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)
PATHS = st.lists(KEYS, max_size=3).map(lambda keys: "/" + "/".join(keys))


PRIORITIES = st.one_of(st.integers(-5, 5), st.floats(-2, 2), st.text(max_size=2))


def _prioritised(value: Any, priority: Any) -> Any:
    if isinstance(value, dict):
        return {**value, ".priority": priority}
    return {".value": value, ".priority": priority} if not isinstance(value, list) else value


EXPORTS = st.recursive(
    st.one_of(SCALARS, st.none(), st.builds(_prioritised, SCALARS, PRIORITIES)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=5),
        st.builds(_prioritised, st.dictionaries(KEYS, inner, max_size=3), PRIORITIES),
    ),
    max_leaves=10,
)


def plain(value: Any, export: bool = False) -> Any:
    """Drop nulls and empty maps, and priorities unless `export`; lists become dicts."""
    if isinstance(value, list):
        value = {str(index): child for index, child in enumerate(value)}
    if not isinstance(value, dict):
        return value
    priority = value.get(".priority")
    kept = {key: plain(child, export) for key, child in value.items() if key != ".priority"}
    kept = {key: child for key, child in kept.items() if child is not None}
    if ".value" in kept and (not export or priority is None):
        return kept[".value"]
    if kept and export and priority is not None:
        kept[".priority"] = priority
    return kept or None


def put(tree: Any, path: str, value: Any) -> Any:
    """Return `tree` with `value` at `path`."""
    keys = [key for key in path.split("/") if key]
    if not keys:
        return plain(value, True)
    if not isinstance(tree, dict):
        tree = {} if tree is None else {".value": tree}
    below = "/".join(keys[1:])
    if keys[0] != ".priority" and ".value" in tree:
        if put(None, below, value) is None:
            return plain(tree, True)
        tree = {key: child for key, child in tree.items() if key == ".priority"}
    return plain({**tree, keys[0]: put(tree.get(keys[0]), below, value)}, True)


def get(tree: Any, path: str) -> Any:
    """Return the value at `path`."""
    for key in filter(None, path.split("/")):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def replayed(entries: Iterable[Entry], tree: Any = None) -> Any:
    """Return the stored form of `tree` after the entries of a log."""
    for entry in entries:
        for path, stored in entry.places if entry.kind in ("put", "patch") else ():
            tree = with_at(tree, path, stored)
    return tree


def typed(value: Any) -> Any:
    """Make True, 1 and 1.0 differ, and order count, for comparisons."""
    if isinstance(value, dict):
        return ("dict", [(key, typed(child)) for key, child in value.items()])
    if isinstance(value, list):
        return ("list", [typed(child) for child in value])
    return (type(value).__name__, repr(value))


def shown(value: Any) -> Any:
    """Hide priorities, order keys as Firebase does, and turn dense integer keys into lists."""
    value = plain(value)
    if not isinstance(value, dict):
        return value

    def order(key: str) -> tuple[int, int, bytes]:
        digits = key.removeprefix("-")
        number = digits.isascii() and digits.isdigit() and str(int(key)) == key
        return (0, int(key), b"") if number else (1, 0, key.encode())

    keys = sorted(value, key=order)
    numbers = [order(key)[1] for key in keys if order(key)[0] == 0]
    if len(numbers) == len(keys) and min(numbers) >= 0 and max(numbers) < 2 * len(keys):
        return [shown(value.get(str(index))) for index in range(max(numbers) + 1)]
    return {key: shown(value[key]) for key in keys}
