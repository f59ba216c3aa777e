"""Values of the tree: JSON on the outside, maps of non-empty maps and scalars inside.

The *stored form* has no lists, no empty maps and no nulls; maps hold text keys in Firebase's order.
Absent is None. `prepare` converts to it, `present` from it, `set_at` and `get_at` work inside it.

Priorities are part of it, as Firebase exports them: a map with a priority holds it as `.priority`, a
scalar with one is the map `{".priority": p, ".value": v}`. An absent value has no priority.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from elkyn.errors import BadValue
from elkyn.tree.large_map import LargeMap
from elkyn.tree.paths import (
    DEPTH_MAX,
    PRIORITY,
    Path,
    as_integer,
    format_path,
    key_problem,
    sorted_map,
)

__all__ = [
    "STRING_BYTES_MAX",
    "VALUE",
    "Prepared",
    "Stored",
    "get_at",
    "is_leaf",
    "keys_of",
    "leaf_of",
    "ordered",
    "plain",
    "prepare",
    "present",
    "priority_of",
    "resolve",
    "same",
    "set_at",
    "set_many",
    "with_at",
]

Stored: TypeAlias = Any
"""None (absent), bool, int, float, str, or a non-empty dict of them.

A write of a large body holds maps as `LargeMap`: the tree, its log, its indexes and the rules accept
them, and `plain` converts them to dicts for all other code.
"""

VALUE = ".value"
# Firebase's documented limit.
STRING_BYTES_MAX = 10 * 1024 * 1024
# What MessagePack can hold as an integer; a larger one becomes a double, as in JavaScript.
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_FIELDS_MAX = 32
_key_problem = lru_cache(maxsize=8192)(key_problem)  # records repeat their keys


@dataclass(frozen=True, slots=True)
class Timestamp:
    """The server value `{".sv": "timestamp"}`: milliseconds since 1970 at the write."""


@dataclass(frozen=True, slots=True)
class Increment:
    """The server value `{".sv": {"increment": n}}`: the current number plus n."""

    by: int | float


class Prepared(NamedTuple):
    """A checked value; `dynamic` if it contains server values, which the write resolves."""

    value: Stored
    dynamic: bool


def prepare(value: Any, path: Path = ()) -> Prepared:
    """Check `value` for writing at `path` and convert it to the stored form.

    Args:
        value: None, bool, int, float, str, or lists, tuples and mappings of them; server values;
            `.priority` in maps, `{".value": …, ".priority": …}` for a scalar with one.
        path: the path of the write; counts for the depth and is named in errors.

    Raises:
        BadValue: a type, key, number, text or depth that a tree cannot store.
    """
    found: list[Timestamp | Increment] = []
    if path and path[-1] == PRIORITY:
        stored = _priority(value, path[:-1], found)
    else:
        stored = _to_stored(value, path, found)
    return Prepared(stored, bool(found))


def _to_stored(value: Any, path: Path, found: list[Timestamp | Increment]) -> Stored:
    kind = type(value)
    if kind is str:
        return _checked_text(value, path)
    if value is None or kind is bool:
        return value
    if isinstance(value, (dict, Mapping)):
        return _map_to_stored(value, path, found)
    if isinstance(value, (list, tuple)):
        children = {str(index): child for index, child in enumerate(value) if child is not None}
        return _map_to_stored(children, path, found)
    return _scalar_to_stored(value, path)


def _scalar_to_stored(value: Any, path: Path) -> Stored:
    if isinstance(value, int):
        number = int(value)
        return number if _INT_MIN <= number <= _INT_MAX else _finite(number, path)
    if isinstance(value, float):
        return _finite(value, path)
    if isinstance(value, str):
        return _checked_text(str.__str__(value), path)
    raise BadValue(
        format_path(path),
        f"a tree cannot store a value of type {type(value).__name__}",
        hint="use None, bool, int, float, str, and lists and dicts of them",
    )


def _finite(number: float, path: Path) -> float:
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise BadValue(format_path(path), "a number must be finite")
    return value


def _checked_text(text: str, path: Path) -> str:
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise BadValue(format_path(path), "text is not valid Unicode (a lone surrogate)") from None
    if size > STRING_BYTES_MAX:
        limit = f"the limit is {STRING_BYTES_MAX}"
        raise BadValue(format_path(path), f"text has {size} bytes; {limit}")
    return text


def _map_to_stored(
    value: Mapping[Any, Any], path: Path, found: list[Timestamp | Increment]
) -> Stored:
    # The fast case: a record of scalars whose keys were checked and sorted before.
    record = _record_to_stored(value) if len(path) < DEPTH_MAX else None
    if record is not None:
        return record
    if ".sv" in value or VALUE in value:
        return _leaf_to_stored(value, path, found)
    stored: dict[str, Any] = {}
    for key, child in value.items():
        if key == PRIORITY:
            continue
        problem = _key_problem(key) if isinstance(key, str) else f"key {key!r} is not a str"
        if problem:
            raise BadValue(format_path(path), problem)
        if len(path) == DEPTH_MAX:
            raise BadValue(format_path(path), f"the tree is at most {DEPTH_MAX} levels deep")
        inner = (
            child if _are_plain((child,)) else _to_stored(child, (*path, str.__str__(key)), found)
        )
        if inner is not None:
            stored[str.__str__(key)] = inner
    if PRIORITY in value:
        priority = _priority(value[PRIORITY], path, found)
        # A map without children does not exist, and so has no priority.
        if stored and priority is not None:
            stored[PRIORITY] = priority
    return sorted_map(stored) if stored else None


def _record_to_stored(value: Mapping[Any, Any]) -> Stored:
    """Return the stored form of a small map of plain scalars with plain keys, None for others."""
    if type(value) is not dict or not 0 < len(value) <= _FIELDS_MAX:
        return None
    keys = _ordered_fields(tuple(value))
    if keys is None or not _are_plain(value.values()):
        return None
    return {key: value[key] for key in keys}


@lru_cache(maxsize=512)  # of 25 KiB each at worst
def _ordered_fields(keys: tuple[Any, ...]) -> tuple[str, ...] | None:
    """Return the keys of a record in order, None when one of them is not a valid key."""
    if any(type(key) is not str or key_problem(key) for key in keys):
        return None
    return tuple(sorted_map(dict.fromkeys(keys)))


def _are_plain(values: Iterable[Any]) -> bool:
    """Whether all `values` are already scalars in the stored form, as in most records."""
    for value in values:
        kind = type(value)
        if kind is str:
            # Other text needs the check for lone surrogates, and its length in bytes.
            if len(value) > STRING_BYTES_MAX or not value.isascii():
                return False
        elif kind is int:
            if not _INT_MIN <= value <= _INT_MAX:
                return False
        elif kind is not bool and (kind is not float or not math.isfinite(value)):
            return False
    return True


def _leaf_to_stored(
    value: Mapping[Any, Any], path: Path, found: list[Timestamp | Increment]
) -> Stored:
    extra = [key for key in value if key not in (VALUE, PRIORITY)] if VALUE in value else []
    if extra:
        raise BadValue(format_path(path), f"it holds .value and also {str(extra[0])[:80]!r}")
    if VALUE in value:
        stored = _to_stored(value[VALUE], path, found)
        if type(stored) is dict:
            raise BadValue(format_path(path), ".value holds a map; it must be a scalar")
    else:
        stored = _server_value({k: v for k, v in value.items() if k != PRIORITY}, path)
        found.append(stored)
    priority = _priority(value.get(PRIORITY), path, found)
    if stored is None or priority is None:
        return stored
    return {PRIORITY: priority, VALUE: stored}


def _priority(value: Any, path: Path, found: list[Timestamp | Increment]) -> Stored:
    if isinstance(value, Mapping) and ".sv" in value:
        server_value = _server_value(value, path)
        found.append(server_value)
        return server_value
    if value is None or (isinstance(value, (int, float, str)) and not isinstance(value, bool)):
        return _to_stored(value, path, found)
    raise BadValue(format_path(path), "a priority must be a number, a str or None")


def _server_value(value: Mapping[Any, Any], path: Path) -> Timestamp | Increment:
    spec = value[".sv"]
    if len(value) == 1 and spec == "timestamp":
        return Timestamp()
    if len(value) == 1 and isinstance(spec, Mapping) and list(spec) == ["increment"]:
        by = spec["increment"]
        if isinstance(by, (int, float)) and not isinstance(by, bool) and math.isfinite(by):
            return Increment(by)
    raise BadValue(
        format_path(path),
        "unknown server value",
        hint='use {".sv": "timestamp"} or {".sv": {"increment": number}}',
    )


def resolve(value: Stored, read: Callable[[Path], Stored], path: Path, now_ms: int) -> Stored:
    """Replace server values by numbers.

    Args:
        value: the stored form, with server values.
        read: returns the stored form of the current value at a path.
        path: the path of the write.
        now_ms: the single time of the whole write, in milliseconds.
    """
    if type(value) is Timestamp:
        return now_ms
    if type(value) is Increment:
        current = leaf_of(read(path))
        if type(current) is int or type(current) is float:
            # The sum may leave the range of integers, or be infinite.
            return _scalar_to_stored(current + value.by, path)
        return value.by
    if type(value) is dict:
        return {
            # `.value` is the value at the path itself.
            key: resolve(child, read, path if key == VALUE else (*path, key), now_ms)
            for key, child in value.items()
        }
    if type(value) is LargeMap:
        return value.resolved(lambda child, place: resolve(child, read, place, now_ms), path)
    return value


def plain(value: Stored) -> Stored:
    """Return a stored form with each `LargeMap` converted to dicts, which needs more memory."""
    return value.whole() if type(value) is LargeMap else value


def present(value: Stored, export: bool = False) -> Any:
    """Convert to JSON values: new dicts, and lists where keys count from zero densely enough.

    A map becomes a list when every key is a canonical integer of zero or more and the greatest is less than
    twice the number of keys; holes are None (as the Firebase SDKs do it).

    Args:
        value: a stored form; its maps are not changed.
        export: show priorities as `.priority` and `.value`; hidden otherwise.
    """
    if type(value) is not dict:
        return value
    if PRIORITY in value:
        if export:
            return {key: present(child, True) for key, child in value.items()}
        if VALUE in value:
            return value[VALUE]
        value = {key: child for key, child in value.items() if key != PRIORITY}
    if dict in map(type, value.values()):
        shown = {key: present(c, export) if type(c) is dict else c for key, c in value.items()}
    else:
        shown = dict(value)
    last = next(reversed(shown))
    # Keys are in order, integers first: if the last one is text, the map is no list. Decided
    # without looking at the others.
    if last[0] > "9" or next(iter(shown))[0] == "-":
        return shown
    greatest = as_integer(last)
    if greatest is None or not 0 <= greatest < 2 * len(shown):
        return shown
    listed = [shown.get(str(index)) for index in range(greatest + 1)]
    # A key with leading zeros is an integer in the order of keys, but not a list index.
    return listed if len(listed) - listed.count(None) == len(shown) else shown


def is_leaf(value: Stored) -> bool:
    """Whether `value` is a scalar, with a priority or without; None is not."""
    if type(value) is dict:
        return VALUE in value
    return value is not None and type(value) is not LargeMap


def leaf_of(value: Stored) -> Stored:
    """Return the scalar of a scalar with a priority; any other value unchanged."""
    return value.get(VALUE, value) if type(value) is dict else value


def priority_of(value: Stored) -> Stored:
    """Return the priority of a stored form, None when it has none."""
    if type(value) is dict:
        return value.get(PRIORITY)
    return value.child(PRIORITY) if type(value) is LargeMap else None


def keys_of(value: Stored) -> list[str] | None:
    """Return the keys of the children in order; None when `value` is no map."""
    if type(value) is LargeMap:
        return value.keys()
    if type(value) is not dict or VALUE in value:
        return None
    return [key for key in value if key != PRIORITY] if PRIORITY in value else list(value)


def get_at(value: Stored, keys: Path) -> Stored:
    """Return the value at `keys` below `value`, None when there is none."""
    for key in keys:
        if type(value) is dict:
            value = value.get(key)
        elif type(value) is LargeMap:
            value = value.child(key)
        else:
            return None
    return value


def set_at(value: Stored, keys: Path, new: Stored) -> Stored:
    """Return `value` with `new` at `keys`; changes maps of `value` in place where it can.

    Maps that become empty are removed with their priority, and a scalar above `keys` is replaced by
    a map.
    """
    return _set_at(value, keys, new, ordered=True)


def set_many(value: Stored, places: Sequence[tuple[Path, Stored]]) -> Stored:
    """Do `set_at` for each of `places`, none an ancestor of another; sorts each map once.

    Deletions come last: a map that loses its last child loses its priority too, even if another of
    the places adds a child to it.
    """
    for keys, new in sorted(places, key=lambda place: place[1] is None):
        value = _set_at(value, keys, new, ordered=False)
    # Each changed map once, after all places are set: sorting after each would be quadratic.
    for above in {keys[:depth] for keys, _new in places for depth in range(len(keys))}:
        children = get_at(value, above)
        if type(children) is dict and (ordered := sorted_map(children)) is not children:
            children.clear()
            children.update(ordered)
    return value


def _set_at(value: Stored, keys: Path, new: Stored, *, ordered: bool) -> Stored:
    if not keys:
        return new
    key, rest = keys[0], keys[1:]
    if type(value) is not dict or VALUE in value:
        return _set_on_leaf(value, key, rest, new)
    child = _set_at(value.get(key), rest, new, ordered=ordered)
    if child is None:
        value.pop(key, None)
        return None if not value or (len(value) == 1 and PRIORITY in value) else value
    known = key in value
    value[key] = child
    # A known key keeps its place.
    return sorted_map(value) if ordered and not known else value


def _set_on_leaf(value: Stored, key: str, rest: Path, new: Stored) -> Stored:
    if key == PRIORITY:
        leaf = leaf_of(value)
        return leaf if leaf is None or new is None else {PRIORITY: new, VALUE: leaf}
    # A scalar is replaced by a map, which keeps its priority; a deletion below a scalar changes
    # nothing.
    child = set_at(None, rest, new)
    if child is None:
        return value
    priority = priority_of(value)
    return {key: child} if priority is None else sorted_map({PRIORITY: priority, key: child})


def with_at(value: Stored, keys: Path, new: Stored) -> Stored:
    """Return `value` with `new` at `keys` like `set_at`, but leave `value` unchanged."""
    if not keys:
        return new
    if type(value) is not dict or VALUE in value:
        return _set_on_leaf(value, keys[0], keys[1:], new)
    child = with_at(value.get(keys[0]), keys[1:], new)
    return set_at(dict(value), keys[:1], child)


def copied(value: Stored) -> Stored:
    """Copy the maps of `value`; scalars are shared."""
    if type(value) is not dict:
        return value
    return {key: copied(c) if type(c) is dict else c for key, c in value.items()}


def ordered(value: Stored) -> Stored:
    """Return `value` with the maps of every level sorted; the same object where they already are.

    For stored forms of format 2 and older, and of leaders that still write them.
    """
    if type(value) is not dict:
        return value
    found = {key: ordered(c) if type(c) is dict else c for key, c in value.items()}
    if any(found[key] is not child for key, child in value.items()):
        value = found
    return sorted_map(value)


def same(left: Stored, right: Stored) -> bool:
    """Compare stored forms; True, 1 and 1.0 are three values."""
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        return left.keys() == right.keys() and all(same(c, right[k]) for k, c in left.items())
    return bool(left == right)


def weigh(value: Stored) -> int:
    """Estimate the memory of `value` in bytes, for the bounds of queues."""
    if type(value) is dict:
        return 100 + sum(60 + len(key) + weigh(child) for key, child in value.items())
    return 50 + len(value) if type(value) is str else 30
