"""Firebase's semantics on plain dicts, written as simply as can be, to compare a store with.

For tests alone: it needs hypothesis. `KEYS`, `SCALARS`, `VALUES` and `PATHS` are strategies.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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


def plain(value: Any) -> Any:
    """Drop what is absent; lists become dicts."""
    if isinstance(value, list):
        value = {str(index): child for index, child in enumerate(value)}
    if not isinstance(value, dict):
        return value
    kept = {key: plain(child) for key, child in value.items()}
    return {key: child for key, child in kept.items() if child is not None} or None


def put(tree: Any, path: str, value: Any) -> Any:
    """Return `tree` with `value` at `path`."""
    keys = [key for key in path.split("/") if key]
    if not keys:
        return plain(value)
    if not isinstance(tree, dict):
        if plain(value) is None:
            return tree
        tree = {}
    below = "/".join(keys[1:])
    return plain({**tree, keys[0]: put(tree.get(keys[0]), below, value)})


def get(tree: Any, path: str) -> Any:
    """Return what is at `path`."""
    for key in filter(None, path.split("/")):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def typed(value: Any) -> Any:
    """Make True, 1 and 1.0 differ, and order count, for comparisons."""
    if isinstance(value, dict):
        return ("dict", [(key, typed(child)) for key, child in value.items()])
    if isinstance(value, list):
        return ("list", [typed(child) for child in value])
    return (type(value).__name__, repr(value))


def shown(value: Any) -> Any:
    """Order keys as Firebase does and turn dense integer keys into lists."""
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
